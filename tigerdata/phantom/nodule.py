"""Geometry of a nodule: diameters in mm and an outline that shows shape, aspect and margin."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Attributes = dict[str, list[str]]

ANGLES = 512
# Longest diameter in mm for each bin of the knowledge base (cuts at 10 and 20 mm). The gaps around the cuts are wider
# than the spread of machine depth (32.5-35.5 mm), so that the bins stay apart in pixels too; the upper end is what a
# frame of that depth can hold.
SIZES_MM = {"small": (8.0, 9.2), "middle": (12.0, 16.2), "large": (20.6, 22.8)}
# Height over width (anteroposterior over transverse).
ASPECTS = {
    "taller_than_wide": (1.45, 1.65),
    "round": (0.97, 1.03),
    "oval": (0.58, 0.68),
    "wider_than_tall": (0.54, 0.66),
}


@dataclass(frozen=True)
class Outline:
    """Star-shaped outline: radius in mm at ANGLES equal steps of angle (0 = +x, growing towards depth)."""

    radius: Array
    width_mm: float
    height_mm: float


def first(attributes: Attributes, name: str, default: str) -> str:
    """First value of an attribute, or `default` when it is not given."""
    values = attributes.get(name)
    return values[0] if values else default


def draw_size(attributes: Attributes, rng: np.random.Generator) -> tuple[float, float]:
    """Width and height in mm of the section of a nodule, by its diameter bin and aspect."""
    low, high = SIZES_MM[first(attributes, "diameter", "middle")]
    longest = rng.uniform(low, high)
    ratio = rng.uniform(*ASPECTS[first(attributes, "aspect", "wider_than_tall")])
    return (longest / ratio, longest) if ratio > 1.0 else (longest, longest * ratio)


def draw_outline(attributes: Attributes, width_mm: float, height_mm: float, rng: np.random.Generator) -> Outline:
    """Outline whose bounding box is exactly `width_mm` x `height_mm`.

    Shape is made of the slow harmonics (2-4), margin of the fast ones: an irregular shape with a smooth margin and a
    regular shape with a jagged margin are different pictures, as they are different words.
    """
    theta = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    a, b = width_mm / 2, height_mm / 2
    radius = 1.0 / np.sqrt((np.cos(theta) / a) ** 2 + (np.sin(theta) / b) ** 2)
    if first(attributes, "shape", "regular") == "irregular":
        radius = radius * (1.0 + _harmonics(theta, (2, 0.07), (3, 0.30), (4, 0.06), rng=rng))
    else:
        radius = radius * (1.0 + _harmonics(theta, (2, 0.02), (3, 0.016), (4, 0.01), rng=rng))
    radius = radius + _margin(theta, attributes.get("margin", []), float(radius.mean()), rng)
    return _fit(theta, radius, width_mm, height_mm)


def _harmonics(theta: Array, *terms: tuple[int, float], rng: np.random.Generator) -> Array:
    total = np.zeros_like(theta)
    for order, size in terms:
        total += size * rng.uniform(0.75, 1.25) * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    return total


def _margin(theta: Array, values: list[str], radius: float, rng: np.random.Generator) -> Array:
    """Displacement of the outline in mm; depths are at least about two pixels of a 64-pixel frame."""
    if "spiculated" in values:
        return max(1.9, 0.34 * radius) * _teeth(theta, int(rng.integers(10, 13)), 0.36, rng)
    if "lobulated" in values:
        lobes = int(rng.integers(8, 11)) / 2.0
        phase = lobes * theta + 0.35 * np.sin(theta + rng.uniform(0, 6.28)) + rng.uniform(0, np.pi)
        return max(1.5, 0.28 * radius) * (np.abs(np.sin(phase)) - 0.6) * _swing(theta, rng)
    if "irregular_margin" in values:
        return max(1.6, 0.28 * radius) * (_teeth(theta, int(rng.integers(11, 15)), 0.55, rng) - 0.4)
    return np.zeros_like(theta)


def _teeth(theta: Array, count: int, width: float, rng: np.random.Generator) -> Array:
    """Triangles of uneven height, width and spacing around the outline, heights about 1."""
    total = np.zeros_like(theta)
    step = 2 * np.pi / count
    for k in range(count):
        centre = (k + rng.uniform(-0.25, 0.25)) * step
        distance = np.abs((theta - centre + np.pi) % (2 * np.pi) - np.pi)
        height, reach = rng.uniform(0.5, 1.2), width * step * rng.uniform(0.7, 1.3)
        total = np.maximum(total, height * np.clip(1.0 - distance / reach, 0.0, 1.0))
    return total


def _swing(theta: Array, rng: np.random.Generator) -> Array:
    """Slow variation of depth around the outline, so that no side looks like the other."""
    return 1.0 + 0.3 * np.cos(theta + rng.uniform(0, 2 * np.pi))


def _fit(theta: Array, radius: Array, width_mm: float, height_mm: float) -> Outline:
    """Stretch and shift an outline to its bounding box and resample it about the centre of the box."""
    x, y = radius * np.cos(theta), radius * np.sin(theta)
    x = (x - (x.max() + x.min()) / 2) * (width_mm / np.ptp(x))
    y = (y - (y.max() + y.min()) / 2) * (height_mm / np.ptp(y))
    angle = np.arctan2(y, x) % (2 * np.pi)
    order = np.argsort(angle)
    fitted = np.interp(theta, angle[order], np.hypot(x, y)[order], period=2 * np.pi)
    return Outline(fitted.astype(np.float32), float(width_mm), float(height_mm))
