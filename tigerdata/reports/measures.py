"""Measurements in normalised text: sizes of one to three dimensions in mm, with what must not be taken for one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NUMBER = r"(?:\d{1,3}[.,]\d{1,2}(?!\d)|\d{1,3}(?![.,]?\d)|\.\d{1,2})"
UNIT = r"(?:mm|cm|毫米|厘米|公分|millimet(?:er|re)s?|centimet(?:er|re)s?)(?![a-wyz])"
AXIS = r"(?:\s*\(?\s*(?:ap|tr|trv|trans|cc|sag|long|l|w|h|d)\s*\)?(?![a-z]))?"
ONE = rf"({NUMBER})\s*({UNIT})?{AXIS}"
TIMES = r"\s*(?:x|\*|by)\s*"
SIZE = re.compile(rf"(?<![\d.a-z#]){ONE}(?:{TIMES}{ONE})?(?:{TIMES}{ONE})?", re.IGNORECASE)
RANGE = re.compile(rf"(?<![\d.])({NUMBER})\s*({UNIT})?\s*(?:-|~|至|到|to)\s*({NUMBER})\s*({UNIT})")
# De-identified corpora replace the numbers: "_2DS_" is a size in two dimensions, "_SCM_" one length in cm.
RUN = re.compile(r"\.?\d[\d.]*")
DIGIT = re.compile(r"\d(?!ds_)")
MASKED = re.compile(r"_(?:[23]ds|scm|smm)_")
# Thresholds, volumes, velocities, ages, distances and counts are numbers too.
REJECT_BEFORE = re.compile(
    r"(?:>=?|≥|(?<!不)超过|距(?:乳头|体表|皮肤|胸壁|乳晕|乳头旁)?|间距"
    r"|distance|volume|体积约?|容积约?|速度|psv|ri|edv|深度?|level|points?:?)\s*(?:of |约)?$"
)
UPPER = re.compile(
    r"(?:(?P<below><(?!=)|小于|不足|(?<![a-z])(?:less|smaller) than|(?<![a-z])under)"
    r"|<=|≤|不超过|(?<![a-z])up to)\s*约?\s*$"
)
REJECT_AFTER = re.compile(
    r"^\s*(?:/s|/min|ml|cm3|mm3|cc\b|cm/s|个|枚|years?|年|月|周|天|岁|days?|weeks?|months?|%|hz"
    r"|:\d|from (?:the )?(?:nipple|skin)|fn\b)"
)


@dataclass(frozen=True, slots=True)
class Size:
    """One measurement: values in mm in text order (empty when the text masks them) at normalised [start, end).

    `bound` is "<" or "<=" where the text gives only an upper bound.
    """

    values: tuple[float, ...]
    start: int
    end: int
    bound: str = ""

    @property
    def span(self) -> tuple[int, int]:
        """Normalised (start, end)."""
        return self.start, self.end


def _mm(number: str, unit: str) -> float:
    value = float(number.replace(",", "."))
    return round(value * (10 if unit.startswith(("c", "厘", "公")) else 1), 3)


def find_sizes(text: str) -> list[Size]:
    """All measurements of a normalised text, in order; a range gives its upper bound."""
    found: list[Size] = []
    taken: list[tuple[int, int]] = []
    if not DIGIT.search(text):
        return _masked(text)
    starts = [run.start() for run in RUN.finditer(text)]
    for match in _each(RANGE, text, starts):
        if not _rejected(text, match):
            found.append(Size((_mm(match[3], match[4]),), *match.span()))
        taken.append(match.span())
    for match in _each(SIZE, text, starts):
        start, end = match.span()
        if any(start < b and a < end for a, b in taken) or _rejected(text, match):
            continue
        numbers, units = match.groups()[::2], match.groups()[1::2]
        given = [unit for unit in units if unit]
        if not given:
            continue
        last = given[-1]
        units_of = []
        for unit in reversed(units):
            last = unit or last
            units_of.append(last)
        values = [_mm(n, u) for n, u in zip(numbers, reversed(units_of), strict=True) if n]
        found.append(Size(tuple(values), start, end, _bound(text, start)))
    if "_" in text:
        found += _masked(text)
    return sorted(found, key=lambda size: size.start)


def _each(pattern: re.Pattern[str], text: str, starts: Sequence[int]) -> Iterator[re.Match[str]]:
    """Matches of a pattern that can only begin where a number does; one does not begin inside another."""
    last = 0
    for start in starts:
        if start >= last and (match := pattern.match(text, start)):
            last = match.end()
            yield match


def _masked(text: str) -> list[Size]:
    return [Size((), *match.span()) for match in MASKED.finditer(text) if not _rejected(text, match)]


def _bound(text: str, start: int) -> str:
    """The sign of an upper bound that stands before a measurement."""
    found = UPPER.search(text, max(0, start - 14), start)
    if not found:
        return ""
    return "<" if found["below"] else "<="


def _rejected(text: str, match: re.Match[str]) -> bool:
    before, after = text[max(0, match.start() - 12) : match.start()], text[match.end() : match.end() + 24]
    return bool(REJECT_BEFORE.search(before) or REJECT_AFTER.match(after))
