"""Cutting a normalised report into sections, sentences and clauses without cutting a term or a measurement."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from kb.cues import Cues, load_cues
from kb.needed import CJK
from tigerdata.reports.sheets import Sheet, sheet_of

HEADINGS = ("findings", "impression", "pathology", "before", "after")
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
# Each pattern begins with the sign that it cuts at: what must or must not stand around it is looked at afterwards.
HARD = re.compile(
    rf"[。；;!！\n]+|\.(?:(?=\s|$|[{CJK}])(?<!\blt\.)(?<!\brt\.)(?<!\bvs\.)(?<!\bno\.)(?<!\bdr\.)(?<!approx\.)"
    rf"|(?=[a-z]{{4,}})(?<=[a-z)]\.))"
)
SOFT = re.compile(
    r"[，()]|,(?:(?<!\d,)|(?!\d))"
    r"|:(?<!\bap:)(?<!\bap :)(?!\s*(?:none|no\b|neg|absent|无(?!回声|明显)|阴性|未见(?=$|[，。；;.\n])|-|\d))"
)
NUMBERED = r"\s*\(?(\d{1,2})(?:[、)]|\.(?!\d))"
FIRST = re.compile(NUMBERED)
MARKER = re.compile(
    rf"([{CIRCLED}]+)|[\n。；;:，]{NUMBERED}|#(\d{{1,2}})"
    r"|(?:nodule|nod|lesion)s?\s*(?:#|no\.?\s*)?\s*(\d{1,2})(?!\s*(?:mm|cm|x|\.\d|\d))|结节\s*(\d{1,2})(?=[:：，、])"
)
HEADING_REACH = 40
FIELD_REACH = 40
# A sentence takes a tenth of the memory of its clauses' sheets.
KEPT_SENTENCES = 20_000


class Clause(NamedTuple):
    """A stretch of normalised text: `section` findings|impression|pathology|skip; `ordinals` of its list marker.

    `sheet` is what its words say, in positions from its start.
    """

    start: int
    end: int
    section: str
    sentence: int
    first: bool
    field: str
    ordinals: tuple[int, ...] = ()
    sheet: Any = None


@lru_cache(maxsize=4)
def _heading(domain: str) -> re.Pattern[str]:
    cues = load_cues(domain)
    groups = [f"(?P<{name}>{cues['heading_' + name].pattern})" for name in HEADINGS]
    return re.compile(rf"(?:^|(?<=[\s。；;.，\]】)]))[\[【]?(?:{'|'.join(groups)})[\]】]?\s*:")


def sections(text: str, domain: str = "thyroid") -> list[tuple[int, int, str]]:
    """(start, end, name) of the sections; text before the first heading is findings."""
    cuts = [(0, 0, "findings")]
    last, colon = 0, text.find(":")
    while colon >= 0:
        found_heading = _heading(domain).search(text, max(last, colon - HEADING_REACH), colon + 1)
        if found_heading:
            cuts.append((found_heading.start(), colon + 1, found_heading.lastgroup or "findings"))
        last, colon = colon + 1, text.find(":", colon + 1)
    bounds = [cut[0] for cut in cuts[1:]] + [len(text)]
    found: list[tuple[int, int, str]] = []
    headed = any(name == "findings" for _, _, name in cuts[1:])
    for (_, begin, name), end in zip(cuts, bounds, strict=True):
        stop = HARD.search(text, begin, end)
        if name == "before" and not headed and stop:
            # "COMPARISON: 2022. The nodule ...": without a heading for the findings they begin with the next sentence.
            found += [(begin, stop.end(), "skip"), (stop.end(), end, "findings")]
        else:
            found.append((begin, end, "skip" if name in ("before", "after") else name))
    return [section for section in found if section[1] > section[0]]


def split(
    text: str, protected: Sequence[tuple[int, int]], domain: str = "thyroid", masked: str | None = None
) -> list[Clause]:
    """Clauses of a report in order; `protected` spans (measurements, forms with a comma) are never cut.

    `masked` is the text with the digits of its measurements set to 0: the same words are then cut and read once.
    """
    masked = text if masked is None else masked
    inside = bytearray(len(text) + 1)
    for start, end in protected:
        inside[start + 1 : end] = b"\1" * (end - start - 1)
    cues = load_cues(domain)
    clauses: list[Clause] = []
    sentence = 0
    for begin, finish, section in sections(text, domain):
        for s_begin, s_end, ordinals in _sentences(cues, text, begin, finish, inside):
            sentence += 1
            first = True
            for start, end, name, sheet in _pieces(masked[s_begin:s_end], bytes(inside[s_begin:s_end]), domain):
                clauses.append(Clause(start + s_begin, end + s_begin, section, sentence, first, name, ordinals, sheet))
                first, ordinals = False, ()
    return clauses


def _sentences(
    cues: Cues, text: str, begin: int, finish: int, inside: bytearray
) -> list[tuple[int, int, tuple[int, ...]]]:
    cuts: list[tuple[int, int, tuple[int, ...]]] = []
    for match in HARD.finditer(text, begin, finish):
        if not inside[match.start()]:
            cuts.append((match.start(), match.end(), ()))
    for match in cues["lost_end"].finditer(text, begin, finish):
        cuts.append((match.end(), match.end(), ()))
    markers = [*MARKER.finditer(text, max(begin - 1, 0), finish)]
    if begin == 0 and (head := FIRST.match(text, 0, finish)):
        cuts.append((head.start(), head.end(), (int(head[1]),)))
    for match in markers:
        # A numbered item is found by the sign before it, which is no part of the marker.
        start = match.start() + bool(match[2])
        if inside[start] or start < begin:
            continue
        circled = match[1] or ""
        numbers = tuple(CIRCLED.index(c) + 1 for c in circled) or (int(next(g for g in match.groups()[1:] if g)),)
        # "nodule 1 is solid": the marker is the subject and stays; "①", "1、" and "Nodule 1:" are left out.
        worded = match[3] or match[4] or match[5]
        headed = text[match.end() : match.end() + 1] in ("", ":", "：", "，", ",", ".", "、", ")")
        cuts.append((start, start if worded and not headed else match.end(), numbers))
    cuts.sort()
    result = []
    last = begin
    ordinals: tuple[int, ...] = ()
    for start, end, numbers in cuts:
        if start < last:
            continue
        if start > last:
            result.append((last, start, ordinals))
            ordinals = ()
        last = end
        ordinals = numbers or ordinals
    result.append((last, finish, ordinals))
    return [row for row in result if row[1] > row[0]]


@lru_cache(maxsize=KEPT_SENTENCES)
def _pieces(text: str, inside: bytes, domain: str) -> tuple[tuple[int, int, str, Sheet], ...]:
    """(start, end, name of the form field, sheet) of the clauses of a sentence; `inside` marks what is not cut."""
    cuts = [(m.start(), m.end(), "") for m in SOFT.finditer(text) if not inside[m.start()]]
    # The name of a form field stands before a colon; every colon is looked back from.
    colon, last = text.find(":"), 0
    while colon >= 0:
        for match in load_cues(domain)["field"].finditer(text, max(last, colon - FIELD_REACH), colon):
            if not text[match.end() : colon].strip():
                cuts.append((match.start(), match.start(), match[0]))
        last, colon = colon + 1, text.find(":", colon + 1)
    cuts.sort()
    result, last, name = [], 0, ""
    for start, end, field in cuts:
        if start > last:
            if not text[last:start].isspace():
                result.append((last, start, name))
            if name and text[start] != ":":
                name = ""
        last = max(last, end)
        name = field or name
    if len(text) > last and not text[last:].isspace():
        result.append((last, len(text), name))
    return tuple([(a, b, name, sheet_of(text[a:b], domain)) for a, b, name in result])
