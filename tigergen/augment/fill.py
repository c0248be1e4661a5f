"""Filling what is missing: rows that cover as many missing pairs of values as one row can, one after the other.

The greedy construction of pairwise covering arrays (AETG: Cohen, Dalal, Fredman and Patton 1997), with two things
added: values come from the class's own profile, and of rows that fill equally many pairs the likelier one is taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kb import KnowledgeBase
from tigergen.augment.coverage import Combination, Value, combined, contradiction

# Candidates of which the best becomes the next row.
TRIES = 24


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

    Every row has all attributes and is possible by the knowledge base. `dead` collects pairs that no possible row was
    found for: each is possible by itself, but not together with any value of some other attribute.
    """

    base: KnowledgeBase
    choices: Mapping[str, Sequence[Choice]]
    covered: set[Combination]
    dead: list[Combination] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values: list[Value] = sorted({(a, v) for a, cs in self.choices.items() for c in cs for v in c.values})
        place = {value: n for n, value in enumerate(self.values)}
        size = len(self.values)
        self.missing = np.zeros((size, size), dtype=bool)
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

    def reachable(self) -> set[Combination]:
        """The pairs of these values that are possible and not covered yet."""
        return {(self.values[j], self.values[i]) for i, j in np.argwhere(np.tril(self.missing))}

    def rows(self, rng: np.random.Generator) -> Iterator[Filling]:
        """Rows in the order of what they fill, the most first as far as a greedy choice sees."""
        while self.missing.any():
            pair = self._rarest_pair(rng)
            tried = [found for found in (self._attempt(pair, rng) for _ in range(TRIES)) if found is not None]
            if not tried:
                i, j = pair
                self.missing[i, j] = self.missing[j, i] = False
                first, second = sorted((self.values[i], self.values[j]))
                self.dead.append((first, second))
                continue
            gain, _, chosen = max(tried, key=lambda found: found[:2])
            row = np.flatnonzero(np.sum([self._members[name][n] for name, n in chosen.items()], axis=0))
            self.missing[np.ix_(row, row)] = False
            attributes = {name: list(self.choices[name][chosen[name]].values) for name in self.choices}
            yield Filling(attributes, gain)

    def _rarest_pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """The value that lacks most partners, with that of its missing partners that lacks most itself."""
        lacks = self.missing.sum(1) + rng.random(len(self.values)) / 2
        first = int(lacks.argmax())
        return first, int(np.where(self.missing[first], lacks, -1).argmax())

    def _attempt(self, pair: tuple[int, int], rng: np.random.Generator) -> tuple[int, float, dict[str, int]] | None:
        """A possible row with this pair: pairs filled, log-likelihood, choice by attribute; None for a dead end."""
        fixed = {self.values[n][0]: n for n in pair}
        others = [name for name in self.choices if name not in fixed]
        order = [*fixed, *(others[n] for n in rng.permutation(len(others)))]
        row = np.zeros(len(self.values))
        chosen: dict[str, int] = {}
        gain, likely = 0.0, 0.0
        for name in order:
            members = self._members[name]
            allowed = self._clashes[name] @ row == 0
            if name in fixed:
                allowed &= members[:, fixed[name]] > 0
            if not allowed.any():
                return None
            gains = members @ (self.missing @ row)
            # The last key decides first: what fills most, then what is likelier, then chance.
            best = np.lexsort((rng.random(len(gains)), self._likely[name], np.where(allowed, gains, -1)))[-1]
            chosen[name] = int(best)
            gain += gains[best]
            likely += self._likely[name][best]
            row += members[best]
        # Constraints of three and more values cannot be seen in pairs.
        said = {name: self.choices[name][n].values for name, n in chosen.items()}
        return (round(gain), likely, chosen) if contradiction(self.base, said) is None else None
