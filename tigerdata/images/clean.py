"""Cleaning: one file's frame becomes one grey frame a view, without surround, text, rulers, callipers and colour.

Everything later (masks, Sobel maps, quality words, training) sees the clean frames only. What was cut and masked is
recorded in pixels of the original, and the original is never written to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tigerdata.images import burned_in
from tigerdata.images.sector import Box, hull, views

KINDS = ("text", "ruler", "mark", "colour", "surround")
# Outside the field, only what is clearly drawn is blanked: the noise of a dim edge is left as it is.
DRAWN_LEVEL = 40
# So many small signs in a row or column are a ruler; a sign is small below this share of the frame's short side.
RULER_SIGNS = 4
SMALL_SIGN = 0.06
# A sign wider than this many heights is a line of text; what is not is called a mark.
LINE_ASPECT = 1.5


@dataclass(frozen=True)
class View:
    """One cleaned view: `levels` uint8 [h, w], its `box` in the file's pixels, and what was masked in it.

    `masked` maps a kind of `KINDS` to boxes in the file's pixels; `lost` is the share of the field's pixels that is
    filled and no longer measured; `filled` bool [h, w] says which.
    """

    box: Box
    levels: NDArray[np.uint8]
    filled: NDArray[np.bool_]
    masked: dict[str, list[Box]] = field(default_factory=dict)
    lost: float = 0.0

    def crop(self, array: NDArray) -> NDArray:
        """Cut an array of the file's size, such as a mask, as this view was cut."""
        left, top, right, bottom = self.box
        return array[top:bottom, left:right]

    def row(self, image_id: str) -> dict[str, Any]:
        """Return the row of the table `cleaning` for this view."""
        left, top, right, bottom = self.box
        return {
            "image_id": image_id,
            "crop_left": left,
            "crop_top": top,
            "crop_right": right,
            "crop_bottom": bottom,
            "masked": json.dumps(self.masked, sort_keys=True),
            "lost": self.lost,
        }


def clean(
    levels: NDArray[np.uint8],
    rgb: NDArray[np.uint8] | None,
    settings: Mapping[str, Any],
    panel_aspect: float | None = None,
    areas: Sequence[Box] = (),
) -> list[View]:
    """Return the cleaned views of a frame, left to right; at least one.

    `levels` is uint8 [H, W]; `rgb` [H, W, 3] the same frame in colour, None for a grey file; `settings` the table
    `images` of a workspace. `panel_aspect` is what a reader knows of its set (`sector.views`); `areas` are the scanned
    parts that the file itself states: what lies outside them is no scan, whatever it looks like. With `clean = false`
    the frame comes back whole and untouched, and so does a frame on which nothing is found.
    """
    height, width = levels.shape
    if not settings["clean"]:
        return [View((0, 0, width, height), levels, np.zeros(levels.shape, bool))]
    signs = burned_in.written(levels, settings["text_threshold"])
    scanned = hull(levels)
    if np.count_nonzero(signs & scanned) > burned_in.TOO_MUCH * np.count_nonzero(scanned):
        signs[:] = False
    colour = np.zeros_like(signs) if rgb is None else burned_in.coloured(rgb, settings["colour_threshold"])
    # Letters would stretch the box around the scan, and bridge the gap of a panel.
    bare = np.where(signs | colour, 0, levels).astype(np.uint8)
    found = []
    for x, y, x1, y1 in areas or [(0, 0, width, height)]:
        for left, top, right, bottom in views(bare[y:y1, x:x1], panel_aspect):
            box = (x + left, y + top, x + right, y + bottom)
            part = np.s_[box[1] : box[3], box[0] : box[2]]
            found.append(_view(box, levels[part], bare[part], signs[part], colour[part]))
    return found


