"""What is known while the findings are read, and how a clause is asked for cues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kb.cues import Cues
from tigerdata.reports.assertion import POSITIVE, Assertion, Scopes
from tigerdata.reports.clauses import Clause
from tigerdata.reports.facts import Fact, Group, Nodule, Place, Span
from tigerdata.reports.measures import Size
from tigerdata.reports.terms import Term
from tigerdata.reports.tirads import Category


@dataclass
class Content:
    """What was found in the text before it is read: measurements and categories; the terms are in the clauses."""

    text: str
    sizes: Sequence[Size]
    categories: Sequence[Category]

    def within(self, clause: Clause) -> tuple[list[Term], list[Size], list[Category]]:
        """The part of the content that lies in a clause."""
        a, b = clause.start, clause.end
        return (
            [t.shifted(a) for t in clause.sheet.terms],
            [s for s in self.sizes if a <= s.start < b] if self.sizes else [],
            [c for c in self.categories if a <= c.start < b] if self.categories else [],
        )


@dataclass
class Findings:
    """What the findings say: nodules, gland, lymph nodes, and the clauses about nodules."""

    nodules: list[Nodule] = field(default_factory=list)
    gland: list[Fact] = field(default_factory=list)
    gland_sizes: list[tuple[Term, Size]] = field(default_factory=list)
    lymph: list[Fact] = field(default_factory=list)
    denied: list[Fact] = field(default_factory=list)  # only where each finding is an entry of its own
    nodule_clauses: list[Clause] = field(default_factory=list)


class State:
    """State while the clauses of the findings are read in order."""

    def __init__(self, cues: Cues, content: Content) -> None:
        self.cues, self.content, self.text = cues, content, content.text
        self.rules = cues.rules
        self.out = Findings()
        self.topic = ""
        self.sentence = -1
        self.targets: list[Nodule] = []
        self.weak = False
        self.group: Group | None = None
        self.batch: list[Nodule] = []
        self.place = Place()  # named earlier in the sentence, for the nodule that follows
        self.side: Term | None = None  # last lobe that the text spoke of
        self.headed: Term | None = None  # lobe of a heading such as "Right lobe:"
        self.early: list[Fact] = []  # attributes written before their noun: "hypoechoic, solid nodule"
        self.early_sizes: list[Size] = []
        self.planes: list[Fact] = []
        self.ordinal: int | None = None
        self.measured: set[str] = set()  # lobes measured since the last nodule
        self.listed: tuple[list[Fact], Term | None] | None = None  # what was said before a numbered list

    @staticmethod
    def _first(name: str, clause: Clause) -> Span | None:
        """The first place of a cue in a clause."""
        found = clause.sheet.found.get(name)
        return (found[0][0] + clause.start, found[0][1] + clause.start) if found else None

    @staticmethod
    def _anchors(clause: Clause) -> list[Span]:
        by = clause.start
        return [(a + by, b + by) for a, b in clause.sheet.anchors]


class Judge:
    """The scopes of a clause for positions of the report; `inherited` is a denial from an earlier clause."""

    def __init__(self, clause: Clause, inherited: Span | None = None) -> None:
        self._scopes: Scopes = clause.sheet.scopes
        self._by, self._inherited = clause.start, inherited

    def of(self, start: int, end: int) -> Assertion:
        """Assertion of the span [start, end)."""
        by = self._by
        if self._inherited is None and self._scopes.plain:
            return POSITIVE
        inherited = (self._inherited[0] - by, self._inherited[1] - by) if self._inherited else None
        found = self._scopes.judge(start - by, end - by, inherited)
        return Assertion(found.certainty, (found.cue[0] + by, found.cue[1] + by)) if found.cue else found
