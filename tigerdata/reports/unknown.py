"""Frequent words that the vocabulary does not know, for a clinician who extends it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from tigerdata.progress import Progress

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

MASK = "·"
CUT = re.compile(r"[，。；、：,;:!?！？\n\r]|\.(?!\d)")
LEAST = 5


def unknown_words(
    ws: Workspace, least: int = LEAST, limit: int = 30, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Unread words of nodule clauses, the most frequent first: word, patients, reports, occurrences, example.

    A word is shown when at least `least` patients have it (a report without a patient id is a patient of its own), so
    that it is nobody's name. The example is one clause in which every letter and digit but the word is masked: it shows
    where the word stands and no personal data. Words come in normal form (lower case, simplified characters).
    """
    from tigerdata.reports.text import normalise
    from tigerdata.reports.unread import unread

    with ws.connect(read_only=True) as con:
        rows = con.execute(
            "SELECT text, list(coalesce(patient_id, report_id)), count(*) FROM reports GROUP BY text ORDER BY text"
        ).fetchall()
    people: dict[str, set[str]] = defaultdict(set)
    reports: Counter[str] = Counter()
    occurrences: Counter[str] = Counter()
    examples: dict[str, str] = {}
    domain = ws.domain
    for number, (text, patients, count) in enumerate(rows, start=1):
        seen = set()
        for start, end, surface in unread(text, domain):
            word = normalise(surface).text
            seen.add(word)
            people[word].update(patients)
            occurrences[word] += count
            example = masked_clause(text, start, end)
            if len(example) < len(examples.get(word, example + " ")):
                examples[word] = example
        reports.update({word: count for word in seen})
        if progress:
            progress({"stage": "unread words", "step": number, "steps": len(rows)})
    found: list[dict[str, Any]] = [
        {
            "word": word,
            "patients": len(who),
            "reports": reports[word],
            "occurrences": occurrences[word],
            "example": examples[word],
        }
        for word, who in people.items()
        if len(who) >= least
    ]
    return sorted(found, key=lambda row: (-row["patients"], -row["occurrences"], row["word"]))[:limit]


def masked_clause(text: str, start: int, end: int) -> str:
    """The clause around text[start:end] with every letter and digit outside of it replaced by a dot.

    >>> masked_clause("左叶结节，伴某某征，约5mm。", 6, 9)
    '·某某征'
    """
    begin = max((match.end() for match in CUT.finditer(text, 0, start)), default=0)
    close = CUT.search(text, end)
    stop = close.start() if close else len(text)
    hidden = [
        "".join(MASK if char.isalnum() else char for char in part) for part in (text[begin:start], text[end:stop])
    ]
    return (hidden[0] + text[start:end] + hidden[1]).strip()
