"""The plan: every attribute combination, how often, whose outlines it borrows and why, before anything is sampled."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.errors import UsageError, UserError
from tigergen.augment.class_draws import DRAWS, VALUES, Drawn, name_alone, rare_combinations, real_prompts
from tigergen.augment.coverage import coverage, impossible_pairs
from tigergen.augment.donors import DonorPool
from tigergen.augment.draws import spread
from tigergen.augment.planfile import FORMAT, SAMPLING, check_plan, plan_id, read_plan, total, write_plan
from tigergen.augment.strategy import images_per_class, warnings
from tigergen.model.folder import sampling as preset_sampling

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMAT", "SAMPLING", "VARIANTS", "check_plan", "make_plan", "plan_id", "read_plan", "total", "write_plan"]

# Tiger-F says the class and its features, Tiger-N the name of the class alone (Dai et al. 2025, Table 3).
VARIANTS = ("F", "N")


def make_plan(
    ws: Any,
    target: str,
    n: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    *,
    strategy: Mapping[str, int | str] | None = None,
    balance: bool = False,
    variant: str = "F",
    draw: str = "coverage",
    values: str = "own",
    rare_below: int = 100,
    combinations: int = 300,
    donors: int = 8,
    donor_labels: Sequence[str] | None = None,
    sampling: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Plan generated images for the class `target` and for the others (or only for `classes`).

    How many is said by `n`, `balance` or `strategy`, or by none of them (`strategy.images_per_class`).

    Classes with `rare_below` real training images or more take their own real prompts; rarer ones mix the literature
    profile with what was observed together (Dai et al. 2025, "Inference"), those rows first that show pairs of values
    which no real image of the class shows (`draw` = "profile" leaves these out; `values` = "seen" lets them take values
    that the class's own source does not know and other classes show). `variant` "N" says the class alone in every
    prompt, without image quality; a class has then as many rows as it needs to take turns among all donors.

    Donors are real training images of `donor_labels` (default: the classes that are not rare), at most `donors` a row.
    `sampling` overrides steps, guidance, sampler, mode; where the preset of the workspace's fine model names some of
    them, those are the default. With `out` the plan is also written there.

    Raises:
        UserError: unknown target or class, nothing to generate, no training image, an unknown setting.
    """
    for name, value, allowed in (("variant", variant, VARIANTS), ("draw", draw, DRAWS), ("values", values, VALUES)):
        if value not in allowed:
            raise UsageError(f"there is no {name} '{value}'; choose {' or '.join(allowed)}.")
    if min(combinations, donors) < 1:
        raise UserError(f"{combinations} combinations with {donors} donors each: both must be 1 or more.")
    base, cases = ws.kb, ws.cases("train")
    sizes = Counter(str(label) for label in cases["label"])
    present = sorted(sizes)
    images = images_per_class(sizes, target, {*present, *base.subtypes}, n, classes, strategy, balance)
    if len(cases) == 0:
        raise UserError("the training split has no image with prompt and mask; run prompts, segment and split first.")
    common = [label for label in present if sizes[label] >= rare_below]
    givers = list(donor_labels or common or present)
    pool = DonorPool(cases[cases["label"].isin(givers)].reset_index(drop=True))
    if len(pool) == 0:
        raise UserError(f"no training image of the donor classes {', '.join(givers)}; name others.")
    rows: list[dict[str, Any]] = []
    covered, refused = {}, {}
    for number, (label, count) in enumerate(images.items()):
        rng = np.random.default_rng([seed, number, 1])
        if variant == "N":
            drawn = name_alone(min(count, ceil(len(pool) / donors)))
        else:
            drawn = _draw(base, label, cases, min(count, combinations), rare_below, rng, draw, values)
        made = _rows(base, label, count, drawn, pool, donors, rng)
        rows += made
        real = list(cases[cases["label"] == label]["attributes"])
        planned = [r["attributes"] for r in made]
        covered[label] = coverage(base, real, planned, [r["count"] for r in made], drawn.within)
        refused[label] = dict(sorted(drawn.refused.items()))
    quality: dict[str, Any] = {"quality": []} if variant == "N" else {}
    settings = {"variant": variant, "draw": draw, "values": values, "rare_below": rare_below}
    asked = {"n": n, "balance": balance, "strategy": dict(strategy) if strategy is not None else None}
    plan: dict[str, Any] = {
        "format": FORMAT,
        "target": target,
        "seed": seed,
        "sampling": {**SAMPLING, **preset_sampling(ws.path / "models" / "fine"), **quality, **(sampling or {})},
        "settings": {**asked, "classes": list(images), **settings, "combinations": combinations},
        "donor_policy": f"real training images of {', '.join(givers)}; same plane, then best agreement of the layout",
        "real": {label: sizes[label] for label in images},
        "generated": images,
        "warnings": warnings(sizes, images, target),
        "donor_planes": pool.by_plane(rows),
        "coverage": covered,
        "refused": refused,
        "impossible": impossible_pairs(base),
        "rows": rows,
    }
    check_plan(plan, ws)
    if out is not None:
        write_plan(out, plan)
    return plan


def _draw(
    base: Any,
    label: str,
    cases: "pd.DataFrame",
    count: int,
    rare_below: int,
    rng: np.random.Generator,
    draw: str,
    values: str,
) -> Drawn:
    """At most `count` different combinations of a class, drawn as its number of real images allows."""
    if not count:
        return Drawn([])
    if (cases["label"] == label).sum() >= rare_below:
        return real_prompts(base, label, cases, count, rng)
    return rare_combinations(base, label, cases, count, float(rare_below), rng, draw, values)


def _rows(
    base: Any, label: str, count: int, drawn: Drawn, pool: DonorPool, donors: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The rows of one class: prompt, number of images, source and donors of each combination."""
    from tigerdata.prompts import compose

    rows: list[dict[str, Any]] = []
    lent: set[str] = set()
    for d, share in zip(drawn.draws, spread(count, len(drawn.draws)) if drawn.draws else [], strict=True):
        prompt = compose(base, label, d.attributes)
        # Where the prompt asks for no layout, every donor fits, and those that have not lent yet come first.
        ids, agreed = pool.choose(d.attributes, d.images if d.attributes else sorted(lent), donors, rng)
        lent = lent | set(ids) if len(lent) + len(ids) < len(pool) else set()
        row: dict[str, Any] = {"label": label, "count": share, "fg": prompt.fg, "bg": prompt.bg}
        row |= {"attributes": d.attributes, "source": d.source, "new": not d.images}
        row |= {"fills": d.fills} if d.fills else {}
        rows.append(row | {"donors": ids, "donors_agree": agreed})
    return rows
