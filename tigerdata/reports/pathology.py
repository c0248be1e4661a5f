"""Pathology texts to one subtype: the entity that is named, not one that is denied or only a variant's name."""

from __future__ import annotations

import re
from typing import Any

from kb.cues import load_cues
from tigerdata.reports.assertion import Scopes, cue_spans
from tigerdata.reports.clauses import HARD, Clause
from tigerdata.reports.resolve import Evidence
from tigerdata.reports.text import normalise

NO_CANCER = ("benign", "indeterminate")  # every other entity of an organ's file is a cancer
# A pathologist's "consistent with" is a diagnosis, unlike a radiologist's.
AFFIRMED = re.compile(r"consistent|考虑|倾向|appears|likely|favou?r")
NOT_HERE = re.compile(
    r"(?<![a-z])(?:family|personal)? ?history(?![a-z])|家族史|既往|病史|淋巴结(?!.{0,4}(?:淋巴瘤))|lymph nodes?"
)


def parse_pathology(text: str, domain: str = "thyroid") -> dict[str, Any]:
    """Subtype of a pathology text: benign, one of the organ's cancers (thyroid: PTC, FTC, MTC, ATC, other_malignant),
    indeterminate or none.

    Returns `{"subtype", "conflict", "evidence"}`. A cancer goes before a benign entity, and before the cancers that it
    outranks by the organ's rules (anaplastic carcinoma before the one it grew from); other cancers side by side are a
    conflict, named in `conflict` ("MTC; PTC"), and the first one is the subtype. A suspected cancer is indeterminate.
    Nothing is raised for any text.
    """
    source = normalise(text)
    evidence = Evidence(source)
    found: list[tuple[int, int, str, bool]] = []
    for clause in _clauses(source.text):
        _read(source.text, clause, domain, found)
    certain = sorted(row for row in found if row[3])
    hedged = [row for row in found if not row[3] and row[2] not in NO_CANCER]
    names = {row[2] for row in certain}
    outranks = load_cues(domain).rules.outranks
    below = {other for name in names for other in outranks.get(name, ())}
    cancers = [n for n in dict.fromkeys(row[2] for row in certain) if n not in NO_CANCER and n not in below]
    if cancers:
        subtype, conflict = cancers[0], "; ".join(sorted(cancers)) if len(cancers) > 1 else None
    else:
        subtype = "indeterminate" if hedged or "indeterminate" in names else "benign" if "benign" in names else "none"
        conflict = None
    for start, end, name, sure in certain or hedged:
        evidence.add("subtype", name, (start, end), rule="entity" if sure else "hedged entity")
    return {"subtype": subtype, "conflict": conflict, "evidence": evidence.rows}


def _clauses(text: str) -> list[Clause]:
    """Sentences, then stretches between commas; a comma does not end the reach of "no evidence of" in a list."""
    clauses, begin = [], 0
    for number, match in enumerate([*HARD.finditer(text), None]):
        end = match.start() if match else len(text)
        last = begin
        for comma in re.finditer(r"，|, (?!or |nor )", text[begin:end]):
            clauses.append(Clause(last, begin + comma.start(), "pathology", number, last == begin, ""))
            last = begin + comma.end()
        clauses.append(Clause(last, end, "pathology", number, last == begin, ""))
        begin = match.end() if match else end
    return [clause for clause in clauses if clause.end > clause.start]


def _read(text: str, clause: Clause, domain: str, found: list[tuple[int, int, str, bool]]) -> None:
    cues = load_cues(domain)
    taken: list[tuple[int, int, str]] = []
    for name, pattern in cues.entities.items():
        for match in pattern.finditer(text, clause.start, clause.end):
            if match.end() > match.start() and not any(a < match.end() and match.start() < b for a, b, _ in taken):
                taken.append((*match.span(), name))
    if not taken:
        return
    scopes = Scopes(cue_spans(cues, text, clause.start, clause.end), clause.start, [(a, b) for a, b, _ in taken])
    for start, end, name in taken:
        if NOT_HERE.search(text, clause.start, start):
            continue
        judged = scopes.of(start, end)
        if judged.certainty == "negated":
            continue
        cue = text[slice(*judged.cue)] if judged.cue else ""
        found.append((start, end, name, judged.certainty == "positive" or bool(AFFIRMED.search(cue))))
