"""Risk categories ("C-TIRADS 4A类", "ACR TI-RADS: TR5", "U3") in normalised text."""

import re
from dataclasses import dataclass
from functools import lru_cache

from kb.cues import load_cues

ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
CHINESE = {"一": "1", "二": "2", "三": "3", "四": "4", "五": "5", "六": "6"}
LEVEL = r"(?:[1-6](?!\d|\.\d)|(?:iii|ii|iv|vi|i|v)(?![d-z])|[一二三四五六](?=类|级))"
CATEGORY = rf"(?P<level>{LEVEL})\s?(?P<letter>[abc](?![a-z]))?\s*(?:类|级)?"
# Words that stand between the name of the system and the category; "total points: 12" is not a category.
FILLER = (
    r"(?:[\s:,()]|2017|2020|分类|分级|评分|风险|级别|为|考虑|约|等级|category|risk|score|level|grade|class"
    r"|tr(?=\s?[1-5]))*"
)
BARE = re.compile(r"(?<![\d.,\-~至a-z])(?P<level>[1-6])\s?(?P<letter>[abc])?\s?(?:类|级)(?!型)")
SENTENCE_END = re.compile(r"[。；]|\. ")
RANGE_AFTER = re.compile(r"^\s*[-~至/或]\s*[1-6][abc]?")
RANGE_BEFORE = re.compile(r"[1-6][abc]?\s*[-~至/或]\s*$")


@dataclass(frozen=True, slots=True)
class Category:
    """A risk category: canonical system, upper-case category, normalised span."""

    system: str
    category: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        """Normalised (start, end)."""
        return self.start, self.end


@lru_cache(maxsize=4)
def _patterns(domain: str) -> list[tuple[str, re.Pattern[str]]]:
    cues = load_cues(domain)
    category = CATEGORY.replace("1-6", cues.rules.levels, 1)
    return [(name, re.compile(rf"(?:{pattern.pattern}){FILLER}{category}")) for name, pattern in cues.systems.items()]


def find_categories(text: str, domain: str = "thyroid") -> list[Category]:
    """Categories in order; a range such as "3-4A" states no single category and is left out."""
    hints = load_cues(domain).tirads.hints
    if not any([hint in text for hint in hints]):
        return []
    found: list[Category] = []
    begin = 0
    # No category reaches over the end of a sentence; sentences repeat, so each is searched once.
    for end in [*(m.end() for m in SENTENCE_END.finditer(text)), len(text)]:
        for system, category, a, b in _categories(text[begin:end], domain):
            found.append(Category(system, category, a + begin, b + begin))
        begin = end
    return found


@lru_cache(maxsize=20_000)
def _categories(text: str, domain: str) -> tuple[tuple[str, str, int, int], ...]:
    """(system, category, start, end) of one sentence."""
    found: list[tuple[str, str, int, int]] = []
    if not any([hint in text for hint in load_cues(domain).tirads.hints]):
        return ()
    for name, pattern in [*_patterns(domain), ("unspecified", BARE)]:
        for match in pattern.finditer(text):
            start, end = match.span()
            ranged = RANGE_AFTER.match(text[end:]) or RANGE_BEFORE.search(text[:start])
            if ranged or any(start < b and a < end for _, _, a, b in found):
                continue
            level, letter = match["level"], match["letter"] or ""
            found.append((name, ROMAN.get(level, CHINESE.get(level, level)) + letter.upper(), start, end))
    return tuple(sorted(found, key=lambda row: row[2]))
