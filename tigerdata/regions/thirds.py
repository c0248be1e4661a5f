"""What a location word means in a frame: a window of the gland's extent that the nodule's centroid must lie in.

The paper cuts the thyroid "vertically" into three equal parts, upper, middle and lower pole (Dai et al. 2025, Methods),
and does not say in which view. Our reading keeps the anatomy: poles follow each other from head to foot.

* Longitudinal (and oblique) frame: that axis runs along the image, head to the left, so the thirds are equal widths of
  the gland's extent, upper on the left. `mid_upper` is the window of a third's width around the border between upper
  and middle, `mid_lower` likewise. The extent is that of the gland in the frame; of a lobe longer than the probe the
  rest is not known.
* Transverse frame: the axis is perpendicular to the image. A pole cannot be seen there and asks for nothing. The thirds
  across are medial and lateral ones of a lobe, or right lobe, isthmus and left lobe where the frame shows both.
* Both: anterior and posterior are the upper and the lower third of the gland's depth.

Frames are taken as usually displayed: the patient's right on the left of a transverse image, the head on the left of a
longitudinal one, the skin above. The simulated frames follow the same convention.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tigerdata.regions.masks import SPECK

Window = tuple[float, float]
UPPER, MIDDLE, LOWER = (0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0)
POLES: dict[str, Window] = {
    "upper": UPPER, "middle": MIDDLE, "lower": LOWER, "mid_upper": (1 / 6, 1 / 2), "mid_lower": (1 / 2, 5 / 6),
}  # fmt: skip
DEPTHS: dict[str, Window] = {"anterior": UPPER, "posterior": LOWER}
# Of a frame that shows both lobes, from the left of the image.
SIDES: dict[str, Window] = {"right": UPPER, "isthmus": MIDDLE, "left": LOWER}
SHOWN = ("left", "right", "isthmus", "both")
# Part of each lobe's thickness that a gland between two lobes may have, to be called an isthmus.
WAIST = 0.5


@dataclass(frozen=True)
class Extent:
    """The gland's bounding box in pixels: first row and column, and the numbers of rows and columns."""

    top: int
    left: int
    height: int
    width: int

    def across(self, x: float) -> float:
        """Place of the column coordinate `x` (centre of pixel 0 is 0) in the extent, 0 at its left edge, 1 at right."""
        return (x + 0.5 - self.left) / self.width

    def down(self, y: float) -> float:
        """Place of the row coordinate `y` in the extent, 0 at the top and 1 at the bottom."""
        return (y + 0.5 - self.top) / self.height


@dataclass(frozen=True)
class Target:
    """Where the centroid must lie, as windows of the extent; `unseen` are words that this view cannot show."""

    across: Window
    down: Window
    unseen: tuple[str, ...]
    clash: str | None = None

    def holds(self, across: float, down: float) -> bool:
        """Whether a centroid at these shares of the extent lies in both windows (lower bound in, upper bound out)."""
        inside = self.across[0] <= across < self.across[1] or across == self.across[1] == 1.0
        return inside and (self.down[0] <= down < self.down[1] or down == self.down[1] == 1.0)


def main_parts(gland: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the gland [H, W] without specks: its largest connected part and all that are not tiny beside it."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(gland.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.size < 2:
        return gland.astype(bool)
    kept = np.flatnonzero(areas >= SPECK * areas.max()) + 1
    return np.isin(labels, kept)


def extent(gland: NDArray[np.bool_]) -> Extent:
    """Return the bounding box of a gland that is not empty, bool [H, W]; specks do not count (`main_parts`)."""
    parts = main_parts(gland)
    rows, columns = np.flatnonzero(parts.any(1)), np.flatnonzero(parts.any(0))
    top, left = int(rows[0]), int(columns[0])
    return Extent(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)


def centroid(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return (row, column) of the centroid of a mask that is not empty, in pixel coordinates."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


def shows_both(gland: NDArray[np.bool_]) -> bool:
    """Whether a transverse gland mask [H, W] shows two lobes: two thick parts with a thin or absent bridge between.

    The bridge must lie in the middle third of the extent and be at most `WAIST` as thick as the thinner lobe.
    """
    box = extent(gland)
    thick = main_parts(gland).sum(0)[box.left : box.left + box.width].astype(float)
    third = box.width // 3
    if third < 2:
        return False
    bridge = third + int(np.argmin(thick[third : box.width - third]))
    return bool(thick[bridge] <= WAIST * min(thick[:bridge].max(), thick[bridge:].max()))


def target(words: Iterable[str], plane: str, shows: str | None) -> Target:
    """Return the windows that location words (values of `nodule_location`) ask for in a frame.

    `shows` is the part of the gland in the frame (`SHOWN`), None if it is not known. Words of one kind that exclude
    each other, and a side that the frame does not show, come back as `clash`.
    """
    across, down = (0.0, 1.0), (0.0, 1.0)
    unseen: list[str] = []
    for word in words:
        if word in DEPTHS:
            both = _meet(down, DEPTHS[word])
            if both is None:
                return Target(across, down, tuple(unseen), f"'{word}' contradicts another word")
            down = both
            continue
        wanted = _across(word, plane, shows)
        if wanted is None:
            if word in ("left", "right", "isthmus") and shows in ("left", "right", "isthmus"):
                if word != shows:
                    return Target(across, down, tuple(unseen), f"the frame shows the {shows}, not the {word}")
            else:
                unseen.append(word)
            continue
        both = _meet(across, wanted)
        if both is None:
            return Target(across, down, tuple(unseen), f"'{word}' contradicts another word")
        across = both
    return Target(across, down, tuple(unseen))


def _across(word: str, plane: str, shows: str | None) -> Window | None:
    if plane != "transverse":
        return POLES.get(word)
    if word in SIDES:
        return SIDES[word] if shows == "both" else None
    if word in ("medial", "lateral") and shows in ("left", "right"):
        # The midline is at the right end of a right lobe and at the left end of a left one.
        return LOWER if (word == "medial") == (shows == "right") else UPPER
    return None


def _meet(a: Window, b: Window) -> Window | None:
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if high - low > 1e-9 else None
