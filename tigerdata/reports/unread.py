"""What the parser leaves unread: words of the clauses about nodules that no term, measurement or cue accounts for.

A unit is one Chinese character or one Latin word. A unit of a nodule clause is *read* when it lies in a term of the
vocabulary, a measurement, a risk category, a cue, or a word of `known` in the domain's YAML (words that are understood
but state no attribute, such as blood flow). The words of `known.function` (的, 约, the, of) are no clinical words and
count on neither side, as do numbers and signs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kb.cues import load_cues
from kb.needed import CJK
from tigerdata.reports.parser import Reading, understand

UNIT = re.compile(rf"[{CJK}]|[a-z]+")
RUN = re.compile(rf"[{CJK}]+|[a-z]+(?:[-'][a-z]+)*")
FUNCTION = "function"
READ, SILENT = 1, 2


@dataclass
class Coverage:
    """How much of a corpus is read: `units` clinical units in nodule clauses, `unread` of them, the unread words."""

    texts: int = 0
    units: int = 0
    unread: int = 0
    words: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Share of the clinical units that is read, 1.0 for a corpus without any."""
        return 1 - self.unread / self.units if self.units else 1.0


def unread(text: str, domain: str = "thyroid") -> list[tuple[int, int, str]]:
    """Words of the nodule clauses that stay unread: (start, end, surface) with `text[start:end] == surface`.

    >>> unread("左叶见一低回声结节，大小约5mm，边界清晰，伴某某征。")
    [(23, 26, '某某征')]
    """
    reading = understand(text, domain)
    return [_original(reading, *span) for span in _gaps(reading, _marks(reading, domain))]


def coverage(texts: Iterable[str], domain: str = "thyroid") -> Coverage:
    """Read and unread units over many texts, with the unread words by frequency."""
    total = Coverage()
    for text in texts:
        reading = understand(text, domain)
        marks = _marks(reading, domain)
        plain = reading.source.text
        total.texts += 1
        for clause in reading.nodule_clauses:
            for unit in UNIT.finditer(plain, clause.start, clause.end):
                state = marks[unit.start()]
                total.units += state != SILENT
                total.unread += not state
        total.words.update(plain[a:b] for a, b in _gaps(reading, marks))
    return total


def _marks(reading: Reading, domain: str) -> bytearray:
    """For each normalised position: 0 unread, READ, or SILENT (a function word)."""
    cues, content = load_cues(domain), reading.content
    marks = bytearray(len(content.text))

    def mark(start: int, end: int, state: int) -> None:
        marks[start:end] = bytes([state]) * (end - start)

    for clause in reading.nodule_clauses:
        sheet, by = clause.sheet, clause.start
        for match in cues.known_words(FUNCTION).finditer(sheet.text):
            mark(match.start() + by, match.end() + by, SILENT)
        for pattern in cues.all_words:
            for match in pattern.finditer(sheet.text):
                mark(match.start() + by, match.end() + by, READ)
        for start, end in [*sheet.noise, *(t.span for t in sheet.terms)]:
            mark(start + by, end + by, READ)
    for start, end in [*(s.span for s in content.sizes), *(c.span for c in content.categories)]:
        mark(start, end, READ)
    return marks


def _gaps(reading: Reading, marks: bytearray) -> list[tuple[int, int]]:
    """Normalised spans of the unread words; a Latin word is one word, Chinese characters join to one run."""
    found: list[tuple[int, int]] = []
    text = reading.source.text
    for clause in reading.nodule_clauses:
        for run in RUN.finditer(text, clause.start, clause.end):
            start = None
            for position in range(run.start(), run.end() + 1):
                open_ = position < run.end() and not marks[position]
                if open_ and start is None:
                    start = position
                elif not open_ and start is not None:
                    found.append((start, position))
                    start = None
    return found


def _original(reading: Reading, start: int, end: int) -> tuple[int, int, str]:
    a, b = reading.source.span(start, end)
    return a, b, reading.source.original[a:b]
