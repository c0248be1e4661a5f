"""Conditions of one frame: nodule mask, Sobel map of the background, and image-quality words.

`build` is the one function that training and sampling share, so that a model never meets a condition at sampling time
that was made in another way. The paper's x_FG is the nodule mask and x_BG the Sobel map of the region outside the
nodule (READING: "conditions").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.images.sector import core, sector

# Smoothing before Sobel, in pixels of the target grid. Light on purpose: the local energy of the speckle follows the
# tissue's brightness, so a map that keeps it tells the generator how bright each organ is, not only where it ends. On
# 150 DDTI frames at 64 px a linear model on 13 x 13 neighbours explains .74 of the smoothed background's variance from
# this map, .64 at .6, .50 at 1.0, and .55 from Sobel taken on the already reduced frame.
SMOOTHING = 0.3
# Grey levels a target pixel that map to 255. A fixed number: a per-image maximum would make the same edge look
# different in two frames, and differ between a training frame and a moved nodule at sampling time. About .4 % of the
# pixels of DDTI and of simulated frames exceed it.
FULL_SCALE = 80.0
# The blanked region reaches this far beyond the mask, in parts of the frame's side: a nodule's halo and capsule
# belong to the foreground.
BLANK_MARGIN = 0.015
# Free room around the nodule, in parts of its bounding box, that cropping to a square must leave.
CROP_MARGIN = 0.1

# Side on which image quality is measured, so that thresholds do not depend on the frame's size.
QUALITY_SIDE = 256
# A gradient of this many grey levels a pixel counts as detail.
DETAIL_GRADIENT = 8.0


@dataclass(frozen=True)
class Conditions:
    """A frame and its conditions on one square grid: `image` uint8, `mask` uint8 of 0 and 1, `sobel` uint8; [s, s]."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    sobel: NDArray[np.uint8]


def build(image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int) -> Conditions:
    """Return the frame, its nodule mask and its background Sobel map on a `size` x `size` grid.

    `image` is uint8 [H, W], `mask` bool [H, W]; the aspect ratio is kept (crop and, only if the nodule needs it, pad
    with black). The Sobel map does not depend on any pixel inside the mask. Raises ValueError for other shapes or
    types: such arrays are a caller's mistake, not a user's.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or mask.shape != image.shape or size < 8:
        raise ValueError("build needs a uint8 frame [H, W], a mask of the same shape and size >= 8")
    mask = mask.astype(bool)
    top, left, side = square(mask)
    sobel = background_edges(image, mask, target_pixel=side / size)
    small_mask = _resize(_window(mask.astype(np.float32), top, left, side), size)
    # Area and threshold; a nodule smaller than half a pixel keeps the pixel it covers most.
    level = min(0.5, float(small_mask.max())) if mask.any() else 0.5
    return Conditions(
        image=_to_uint8(_resize(_window(image.astype(np.float32), top, left, side), size)),
        mask=(small_mask >= level).astype(np.uint8),
        sobel=_to_uint8(_resize(_window(sobel, top, left, side), size) * (255.0 / FULL_SCALE)),
    )


def square(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return (top, left, side) of the square window: the short side's, larger only if the nodule needs more room.

    The window sits at the frame's centre, moved by no more than it takes to hold the nodule and a margin of
    `CROP_MARGIN`; top and left are negative where the window reaches beyond the frame.
    """
    height, width = mask.shape
    side = min(height, width)
    if not mask.any():
        return (height - side) // 2, (width - side) // 2, side
    spans = []
    for axis, length in ((1, height), (0, width)):
        hits = np.flatnonzero(mask.any(axis=axis))
        first, stop = int(hits[0]), int(hits[-1]) + 1
        room = round(CROP_MARGIN * (stop - first))
        spans.append((max(0, first - room), min(length, stop + room), length))
    side = max(side, *(stop - first for first, stop, _ in spans))
    starts = []
    for first, stop, length in spans:
        start = (length - side) // 2
        starts.append(min(first, max(start, stop - side)) if side < length else start)
    return starts[0], starts[1], side