def _view(
    box: Box,
    levels: NDArray[np.uint8],
    bare: NDArray[np.uint8],
    signs: NDArray[np.bool_],
    colour: NDArray[np.bool_],
) -> View:
    inside = hull(bare)
    if not inside.any():  # nothing broad is lit: no telling what is field and what is not
        inside[:] = True
    near = cv2.dilate(inside.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    surround = ~near & ~signs & ~colour & (levels > DRAWN_LEVEL)
    if surround.any():  # with the soft edge that JPEG and the display give to a letter
        surround = (cv2.dilate(surround.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~near
    holes = signs | colour | surround
    masked = {"colour": _boxes(colour & ~signs, box), "surround": _boxes(surround & ~signs, box)}
    masked |= _named(_boxes(signs, box), min(levels.shape))
    if holes.any():
        levels = fill(levels, holes, inside)
    lost = float(np.count_nonzero(holes & inside) / np.count_nonzero(inside))
    return View(box, levels, holes, {kind: boxes for kind, boxes in masked.items() if boxes}, lost)


def _boxes(mask: NDArray[np.bool_], within: Box) -> list[Box]:
    """Boxes around the connected parts of a view's mask, in the file's pixels, as they are read."""
    if not mask.any():
        return []
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    left, top = within[:2]
    found = (cv2.boundingRect(contour) for contour in contours)
    parts = [(left + x, top + y, left + x + w, top + y + h) for x, y, w, h in found]
    return sorted(parts, key=lambda b: (b[1], b[0]))


def _named(boxes: list[Box], side: int) -> dict[str, list[Box]]:
    """Tell lines of text, rulers (small signs in a row or column) and single marks apart, by their boxes alone."""
    named: dict[str, list[Box]] = {"text": [], "ruler": [], "mark": []}
    small = [b for b in boxes if max(b[2] - b[0], b[3] - b[1]) <= max(12, SMALL_SIGN * side)]
    ruler: set[Box] = set()
    for axis in (0, 1):
        centres = {b: (b[axis] + b[axis + 2]) / 2 for b in small}
        for b in small:
            row = [other for other in small if abs(centres[other] - centres[b]) <= 3]
            if len(row) >= RULER_SIGNS:
                ruler.update(row)
    for b in boxes:
        line = b[2] - b[0] > LINE_ASPECT * (b[3] - b[1])
        named["ruler" if b in ruler else "text" if line else "mark"].append(b)
    return named


def fill(levels: NDArray[np.uint8], holes: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill `holes` of a uint8 frame [H, W] smoothly: from the field within `inside`, from the surround outside it.

    So the field's edge stays where it was. The filling has no speckle, and no edge that a Sobel map would show.
    """
    filled = levels.copy()
    for part in (inside, ~inside):
        gap = holes & part
        if gap.any():
            filled[gap] = np.rint(_smooth(levels, part & ~holes)[gap]).astype(np.uint8)
    return filled


def _smooth(levels: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Interpolate the `known` pixels of [H, W] over the rest: averages of ever larger blocks, then back (push-pull).

    Takes the same time for a comma and for a colour box that fills half of the field; black where nothing is known.
    """
    weight: NDArray = known.astype(np.float32)
    total: NDArray = levels * weight
    pyramid: list[tuple[NDArray, NDArray]] = [(total, weight)]
    while min(weight.shape) > 1 and not weight.all():
        shape = ((weight.shape[1] + 1) // 2, (weight.shape[0] + 1) // 2)
        total, weight = (np.asarray(cv2.resize(a, shape, interpolation=cv2.INTER_AREA)) for a in (total, weight))
        pyramid.append((total, weight))
    total, weight = pyramid.pop()
    mean = total / np.maximum(weight, 1e-6)
    for total, weight in reversed(pyramid):
        coarse = cv2.resize(mean, (weight.shape[1], weight.shape[0]), interpolation=cv2.INTER_LINEAR)
        share = np.minimum(weight, 1)
        mean = total / np.maximum(weight, 1e-6) * share + coarse * (1 - share)
    return np.asarray(mean, dtype=np.float32)
