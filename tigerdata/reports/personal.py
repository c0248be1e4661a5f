"""Removing personal data from report texts before anything is stored.

Found by rules, in Chinese and English: names (`names.py`), identity cards by their checksum, telephones, numbers of
hospital records and examinations, e-mail and chat accounts, addresses (`personal_patterns.py`); dates are shifted
(`dates.py`). Each removed character becomes "█", so that a text keeps its length. Sizes, categories, percentages and
velocities stay: no pattern takes a number without a label, a checksum or the shape of a telephone or card number.

A safety net and no guarantee: a hospital still has to hand out exports without personal data. Sources of the rules:
GB 11643-1999 (identity card, ISO 7064 MOD 11-2), HIPAA Safe Harbor 45 CFR 164.514(b)(2), GB/T 37964-2019.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tigerdata.reports import dates, names
from tigerdata.reports.personal_patterns import ID_CARD, LONG_DIGITS, OLD_AGE, PATTERNS, SIGNS

# Rises when a rule changes what is removed: reports that were stored under older rules are then read again.
RULES = 1
LEVELS = ("standard", "strict")
MASK = "█"
KINDS = ("name", "id_card", "phone", "number", "email", "address", "date", "age")
# Full-width digits, letters and signs are matched as their ASCII forms; one character each, so positions stay.
HALF = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，。；："} | {
    0x3000: 32, 0xA0: 32, 0x2010: 45, 0x2011: 45, 0x2012: 45, 0x2013: 45, 0x2014: 45, 0x2212: 45,
}  # fmt: skip


@dataclass(frozen=True)
class Redacted:
    """A text without personal data, and how many pieces of each kind were removed; never the pieces themselves."""

    text: str
    removed: Counter[str]

    @property
    def total(self) -> int:
        """Number of pieces that were removed."""
        return sum(self.removed.values())


def id_card_valid(number: str) -> bool:
    """Whether 18 characters are a Chinese identity number: the last one checks the others (ISO 7064 MOD 11-2).

    >>> id_card_valid("11010519491231002X")
    True
    """
    if not re.fullmatch(r"[0-9]{17}[0-9Xx]", number):
        return False
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def redact(
    text: str, level: str = "standard", shift_days: int | None = None, known: Iterable[tuple[str, str]] = ()
) -> Redacted:
    """Remove personal data from a text.

    `level` "strict" also removes every run of six digits, whatever stands behind a name's label, hospitals, and all
    dates. `shift_days` moves dates by that many days; without it they are blacked out. `known` are pieces of personal
    data from other columns of the row, as (kind, value): they are removed wherever they stand. The result has the
    length of the text, but for a shifted date whose digits do not fit ("9 May" to "12 April").
    """
    spans: list[tuple[int, int, str]] = []
    plain = text.translate(HALF)
    strict = level == "strict"
    for kind, value in known:
        _find_known(plain, kind, value.translate(HALF), spans)
    _find(plain, strict, spans)
    shifted: dict[int, str] = {}
    for start, end, match in dates.find_dates(plain):
        if not _free(start, end, spans):
            continue
        new = None if strict or shift_days is None else dates.moved(match, shift_days)
        if new:
            shifted[start] = new
        spans.append((start, match.end() if new else end, "date"))
    if strict:  # after the dates, which are long numbers too
        _take(plain, LONG_DIGITS, "number", spans)
    found = [(start, end, kind, shifted.get(start, MASK * (end - start))) for start, end, kind in spans]
    if not found:
        return Redacted(text, Counter())
    out, last = [], 0
    for start, end, _, piece in sorted(found):
        out += [text[last:start], piece]
        last = end
    return Redacted("".join(out) + text[last:], Counter(kind for _, _, kind, _ in found))


def _free(start: int, end: int, spans: list[tuple[int, int, str]]) -> bool:
    return not any(a < end and start < b for a, b, _ in spans)


def _take(text: str, pattern: re.Pattern[str], kind: str, spans: list[tuple[int, int, str]]) -> None:
    for match in pattern.finditer(text):
        start, end = match.span("n")
        end = start + len(text[start:end].rstrip(" \t.,-"))
        if end > start and _free(start, end, spans):
            spans.append((start, end, kind))


def _find(text: str, strict: bool, spans: list[tuple[int, int, str]]) -> None:
    """Spans of personal data, the surest kinds first: what one pattern took, no later one takes again."""
    signs = {name for name, sign in SIGNS.items() if sign.search(text)}
    if not signs:
        return
    if "digits" in signs:
        for match in ID_CARD.finditer(text):
            digits = re.sub(r"[ -]", "", match["n"])
            # A typing error in a card number leaves its date of birth; without it, 18 digits are some other number.
            dated = re.fullmatch(r"\d{6}(?:19|20)?\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]?", digits)
            if (id_card_valid(digits) or dated) and _free(*match.span("n"), spans):
                spans.append((*match.span("n"), "id_card"))
    for sign, kind, pattern in PATTERNS:
        if sign in signs:
            _take(text, pattern, kind, spans)
    for language, pattern in names.STANDARD:
        if language in signs:
            _take(text, pattern, "name", spans)
    if "people" in signs or "latin" in signs:
        _take(text, OLD_AGE, "age", spans)
    if strict:
        for pattern in names.STRICT:
            _take(text, pattern, "name", spans)


def _find_known(text: str, kind: str, value: str, spans: list[tuple[int, int, str]]) -> None:
    """Places of a value that another column of the row gives; short numbers are left, they could be sizes."""
    value = value.strip()
    latin = value.isascii()
    if len(value) < 2 or (latin and (len(value) < 4 if value.isalpha() else len(value) < 5)):
        return
    # No pattern: each value would be compiled for one text, which takes longer than all the other patterns together.
    where, what = (text.lower(), value.lower()) if text.isascii() or latin else (text, value)
    if len(where) != len(text):  # "İ" grows when it is made small
        where, what = text, value
    start = where.find(what)
    while start >= 0:
        end = start + len(what)
        inside = latin and (_latin(where[start - 1 : start]) or _latin(where[end : end + 1]))
        if not inside and _free(start, end, spans):
            spans.append((start, end, kind))
        start = where.find(what, end)


def _latin(char: str) -> bool:
    return char.isascii() and char.isalnum()
