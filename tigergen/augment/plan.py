"""The plan: every attribute combination, how often, whose outlines it borrows and why, before anything is sampled."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kb.errors import UserError
from kb.files import read_json, write_json
from tigergen.augment.draws import (
    LITERATURE,
    MARGINAL,
    Attributes,
    Draw,
    RareDrawer,
    coverage,
    distinct,
    key,
    observed_profile,
    spread,
)
from tigergen.model.folder import sampling as preset_sampling
from tigergen.sampling.settings import Sampling

FORMAT = "tiger-plan/1"

# What the donor's mask and edge map decide, and how much a disagreement with the row weighs. The plane comes first: a
# transverse layout under a longitudinal prompt contradicts itself. The edges show the capsule, so they decide the
# extension too: words alone reached .54 of it where the layouts of real nodules give .92.
LAYOUT = {
    "sonogram_direction": 100,
    "extension": 5,
    "shape": 4,
    "margin": 4,
    "aspect": 4,
    "diameter": 1,
    "nodule_location": 1,
}


def plan_id(plan: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of what is generated: seed, sampling and rows, not the remarks."""
    content = {name: plan[name] for name in ("format", "seed", "sampling", "rows")}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def total(plan: Mapping[str, Any]) -> int:
    """How many images the plan asks for."""
    return sum(row["count"] for row in plan["rows"])


def _draws(
    base: Any, label: str, cases: pd.DataFrame, n: int, rare_below: int, limit: int, rng: np.random.Generator
) -> tuple[list[Draw], Counter[str]]:
    """At most `limit` different combinations of a class, drawn as its number of real images allows."""
    own = cases[cases["label"] == label]
    real: list[Attributes] = list(own["attributes"])
    if len(own) >= rare_below:
        found = [d for d in distinct(list(own["image_id"]), real) if base.impossible(d.attributes) is None]
        if not found:
            raise UserError(f"no prompt of class '{label}' is possible by the knowledge base; check its findings.")
        refused = Counter({"a real prompt that the knowledge base calls impossible": len(own)})
        refused.subtract({next(iter(refused)): sum(len(d.images) for d in found)})
        order = rng.permutation(len(found))[: min(n, limit)]
        return [found[i] for i in order], +refused
    others: list[Attributes] = list(cases[cases["label"] != label]["attributes"])
    if label in base.subtypes:
        profile, citations = base.profile(label), ", ".join(base.subtypes[label].sources)
        source = f"{LITERATURE} [{citations}]"
    else:
        profile, source = observed_profile(real, others), MARGINAL
    if not profile:
        raise UserError(
            f"class '{label}' has neither a literature profile nor a real prompt in train; nothing to draw from."
        )
    drawer = RareDrawer(base, profile, source, real, float(rare_below))
    known = {key(a) for a in real}
    out: dict[str, Draw] = {}
    for _ in range(4 * min(n, limit)):
        d = drawer.draw(rng)
        out.setdefault(
            key(d.attributes), Draw(d.attributes, d.source, ("known",) if key(d.attributes) in known else ())
        )
        if len(out) == min(n, limit):
            break
    return list(out.values()), drawer.refused


def _fit(asked: Attributes, has: Attributes) -> int:
    """How well a donor's layout suits a row: the weights of the attributes that agree."""
    return sum(weight for a, weight in LAYOUT.items() if a in asked and set(asked[a]) <= set(has.get(a, [])))


