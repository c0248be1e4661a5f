"""Metrics of a classifier's scores: discrimination, calibration, and their intervals.

Everything here is to be measured on real images of patients that neither the classifier nor the generator has seen.
"""

from math import erfc, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from tigergen.evaluation.metric_sets import Array, MetricError


def _scores(y: ArrayLike, p: ArrayLike) -> tuple[NDArray[np.bool_], Array]:
    labels, scores = np.asarray(y), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise MetricError(f"labels of shape {labels.shape} and scores of shape {scores.shape} do not pair up.")
    if not np.isin(labels, (0, 1)).all():
        raise MetricError("labels must be 0 or 1.")
    if not np.isfinite(scores).all():
        raise MetricError("the scores hold NaN or infinite values.")
    return labels.astype(bool), scores


def _two_classes(y: NDArray[np.bool_]) -> None:
    if y.all() or not y.any():
        raise MetricError("only one class is present; AUROC is not defined.")


def _placements(y: NDArray[np.bool_], p: Array) -> tuple[Array, Array]:
    """Structural components V10 (positives) and V01 (negatives) by mid-ranks (Sun and Xu 2014, eq. 5-6)."""
    pos, neg = p[y], p[~y]
    m, n = len(pos), len(neg)
    ranks = rankdata(np.concatenate([pos, neg]))
    v10 = (ranks[:m] - rankdata(pos)) / n
    v01 = 1.0 - (ranks[m:] - rankdata(neg)) / m
    return v10, v01


def _variance(v: Array) -> float:
    return float(v.var(ddof=1)) if len(v) > 1 else 0.0


def weighted_aurocs(y: NDArray[np.bool_], p: Array, weights: Array) -> Array:
    """AUROC of one score vector under each row of case weights [R, N]; ties count half. NaN where a class has none."""
    order = np.argsort(p, kind="stable")
    _, start = np.unique(p[order], return_index=True)
    w = weights[:, order]
    pos = np.add.reduceat(w * y[order], start, axis=1)
    neg = np.add.reduceat(w * ~y[order], start, axis=1)
    below = np.cumsum(neg, axis=1) - neg
    with np.errstate(invalid="ignore", divide="ignore"):
        return (pos * (below + 0.5 * neg)).sum(1) / (pos.sum(1) * neg.sum(1))


