"""Is a term stated, hedged or denied? Cues with a scope that ends with the clause or at a word such as 但, but."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kb.cues import Cues

Span = tuple[int, int]


class Assertion(NamedTuple):
    """`certainty` is positive, uncertain or negated; `cue` the normalised span that decided it."""

    certainty: str
    cue: Span | None = None


POSITIVE = Assertion("positive")
CUES = ("negation_before", "negation_after", "negation_trap", "negation_stop", "uncertain_before", "uncertain_after")


class Scopes:
    """The cues of one clause; `of(start, end)` judges a term of it.

    `spans(name)` gives the places of a cue in the clause, `begin` is where the clause begins. `covered` are spans of
    terms: a cue inside a term (无回声, 未分化, 不规则) is part of the term.
    """

    __slots__ = ("after", "before", "begin", "hedge_after", "hedge_before", "plain", "stops")

    def __init__(self, spans: Callable[[str], Sequence[Span]], begin: int, covered: Sequence[Span]) -> None:
        def free(name: str, taken: Sequence[Span]) -> Sequence[Span]:
            found = spans(name)
            return [s for s in found if not any(a < s[1] and s[0] < b for a, b in taken)] if found else ()

        self.begin = begin
        traps = free("negation_trap", covered)
        self.before = free("negation_before", [*covered, *traps])
        self.after = free("negation_after", traps)
        self.stops = [s[0] for s in free("negation_stop", covered)]
        self.hedge_before = free("uncertain_before", covered)
        self.hedge_after = free("uncertain_after", covered)
        self.plain = not (self.before or self.after or self.hedge_before or self.hedge_after)

    def _open(self, cue_end: int, start: int) -> bool:
        """No word between a cue and a term ends the cue's scope."""
        return not any(cue_end <= stop < start for stop in self.stops)

    def of(self, start: int, end: int) -> Assertion:
        """Assertion of the span [start, end)."""
        return self.judge(start, end, None)

    def judge(self, start: int, end: int, inherited: Span | None) -> Assertion:
        """Assertion of the span [start, end); `inherited`: a denial whose list goes on over a comma."""
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


PLAIN = Scopes(lambda name: (), 0, ())  # of a clause without any of CUES


def cue_spans(cues: Cues, text: str, begin: int, end: int) -> Callable[[str], Sequence[Span]]:
    """The places of a cue in text[begin:end], for a clause that has no sheet."""
    return lambda name: [m.span() for m in cues[name].finditer(text, begin, end) if m.end() > m.start()]
