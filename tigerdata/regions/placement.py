"""Placing a nodule mask in a gland: moved, scaled and turned until location and extension are as asked.

The paper (Dai et al. 2025, Methods, location and extension) moves the mask at random with its centroid in the named
part of the gland, and lets its edge meet the gland's upper edge by 0-10 pixels for an extension. Here every position
that satisfies both is found first (a correlation counts the forbidden pixels under the mask, for all positions at
once), and one is drawn from them: the result holds by construction, and no position is preferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.regions import thirds

# By how many pixels of the frame the mask passes the gland's upper edge, least and most. The paper gives 0-10 for all
# extensions together; the grades within are our choice: contact alone, then further with the gravity of the word.
REACH: dict[str, tuple[int, int]] = {
    "abutting_capsule": (0, 0),
    "bulging": (1, 4),
    "capsule_disruption": (2, 7),
    "extrathyroidal": (5, 10),
}
# Scales and turns are drawn around the mask's own; a nodule that does not fit is made smaller, down to this scale.
# Within 15 degrees a taller-than-wide nodule stays one.
SCALES, TURN, SMALLEST, TRIES = (0.85, 1.15), 15.0, 0.5, 6


class CannotPlace(UserError):
    """No position of the mask is as asked; `code` names the reason, for counting.

    Codes: EMPTY_MASK, EMPTY_GLAND, LOCATION_NOT_IN_FRAME, LARGER_THAN_GLAND, LARGER_THAN_THIRD, CANNOT_MEET_EDGE.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"The nodule cannot be placed ({code}): {why}.")
        self.code = code


@dataclass(frozen=True)
class Placed:
    """A placed mask, bool [H, W], and how it came there.

    `angle` in degrees (anticlockwise), `scale` of lengths, `across` and `down` of the centroid as shares of the
    gland's extent, `reach` in pixels beyond the gland's upper edge (0 inside or in contact), `unseen`: location words
    that this view cannot show.
    """

    mask: NDArray[np.bool_]
    angle: float
    scale: float
    across: float
    down: float
    reach: int
    unseen: tuple[str, ...]


