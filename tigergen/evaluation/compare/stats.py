"""What a comparison says: five figures a method with intervals, paired differences to Tiger-F, corrected p-values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kb.errors import UserError
from tigergen.evaluation.metric_classify import cluster_weights, percentile_interval, weighted_aurocs

REPEATS = 2000
FIGURES = ("auroc", "accuracy", "sensitivity", "specificity", "brier")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Predictions of one classifier: labels [N], probabilities [N, K] and patients of val and test."""

    y_val: NDArray[np.int64]
    p_val: Array
    y_test: NDArray[np.int64]
    p_test: Array
    patients: NDArray[Any]

    @classmethod
    def load(cls, path: Path) -> "Scored":
        """Read what `Comparison` wrote; UserError when the file is missing."""
        if not path.is_file():
            raise UserError(f"{path} is missing; run the comparison again, it continues.")
        with np.load(path) as s:
            return cls(s["y_val"], s["p_val"], s["y_test"], s["p_test"], s["patients_test"])


def holm(p: ArrayLike) -> Array:
    """Adjusted p-values by Holm's step-down method: max over j <= i of (m - j + 1) p_(j), at most 1 (Holm 1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    out = np.empty_like(values)
    out[order] = np.minimum(stepped, 1.0)
    return out


def youden(y: ArrayLike, p: ArrayLike) -> float:
    """The threshold with the largest sensitivity + specificity - 1 at p >= threshold (Youden 1950); halfway to the next
    lower score, the lower one of equally good ones."""
    labels, scores = np.asarray(y, dtype=bool), np.asarray(p, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    rise = np.cumsum(labels[order]) / labels.sum() - np.cumsum(~labels[order]) / (~labels).sum()
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    best = ends[len(ends) - 1 - int(np.argmax(rise[ends][::-1]))]
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def figures(one: Scored, positives: Sequence[int], weights: Array) -> dict[str, Array]:
    """The five figures under each row of case weights [R, N].

    Of two classes they are those of class 1 at the threshold that validation gives. Of more, AUROC, sensitivity and
    specificity are means over one class against the rest, and the class of largest probability is called. Brier: half
    the squared distance of probabilities and truth, summed over classes (0 to 1; for two classes (p - y)²).
    """
    y, p = one.y_test, one.p_test
    if len(positives) == 1:
        called = (p[:, 1] >= youden(one.y_val == 1, one.p_val[:, 1])).astype(np.int64)
    else:
        called = p.argmax(1)
    truth = np.eye(p.shape[1])[y]
    total = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        hit = {k: weights @ ((called == k) & (y == k)) / (weights @ (y == k)) for k in positives}
        clear = {k: weights @ ((called != k) & (y != k)) / (weights @ (y != k)) for k in positives}
        return {
            "auroc": np.mean([weighted_aurocs(y == k, p[:, k], weights) for k in positives], axis=0),
            "accuracy": weights @ (called == y).astype(float) / total,
            "sensitivity": np.mean([hit[k] for k in positives], axis=0),
            "specificity": np.mean([clear[k] for k in positives], axis=0),
            "brier": weights @ (((p - truth) ** 2).sum(1) / 2) / total,
        }


def validation_auroc(one: Scored, positives: Sequence[int]) -> float:
    """AUROC on validation, for choosing."""
    even = np.ones((1, len(one.y_val)))
    return float(np.mean([weighted_aurocs(one.y_val == k, one.p_val[:, k], even)[0] for k in positives]))


class Bootstrap:
    """Resampled patients of every fold and resampled seeds, the same for all methods, so that differences are paired.

    A figure of a method is the mean over folds and seeds of each classifier's own. In each repeat patients are drawn
    with replacement within their fold, and seeds are drawn with replacement; figures of folds that then miss a class
    are left out of that repeat.
    """

    def __init__(self, patients: Sequence[NDArray[Any]], seeds: int, seed: int = 0, repeats: int = REPEATS) -> None:
        rng = np.random.default_rng(seed)
        self.weights = [cluster_weights(own, repeats, rng) for own in patients]
        self.picks = rng.integers(seeds, size=(repeats, seeds))

    def of(self, scored: Sequence[Sequence[Scored]], positives: Sequence[int]) -> dict[str, tuple[Array, Array]]:
        """Figure -> (values [folds, seeds], resampled means [repeats]) of predictions [fold][seed]."""
        values: dict[str, list[list[float]]] = {name: [] for name in FIGURES}
        draws: dict[str, list[Array]] = {name: [] for name in FIGURES}
        for own, weights in zip(scored, self.weights, strict=True):
            even = np.ones((1, weights.shape[1]))
            points = [figures(one, positives, even) for one in own]
            moved = [figures(one, positives, weights) for one in own]
            for name in FIGURES:
                values[name].append([float(point[name][0]) for point in points])
                stacked = np.stack([one[name] for one in moved], axis=1)
                draws[name].append(np.take_along_axis(stacked, self.picks, 1).mean(1))
        return {name: (np.array(values[name]), _folds_mean(draws[name])) for name in FIGURES}


def _folds_mean(draws: Sequence[Array]) -> Array:
    """Mean over the folds [repeats]; a repeat in which no fold has a figure is NaN."""
    stacked = np.stack(draws)
    known = np.isfinite(stacked)
    count = known.sum(0)
    out: Array = np.where(count > 0, np.where(known, stacked, 0).sum(0) / np.maximum(count, 1), np.nan)
    return out


def two_sided(draws: Array) -> float:
    """Bootstrap p-value of no difference: twice the smaller share of repeats on one side of 0, each with one more."""
    known = draws[np.isfinite(draws)]
    low, high = (known <= 0).sum(), (known >= 0).sum()
    return float(min(1.0, 2 * (min(low, high) + 1) / (len(known) + 1)))


def summary_row(found: Mapping[str, tuple[Array, Array]]) -> dict[str, Any]:
    """Mean, interval and values of each figure; `per_seed`: AUROC of each seed, mean over folds."""
    row: dict[str, Any] = {
        name: {"mean": float(values.mean()), "ci": list(percentile_interval(draws))}
        for name, (values, draws) in found.items()
    }
    row["per_seed"] = [float(v) for v in found["auroc"][0].mean(0)]
    row["per_fold"] = [float(v) for v in found["auroc"][0].mean(1)]
    return row


def differences(
    found: Mapping[str, Mapping[str, tuple[Array, Array]]], best: str, others: Sequence[str]
) -> list[dict[str, Any]]:
    """Tiger-F minus each other method: mean, interval, p and Holm's p of the AUROC, and the other figures.

    `above`: pairs of fold and seed in which the difference in AUROC is above 0, of `pairs`.
    """
    rows = []
    for name in others:
        row: dict[str, Any] = {"method": name}
        for figure in FIGURES:
            (a, da), (b, db) = found[best][figure], found[name][figure]
            row[figure] = {"difference": float((a - b).mean()), "ci": list(percentile_interval(da - db))}
        (a, da), (b, db) = found[best]["auroc"], found[name]["auroc"]
        row |= {"above": int((a > b).sum()), "pairs": int(a.size), "p": two_sided(da - db)}
        rows.append(row)
    for row, corrected in zip(rows, holm([r["p"] for r in rows]), strict=True):
        row["p_holm"] = float(corrected)
    return rows
