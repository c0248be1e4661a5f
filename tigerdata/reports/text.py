"""Normalised text with a way back: every position of it knows the characters of the original it came from."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from kb.needed import CJK

# Traditional characters of this domain; a full table is not needed to find the vocabulary.
TRADITIONAL = dict(
    zip(
        "狀腺體葉側強點個級無囊實質邊緣規則頸淋結節見顯變聲暈環鈣徑橫縱於與約較異測腫癌轉發經檢查圓橢鄰區頭臨這雙兩間為診斷樣動脈靜內緊貼連續圍細粗單純雜亂連長寬條塊團癥復濾髓瘤層厚產術後雜蝕氣際輪廓隨訪貝尋為數處組織膜壓狹彌漫腦",
        "状腺体叶侧强点个级无囊实质边缘规则颈淋结节见显变声晕环钙径横纵于与约较异测肿癌转发经检查圆椭邻区头临这双两间为诊断样动脉静内紧贴连续围细粗单纯杂乱连长宽条块团症复滤髓瘤层厚产术后杂蚀气际轮廓随访贝寻为数处组织膜压狭弥漫脑",
        strict=True,
    )
)
# Kept as they are: circled numbers are list markers (NFKC makes "①" a plain 1), and a full-width comma must not become
# a decimal comma ("，15×11" is not 0.15).
KEPT = set("①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳，；：！？。（）、")
PLAIN = {
    "：": ":",
    "（": "(",
    "）": ")",
    "？": "?",
    "“": '"',
    "”": '"',
    "×": "x",
    "✕": "x",
    "╳": "x",
    "∗": "*",
    "∶": ":",
}
DASHES = dict.fromkeys("–—−‐‑‒", "-")
# A pattern that begins with the space itself, not with what stands before it, is searched several times faster.
SPACES = re.compile(
    rf"[^\S\n](?:(?<=[{CJK}，。；：、()\d][^\S\n])[^\S\n]*(?=[{CJK}，。；：、()])"
    rf"|(?<=[{CJK}，。；：、][^\S\n])[^\S\n]*(?=[\d①-⑳]))"
)


@dataclass(frozen=True)
class Normalised:
    """Lower-case, half-width, simplified text; `starts[i]`, `ends[i]` bound the original of character i."""

    original: str
    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Original span of a non-empty normalised span."""
        return self.starts[start], self.ends[end - 1]


def _plain(char: str) -> str:
    """Normal form of one character: NFKC, lower case, simplified; may be longer than one character, or empty."""
    if char in PLAIN:
        return PLAIN[char]
    if char in KEPT:
        return char
    folded = unicodedata.normalize("NFKC", char).lower()
    return "".join(DASHES.get(c, TRADITIONAL.get(c, PLAIN.get(c, c))) for c in folded)


class _Table(dict[int, str]):
    """For `str.translate`: the normal form of every character met so far; `odd` have none of one character."""

    def __init__(self) -> None:
        self.odd: set[str] = set()

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = _plain(char)
        if len(plain) != 1:
            self.odd.add(char)
        self[code] = plain
        return plain


# Bounded by the number of code points.
_TABLE = _Table()


def normalise(text: str) -> Normalised:
    """Normalise a report character by character, then drop the spaces that OCR puts between Chinese characters."""
    ascii_only = text.isascii()  # of these characters only capitals have another form
    plain = text.lower() if ascii_only else text.translate(_TABLE)
    origin: Sequence[int]
    if ascii_only or len(plain) == len(text) and _TABLE.odd.isdisjoint(text):
        origin = range(len(text))
    else:
        origin = [index for index, char in enumerate(text) for _ in _TABLE[ord(char)]]
    drop = [match.span() for match in SPACES.finditer(plain)]
    if drop:
        kept: list[int] = []
        last = 0
        for start, end in drop:
            kept.extend(range(last, start))
            last = end
        kept.extend(range(last, len(plain)))
        plain = "".join([plain[i] for i in kept])
        origin = [origin[i] for i in kept]
    if isinstance(origin, range):
        return Normalised(text, plain, origin, range(1, len(text) + 1))
    return Normalised(text, plain, origin, [index + 1 for index in origin])


CHINESE = re.compile(f"[{CJK}]+")
LATIN = re.compile("[A-Za-z]+")


def language_of(text: str) -> str:
    """ "zh" when at least a fifth of the letters are Chinese characters, else "en"."""
    if text.isascii():
        return "en"
    chinese = sum(map(len, CHINESE.findall(text)))
    return "zh" if chinese and chinese >= 0.2 * (chinese + len(LATIN.findall(text))) else "en"
