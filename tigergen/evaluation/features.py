"""Hand-crafted texture features: an extractor that needs no weights, no network and gives the same numbers anywhere.

Intensity, gradient, grey-level co-occurrence (Haralick 1973), local binary patterns (Ojala 2002), radial power spectrum
and a depth profile. Distances on them (Frechet radiomics distance, Konz et al. 2024) react strongly: read them beside a
real-against-real value only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from tigergen.evaluation.metric_sets import Array, MetricError

EXTRACTOR = "texture-52/1"
_LEVELS = 16
_OFFSETS = ((0, 1), (1, 0), (0, 2), (2, 0))


def _intensity(x: Array) -> list[Array]:
    """Mean, SD, skewness, kurtosis, five quantiles and entropy of the grey values."""
    flat = x.reshape(len(x), -1)
    mean, sd = flat.mean(1), flat.std(1)
    z = (flat - mean[:, None]) / np.maximum(sd, 1e-9)[:, None]
    bins = np.clip((flat * 32).astype(int), 0, 31)
    counts = np.stack([np.bincount(row, minlength=32) for row in bins]) / flat.shape[1]
    entropy = -(counts * np.log(np.maximum(counts, 1e-12))).sum(1)
    quantiles = np.quantile(flat, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
    return [mean, sd, (z**3).mean(1), (z**4).mean(1), *quantiles, entropy]


def _gradients(x: Array) -> list[Array]:
    """Mean, SD and 90th percentile of the gradient magnitude at two scales."""
    out: list[Array] = []
    for sigma in (0.7, 2.0):
        smooth = gaussian_filter(x, (0, sigma, sigma))
        gy, gx = np.gradient(smooth, axis=(1, 2))
        magnitude = np.hypot(gx, gy).reshape(len(x), -1)
        out += [magnitude.mean(1), magnitude.std(1), np.quantile(magnitude, 0.9, axis=1)]
    return out


def _cooccurrence(x: Array) -> list[Array]:
    """Contrast, correlation, energy and homogeneity of the co-occurrence matrix at four offsets."""
    q = np.clip((x * _LEVELS).astype(int), 0, _LEVELS - 1)
    i, j = np.meshgrid(np.arange(_LEVELS), np.arange(_LEVELS), indexing="ij")
    out: list[Array] = []
    h, w = x.shape[1:]
    for dy, dx in _OFFSETS:
        code = q[:, : h - dy, : w - dx] * _LEVELS + q[:, dy:, dx:]
        p = np.stack([np.bincount(c.ravel(), minlength=_LEVELS**2) for c in code]).astype(np.float64)
        p = (p / p.sum(1, keepdims=True)).reshape(-1, _LEVELS, _LEVELS)
        p = (p + p.transpose(0, 2, 1)) / 2
        mi = (p * i).sum((1, 2))
        var = (p * (i - mi[:, None, None]) ** 2).sum((1, 2))
        cov = (p * (i - mi[:, None, None]) * (j - mi[:, None, None])).sum((1, 2))
        out += [(p * (i - j) ** 2).sum((1, 2)), cov / np.maximum(var, 1e-9), (p * p).sum((1, 2))]
        out.append((p / (1 + (i - j) ** 2)).sum((1, 2)))
    return out


def _binary_patterns(x: Array) -> list[Array]:
    """Histogram of the ten rotation-invariant uniform patterns of the eight neighbours."""
    centre = x[:, 1:-1, 1:-1]
    ring = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    h, w = centre.shape[1:]
    bits = np.stack([x[:, dy : dy + h, dx : dx + w] >= centre for dy, dx in ring])
    changes = (bits != np.roll(bits, 1, axis=0)).sum(0)
    code = np.where(changes <= 2, bits.sum(0), 9).reshape(len(x), -1)
    return list((np.stack([np.bincount(c, minlength=10) for c in code]) / code.shape[1]).T)


def _spectrum(x: Array) -> list[Array]:
    """Log power in six rings of spatial frequency, relative to the total."""
    h, w = x.shape[1:]
    power = np.abs(np.fft.rfft2(x - x.mean((1, 2), keepdims=True))) ** 2
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    edges = (0.0, 0.04, 0.08, 0.14, 0.22, 0.32, 1.0)
    total = power.sum((1, 2)) + 1e-12
    rings = [(power * ((radius > a) & (radius <= b))).sum((1, 2)) for a, b in zip(edges, edges[1:], strict=False)]
    return [np.log(r / total + 1e-9) for r in rings]


def _depth(x: Array) -> list[Array]:
    """Mean grey value of four layers of depth, relative to the image's mean."""
    mean = np.maximum(x.mean((1, 2)), 1e-9)
    return [part.mean((1, 2)) / mean for part in np.array_split(x, 4, axis=1)]


def texture_features(images: ArrayLike, chunk: int = 256) -> Array:
    """Texture vectors [N, 52] of gray images uint8 [N, H, W]; about a millisecond an image at 64 pixels.

    Raises:
        MetricError: not a stack of 8-bit gray images of 16 pixels a side or more.
    """
    stack = np.asarray(images)
    if stack.ndim != 3 or stack.dtype != np.uint8 or min(stack.shape[1:]) < 16:
        raise MetricError(f"images of shape {stack.shape}, type {stack.dtype}; 8-bit gray [N, H, W] is needed.")
    parts = []
    for start in range(0, len(stack), chunk):
        x = stack[start : start + chunk].astype(np.float64) / 255.0
        columns = _intensity(x) + _gradients(x) + _cooccurrence(x) + _binary_patterns(x) + _spectrum(x) + _depth(x)
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts) if parts else np.empty((0, 52))


@dataclass(frozen=True)
class TextureSpace:
    """Texture features z-scored on real training images and clipped to +-5, where the raw ones over-react."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    @classmethod
    def fit(cls, real: ArrayLike) -> "TextureSpace":
        """Learn the scale from real training images uint8 [N, H, W].

        Raises:
            MetricError: fewer than two images.
        """
        f = texture_features(real)
        if len(f) < 2:
            raise MetricError("a texture space needs at least two real images to learn its scale from.")
        return cls(f.mean(0), np.maximum(f.std(0), 1e-6))

    def __call__(self, images: ArrayLike) -> Array:
        """Scaled vectors [N, 52] of uint8 [N, H, W]."""
        return np.clip((texture_features(images) - self.mean) / self.sd, -5.0, 5.0)
