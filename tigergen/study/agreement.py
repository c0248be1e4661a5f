"""Statistics of reader studies: exact intervals, agreement beyond chance, groups of readers compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigergen.evaluation.metric_classify import percentile_interval

Counts = NDArray[np.float64]
RESAMPLES = 20_000
BOOTSTRAP = 2_000


def proportion(right: int, n: int, chance: float | None = None) -> dict[str, Any]:
    """Share `right` / `n` with its exact 95 % interval and, against `chance`, the two-sided exact binomial p-value.

    Interval: Clopper and Pearson 1934. Both count answers as independent, which holds for one reader's answers about
    different patients; over several readers see `crossed_interval`. Without an answer share and interval are None.

    >>> {k: round(v, 4) for k, v in proportion(8, 10, 0.5).items()}
    {'n': 10, 'right': 8, 'share': 0.8, 'low': 0.4439, 'high': 0.9748, 'chance': 0.5, 'p': 0.1094}
    """
    from scipy.stats import binomtest

    row: dict[str, Any] = {"n": n, "right": right, "share": None, "low": None, "high": None}
    if n:
        test = binomtest(right, n, 0.5 if chance is None else chance)
        low, high = test.proportion_ci(0.95, method="exact")
        row |= {"share": right / n, "low": float(low), "high": float(high)}
    if chance is not None:
        row |= {"chance": chance, "p": float(test.pvalue) if n else None}
    return row


def cohen_kappa(first: Sequence[Any], second: Sequence[Any]) -> float | None:
    """Agreement of two series of answers beyond chance (Cohen 1960); None when only one answer was given.

    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "a", "b", "a"])
    0.5
    """
    from sklearn.metrics import cohen_kappa_score

    a, b = [str(one) for one in first], [str(one) for one in second]
    return float(cohen_kappa_score(a, b)) if len(set(a) | set(b)) > 1 else None


def crossed_interval(right: Counts, asked: Counts, seed: int) -> tuple[float, float]:
    """95 % interval of a share over readers and questions, both drawn with replacement (percentiles of 2,000 draws).

    `right`, `asked` [readers, questions]: right and all answers of a reader to a question. Answers of one reader, and
    answers about one picture, go together; this interval takes that into account, an exact binomial one does not.
    """
    return percentile_interval(_shares(right, asked, np.random.default_rng(seed), None)[0])


def compare_groups(a: tuple[Counts, Counts], b: tuple[Counts, Counts], seed: int) -> dict[str, Any]:
    """Compare two groups of readers who were asked the same questions; each group is (right, asked) as above.

    Readers are the units: `p` is the exact two-sided permutation test of the difference of mean shares over all ways to
    divide the readers (over 20,000 random ones where there are more; Pitman 1937). With few readers it cannot be small:
    `p_least` is the smallest that these numbers of readers allow. `low`, `high`: 95 % interval of the difference b - a
    with readers and questions drawn with replacement; None with fewer than two readers a group.
    """
    means = [(right.sum(1) / asked.sum(1)) for right, asked in (a, b)]
    difference = float(means[1].mean() - means[0].mean())
    sizes = len(means[0]), len(means[1])
    ways = comb(sum(sizes), sizes[0])
    low: float | None = None
    high: float | None = None
    if min(sizes) > 1:
        rng = np.random.default_rng(seed)
        drawn, questions = _shares(*a, rng, None)
        low, high = percentile_interval(_shares(*b, rng, questions)[0] - drawn)
    return {
        "readers": sizes,
        "means": (float(means[0].mean()), float(means[1].mean())),
        "difference": difference,
        "low": low,
        "high": high,
        "p": _permutation_p(np.concatenate(means), sizes[0], abs(difference), seed),
        "p_least": (2 if sizes[0] == sizes[1] else 1) / ways,
    }


def _permutation_p(means: Counts, first: int, observed: float, seed: int) -> float:
    """Share of divisions into `first` readers and the rest whose means differ by `observed` or more."""
    n = len(means)
    # SciPy's permutation_test would do, but refuses a group of one reader.
    if comb(n, first) <= RESAMPLES:
        groups = np.array(list(combinations(range(n), first)))
    else:
        drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (RESAMPLES, 1)), axis=1)[:, :first]
        groups = np.concatenate([np.arange(first)[None], drawn])
    part = means[groups].sum(1)
    differences = np.abs((means.sum() - part) / (n - first) - part / first)
    return float((differences >= observed - 1e-12).mean())


def _shares(right: Counts, asked: Counts, rng: np.random.Generator, questions: Counts | None) -> tuple[Counts, Counts]:
    """Shares under bootstrap weights of readers and of questions (drawn here unless given); the weights too."""
    readers, n = right.shape
    who = rng.multinomial(readers, np.full(readers, 1 / readers), BOOTSTRAP).astype(np.float64)
    if questions is None:
        questions = rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAP).astype(np.float64)
    total = ((who @ asked) * questions).sum(1)
    return np.divide(
        ((who @ right) * questions).sum(1), total, out=np.full(BOOTSTRAP, np.nan), where=total > 0
    ), questions
