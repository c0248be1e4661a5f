"""Is a term stated, hedged or denied? Cues with a scope that ends with the clause or at a word such as 但, but."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from re import Pattern
from typing import TYPE_CHECKING, NamedTuple

from kb.cues import Cues

if TYPE_CHECKING:
    from tigerdata.reports.clauses import Clause

Span = tuple[int, int]


class Assertion(NamedTuple):
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
        self.begin, self.end = clause.start, clause.end
        self.inherited = inherited
        self._read(cues, text, covered)

    @classmethod
    def over(cls, cues: Cues | Mapping[str, Pattern[str]], text: str, covered: Sequence[Span]) -> Scopes:
        """The cues of a text that is one clause."""
        scopes = cls.__new__(cls)
        scopes.begin, scopes.end, scopes.inherited = 0, len(text), None
        scopes._read(cues, text, covered)
        return scopes

    def _read(self, cues: Cues | Mapping[str, Pattern[str]], text: str, covered: Sequence[Span]) -> None:
        def spans(name: str, free_of: Sequence[Span]) -> list[Span]:
            found = [m.span() for m in cues[name].finditer(text, self.begin, self.end) if m.end() > m.start()]
            return [s for s in found if not any(a < s[1] and s[0] < b for a, b in free_of)]

        traps = spans("negation_trap", covered)
        self.before = spans("negation_before", [*covered, *traps])
        self.after = spans("negation_after", traps)
        self.stops = [s[0] for s in spans("negation_stop", covered)]
        self.hedge_before = spans("uncertain_before", covered)
        self.hedge_after = spans("uncertain_after", covered)
        self.plain = not (self.before or self.after or self.hedge_before or self.hedge_after)

    def _open(self, cue_end: int, start: int) -> bool:
        """No word between a cue and a term ends the cue's scope."""
        return not any(cue_end <= stop < start for stop in self.stops)

    def of(self, start: int, end: int) -> Assertion:
        """Assertion of the span [start, end)."""
        return self.judge(start, end, self.inherited)

    def judge(self, start: int, end: int, inherited: Span | None) -> Assertion:
        """Assertion of the span [start, end) where a denial may reach over from an earlier clause."""
        if not self.plain:
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
        if inherited and self._open(self.begin, start):
            return Assertion("negated", inherited)
        return POSITIVE