def background_edges(image: NDArray[np.uint8], mask: NDArray[np.bool_], target_pixel: float) -> NDArray[np.float32]:
    """Return the Sobel magnitude [H, W] of the smoothed frame, in grey levels a target pixel, zero at the nodule.

    `target_pixel` is the side of one pixel of the final grid in pixels of this frame. The map is made at the frame's
    own resolution and reduced afterwards: there the blanked margin covers the reach of the two filters exactly, so
    that no grey level from inside the nodule gets into the background condition.
    """
    sigma = SMOOTHING * max(1.0, target_pixel)
    radius = int(np.ceil(3 * sigma))
    kernel = (2 * radius + 1, 2 * radius + 1)
    smooth = cv2.GaussianBlur(image.astype(np.float32), kernel, sigma, borderType=cv2.BORDER_REFLECT_101)
    edges = sobel_magnitude(np.asarray(smooth, dtype=np.float32)) * np.float32(target_pixel)
    if mask.any():
        reach = max(radius + 1, round(BLANK_MARGIN * max(mask.shape)))
        edges[dilate(mask, reach)] = 0.0
    return edges


def sobel_magnitude(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return |gradient| [H, W] in grey levels a pixel: the 3 x 3 Sobel pair, each divided by its gain of 8."""
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REFLECT_101)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.magnitude(gx, gy), dtype=np.float32)


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return every pixel within a square of `radius` pixels around a mask pixel (the filters' reach is a square)."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel), dtype=bool)


def _window(array: NDArray[np.float32], top: int, left: int, side: int) -> NDArray[np.float32]:
    """Cut a square window; what lies outside the array is zero."""
    height, width = array.shape
    out = np.zeros((side, side), dtype=np.float32)
    y0, y1, x0, x1 = max(0, top), min(height, top + side), max(0, left), min(width, left + side)
    out[y0 - top : y1 - top, x0 - left : x1 - left] = array[y0:y1, x0:x1]
    return out


def _resize(array: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Area average when shrinking; bilinear when growing, where an area average would give blocks."""
    if array.shape == (size, size):
        return array
    how = cv2.INTER_AREA if array.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (size, size), interpolation=how), dtype=np.float32)


def _to_uint8(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(array), 0, 255).astype(np.uint8)


def quality_scores(image: NDArray[np.uint8]) -> dict[str, float]:
    """Measure definition, detail and brightness of a uint8 frame [H, W].

    definition: variance of the Laplacian, in squared grey levels, scaled by nothing; detail: share of the sector's
    pixels whose gradient exceeds `DETAIL_GRADIENT` grey levels a pixel; brightness: mean grey level of the sector.
    All on a frame whose long side is `QUALITY_SIDE` pixels and within the insonified sector.
    """
    height, width = image.shape
    scale = QUALITY_SIDE / max(height, width)
    shape = (max(8, round(width * scale)), max(8, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    frame = np.asarray(cv2.resize(image, shape, interpolation=how), dtype=np.float32)
    inside = sector(frame.astype(np.uint8))
    if not inside.any():
        return {"definition": 0.0, "detail": 0.0, "brightness": 0.0}
    inner = core(inside)
    laplacian = cv2.Laplacian(frame, cv2.CV_32F)
    return {
        "definition": float(laplacian[inner].var()),
        "detail": float((sobel_magnitude(frame)[inner] > DETAIL_GRADIENT).mean()),
        "brightness": float(frame[inside].mean()),
    }


def quality_words(
    image: NDArray[np.uint8], base: Any, thresholds: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    """Return one phrase each for definition, detail and brightness of a uint8 frame [H, W], from the pixels alone.

    The phrases are those of `base.quality`, low to high; `thresholds` (default: the workspace defaults) holds one cut
    fewer than there are phrases for each word. The paper takes these background words from the image, not from the
    report (READING: "BG prompt").
    """
    if thresholds is None:
        from tigerdata.workspace import DEFAULT_SETTINGS

        thresholds = DEFAULT_SETTINGS["quality"]
    scores = quality_scores(image)
    words = []
    for name, phrases in base.quality.items():
        cuts = list(thresholds[name])
        if len(cuts) != len(phrases) - 1 or cuts != sorted(cuts):
            raise UserError(f"Setting quality.{name} needs {len(phrases) - 1} rising numbers; mend tiger.toml.")
        words.append(phrases[int(np.searchsorted(cuts, scores[name], side="right"))])
    return words
