"""Distances between two sets of feature vectors. Rows are samples, columns are features of one stated extractor."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kb.errors import UserError

Array = NDArray[np.float64]


class MetricError(UserError):
    """The inputs make the number meaningless (too few rows, one class, NaN, unequal shapes)."""


def _features(x: ArrayLike, name: str) -> Array:
    a = np.asarray(x, dtype=np.float64)
    if a.ndim != 2 or a.shape[1] == 0:
        raise MetricError(f"{name} has shape {a.shape}; a set of features is a matrix of rows, one row a sample.")
    if not np.isfinite(a).all():
        raise MetricError(f"{name} holds NaN or infinite values; remove these rows before measuring.")
    return a


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    a, b = _features(x, "the first set"), _features(y, "the second set")
    if a.shape[1] != b.shape[1]:
        raise MetricError(f"the sets have {a.shape[1]} and {b.shape[1]} features; use one extractor for both.")
    return a, b


def _root(c: Array) -> Array:
    """Symmetric square root of a positive semi-definite matrix; tiny negative eigenvalues are rounding."""
    w, v = np.linalg.eigh(c)
    return (v * np.sqrt(np.clip(w, 0.0, None))) @ v.T


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Frechet distance between the Gaussians fitted to two sets; 0 is equal, lower is better.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2)), covariances with N - 1.
    Source: Dowson and Landau 1982; Heusel et al. 2017 (FID is this on Inception features). It is biased upwards for
    small N, so it needs more rows than features in both sets and is only to be read beside a real-against-real value.

    Raises:
        MetricError: NaN, unequal feature counts, or N <= d.
    """
    a, b = _pair(x, y)
    n, d = min(len(a), len(b)), a.shape[1]
    if n <= d:
        raise MetricError(
            f"{n} samples for {d} features: the covariance is singular and the Frechet distance says nothing; "
            "use the kernel distance or more images."
        )
    ca, cb = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    ra = _root(ca)
    cross = np.linalg.eigvalsh(ra @ cb @ ra)
    mean = a.mean(0) - b.mean(0)
    value = mean @ mean + np.trace(ca) + np.trace(cb) - 2.0 * np.sqrt(np.clip(cross, 0.0, None)).sum()
    return float(max(value, 0.0))


def _kernel_sum(a: Array, b: Array, chunk: int) -> float:
    """Sum of the cubic kernel (x.y / d + 1)^3 over all pairs, in chunks of rows."""
    d = a.shape[1]
    return float(sum(((a[i : i + chunk] @ b.T / d + 1.0) ** 3).sum() for i in range(0, len(a), chunk)))


def kernel_distance(x: ArrayLike, y: ArrayLike, chunk: int = 1024) -> float:
    """Unbiased squared MMD with the cubic kernel k(x, y) = (x.y / d + 1)^3; around 0 (also below) when equal.

    sum_{i != j} k(x_i, x_j) / (m(m-1)) + the same of y - 2 mean k(x_i, y_j).
    Source: Gretton et al. 2012, eq. 3; Binkowski et al. 2018 (KID). Unbiased at any N: the number to use for small
    classes.

    Raises:
        MetricError: NaN, unequal feature counts, fewer than two rows.
    """
    a, b = _pair(x, y)
    m, n = len(a), len(b)
    if min(m, n) < 2:
        raise MetricError("the kernel distance needs at least two samples in each set.")
    d = a.shape[1]
    own_a = float((((a * a).sum(1) / d + 1.0) ** 3).sum())
    own_b = float((((b * b).sum(1) / d + 1.0) ** 3).sum())
    within_a = (_kernel_sum(a, a, chunk) - own_a) / (m * (m - 1))
    within_b = (_kernel_sum(b, b, chunk) - own_b) / (n * (n - 1))
    return within_a + within_b - 2.0 * _kernel_sum(a, b, chunk) / (m * n)


def squared_distances(a: Array, b: Array) -> Array:
    """Squared Euclidean distances [len(a), len(b)]."""
    d = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2.0 * a @ b.T
    return np.maximum(d, 0.0)


def _radii(a: Array, k: int, chunk: int) -> Array:
    """Squared distance of each row to its k-th nearest other row."""
    out = np.empty(len(a))
    for i in range(0, len(a), chunk):
        d = squared_distances(a[i : i + chunk], a)
        rows = np.arange(len(d))
        d[rows, i + rows] = 0.0  # rounding must not push a row out of its own place at the front
        out[i : i + chunk] = np.partition(d, k, axis=1)[:, k]
    return out


def density_coverage(real: ArrayLike, fake: ArrayLike, k: int = 5, chunk: int = 1024) -> dict[str, float]:
    """Precision, recall, density and coverage of `fake` against `real` by k-nearest-neighbour balls.

    density = 1/(kM) sum_j #{i: f_j in B(r_i)}, coverage = 1/N #{i: some f_j in B(r_i)} (Naeem et al. 2020, eq. 3-4);
    precision and recall of Kynkaanniemi et al. 2019. B(r_i) reaches to the k-th nearest real neighbour. Higher is
    better; density may pass 1. Sets of equal size are the fair comparison.

    Raises:
        MetricError: NaN, unequal feature counts, fewer than k + 1 rows in a set.
    """
    a, b = _pair(real, fake)
    if k < 1 or min(len(a), len(b)) < k + 1:
        raise MetricError(f"density and coverage with k = {k} need at least {k + 1} samples in each set.")
    ra, rb = _radii(a, k, chunk), _radii(b, k, chunk)
    inside = np.zeros(len(b))
    covered, recalled = 0, 0
    for i in range(0, len(a), chunk):
        d = squared_distances(a[i : i + chunk], b)
        ball = d < ra[i : i + chunk, None]
        inside += ball.sum(0)
        covered += int((d.min(1) < ra[i : i + chunk]).sum())
        recalled += int((d < rb[None]).any(1).sum())
    return {
        "precision": float((inside > 0).mean()),
        "recall": recalled / len(a),
        "density": float(inside.sum() / (k * len(b))),
        "coverage": covered / len(a),
    }