def cluster_weights(groups: ArrayLike, repeats: int, rng: np.random.Generator) -> Array:
    """Bootstrap case weights [repeats, N]: whole groups (patients) are drawn with replacement."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    k = int(index.max()) + 1
    draws = rng.multinomial(k, np.full(k, 1.0 / k), size=repeats)
    return draws[:, index].astype(np.float64)


def percentile_interval(draws: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled figures [repeats]; those that are NaN do not count."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auroc(
    y: ArrayLike, p: ArrayLike, groups: ArrayLike | None = None, seed: int = 0, level: float = 0.95
) -> dict[str, float | tuple[float, float]]:
    """Area under the ROC curve with DeLong's interval and a bootstrap interval over whole patients.

    AUROC = P(p+ > p-) + P(p+ = p-) / 2; variance = var(V10) / m + var(V01) / n (DeLong et al. 1988, eq. 5). Images of
    one patient are not independent: give `groups` (patient ids), or each image counts as its own.

    Higher is better; .5 is chance; no units. Variance by mid-ranks (Sun and Xu 2014), so that ties count half.

    Args: y labels 0/1 [N]; p scores [N], higher for class 1; groups [N]; level of both intervals.
    Returns: auroc, variance, ci (DeLong, normal), ci_bootstrap (2,000 cluster resamples, percentiles), n, groups.
    Raises:
        MetricError: one class only, NaN, shapes that do not pair.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])["auroc"]
    0.75
    """
    labels, scores = _scores(y, p)
    _two_classes(labels)
    v10, v01 = _placements(labels, scores)
    value = float(v10.mean())
    variance = _variance(v10) / len(v10) + _variance(v01) / len(v01)
    half = float(ndtri(0.5 + level / 2)) * sqrt(variance)
    clusters = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if len(clusters) != len(labels):
        raise MetricError(f"{len(clusters)} groups for {len(labels)} scores.")
    weights = cluster_weights(clusters, 2000, np.random.default_rng(seed))
    draws = weighted_aurocs(labels, scores, weights)
    low, high = percentile_interval(draws, level)
    return {
        "auroc": value,
        "variance": variance,
        "ci": (max(0.0, value - half), min(1.0, value + half)),
        "ci_bootstrap": (float(low), float(high)),
        "n": float(len(labels)),
        "groups": float(len(np.unique(clusters))),
    }


def delong_test(y: ArrayLike, p_a: ArrayLike, p_b: ArrayLike) -> float:
    """Two-sided p-value that two scores on the same cases have equal AUROC (DeLong et al. 1988, paired).

    z = (A_a - A_b) / sqrt(var(V10_a - V10_b) / m + var(V01_a - V01_b) / n), normal. It takes cases as independent: of
    patients with several images it says too little doubt; compare intervals over patients as well.

    Args: y labels 0/1 [N]; p_a, p_b scores [N].
    Raises:
        MetricError: one class only, NaN, shapes that do not pair.

    >>> round(delong_test([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6], [4, 2, 6, 3, 5, 1]), 4)
    0.0253
    """
    labels, a = _scores(y, p_a)
    _, b = _scores(y, p_b)
    _two_classes(labels)
    a10, a01 = _placements(labels, a)
    b10, b01 = _placements(labels, b)
    variance = _variance(a10 - b10) / len(a10) + _variance(a01 - b01) / len(a01)
    difference = float(a10.mean() - b10.mean())
    if variance == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return erfc(abs(difference) / sqrt(2.0 * variance))


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927).

    (s + z^2/2n -+ z sqrt(s(1-s)/n + z^2/4n^2)) / (1 + z^2/n), s the share, z the normal quantile of `level`.

    Raises:
        MetricError: n < 1 or successes outside 0..n.

    >>> tuple(round(v, 3) for v in wilson(8, 10))
    (0.49, 0.943)
    """
    if n < 1 or not 0 <= successes <= n:
        raise MetricError(f"{successes} of {n} is not a proportion.")
    z = float(ndtri(0.5 + level / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def confusion(y: ArrayLike, p: ArrayLike, threshold: float) -> dict[str, float | tuple[float, float]]:
    """Counts and rates at p >= threshold, each rate with its 95 % Wilson interval; choose the threshold on validation.

    sensitivity = tp / (tp + fn), specificity = tn / (tn + fp), accuracy = (tp + tn) / N; higher is better, 0..1.
    Accuracy follows the share of the classes: always calling the larger one reaches that share.

    Args: y labels 0/1 [N]; p scores [N].
    Raises:
        MetricError: one class only, NaN, shapes that do not pair.

    >>> found = confusion([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], threshold=0.5)
    >>> found["tp"], found["fp"], found["sensitivity"]
    (1, 1, 0.5)
    """
    labels, scores = _scores(y, p)
    _two_classes(labels)
    called = scores >= threshold
    tp, fn = int((called & labels).sum()), int((~called & labels).sum())
    fp, tn = int((called & ~labels).sum()), int((~called & ~labels).sum())
    return {
        "tp": tp, "fp": fp, "tn": tn, "fn": fn,
        "sensitivity": tp / (tp + fn), "sensitivity_ci": wilson(tp, tp + fn),
        "specificity": tn / (tn + fp), "specificity_ci": wilson(tn, tn + fp),
        "accuracy": (tp + tn) / len(labels), "accuracy_ci": wilson(tp + tn, len(labels)),
    }  # fmt: skip


def _probabilities(y: ArrayLike, p: ArrayLike) -> tuple[NDArray[np.int64], Array]:
    """Labels [N] and probabilities [N, C] of all classes; binary ones [N] are of class 1."""
    chances = np.asarray(p, dtype=np.float64)
    if chances.ndim == 2:
        labels = np.asarray(y)
        if labels.shape != chances.shape[:1] or not np.isin(labels, np.arange(chances.shape[1])).all():
            raise MetricError(f"labels of shape {labels.shape} must be 0..{chances.shape[1] - 1}, one a row.")
        if not np.isfinite(chances).all() or np.abs(chances.sum(1) - 1.0).max(initial=0.0) > 1e-4:
            raise MetricError("the probabilities of a row must sum to 1; give them after the softmax.")
    else:
        labels, scores = _scores(y, p)
        chances = np.stack([1.0 - scores, scores], axis=1)
    if len(chances) == 0 or chances.min() < 0.0 or chances.max() > 1.0:
        raise MetricError("calibration needs probabilities between 0 and 1.")
    return labels.astype(np.int64), chances


def brier(y: ArrayLike, p: ArrayLike) -> dict[str, float]:
    """Brier score: mean squared error of probabilities; lower is better.

    `sum` = 1/N sum_i sum_c (p_ic - [y_i = c])^2, over all classes (0..2, Brier 1950); `half` of it (0..1) is what is
    usual for two classes. The two differ by a factor of two: say which.

    Args: y labels [N]; p probabilities of class 1 [N], or of all classes [N, C] with labels 0..C-1.
    Raises:
        MetricError: values outside 0..1, rows that do not sum to 1, NaN, shapes that do not pair.

    >>> {name: round(value, 3) for name, value in brier([1, 0], [0.8, 0.4]).items()}
    {'sum': 0.2, 'half': 0.1}
    """
    labels, chances = _probabilities(y, p)
    total = float(((chances - np.eye(chances.shape[1])[labels]) ** 2).sum(1).mean())
    return {"sum": total, "half": total / 2.0}


def expected_calibration_error(y: ArrayLike, p: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins (lower, upper]; 0..1, lower is better.

    sum_b |b|/N |mean(hit in b) - mean(p in b)| (Guo et al. 2017, eq. 3). Two classes: p of class 1 and hit = y; more:
    p of the most probable class and hit = it is the right one. The value depends on `bins` and, for small N, is biased
    upwards: state both.

    Args: y labels [N]; p probabilities of class 1 [N], or of all classes [N, C] with labels 0..C-1.
    Raises:
        MetricError: values outside 0..1, rows that do not sum to 1, NaN, shapes that do not pair, bins below 1.

    >>> round(expected_calibration_error([1, 1, 0, 0], [0.9, 0.7, 0.2, 0.2]), 3)
    0.2
    """
    labels, chances = _probabilities(y, p)
    if bins < 1:
        raise MetricError(f"{bins} bins; at least one is needed.")
    if np.ndim(p) == 2:
        said, scores = chances.argmax(1), chances.max(1)
        hits = said == labels
    else:
        hits, scores = labels == 1, chances[:, 1]
    index = np.clip(np.ceil(scores * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=hits - scores, minlength=bins)
    return float(np.abs(gap).sum() / len(scores))
