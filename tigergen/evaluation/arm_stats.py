"""What the arms say: AUROC with intervals, paired differences, and the verdict that follows from them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import read_json
from tigergen.evaluation.arms import ARMS
from tigergen.evaluation.metric_classify import (
    auroc,
    cluster_weights,
    delong_test,
    percentile_interval,
    weighted_aurocs,
)

REPEATS = 2000
TITLES = {
    "natural": "Natural imbalance, no augmentation",
    "classical": "Classical augmentation",
    "generated": "Classical + generated in every class",
    "target-only": "Classical + generated in the target only",
    "real": "Classical + more real images (ceiling)",
}


def _load(folder: Path, variant: str) -> list[dict[str, NDArray[Any]]]:
    files = sorted((folder / variant).glob("seed-*.npz"), key=lambda p: int(p.stem.split("-")[1]))
    out = []
    for path in files:
        with np.load(path) as stored:
            out.append({name: stored[name] for name in stored.files})
    return out


def validation_means(folder: str | os.PathLike[str], variants: Sequence[str]) -> dict[str, float]:
    """Mean AUROC over seeds on the validation split, for each variant that has predictions."""
    out = {}
    for name in variants:
        seeds = _load(Path(folder), name)
        if seeds:
            values = [_auroc(s["y_val"], s["p_val"]) for s in seeds]
            out[name] = float(np.mean(values))
    return out


def _auroc(y: NDArray[Any], p: NDArray[Any]) -> float:
    return float(weighted_aurocs(y.astype(bool), p, np.ones((1, len(y))))[0])


def _bootstrap(seeds: list[dict[str, NDArray[Any]]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC [repeats, seeds] under resampled patients."""
    y = seeds[0]["y_test"].astype(bool)
    return np.stack([weighted_aurocs(y, s["p_test"], weights) for s in seeds], axis=1)


def summarise(folder: str | os.PathLike[str], seed: int = 0) -> dict[str, Any]:
    """Figures of every arm that was run, its setting chosen on validation.

    The interval of a mean over seeds comes from a two-level bootstrap: patients of the test split and training seeds
    are both resampled; a difference uses the same patients and the same seeds on both sides.

    Returns: target, reference, n_test, arms (list of dicts), differences (list of dicts), verdict (dict).
    Raises:
        UserError: no arm was run, or arms were run with different numbers of seeds or test images.
    """
    place = Path(folder)
    chosen: dict[str, tuple[str, list[dict[str, NDArray[Any]]], dict[str, float]]] = {}
    for arm, variants in ARMS.items():
        means = validation_means(place, list(variants))
        if means:
            best = max(means, key=lambda name: means[name])
            chosen[arm] = (best, _load(place, best), means)
    if not chosen:
        raise UserError(f"{place} holds no predictions; run `tigergen arms` first.")
    first = next(iter(chosen.values()))[1][0]
    count = {len(seeds) for _, seeds, _ in chosen.values()}
    same = all(
        np.array_equal(s["patients_test"], first["patients_test"]) for _, seeds, _ in chosen.values() for s in seeds
    )
    if len(count) > 1 or not same:
        raise UserError(f"the arms in {place} were run with other seeds or another test split; run them again alike.")
    n_seeds = count.pop()
    rng = np.random.default_rng(seed)
    weights = cluster_weights(first["patients_test"], REPEATS, rng)
    picks = rng.integers(n_seeds, size=(REPEATS, n_seeds))
    draws = {a: np.take_along_axis(_bootstrap(s, weights), picks, 1).mean(1) for a, (_, s, _) in chosen.items()}
    arms = [_arm(arm, *chosen[arm], draws[arm]) for arm in chosen]
    pairs = [("generated", "classical"), ("generated", "natural"), ("classical", "natural"), ("real", "generated")]
    pairs += [("generated", "target-only")]
    means = {a["arm"]: a["test"] for a in arms}
    differences = [
        {
            "a": a,
            "b": b,
            "difference": means[a] - means[b],
            "ci": list(percentile_interval(draws[a] - draws[b])),
            "per_seed": [_auroc(x["y_test"], x["p_test"]) - _auroc(z["y_test"], z["p_test"])
                         for x, z in zip(chosen[a][1], chosen[b][1], strict=True)],
            "delong_p": delong_test(first["y_test"], _mean_p(chosen[a][1]), _mean_p(chosen[b][1])),
        }
        for a, b in pairs if a in chosen and b in chosen
    ]  # fmt: skip
    settings = read_json(place / "arms.json")
    out = {**settings, "seeds": n_seeds, "arms": arms, "differences": differences}
    out |= {"n_test": len(first["y_test"]), "n_test_target": int(first["y_test"].sum())}
    out["n_test_patients"] = len(np.unique(first["patients_test"]))
    return out | {"verdict": verdict(out)}


def _mean_p(seeds: list[dict[str, NDArray[Any]]]) -> NDArray[np.float64]:
    return np.mean([s["p_test"] for s in seeds], axis=0)


def _arm(
    arm: str, variant: str, seeds: list[dict[str, NDArray[Any]]], means: dict[str, float], draws: NDArray[np.float64]
) -> dict[str, Any]:
    per_seed = [_auroc(s["y_test"], s["p_test"]) for s in seeds]
    together = auroc(seeds[0]["y_test"], _mean_p(seeds), groups=seeds[0]["patients_test"])
    return {
        "arm": arm,
        "title": TITLES[arm],
        "variant": variant,
        "validation": means,
        "test": float(np.mean(per_seed)),
        "per_seed": per_seed,
        "sd": float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else 0.0,
        "ci": list(percentile_interval(draws)),
        "ensemble": together["auroc"],
        "ensemble_ci_delong": together["ci"],
        "n_train": int(seeds[0]["n_train"]),
        "n_train_target": int(seeds[0]["n_target"]),
    }


def verdict(figures: dict[str, Any]) -> dict[str, Any]:
    """One sentence that the interval of generated - best classical allows, and no more."""
    found = [d for d in figures["differences"] if (d["a"], d["b"]) == ("generated", "classical")]
    if not found:
        return {"kind": "unknown", "text": "Generated images were not compared with classical augmentation."}
    d = found[0]
    low, high = d["ci"]
    values = {a["arm"]: a["test"] for a in figures["arms"]}
    kind = "helps" if low > 0 else "harms" if high < 0 else "not told apart"
    words = {
        "helps": "Generated images help",
        "harms": "Generated images harm",
        "not told apart": "Generated images and classical augmentation are not told apart",
    }[kind]
    text = (
        f"{words}: AUROC of {figures['target']} {values['generated']:.3f} with generated images in every class, "
        f"{values['classical']:.3f} with classical augmentation alone; difference {d['difference']:+.3f} "
        f"(95 % interval {low:+.3f} to {high:+.3f}; {figures['seeds']} seeds, {figures['n_test_patients']} patients)."
    )
    return {"kind": kind, "text": text, "difference": d["difference"], "ci": d["ci"]}