def choose_donors(
    asked: Attributes, donors: pd.DataFrame, avoid: Sequence[str], n: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Ids of the best-fitting donors, and the layout attributes on which all of them agree with the row.

    Donors that fit as well as the best one are taken, up to `n`; real images whose own prompt this is are avoided when
    there are others, because prompt and edges of one image together ask for that image.
    """
    free = donors[~donors["image_id"].isin(set(avoid))] if avoid else donors
    pool = free if len(free) else donors
    scores = np.array([_fit(asked, a) for a in pool["attributes"]])
    best = np.flatnonzero(scores == scores.max())
    chosen = pool.iloc[np.sort(rng.permutation(best)[:n])]
    agreed = [a for a in LAYOUT if a in asked and all(set(asked[a]) <= set(h.get(a, [])) for h in chosen["attributes"])]
    return list(chosen["image_id"]), agreed


def make_plan(
    ws: Any,
    target: str,
    n: int,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    *,
    rare_below: int = 100,
    combinations: int = 300,
    donors: int = 8,
    donor_labels: Sequence[str] | None = None,
    sampling: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Plan `n` generated images for the class `target` and for every other class (or only for `classes`).

    Classes with `rare_below` real training images or more take their own real prompts; rarer ones mix the literature
    profile with what was observed together (Dai et al. 2025, "Inference"). Donors are real training images of
    `donor_labels` (default: the classes that are not rare). `sampling` overrides steps, guidance, sampler, mode; where
    the preset of the workspace's fine model names some of them, those are the default.
    With `out` the plan is also written there.

    Raises:
        UserError: unknown target or class, n < 1, no training image.
    """
    from tigerdata.prompts import compose

    base, cases = ws.kb, ws.cases("train")
    present = sorted(set(cases["label"]))
    known = sorted({*present, *base.subtypes})
    wanted = sorted({target, *(present if classes is None else classes)})
    for label in wanted:
        if label not in known:
            raise UserError(
                f"there is no class '{label}'; the training split and the knowledge base know: {', '.join(known)}."
            )
    if n < 1:
        raise UserError(f"{n} images a class were asked for; ask for 1 or more.")
    if len(cases) == 0:
        raise UserError("the training split has no image with prompt and mask; run prompts, segment and split first.")
    sizes = Counter(cases["label"])
    common = [label for label in present if sizes[label] >= rare_below]
    givers = list(donor_labels or common or present)
    pool = cases[cases["label"].isin(givers)].reset_index(drop=True)
    if len(pool) == 0:
        raise UserError(f"no training image of the donor classes {', '.join(givers)}; name others.")
    rows, covered, refused = [], {}, {}
    for number, label in enumerate(wanted):
        rng = np.random.default_rng([seed, number, 1])
        drawn, no = _draws(base, label, cases, n, rare_below, combinations, rng)
        for d, count in zip(drawn, spread(n, len(drawn)), strict=True):
            prompt = compose(base, label, d.attributes)
            ids, agreed = choose_donors(d.attributes, pool, d.images, donors, rng)
            row = {"label": label, "count": count, "fg": prompt.fg, "bg": prompt.bg, "attributes": d.attributes}
            row |= {"source": d.source, "new": not d.images, "donors": ids, "donors_agree": agreed}
            rows.append(row)
        covered[label] = coverage(
            base, list(cases[cases["label"] == label]["attributes"]), [d.attributes for d in drawn]
        )
        refused[label] = dict(sorted(no.items()))
    plan: dict[str, Any] = {
        "format": FORMAT,
        "target": target,
        "seed": seed,
        "sampling": {**SAMPLING, **preset_sampling(ws.path / "models" / "fine"), **(sampling or {})},
        "settings": {"n": n, "classes": wanted, "rare_below": rare_below, "combinations": combinations},
        "donor_policy": f"real training images of {', '.join(givers)}; same plane, then best agreement of the layout",
        "real": {label: sizes[label] for label in wanted},
        "rows": rows,
        "coverage": covered,
        "refused": refused,
        "warnings": _warnings(target, wanted, present),
    }
    check_plan(plan, ws)
    if out is not None:
        write_json(out, plan)
    return plan


DEFAULT = Sampling()
SAMPLING: dict[str, Any] = {
    **{name: getattr(DEFAULT, name) for name in ("steps", "guidance", "sampler", "mode")},
    "quality": "donor",
}


def _warnings(target: str, wanted: Sequence[str], present: Sequence[str]) -> list[str]:
    if set(wanted) == {target} and set(present) != {target}:
        return [
            f"Only '{target}' receives generated images: a classifier can then learn 'generated' in place of "
            f"'{target}'. Give every class its share unless you know why not."
        ]
    return []


def read_plan(path: str | os.PathLike[str], ws: Any) -> dict[str, Any]:
    """Read a plan from a file, edited by hand or not, and check it.

    Raises:
        UserError: unreadable, or a row asks for what cannot be (the row number is named).
    """
    try:
        plan = read_json(path)
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{Path(path).name} is not a readable plan ({error}); write one with `tigergen plan`."
        ) from error
    check_plan(plan, ws)
    return plan


def check_plan(plan: Any, ws: Any) -> None:
    """Refuse a plan that cannot or must not be run.

    Raises:
        UserError: wrong format, unknown sampling setting, or a faulty row, with its number (counted from 1).
    """
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise UserError(f"this is not a plan of format {FORMAT}; write one with `tigergen plan`.")
    for name in ("seed", "sampling", "rows", "target"):
        if name not in plan:
            raise UserError(f"the plan has no '{name}'; write it again with `tigergen plan`.")
    # A plan starts every image from noise, so it has no strength.
    unknown = sorted(set(plan["sampling"]) - ({*SAMPLING, *asdict(DEFAULT)} - {"strength"}))
    if unknown:
        raise UserError(f"the plan's sampling has unknown settings: {', '.join(unknown)}.")
    if not plan["rows"]:
        raise UserError("the plan has no rows; there is nothing to generate.")
    train = set(ws.cases("train")["image_id"])
    for number, row in enumerate(plan["rows"], 1):
        problem = _problem(row, ws.kb, train)
        if problem:
            raise UserError(f"row {number} of the plan {problem}.")


def _problem(row: Any, base: Any, train: set[str]) -> str | None:
    """What is wrong with a row, or None."""
    if not isinstance(row, dict):
        return "is not an object with label, count, fg, bg, attributes and donors"
    missing = [n for n in ("label", "count", "fg", "bg", "attributes", "donors") if n not in row]
    if missing:
        return f"has no '{missing[0]}'"
    if not str(row["label"]).isprintable() or set(str(row["label"])) & set("/\\") or str(row["label"])[:1] in ("", "."):
        return f"has the class {row['label']!r}, which cannot be the name of a folder"
    if not isinstance(row["count"], int) or isinstance(row["count"], bool) or row["count"] < 0:
        return f"has the count {row['count']!r}; it must be a whole number, 0 or more"
    if not row["donors"]:
        return "has no donor; name the id of at least one training image"
    stray = [d for d in row["donors"] if d not in train]
    if stray:
        return f"names the donor '{stray[0]}', which is not in the training split; only training images may be donors"
    said: dict[str, set[str]] = {}
    head = base.subtypes[row["label"]].phrase if row["label"] in base.subtypes else row["label"]
    phrases = [p.strip() for p in f"{row['fg']}, {row['bg']}".split(",") if p.strip()]
    if head not in phrases:
        return f"does not say its class: '{head}' is not in its prompt"
    quality = {p for words in base.quality.values() for p in words}
    for phrase in phrases:
        if phrase == head or phrase in quality:
            continue
        try:
            attribute, value = base.parse_phrase(phrase)
        except (KeyError, UserError):
            return f"says '{phrase}', which the knowledge base does not know"
        said.setdefault(attribute, set()).add(value)
    if said != {a: set(v) for a, v in row["attributes"].items() if v}:
        return "has attributes that differ from its prompt; change both or neither"
    reason = base.impossible(row["attributes"])
    return f"is impossible: {reason}" if reason else None
