"""Distances between two sets of feature vectors. Rows are samples, columns are features of one stated extractor.

Every number depends on the extractor, on N and, for small N, on chance: read it beside the same number of real images
against other real images (`tigergen evaluate` prints both).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kb.errors import UserError

Array = NDArray[np.float64]
Rows = NDArray[np.floating]


class MetricError(UserError):
    """The inputs make the number meaningless (too few rows, one class, NaN, unequal shapes)."""


def feature_matrix(x: ArrayLike, name: str) -> Rows:
    """A checked matrix, float32 where it was given as such: a copy in float64 would double the memory."""
    a = np.asarray(x)
    if a.dtype != np.float32:
        a = a.astype(np.float64, copy=False)
    if a.ndim != 2 or a.shape[1] == 0:
        raise MetricError(f"{name} has shape {a.shape}; a set of features is a matrix of rows, one row a sample.")
    if not np.isfinite(a).all():
        raise MetricError(f"{name} holds NaN or infinite values; remove these rows before measuring.")
    return a


def same_features(a: Rows, b: Rows) -> None:
    if a.shape[1] != b.shape[1]:
        raise MetricError(f"the sets have {a.shape[1]} and {b.shape[1]} features; use one extractor for both.")


def feature_sets(**sets: ArrayLike) -> list[Array]:
    """Checked sets of features [N, d] of one extractor, as float64, named in the errors by their keywords.

    Raises:
        MetricError: NaN, not a matrix, or different numbers of features.
    """
    out = [
        feature_matrix(x, f"the {name.replace('_', '-')} set").astype(np.float64, copy=False)
        for name, x in sets.items()
    ]
    for other in out[1:]:
        same_features(out[0], other)
    return out


def _root(c: Array) -> Array:
    """Symmetric square root of a positive semi-definite matrix; tiny negative eigenvalues are rounding."""
    w, v = np.linalg.eigh(c)
    return (v * np.sqrt(np.clip(w, 0.0, None))) @ v.T


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Frechet distance between the Gaussians fitted to two sets; 0 is equal, lower is better; squared feature units.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2)), covariances with N - 1.
    Source: Dowson and Landau 1982; Heusel et al. 2017 (FID is this on Inception features). It is biased upwards for
    small N, so it needs more rows than features in both sets and is only to be read beside a real-against-real value.

    Args: x, y features [N, d] and [M, d].
    Raises:
        MetricError: NaN, unequal feature counts, or N <= d.

    >>> x = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    >>> round(frechet_distance(x, [[a + 3.0, b + 4.0] for a, b in x]), 9)
    25.0
    """
    a, b = feature_sets(first=x, second=y)
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

    sum_{i != j} k(x_i, x_j) / (m(m-1)) + the same of y - 2 mean k(x_i, y_j). Lower is better; units of the kernel.
    Source: Gretton et al. 2012, eq. 3; Binkowski et al. 2018 (KID is this on Inception features; no subsets are drawn
    here, all pairs are used). Unbiased at any N: the number to use for small classes.

    Args: x, y features [N, d] and [M, d].
    Raises:
        MetricError: NaN, unequal feature counts, fewer than two rows.

    >>> kernel_distance([[0.0], [0.0]], [[1.0], [1.0]])
    7.0
    """
    a, b = feature_sets(first=x, second=y)
    m, n = len(a), len(b)
    if min(m, n) < 2:
        raise MetricError("the kernel distance needs at least two samples in each set.")
    d = a.shape[1]
    own_a = float((((a * a).sum(1) / d + 1.0) ** 3).sum())
    own_b = float((((b * b).sum(1) / d + 1.0) ** 3).sum())
    within_a = (_kernel_sum(a, a, chunk) - own_a) / (m * (m - 1))
    within_b = (_kernel_sum(b, b, chunk) - own_b) / (n * (n - 1))
    return within_a + within_b - 2.0 * _kernel_sum(a, b, chunk) / (m * n)


def cmmd(x: ArrayLike, y: ArrayLike, sigma: float = 10.0, scale: float = 1000.0, chunk: int = 1024) -> dict[str, float]:
    """Squared MMD with the Gaussian kernel k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), times `scale`; lower is better.

    `biased` takes the mean of k over all pairs of a set, as the published code does (V-statistic: above 0 by about
    2 scale (1 - mean k) / N for equal distributions); `unbiased` leaves a row's pair with itself out and lies around 0.
    Rows are taken as given: CMMD (Jayasumana et al. 2024) is this on unit vectors of CLIP ViT-L/14@336; on features of
    another extractor it is an MMD with a Gaussian kernel and must not be called CMMD. Source of the estimators: Gretton
    et al. 2012, eq. 3 and 5. No units (`scale` = 1000 makes it readable).

    Args: x, y features [N, d] and [M, d]; sigma in feature units.
    Raises:
        MetricError: NaN, unequal feature counts, fewer than two rows, sigma not above 0.

    >>> {name: round(value, 3) for name, value in cmmd([[0.0], [0.0]], [[10.0], [10.0]]).items()}
    {'biased': 786.939, 'unbiased': 786.939}
    """
    a, b = feature_sets(first=x, second=y)
    m, n = len(a), len(b)
    if min(m, n) < 2:
        raise MetricError("an MMD needs at least two samples in each set.")
    if not sigma > 0:
        raise MetricError(f"sigma is {sigma}; the width of the kernel must be above 0.")

    def total(p: Array, q: Array) -> float:
        rows = range(0, len(p), chunk)
        return float(sum(np.exp(squared_distances(p[i : i + chunk], q) / (-2.0 * sigma**2)).sum() for i in rows))

    xx, yy, xy = total(a, a), total(b, b), total(a, b)
    biased = xx / m**2 + yy / n**2 - 2.0 * xy / (m * n)
    unbiased = (xx - m) / (m * (m - 1)) + (yy - n) / (n * (n - 1)) - 2.0 * xy / (m * n)
    return {"biased": scale * biased, "unbiased": scale * unbiased}


def squared_distances(a: Array, b: Array) -> Array:
    """Squared Euclidean distances [len(a), len(b)]."""
    d = a @ b.T
    d *= -2.0
    d += (a * a).sum(1)[:, None]
    d += (b * b).sum(1)
    return np.maximum(d, 0.0, out=d)
