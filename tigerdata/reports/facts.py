"""What a report says about a nodule, before contradictions are settled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tigerdata.reports.measures import Size
from tigerdata.reports.terms import Term
from tigerdata.reports.tirads import Category

Span = tuple[int, int]


class Fact(NamedTuple):
    """One value that the text states, hedges or denies, at normalised [start, end); `rule` says how it came here."""

    attribute: str
    value: str
    start: int
    end: int
    certainty: str = "positive"
    cue: Span | None = None
    rule: str = "term"


@dataclass
class Place:
    """Where a nodule lies: the terms that say so."""

    side: Term | None = None
    pole: Term | None = None
    depth: Term | None = None

    def fill(self, other: Place) -> None:
        """Take over what is not known yet."""
        self.side, self.pole, self.depth = self.side or other.side, self.pole or other.pole, self.depth or other.depth

    def fits(self, other: Place) -> bool:
        """No part that both name differs; "bilateral" fits every side."""
        for mine, theirs in ((self.side, other.side), (self.pole, other.pole)):
            if mine and theirs and mine.value != theirs.value and "bilateral" not in (mine.value, theirs.value):
                return False
        return True


@dataclass(eq=False)
class Nodule:
    """One described nodule, or one entry of a group (`multiple`)."""

    place: Place = field(default_factory=Place)
    facts: list[Fact] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    category: Category | None = None
    anchor: Span | None = None
    multiple: bool = False
    ordinal: int | None = None
    tentative: bool = False  # named by its echo alone: an entry only when a size follows
    described: bool = False  # has attributes of its own after its size
    sentence: int = 0
    role: str = ""

    def own(self, attribute: str) -> bool:
        """Whether the text states this attribute for the nodule itself."""
        return any(f.attribute == attribute and f.rule != "shared" for f in self.facts)


@dataclass
class Group:
    """A group that one phrase introduces ("多发…结节"): its entries and what holds for all of them."""

    members: list[Nodule]
    shared: list[Fact]
    place: Place
    refined: bool = False

    def add(self, side: Term | None) -> Nodule:
        """Another entry of the group, with what was said of the group before it was split."""
        nodule = Nodule(Place(side or one_side(self.place.side), self.place.pole), list(self.shared), multiple=True)
        self.members.append(nodule)
        return nodule


def one_side(side: Term | None) -> Term | None:
    """A side that one nodule can lie on: "bilateral" is none."""
    return None if side and side.value == "bilateral" else side


def places(terms: Iterable[Term], veto: Sequence[Span]) -> list[Place]:
    """Places that the location terms of a clause name: a part that is already filled begins the next place."""
    found: list[Place] = []
    for term in terms:
        part = term.part
        if not part or any(end == term.start for _, end in veto):
            continue
        if not found or (part != "depth" and getattr(found[-1], part)):
            if part == "depth" and not found:
                found.append(Place(depth=term))
                continue
            side = found[-1].side if found and part == "pole" else None
            found.append(Place(side=side))
        last = found[-1]
        kept = getattr(last, part)
        # "近被膜背侧": a direction says more than the distance to the capsule.
        if part == "depth" and kept and kept.value != "subcapsular":
            continue
        setattr(last, part, term)
    return found
