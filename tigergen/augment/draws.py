"""Where a plan's combinations come from: real prompts of a class, a literature profile, observed co-occurrence."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kb.errors import UserError
from tigergen.augment.coverage import contradiction

Attributes = dict[str, list[str]]
REAL = "real prompt of the class"
OBSERVED = "observed co-occurrence"
MARGINAL = "observed frequencies of the class"
LITERATURE = "literature profile"
NAME = "name of the class alone"

# A drawn combination keeps each observed value with this probability, else takes one from the profile.
KEEP_OBSERVED = 0.75
ATTEMPTS = 200


@dataclass(frozen=True)
class Draw:
    """One combination, where it comes from, the real images whose prompt it is (empty when new), and what it fills.

    `fills`: how many pairs of values it is the first to show, where it was made for that.
    """

    attributes: Attributes
    source: str
    images: tuple[str, ...] = ()
    fills: int = 0


def key(attributes: Attributes) -> str:
    """A text that is equal for equal combinations."""
    return json.dumps({a: sorted(v) for a, v in attributes.items()}, sort_keys=True, ensure_ascii=False)


def distinct(images: Sequence[str], attributes: Sequence[Attributes]) -> list[Draw]:
    """The different combinations of real images, in the order of the images, each with the images that have it."""
    groups: dict[str, list[int]] = {}
    for n, a in enumerate(attributes):
        groups.setdefault(key(a), []).append(n)
    return [Draw(attributes[rows[0]], REAL, tuple(images[r] for r in rows)) for rows in groups.values()]


def observed_profile(real: Sequence[Attributes], others: Sequence[Attributes]) -> dict[str, dict[str, float]]:
    """Smoothed frequencies of values: those of the class, with one pseudo-case spread as in the other classes.

    For a class that the knowledge base has no literature on. Attributes that fewer than half of the cases state are
    left out, or every generated prompt would say more than the reports do.
    """
    profile: dict[str, dict[str, float]] = {}
    pool = list(real) or list(others)
    for attribute in sorted({a for case in pool for a in case}):
        stated = [v for case in pool for v in case.get(attribute, [])]
        if sum(attribute in case for case in pool) < len(pool) / 2:
            continue
        counts = Counter(stated)
        prior = Counter(v for case in others for v in case.get(attribute, []))
        total = sum(prior.values())
        weights = {v: counts[v] + (prior[v] / total if total else 0.0) for v in sorted(set(counts) | set(prior))}
        scale = sum(weights.values())
        profile[attribute] = {v: w / scale for v, w in weights.items()}
    return profile


@dataclass
class RareDrawer:
    """Draws combinations for a class with few real images: profile mixed with what was observed together.

    With m real images and a pseudo-count c, a draw starts from a real combination with probability m / (m + c) and
    keeps each of its values with probability .75; else every value is drawn from the profile by itself. Combinations
    that the knowledge base calls impossible are drawn again and counted in `refused`.
    """

    base: Any
    profile: dict[str, dict[str, float]]
    profile_source: str
    real: Sequence[Attributes]
    pseudo: float
    refused: Counter[str] = field(default_factory=Counter)

    def draw(self, rng: np.random.Generator) -> Draw:
        """One possible combination.

        Raises:
            UserError: 200 draws in a row were impossible: profile and constraints contradict each other.
        """
        for _ in range(ATTEMPTS):
            drawn = self._once(rng)
            reason = contradiction(self.base, drawn.attributes)
            if reason is None:
                return drawn
            self.refused[reason] += 1
        raise UserError(
            f"{ATTEMPTS} draws in a row gave combinations that the knowledge base calls impossible "
            f"(last: {self.refused.most_common(1)[0][0]}); mend the class's profile or the constraints."
        )

    def _once(self, rng: np.random.Generator) -> Draw:
        m = len(self.real)
        start: Attributes = {}
        source = self.profile_source
        if m and rng.random() < m / (m + self.pseudo):
            start, source = self.real[int(rng.integers(m))], OBSERVED
        out: Attributes = {}
        for attribute in self.profile:
            if attribute in start and rng.random() < KEEP_OBSERVED:
                out[attribute] = list(start[attribute])
            else:
                values = list(self.profile[attribute])
                p = np.array([self.profile[attribute][v] for v in values])
                out[attribute] = [values[int(rng.choice(len(values), p=p / p.sum()))], *self._sides(attribute, rng)]
        return Draw(in_order(self.base, out), source)

    def _sides(self, attribute: str, rng: np.random.Generator) -> list[str]:
        options = sides(self.base, attribute, self.profile_source)
        return [options[int(rng.integers(2))]] if options else []


def sides(base: Any, attribute: str, source: str) -> tuple[str, ...]:
    """Left and right lobe, equally frequent, where the literature profile gives the pole only; else nothing."""
    group = base.attributes[attribute].groups.get("side", ())
    return ("left", "right") if source.startswith(LITERATURE) and {"left", "right"} <= set(group) else ()


def in_order(base: Any, attributes: Attributes) -> Attributes:
    """Attributes in the order of the vocabulary."""
    return {a: attributes[a] for a in base.attributes if a in attributes}


def spread(count: int, parts: int) -> list[int]:
    """`count` in `parts` whole numbers that differ by at most one.

    >>> spread(7, 3)
    [3, 2, 2]
    """
    return [count // parts + (n < count % parts) for n in range(parts)]
