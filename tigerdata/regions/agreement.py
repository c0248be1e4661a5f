"""How far a nodule mask and what a text says of the nodule agree: 1 together, 0 against each other.

Only what can be compared is in the result; each entry is a number between 0 and 1:

* `size`: the mask's longest extent in mm against the largest stated diameter, as the smaller over the larger. Of three
  diameters a frame shows two, so that the longest it shows is the largest or the second. Where no number is stated,
  the range of small, middle or large. Needs the frame's millimetres a pixel, which only DICOM files and some sets
  know: nothing is guessed from a frame without them.
* `aspect`: taller-than-wide, wider-than-tall or round against height and width of the outline's box, which needs no
  scale. ACR TI-RADS takes the aspect in transverse frames, so longitudinal ones are left out.
* `side`: left or right against the lobe of a transverse frame that shows both (`thirds.shows_both`).
* `pole`: against the third of a longitudinal frame whose gland is not cut by the frame.
* `gland`: the share of the nodule inside the gland mask; a nodule that the text lets out of the gland is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tigerdata.regions import locations, thirds

if TYPE_CHECKING:
    from kb import KnowledgeBase

# A stated pole that misses the mask's third by less than this share of the gland is not held against it: the thirds'
# borders are nobody's measurement.
TOLERANCE = 1 / 6
OUTGOING = ("bulging", "capsule_disruption", "extrathyroidal")


def agreement(
    base: KnowledgeBase,
    nodule: NDArray[np.bool_],
    gland: NDArray[np.bool_] | None,
    attributes: Mapping[str, Sequence[str]],
    sizes_mm: Sequence[float] = (),
    plane: str | None = None,
    mm_per_pixel: float | None = None,
) -> dict[str, float]:
    """Return what agrees how far for a nodule mask that is not empty, bool [H, W]; the module says what the keys are.

    `gland` is None where there is no gland mask, `attributes` and `sizes_mm` are what the text says of the nodule.
    """
    found: dict[str, float] = {}
    if mm_per_pixel:
        size = _size(base, longest(nodule) * mm_per_pixel, attributes.get("diameter", ()), sizes_mm)
        if size is not None:
            found["size"] = size
    if plane != "longitudinal":
        aspect = _aspect(nodule, attributes.get("aspect", ()))
        if aspect is not None:
            found["aspect"] = aspect
    if gland is not None and gland.any() and gland.shape == nodule.shape:
        found |= _place(nodule, gland, set(attributes.get("nodule_location", ())), plane)
        if not set(attributes.get("extension", ())) & set(OUTGOING):
            found["gland"] = float((nodule & gland).sum() / nodule.sum())
    return found


def longest(mask: NDArray[np.bool_]) -> float:
    """Return the longest extent of a mask in pixels, in any direction (Feret diameter), pixel borders included."""
    import cv2

    points = cv2.convexHull(np.argwhere(mask).astype(np.int32))[:, 0].astype(float)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    return float(apart.max()) + 1.0


def _size(base: KnowledgeBase, measured: float, words: Sequence[str], sizes_mm: Sequence[float]) -> float | None:
    stated = sorted((v for v in sizes_mm if v > 0), reverse=True)
    if stated:
        stated = stated[: 2 if len(stated) > 2 else 1]
        return max(min(measured, v) / max(measured, v) for v in stated)
    if not words:
        return None
    entry = base.attributes["diameter"].values[words[0]]
    low, high = entry.from_mm or 0.0, entry.below_mm or np.inf
    if measured < low:
        return measured / low
    return float(min(1.0, high / measured))


def _aspect(mask: NDArray[np.bool_], words: Sequence[str]) -> float | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    ratio = float((rows[-1] + 1 - rows[0]) / (columns[-1] + 1 - columns[0]))
    for word in words:
        if word == "taller_than_wide":
            return min(1.0, ratio)
        if word == "wider_than_tall":
            return min(1.0, 1.0 / ratio)
        if word == "round":
            return min(ratio, 1.0 / ratio)
    return None


def _place(nodule: NDArray[np.bool_], gland: NDArray[np.bool_], words: set[str], plane: str | None) -> dict[str, float]:
    box = thirds.extent(gland)
    across = box.across(thirds.centroid(nodule)[1])
    found: dict[str, float] = {}
    sides, poles = words & {"left", "right"}, words & set(thirds.POLES)
    if plane == "transverse" and len(sides) == 1 and thirds.shows_both(gland):
        found["side"] = float((across >= 0.5) == (sides == {"left"}))
    if plane == "longitudinal" and poles and locations.pole_of(nodule, gland):
        windows = [thirds.POLES[word] for word in poles]
        found["pole"] = float(any(a - TOLERANCE <= across <= b + TOLERANCE for a, b in windows))
    return found
