"""The combinations of one class: its real prompts, or, for a rare one, what its sources say, missing pairs first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.errors import UserError
from tigergen.augment.coverage import Combination, contradiction, ways
from tigergen.augment.draws import (
    LITERATURE,
    MARGINAL,
    NAME,
    Attributes,
    Draw,
    RareDrawer,
    distinct,
    in_order,
    key,
    observed_profile,
    sides,
)
from tigergen.augment.fill import Choice, PairFiller

if TYPE_CHECKING:
    import pandas as pd

# How a rare class's combinations are drawn: those that fill missing pairs first, or as often as its profile says.
DRAWS = ("coverage", "profile")
# Which values a rare class may take: those of its own source, or also those that other classes show in training.
VALUES = ("own", "seen")
# Weight of a value that the class's own source does not know: it never wins by likelihood.
FOREIGN = 1e-6


@dataclass(frozen=True)
class Drawn:
    """Combinations of a class, what was refused on the way, and the pairs that its source allows (None: all)."""

    draws: list[Draw]
    refused: Counter[str] = field(default_factory=Counter)
    within: set[Combination] | None = None


def name_alone(count: int) -> Drawn:
    """`count` rows that say the class and nothing else: Tiger-N, "name-guided" (Dai et al. 2025, before Table 3)."""
    return Drawn([Draw({}, NAME, ()) for _ in range(count)])


def real_prompts(base: Any, label: str, cases: "pd.DataFrame", count: int, rng: np.random.Generator) -> Drawn:
    """At most `count` different prompts of real images of the class, in random order.

    Raises:
        UserError: the knowledge base calls all of them impossible.
    """
    own = cases[cases["label"] == label]
    found = [
        d for d in distinct(list(own["image_id"]), list(own["attributes"])) if not contradiction(base, d.attributes)
    ]
    if not found:
        raise UserError(f"no prompt of class '{label}' is possible by the knowledge base; check its findings.")
    reason = "a real prompt that the knowledge base calls impossible"
    refused = Counter({reason: len(own) - sum(len(d.images) for d in found)})
    return Drawn([found[i] for i in rng.permutation(len(found))[:count]], +refused)


def source_of(base: Any, label: str, real: Sequence[Attributes], others: Sequence[Attributes]) -> tuple[Any, str]:
    """Profile of a class (attribute -> value -> probability) and what it rests on, citations included.

    Raises:
        UserError: neither literature nor a real prompt.
    """
    if label in base.subtypes:
        profile, citations = base.profile(label), ", ".join(base.subtypes[label].sources)
        source = f"{LITERATURE} [{citations}]"
    else:
        profile, source = observed_profile(real, others), MARGINAL
    if not profile:
        raise UserError(
            f"class '{label}' has neither a literature profile nor a real prompt in train; nothing to draw from."
        )
    return profile, source


def choices_of(
    base: Any, profile: dict[str, dict[str, float]], source: str, foreign: Sequence[Attributes] = ()
) -> dict[str, list[Choice]]:
    """What each attribute of a profile may be, with its probability; `foreign` cases add values of other classes."""
    out = {}
    for name, weights in profile.items():
        halves: list[tuple[str, ...]] = [(side,) for side in sides(base, name, source)] or [()]
        own = [Choice((v, *half), w) for v, w in weights.items() if w > 0 for half in halves]
        known = {v for choice in own for v in choice.values}
        more = sorted({v for case in foreign for v in case.get(name, ())} - known)
        out[name] = own + [Choice((v,), FOREIGN) for v in more]
    return out


def rare_combinations(
    base: Any,
    label: str,
    cases: "pd.DataFrame",
    count: int,
    pseudo: float,
    rng: np.random.Generator,
    draw: str = "coverage",
    values: str = "own",
) -> Drawn:
    """At most `count` different combinations of a rare class, every one possible by the knowledge base.

    With draw = "coverage" rows come first that show pairs of values which no real image of the class shows, as many as
    they can each; when no such pair is left, and with draw = "profile" from the start, combinations are drawn as often
    as profile and observed co-occurrence say (`RareDrawer` with `pseudo` pseudo-cases).
    """
    mine = cases["label"] == label
    real: list[Attributes] = list(cases[mine]["attributes"])
    others: list[Attributes] = list(cases[~mine]["attributes"])
    profile, source = source_of(base, label, real, others)
    choices = choices_of(base, profile, source, others if values == "seen" else ())
    known = {key(a) for a in real}
    out: dict[str, Draw] = {}

    def add(d: Draw) -> None:
        text = key(d.attributes)
        out.setdefault(text, Draw(d.attributes, d.source, ("known",) if text in known else (), d.fills))

    if draw == "coverage":
        filler = PairFiller(base, choices, ways(real, 2))
        for row in filler.rows(rng):
            if len(out) == count:
                break
            add(Draw(in_order(base, row.attributes), _said(source, row.attributes, choices), (), row.fills))
    drawer = RareDrawer(base, profile, source, real, pseudo)
    for _ in range(4 * count):
        if len(out) == count:
            break
        add(drawer.draw(rng))
    allowed = sorted({(a, v) for a, options in choices.items() for c in options for v in c.values})
    return Drawn(list(out.values()), drawer.refused, set(combinations(allowed, 2)))


def _said(source: str, row: Attributes, choices: dict[str, list[Choice]]) -> str:
    """The source of a row; values that it does not know are named."""
    foreign = {(a, v) for a, options in choices.items() for c in options if c.weight == FOREIGN for v in c.values}
    beyond = [f"{a} {v}" for a, values in row.items() for v in values if (a, v) in foreign]
    return source + (f"; not in it, but shown by other classes: {', '.join(beyond)}" if beyond else "")
