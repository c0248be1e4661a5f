"""Is a term stated, hedged or denied? Cues with a scope that ends with the clause or at a word such as 但, but."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kb.cues import Cues
from tigerdata.reports.clauses import Clause

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Assertion:
    """`certainty` is positive, uncertain or negated; `cue` the normalised span that decided it."""

    certainty: str
    cue: Span | None = None


POSITIVE = Assertion("positive")


class Scopes:
    """The cues of one clause; `of(start, end)` judges a term of it.

    `covered` are spans of terms: a cue inside a term (无回声, 未分化, 不规则) is part of the term. `inherited` is a
    denial whose list goes on over a comma ("no evidence of A, B or C").
    """

    def __init__(
        self, cues: Cues, text: str, clause: Clause, covered: Sequence[Span], inherited: Span | None = None
    ) -> None:
        self.text, self.clause = text, clause

        def spans(name: str, free_of: Sequence[Span] = covered) -> list[Span]:
            found = [m.span() for m in cues[name].finditer(text, clause.start, clause.end) if m.end() > m.start()]
            return [s for s in found if not any(a < s[1] and s[0] < b for a, b in free_of)]

        traps = spans("negation_trap")
        self.before = [s for s in spans("negation_before") if not any(a < s[1] and s[0] < b for a, b in traps)]
        self.after = [s for s in spans("negation_after", ()) if not any(a < s[1] and s[0] < b for a, b in traps)]
        self.stops = [s[0] for s in spans("negation_stop")]
        self.hedge_before = spans("uncertain_before")
        self.hedge_after = spans("uncertain_after")
        self.inherited = inherited

    def _open(self, cue_end: int, start: int) -> bool:
        """No word between a cue and a term ends the cue's scope."""
        return not any(cue_end <= stop < start for stop in self.stops)

    def of(self, start: int, end: int) -> Assertion:
        """Assertion of the span [start, end)."""
        for cue in reversed(self.hedge_before):
            if cue[1] <= start and self._open(cue[1], start):
                return Assertion("uncertain", cue)
        for cue in self.hedge_after:
            if cue[0] >= end:
                return Assertion("uncertain", cue)
        for cue in reversed(self.before):
            if cue[1] <= start and self._open(cue[1], start):
                return Assertion("negated", cue)
        for cue in self.after:
            if cue[0] >= end:
                return Assertion("negated", cue)
        if self.inherited and self._open(self.clause.start, start):
            return Assertion("negated", self.inherited)
        return POSITIVE


LIST_END = re.compile(r"(?<![a-z])(or|nor)(?![a-z])")


def list_denial(cues: Cues, text: str, clause: Clause, rest: Sequence[Clause]) -> Span | None:
    """Cue of "no evidence of A, ..." whose list ends with "or C" in a later clause of the sentence."""
    match = cues["negation_list"].search(text, clause.start, clause.end)
    if match and any(LIST_END.search(text, c.start, c.end) for c in rest):
        return match.span()
    return None
