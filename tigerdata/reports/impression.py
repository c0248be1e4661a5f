"""The impression: its categories and descriptions belong to nodules of the findings and make no new ones."""

from __future__ import annotations

from collections.abc import Sequence

from kb.cues import Cues
from tigerdata.reports.clauses import Clause
from tigerdata.reports.facts import Fact, Nodule, places
from tigerdata.reports.state import Content, Judge


def merge(cues: Cues, content: Content, clauses: Sequence[Clause], nodules: list[Nodule]) -> list[Clause]:
    """Attach what the impression says to the nodules that it means; what fits none or is ambiguous is left out.

    Returns the clauses that speak of nodules.
    """
    if not nodules:
        return []
    read: list[Clause] = []
    sentence = -1
    focus: list[Nodule] = []
    ordinals: tuple[int, ...] = ()
    numbered = any(n.ordinal for n in nodules)
    for clause in clauses:
        terms, sizes, categories = content.within(clause)
        where = [p for p in places(terms, ()) if p.side or p.pole]
        if clause.sentence != sentence:
            sentence, focus, ordinals = clause.sentence, [], clause.ordinals
            if not where and numbered and ordinals:
                focus = [n for n in nodules if n.ordinal in ordinals]
        scopes = Judge(clause)
        anchors = clause.sheet.spans("anchor")
        if clause.sheet.first("lymph"):
            focus = []
            continue
        if where or (anchors and not focus) or (categories and not focus):
            focus = [n for n in nodules if not where or any(n.place.side and n.place.fits(p) for p in where)]
            focus = _narrow(focus, sizes)
            many = clause.sheet.first("many")
            if not where and len(focus) > 1 and not many:
                focus = []
        if focus:
            read.append(clause)
        for nodule in focus:
            for category in categories[:1]:
                nodule.category = nodule.category or category
            for term in terms:
                if term.part or term.attribute in (cues.rules.size_class, cues.rules.plane) or len(focus) > 1:
                    continue
                if any(f.attribute == term.attribute for f in nodule.facts):
                    continue
                found = scopes.of(term.start, term.end)
                if found.certainty != "negated":
                    nodule.facts.append(
                        Fact(term.attribute, term.value, term.start, term.end, "positive", found.cue, "impression")
                    )
    return read


def _narrow(focus: list[Nodule], sizes: Sequence) -> list[Nodule]:
    """Of several nodules on the named side, those with the named largest diameter, if there are any."""
    if len(focus) < 2 or not sizes or not sizes[0].values:
        return focus
    wanted = max(sizes[0].values)
    same = [n for n in focus if n.sizes and abs(max(n.sizes[0].values, default=0) - wanted) < 0.06]
    return same or focus
