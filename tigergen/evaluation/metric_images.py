"""Metrics of two images of the same scene, in pixels."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from tigergen.evaluation.metric_sets import Array, MetricError


def _image_pair(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array, float]:
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.ndim != 2:
        raise MetricError(f"images of shapes {x.shape} and {y.shape}; two gray images of one size are needed.")
    if x.dtype != y.dtype:
        raise MetricError(f"images of types {x.dtype} and {y.dtype} have different value ranges; convert one.")
    top = float(np.iinfo(x.dtype).max) if np.issubdtype(x.dtype, np.integer) else 1.0
    xf, yf = x.astype(np.float64), y.astype(np.float64)
    if not (np.isfinite(xf).all() and np.isfinite(yf).all()):
        raise MetricError("an image holds NaN or infinite values.")
    if top == 1.0 and (min(xf.min(), yf.min()) < 0.0 or max(xf.max(), yf.max()) > 1.0):
        raise MetricError("floating-point images must lie in 0..1, or the data range is not known.")
    return xf, yf, top


def ssim(a: ArrayLike, b: ArrayLike) -> float:
    """Structural similarity of two gray images [H, W]; 1 is equal. Integer types use their full range, floats 0..1.

    Source: Wang et al. 2004, eq. 13 with their settings: Gaussian window 11 x 11, sigma 1.5, K = (.01, .03), population
    covariance, mean over the pixels whose window lies inside the image.

    Raises:
        MetricError: unequal shapes or types, NaN, floats outside 0..1, or an image smaller than the window.
    """
    x, y, top = _image_pair(a, b)
    border = 5
    if min(x.shape) <= 2 * border:
        raise MetricError(f"an image of {x.shape} pixels is smaller than the 11 x 11 window.")

    def blur(v: Array) -> Array:
        return gaussian_filter(v, 1.5, truncate=3.5)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    s = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(s[border:-border, border:-border].mean())


def pearson(a: ArrayLike, b: ArrayLike, where: ArrayLike | None = None) -> float:
    """Pearson correlation of two arrays of one shape, over the true elements of `where`.

    Raises:
        MetricError: unequal shapes, fewer than two elements, or a constant array.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise MetricError(f"arrays of shapes {x.shape} and {y.shape} cannot be correlated.")
    if where is not None:
        keep = np.asarray(where, dtype=bool)
        x, y = x[keep], y[keep]
    x, y = x.ravel() - x.mean(), y.ravel() - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    if x.size < 2 or norm == 0.0:
        raise MetricError("a correlation needs two elements or more and no constant array.")
    return float(x @ y / norm)


def dice(a: ArrayLike, b: ArrayLike) -> float:
    """Dice overlap 2|A and B| / (|A| + |B|) of two masks; 1 is equal, and two empty masks are equal.

    Raises:
        MetricError: unequal shapes.
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape:
        raise MetricError(f"masks of shapes {x.shape} and {y.shape} cannot be compared.")
    total = int(x.sum()) + int(y.sum())
    return 1.0 if total == 0 else 2.0 * int((x & y).sum()) / total
