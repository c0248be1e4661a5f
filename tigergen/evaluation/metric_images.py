"""Metrics of two images of the same scene, in pixels.

A pair must be defined before it is measured: a generated image and the real one whose layout it was given. A high value
then says that the layout is kept, and also that the image may be a copy; unrelated images give a low one whatever their
quality.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dctn
from scipy.ndimage import correlate, gaussian_filter

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

    (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)), c = (K L)^2, L the data range. Higher is
    more alike, -1..1. Source: Wang et al. 2004, eq. 13 with their settings: Gaussian window 11 x 11, sigma 1.5,
    K = (.01, .03), population covariance, mean over the pixels whose window lies inside the image.

    Raises:
        MetricError: unequal shapes or types, NaN, floats outside 0..1, or an image smaller than the window.

    >>> ramp = np.tile(np.linspace(0, 1, 32), (32, 1))
    >>> round(ssim(ramp, ramp), 6), ssim(ramp, ramp[:, ::-1]) < 0
    (1.0, True)
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


# Directional high-pass kernels of Liu et al. 2012: horizontal, two diagonals, vertical.
_GRADIENTS = np.zeros((4, 5, 5))
_GRADIENTS[0, 1], _GRADIENTS[0, 3] = (1, 3, 8, 3, 1), (-1, -3, -8, -3, -1)
_GRADIENTS[1] = ((0, 0, 1, 0, 0), (0, 8, 3, 0, 0), (1, 3, 0, -3, -1), (0, 0, -3, -8, 0), (0, 0, -1, 0, 0))
_GRADIENTS[2], _GRADIENTS[3] = _GRADIENTS[1, :, ::-1], _GRADIENTS[0].T
_MASKING, _LUMINANCE = 200.0, 0.1


def gradient_similarity(a: ArrayLike, b: ArrayLike) -> float:
    """Gradient similarity of two gray images [H, W], mean over the pixels; 1 is equal, higher is more alike.

    g = largest |mean of the 5 x 5 block times kernel| over four directions; R = |g_x - g_y| / max(g_x, g_y);
    K = 200 / max(g_x, g_y); structure s = (2 (1 - R) + K) / (1 + (1 - R)^2 + K); luminance e = 1 - ((x - y) / L)^2;
    value = (1 - W) s + W e with W = 0.1 s. Grey levels are on 0..255 (other ranges are scaled to it). Pixels whose
    block leaves the image are not counted.
    Source: Liu, Lin and Narwaria 2012 (IEEE TIP 21(4), online 2011). The Tiger paper cites it for its "GS", but
    describes and reports what `geometry_score` measures: two sets' topology, lower is better.

    Raises:
        MetricError: unequal shapes or types, NaN, floats outside 0..1, or an image smaller than a block.

    >>> ramp = np.tile(np.linspace(0, 1, 16), (16, 1))
    >>> gradient_similarity(ramp, ramp), round(gradient_similarity(ramp, ramp / 2), 3)
    (1.0, 0.971)
    """
    x, y, top = _image_pair(a, b)
    if min(x.shape) < 5:
        raise MetricError(f"an image of {x.shape} pixels is smaller than the 5 x 5 block.")
    x, y = x * (255.0 / top), y * (255.0 / top)

    def gradient(v: Array) -> Array:
        return np.max([np.abs(correlate(v, kernel))[2:-2, 2:-2] for kernel in _GRADIENTS / 25.0], axis=0)

    gx, gy = gradient(x), gradient(y)
    largest = np.maximum(gx, gy)
    flat = largest == 0.0  # no gradient on either side: the structure is the same
    largest[flat] = 1.0
    kept, masking = 1.0 - np.abs(gx - gy) / largest, _MASKING / largest
    structure = (2.0 * kept + masking) / (1.0 + kept**2 + masking)
    luminance = 1.0 - ((x - y)[2:-2, 2:-2] / 255.0) ** 2
    weight = _LUMINANCE * structure
    return float(((1.0 - weight) * structure + weight * luminance).mean())


def phash(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The 64 bits of the perceptual hash of a gray image uint8 [H, W] (see `phash_distance`)."""
    from PIL import Image

    small = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS)
    low = dctn(np.asarray(small, np.float64))[:8, :8]
    return (low > np.median(low)).ravel()


def phash_distance(a: ArrayLike, b: ArrayLike) -> int:
    """Bits (0..64) in which the perceptual hashes of two gray images uint8 [H, W] differ; 0 is alike, 32 is chance.

    Each image, of any size, becomes 32 x 32 (Lanczos); a bit is one of its 8 x 8 lowest cosine coefficients being above
    their median (Zauner 2010; the `phash` of imagehash). A mirrored or shifted copy is far away: this is no copy check.
    It is the published hash; the one stored of ingested images takes signs, so that it can be searched for mirrors.

    Raises:
        MetricError: not 8-bit gray images.

    >>> ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    >>> phash_distance(ramp, ramp)
    0
    """
    x, y = np.asarray(a), np.asarray(b)
    if any(v.ndim != 2 or v.dtype != np.uint8 or v.size == 0 for v in (x, y)):
        raise MetricError(f"images of shapes {x.shape} and {y.shape}, {x.dtype} and {y.dtype}; 8-bit gray is needed.")
    return int((phash(x) != phash(y)).sum())


def pearson(a: ArrayLike, b: ArrayLike, where: ArrayLike | None = None) -> float:
    """Pearson correlation (-1..1) of two arrays of one shape, over the true elements of `where`.

    sum (x - m_x)(y - m_y) / sqrt(sum (x - m_x)^2 sum (y - m_y)^2).

    Raises:
        MetricError: unequal shapes, fewer than two elements, or a constant array.

    >>> round(pearson([1, 2, 3], [2, 4, 6]), 9)
    1.0
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

    >>> dice([1, 1, 0, 0], [1, 0, 1, 0])
    0.5
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape:
        raise MetricError(f"masks of shapes {x.shape} and {y.shape} cannot be compared.")
    total = int(x.sum()) + int(y.sum())
    return 1.0 if total == 0 else 2.0 * int((x & y).sum()) / total
