"""Reading a report whose entries are findings, not nodules (chest radiographs): each stated finding is an entry.

The domain says `rules: {reading: findings}`. An entry has the places, sizes and descriptors of the clause that states
it; the same finding at the same place is one entry, also when the impression repeats it. What is denied is collected.
"""

from __future__ import annotations

from collections.abc import Sequence

from kb.cues import Cues
from tigerdata.reports.clauses import Clause
from tigerdata.reports.facts import Fact, Nodule, Place, places
from tigerdata.reports.state import Content, Findings, Judge
from tigerdata.reports.terms import Term


def read_findings(cues: Cues, content: Content, clauses: Sequence[Clause]) -> Findings:
    """The findings of a report in order of first mention, and those that it denies."""
    out = Findings()
    rules = cues.rules
    sentence = -1
    carried = Place()
    inherited: tuple[int, int] | None = None
    for index, clause in enumerate(clauses):
        if clause.section not in ("findings", "impression"):
            continue
        if clause.sentence != sentence:
            sentence, carried, inherited = clause.sentence, Place(), None
        sheet = clause.sheet
        scopes = Judge(clause, inherited)
        rest = [c for c in clauses[index + 1 : index + 12] if c.sentence == sentence]
        if inherited is None and sheet.list_denial and any(c.sheet.ends_list for c in rest):
            inherited = sheet.list_denial[0] + clause.start, sheet.list_denial[1] + clause.start
        if sheet.first("hypothetical") or (sheet.first("prior") and not sheet.first("now")):
            continue
        terms, sizes, _ = content.within(clause)
        where = places(terms, ())
        if where:
            carried = where[0]
        named = [t for t in terms if not t.part and t.attribute != rules.size_class]
        entries = [t for t in named if t.attribute in rules.descriptive]
        if entries or where:
            out.nodule_clauses.append(clause)
        for number, term in enumerate(entries):
            judged = scopes.of(term.start, term.end)
            fact = Fact(term.attribute, term.value, term.start, term.end, judged.certainty, judged.cue, "finding")
            if judged.certainty == "negated":
                if not any(f.value == fact.value for f in out.denied):
                    out.denied.append(fact)
                continue
            place = _nearest(where, term.start) if where else carried
            entry = _same(out.nodules, fact, place)
            if entry is None:
                entry = Nodule(Place(place.side, place.pole, place.depth), sentence=sentence)
                out.nodules.append(entry)
            entry.facts.append(fact)
            for other in named:
                # "consolidation with a small effusion": a descriptor belongs to the finding beside it.
                if other not in entries and term is min(entries, key=lambda t: _gap(t, other)):
                    found = scopes.of(other.start, other.end)
                    entry.facts.append(Fact(*other[:4], found.certainty, found.cue))
            if number == 0 and sizes and not entry.sizes:
                entry.sizes.append(sizes[0])
    stated = {f.value for n in out.nodules for f in n.facts}
    out.denied = [f for f in out.denied if f.value not in stated]
    return out


def _gap(one: Term, other: Term) -> int:
    return max(other.start - one.end, one.start - other.end)


def _nearest(where: Sequence[Place], position: int) -> Place:
    """Of several places in a clause, the one whose words stand nearest."""

    def distance(place: Place) -> int:
        return min(abs(t.start - position) for t in (place.side, place.pole, place.depth) if t)

    return min(where, key=distance)


def _same(entries: Sequence[Nodule], fact: Fact, place: Place) -> Nodule | None:
    """The entry of the same finding at a place that can be the same."""
    for entry in entries:
        if any((f.attribute, f.value) == (fact.attribute, fact.value) for f in entry.facts) and entry.place.fits(place):
            entry.place.fill(place)
            return entry
    return None
