"""Dates of a report moved by a number of days: intervals between a patient's examinations stay, the calendar goes.

Years alone stay ("2017 ACR TI-RADS" is a guideline). A date that cannot be read without a guess, such as 31 February,
is blacked out instead.
"""

from __future__ import annotations

import datetime
import re

LONG = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
MONTHS = {name.lower()[:size]: number for number, name in enumerate(LONG, start=1) for size in (3, 9)} | {"sept": 9}
NAMES = "|".join(sorted(MONTHS, key=len, reverse=True))
YEAR = r"(?P<y>(?:19|20)\d\d)"
_B = r"(?<![\d.])"
PATTERNS: tuple[re.Pattern[str], ...] = (
    re.compile(rf"{_B}{YEAR}(?P<s> ?[-/.] ?)(?P<m>1[0-2]|0?[1-9])(?P<s2> ?[-/.] ?)(?P<d>3[01]|[12]\d|0?[1-9])(?![\d])"),
    re.compile(rf"{_B}{YEAR}(?P<s> ?年 ?)(?P<m>1[0-2]|0?[1-9])(?P<s2> ?月 ?)(?P<d>3[01]|[12]\d|0?[1-9])(?= ?[日号])"),
    re.compile(rf"{_B}{YEAR}(?P<s> ?年 ?)(?P<m>1[0-2]|0?[1-9])(?= ?月(?!\d))"),
    re.compile(r"(?<![\d.年])(?P<m>1[0-2]|0?[1-9])(?P<s2>月)(?P<d>3[01]|[12]\d|0?[1-9])(?=[日号])"),
    re.compile(rf"{_B}{YEAR}(?P<m>1[0-2]|0[1-9])(?P<d>3[01]|[12]\d|0[1-9])(?![\d.])"),
    re.compile(
        rf"(?i)(?<![A-Za-z])(?P<mon>{NAMES})\.?(?P<s> )(?P<d>3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
        rf"(?P<s2>,? ){YEAR}(?!\d)"
    ),
    re.compile(
        rf"(?i){_B}(?P<d>3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?(?P<s>[ -])(?P<mon>{NAMES})\.?(?P<s2>,?[ -]){YEAR}(?!\d)"
    ),
    re.compile(rf"(?i)(?<![A-Za-z])(?P<mon>{NAMES})\.?(?P<s>,? ){YEAR}(?!\d)"),
    re.compile(rf"{_B}(?P<a>\d\d?)(?P<s>[-/.])(?P<b>\d\d?)(?P<s2>[-/.]){YEAR}(?![\d])"),
)
# A clock time behind a date belongs to it ("2023-05-12 14:03:22").
CLOCK = re.compile(r"[ T,，]{1,2}(?:[01]?\d|2[0-3])[:：][0-5]\d(?:[:：][0-5]\d)?")
HINT = re.compile(r"(?:19|20)\d\d|\d月\d")


def find_dates(text: str) -> list[tuple[int, int, re.Match[str]]]:
    """Dates in a text as (start, end, match), in order and apart; `end` takes in a clock time behind the date."""
    if not HINT.search(text):
        return []
    found: list[tuple[int, int, re.Match[str]]] = []
    for pattern in PATTERNS:
        for match in pattern.finditer(text):
            if any(start < match.end() and match.start() < end for start, end, _ in found):
                continue
            clock = CLOCK.match(text, match.end())
            found.append((match.start(), clock.end() if clock else match.end(), match))
    return sorted(found, key=lambda row: row[0])


def moved(match: re.Match[str], days: int) -> str | None:
    """The date of a match of `PATTERNS`, moved by `days` and written the same way; None if it cannot be read surely.

    A date without a day is taken as the middle of its month, one without a year as of a year without 29 February.
    Digits keep their number where they can, so that the text keeps its length.
    """
    part = match.groupdict()
    if "a" in part:
        first, second = int(part["a"]), int(part["b"])
        if first > 12 >= second >= 1:
            day, month, swapped = first, second, True
        elif second > 12 >= first >= 1 or first == second <= 12:
            day, month, swapped = second, first, False
        else:
            return None  # 02/03: the second of March, or the third of February
        return _numeric(match, part, _moved(int(part["y"]), month, day, days), swapped)
    month = MONTHS[part["mon"].lower()] if part.get("mon") else int(part["m"])
    whole = part.get("d") is not None
    date = _moved(int(part["y"]) if part.get("y") else 2001, month, int(part["d"]) if whole else 15, days)
    if date is None:
        return None
    text = match.group()
    pieces = {"y": f"{date.year}", "m": _digits(date.month, part.get("m")), "d": _digits(date.day, part.get("d"))}
    pieces["mon"] = _month(date.month, part.get("mon"))
    spans = sorted((match.span(name), pieces[name]) for name in ("y", "m", "d", "mon") if part.get(name))
    out, last = [], match.start()
    for (start, end), piece in spans:
        out += [text[last - match.start() : start - match.start()], piece]
        last = end
    return "".join(out) + text[last - match.start() :]


def shift_iso(text: str, days: int) -> str | None:
    """A date column's value as a shifted ISO date; None where there is no date that can be read surely."""
    value = text.strip()
    if re.fullmatch(r"[2-6]\d{4}", value):  # days since 1899-12-30, as spreadsheets count
        return (datetime.date(1899, 12, 30) + datetime.timedelta(int(value) + days)).isoformat()
    for pattern in PATTERNS:
        match = pattern.match(value)
        if match is None or ("d" in pattern.groupindex and "y" not in pattern.groupindex):
            continue
        part = match.groupdict()
        if "a" in part:
            first, second = int(part["a"]), int(part["b"])
            pair = (second, first) if second > 12 else (first, second) if first > 12 else None
            day, month = pair if pair else ((first, second) if first == second else (0, 0))
        elif part.get("d") is None:
            return None
        else:
            day, month = int(part["d"]), MONTHS[part["mon"].lower()] if part.get("mon") else int(part["m"])
        date = _moved(int(part["y"]), month, day, days)
        return date.isoformat() if date else None
    return None


def _moved(year: int, month: int, day: int, days: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day) + datetime.timedelta(days)
    except (ValueError, OverflowError):
        return None


def _digits(number: int, before: str | None) -> str:
    return f"{number:02d}" if before and len(before) == 2 else str(number)


def _month(number: int, before: str | None) -> str:
    name = LONG[number - 1] if before and len(before) > 4 else LONG[number - 1][:3]
    return name.upper() if before and before.isupper() else name


def _numeric(match: re.Match[str], part: dict[str, str], date: datetime.date | None, swapped: bool) -> str | None:
    if date is None:
        return None
    first, second = (date.day, date.month) if swapped else (date.month, date.day)
    return f"{_digits(first, part['a'])}{part['s']}{_digits(second, part['b'])}{part['s2']}{date.year}"
