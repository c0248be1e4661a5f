"""What is known while the findings are read, and how a clause is asked for cues."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kb.cues import Cues
from tigerdata.reports.clauses import Clause
from tigerdata.reports.facts import Fact, Group, Nodule, Place, Span
from tigerdata.reports.measures import Size
from tigerdata.reports.terms import Term
from tigerdata.reports.text import CJK
from tigerdata.reports.tirads import Category

DEFINITE = re.compile(r"^[\s-]*(?:(?:the|this|that) (?:\w+ ){0,2}?(?:nodule|lesion|mass|cyst)|(?:该|此|本)?结节(?!\d))")


@dataclass
class Content:
    """Everything found in the text before it is read: terms, measurements and categories by position."""

    text: str
    terms: Sequence[Term]
    sizes: Sequence[Size]
    categories: Sequence[Category]
    noise: Sequence[Span] = ()

    def within(self, clause: Clause) -> tuple[list[Term], list[Size], list[Category]]:
        """The part of the content that lies in a clause."""
        a, b = clause.start, clause.end
        return (
            [t for t in self.terms if a <= t.start < b],
            [s for s in self.sizes if a <= s.start < b],
            [c for c in self.categories if a <= c.start < b],
        )


@dataclass
class Findings:
    """What the findings say: nodules, gland, lymph nodes, and the clauses about nodules."""

    nodules: list[Nodule] = field(default_factory=list)
    gland: list[Fact] = field(default_factory=list)
    gland_sizes: list[tuple[Term, Size]] = field(default_factory=list)
    lymph: list[Fact] = field(default_factory=list)
    nodule_clauses: list[Clause] = field(default_factory=list)


class State:
    """State while the clauses of the findings are read in order."""

    def __init__(self, cues: Cues, content: Content) -> None:
        self.cues, self.content, self.text = cues, content, content.text
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

    def _has(self, name: str, clause: Clause) -> re.Match[str] | None:
        return self.cues[name].search(self.text, clause.start, clause.end)

    def _anaphor(self, clause: Clause) -> bool:
        return bool(self.cues["anaphor"].search(self.text[clause.start : clause.end].lstrip()))

    def _latin(self, clause: Clause) -> bool:
        return not re.search(f"[{CJK}]", self.text[clause.start : clause.end])
