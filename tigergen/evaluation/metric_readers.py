"""Metrics of readers: agreement of many on one scale, and two readings of the same cases."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from tigergen.evaluation.metric_sets import MetricError


def fleiss_kappa(ratings: ArrayLike) -> float:
    """Agreement of m readers on nominal categories beyond chance (Fleiss 1971); 1 is full, 0 is chance, below 0 less.

    kappa = (P - P_e) / (1 - P_e); P = mean over cases of sum_j n_ij (n_ij - 1) / (m (m - 1)), n_ij readers that put
    case i into category j; P_e = sum_j p_j^2, p_j the share of all ratings in j. Low prevalence lowers it at equal
    agreement (report the share of agreeing pairs P beside it).

    Args: ratings [cases, readers]: the category that each reader chose, numbers or words; every reader every case. (A
    table of counts [cases, categories] is something else: it would be read as readers.)
    Raises:
        MetricError: fewer than two readers, no case, a missing rating, or one category only (kappa is 0 / 0).

    >>> fleiss_kappa([["real", "real"], ["generated", "generated"], ["real", "generated"], ["generated", "real"]])
    0.0
    """
    r = np.asarray(ratings)
    if r.ndim != 2 or r.shape[0] < 1 or r.shape[1] < 2:
        raise MetricError(f"ratings of shape {r.shape}; [cases, readers] with two readers or more is needed.")
    missing = np.isnan(r).any() if np.issubdtype(r.dtype, np.floating) else any(v is None for v in r.flat)
    if missing:
        raise MetricError("a rating is missing; every reader must have rated every case.")
    names, codes = np.unique(r.astype(str) if r.dtype == object else r, return_inverse=True)
    if len(names) < 2:
        raise MetricError("all ratings are in one category; agreement beyond chance is not defined.")
    codes = codes.reshape(r.shape)
    counts = np.stack([(codes == j).sum(1) for j in range(len(names))], axis=1)
    m = r.shape[1]
    agreeing = ((counts * (counts - 1)).sum(1) / (m * (m - 1))).mean()
    by_chance = ((counts.sum(0) / counts.sum()) ** 2).sum()
    return float((agreeing - by_chance) / (1.0 - by_chance))


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p-value that two readings of the same cases are right equally often (McNemar 1947).

    p = min(1, 2 P(X <= min(b, c))), X binomial with b + c draws of 1/2; cases that both read alike do not count.

    Args: b cases that only the first reading has right, c cases that only the second has right.
    Raises:
        MetricError: a count that is negative or no whole number, or both 0 (the readings never differ: nothing to
        test).

    >>> mcnemar(0, 5)
    0.0625
    """
    if b != int(b) or c != int(c) or min(b, c) < 0 or b + c == 0:
        raise MetricError(f"{b} and {c} discordant cases; two counts that are not both 0 are needed.")
    return min(1.0, 2.0 * float(binom.cdf(min(b, c), b + c, 0.5)))