def place(
    mask: NDArray[np.bool_],
    gland: NDArray[np.bool_],
    location: Iterable[str] = (),
    extension: str | None = None,
    rng: np.random.Generator | int = 0,
    *,
    plane: str = "longitudinal",
    shows: str | None = None,
) -> Placed:
    """Return a nodule mask at a random place of the gland that is as asked. Masks are bool [H, W] of one shape.

    `location`: values of `nodule_location`; what each means in which plane is said in `regions.thirds`. `extension`:
    None (somewhere inside), "absent" (inside, off the upper edge) or a key of `REACH`: then the mask meets the upper
    edge by that many pixels, and all that is not above this edge stays inside the gland. `shows` is the part of the
    gland in a transverse frame; None lets the gland's own outline say whether both lobes are there.

    Raises CannotPlace (a UserError with a code) when no position is as asked, ValueError for masks of other shapes and
    for an unknown extension, plane or part.
    """
    if mask.shape != gland.shape or mask.ndim != 2:
        raise ValueError("place needs mask and gland of one shape [H, W]")
    if extension not in (None, "absent", *REACH) or shows not in (None, *thirds.SHOWN):
        raise ValueError(f"unknown extension {extension!r} or part {shows!r}")
    if not mask.any():
        raise CannotPlace("EMPTY_MASK", "the mask is empty; choose another")
    if not gland.any():
        raise CannotPlace("EMPTY_GLAND", "the frame has no gland mask; segment it or choose another frame")
    location = (location,) if isinstance(location, str) else tuple(location)
    if shows is None and plane == "transverse" and thirds.shows_both(gland):
        shows = "both"
    asked = thirds.target(location, plane, shows)
    if asked.clash:
        raise CannotPlace("LOCATION_NOT_IN_FRAME", f"{asked.clash}; choose another frame or location")
    rng = np.random.default_rng(rng)
    room = _Room(thirds.main_parts(gland), extension)
    angle, scale = float(rng.uniform(-TURN, TURN)), float(rng.uniform(*SCALES))
    failure = "LARGER_THAN_GLAND"
    for smaller in np.linspace(scale, min(scale, SMALLEST), TRIES):
        patch = transformed(mask, angle, float(smaller))
        found, reason = room.positions(patch, asked)
        failure = reason or failure
        if found.size:
            top, left = (int(v) for v in found[int(rng.integers(len(found)))])
            out = np.zeros_like(gland, dtype=bool)
            out[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
            y, x = thirds.centroid(out)
            return Placed(
                out, angle, float(smaller), room.box.across(x), room.box.down(y), reach(out, gland), asked.unseen
            )
    raise CannotPlace(failure, _WHY[failure])


_WHY = {
    "LARGER_THAN_GLAND": "even at its smallest it is larger than the gland; choose another mask or frame",
    "LARGER_THAN_THIRD": "it fits into the gland, but not with its centroid where it is asked; choose another mask",
    "CANNOT_MEET_EDGE": "it fits into the gland, but cannot meet its upper edge as asked; choose another frame",
}


def transformed(mask: NDArray[np.bool_], angle: float, scale: float) -> NDArray[np.bool_]:
    """Return the mask's pixels alone, turned by `angle` degrees and scaled, cropped to their bounding box.

    Nothing is lost at the frame's edges; a mask that would vanish keeps the pixel it covers most.
    """
    import cv2

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    height, width = tight.shape
    side = int(np.ceil(np.hypot(height, width) * max(scale, 1.0))) + 4
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    turn[:, 2] += ((side - width) / 2, (side - height) / 2)
    moved = np.asarray(cv2.warpAffine(tight, turn, (side, side), flags=cv2.INTER_LINEAR), dtype=np.float32)
    out: NDArray[np.bool_] = np.asarray(moved >= min(0.5, float(moved.max())), dtype=bool)
    rows, columns = np.flatnonzero(out.any(1)), np.flatnonzero(out.any(0))
    return np.asarray(out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def above_edge(gland: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return for every pixel [H, W] how many rows it lies above the gland's uppermost pixel of its column.

    0 at the edge itself, negative below it; a column without gland holds -H: it has no edge to pass.
    """
    height = gland.shape[0]
    present = np.asarray(gland.any(0))
    above = np.asarray(np.argmax(gland, 0))[None, :] - np.arange(height)[:, None]
    return np.where(present[None, :], above, -height).astype(np.int32)


def reach(mask: NDArray[np.bool_], gland: NDArray[np.bool_]) -> int:
    """Return by how many pixels a mask passes the gland's upper edge; 0 when it does not."""
    return max(0, int(above_edge(thirds.main_parts(gland))[mask].max()))


class _Room:
    """Where a mask may lie (`forbidden` elsewhere) and what it must touch."""

    def __init__(self, gland: NDArray[np.bool_], extension: str | None) -> None:
        self.box = thirds.extent(gland)
        above = above_edge(gland)
        self.must: NDArray[np.bool_] | None = None
        if extension in REACH:
            least, most = REACH[str(extension)]
            allowed = gland | ((above > 0) & (above <= most))
            self.must = (above >= least) & (above <= most)
        else:
            allowed = gland & (above < 0) if extension == "absent" else gland
        self.forbidden = ~allowed

    def positions(self, patch: NDArray[np.bool_], asked: thirds.Target) -> tuple[NDArray[np.intp], str | None]:
        """Return the (top, left) corners [K, 2] at which the patch is as asked, or none and the reason."""
        none = np.empty((0, 2), np.intp)
        height, width = self.forbidden.shape
        if patch.shape[0] > height or patch.shape[1] > width:
            return none, "LARGER_THAN_GLAND"
        free = _under(self.forbidden, patch) < 0.5
        if not free.any():
            return none, "LARGER_THAN_GLAND"
        if self.must is not None:
            free &= _under(self.must, patch) > 0.5
            if not free.any():
                return none, "CANNOT_MEET_EDGE"
        y, x = thirds.centroid(patch)
        down = [thirds.Target((0, 1), asked.down, ()).holds(0.5, self.box.down(y + k)) for k in range(free.shape[0])]
        across = [
            thirds.Target(asked.across, (0, 1), ()).holds(self.box.across(x + k), 0.5) for k in range(free.shape[1])
        ]
        free &= np.asarray(down)[:, None] & np.asarray(across)[None, :]
        return np.argwhere(free), None if free.any() else "LARGER_THAN_THIRD"


def _under(region: NDArray[np.bool_], patch: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Number of `region` pixels under the patch for each corner at which it lies in the frame, [H-h+1, W-w+1].

    Counts stay below 2^24 and the transform's error far below a half, so that comparing with .5 is exact.
    """
    import cv2

    return np.asarray(cv2.matchTemplate(region.astype(np.float32), patch.astype(np.float32), cv2.TM_CCORR))
