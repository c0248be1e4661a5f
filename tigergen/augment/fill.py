"""Filling what is missing: rows that cover as many missing pairs of values as one row can, one after the other.

The greedy construction of pairwise covering arrays (AETG: Cohen, Dalal, Fredman and Patton 1997), with two things
added: values come from the class's own profile, and of rows that fill equally many pairs the likelier one is taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kb import KnowledgeBase
from tigergen.augment.coverage import Combination, Value, combined, contradiction

# Candidates of which the best becomes the next row: so many from the rarest missing pair, and as many from any.
TRIES = 8
# Steps of the search for one row after which it is given up; a row has a dozen attributes.
NODES = 500


@dataclass(frozen=True)
class Choice:
    """What an attribute may be in a row: one value, or values that belong together (pole and side), and its weight."""

    values: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class Filling:
    """One row: the values of each attribute, and how many pairs it is the first to show."""

    attributes: dict[str, list[str]]
    fills: int


@dataclass
class PairFiller:
    """Makes rows from `choices` (attribute -> what it may be) until no pair outside `covered` can be filled.

    Every row has all attributes and is possible by the knowledge base.
    """

    base: KnowledgeBase
    choices: Mapping[str, Sequence[Choice]]
    covered: set[Combination]

    def __post_init__(self) -> None:
        self.values: list[Value] = sorted({(a, v) for a, cs in self.choices.items() for c in cs for v in c.values})
        place = {value: n for n, value in enumerate(self.values)}
        size = len(self.values)
        self.missing = np.zeros((size, size), dtype=bool)
        self.hopeless = np.zeros((size, size), dtype=bool)
        self.clash = np.zeros((size, size), dtype=bool)
        for i, first in enumerate(self.values):
            for j, second in enumerate(self.values[:i]):
                if contradiction(self.base, combined((second, first))) is not None:
                    self.clash[i, j] = self.clash[j, i] = True
                elif first[0] != second[0] and (second, first) not in self.covered:
                    self.missing[i, j] = self.missing[j, i] = True
        self._members: dict[str, NDArray[np.float64]] = {}
        self._clashes: dict[str, NDArray[np.float64]] = {}
        self._likely: dict[str, NDArray[np.float64]] = {}
        for name, options in self.choices.items():
            members = np.zeros((len(options), size))
            for n, option in enumerate(options):
                members[n, [place[name, v] for v in option.values]] = 1
            self._members[name], self._clashes[name] = members, members @ self.clash
            self._likely[name] = np.log([option.weight for option in options])
        self._every_clash = np.concatenate([*self._clashes.values()])
        self._starts = np.cumsum([0, *(len(options) for options in self.choices.values())])[:-1]

    def dead(self) -> set[Combination]:
        """Missing pairs that no possible row was found for: each is possible by itself, but not beside any value of
        some other attribute."""
        pairs = np.argwhere(np.tril(self.missing & self.hopeless))
        return {(self.values[j], self.values[i]) for i, j in pairs}

    def rows(self, rng: np.random.Generator) -> Iterator[Filling]:
        """Rows in the order of what they fill, the most first as far as a greedy choice sees."""
        while (wanted := self.missing & ~self.hopeless).any():
            i, j = self._rarest_pair(wanted, rng)
            tried = [found for _ in range(TRIES) if (found := self._attempt((i, j), rng)) is not None]
            if not tried:
                self.hopeless[i, j] = self.hopeless[j, i] = True
                continue
            every = np.argwhere(np.tril(wanted))
            others = [self._attempt(tuple(every[int(rng.integers(len(every)))]), rng) for _ in range(TRIES)]
            tried += [found for found in others if found is not None]
            gain, _, chosen = max(tried, key=lambda found: found[:2])
            row = np.flatnonzero(np.sum([self._members[name][n] for name, n in chosen.items()], axis=0))
            self.missing[np.ix_(row, row)] = False
            attributes = {name: list(self.choices[name][chosen[name]].values) for name in self.choices}
            yield Filling(attributes, gain)

    def _rarest_pair(self, wanted: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
        """The value that lacks most partners, with that of its missing partners that lacks most itself."""
        lacks = wanted.sum(1) + rng.random(len(self.values)) / 2
        first = int(lacks.argmax())
        return first, int(np.where(wanted[first], lacks, -1).argmax())

    def _attempt(self, pair: tuple[int, ...], rng: np.random.Generator) -> tuple[int, float, dict[str, int]] | None:
        """A possible row with this pair: pairs filled, log-likelihood, choice by attribute; None when there is none.

        Attributes take turns in random order, each with the value that fills most; one that leaves some other attribute
        without any value is passed over, and where no value is left the search goes back (at most `NODES` steps).
        """
        fixed = {self.values[n][0]: n for n in pair}
        others = [name for name in self.choices if name not in fixed]
        order = [*fixed, *(others[n] for n in rng.permutation(len(others)))]
        chosen: dict[str, int] = {}
        steps = 0

        def place(depth: int, row: NDArray[np.float64]) -> bool:
            nonlocal steps
            if depth == len(order):
                # Constraints of three and more values cannot be seen in pairs.
                return contradiction(self.base, {a: self.choices[a][n].values for a, n in chosen.items()}) is None
            name = order[depth]
            members = self._members[name]
            allowed = self._clashes[name] @ row == 0
            if name in fixed:
                allowed &= members[:, fixed[name]] > 0
            gains = members @ (self.missing @ row)
            # The last key decides first: what fills most, then what is likelier, then chance.
            for n in np.lexsort((rng.random(len(gains)), self._likely[name], gains))[::-1]:
                if not allowed[n] or steps == NODES:
                    continue
                steps += 1
                chosen[name] = int(n)
                after = row + members[n]
                free = self._every_clash @ after == 0
                if np.logical_or.reduceat(free, self._starts).all() and place(depth + 1, after):
                    return True
                del chosen[name]
            return False

        if not place(0, np.zeros(len(self.values))):
            return None
        row = np.sum([self._members[name][n] for name, n in chosen.items()], axis=0)
        likely = sum(float(self._likely[name][n]) for name, n in chosen.items())
        return round(row @ self.missing @ row / 2), likely, chosen
