"""Scores of a clean frame from its pixels alone: 1 is nothing wrong, 0 is as bad as can be.

In the manner of cleanvision (one score a check, a threshold beside it), but measured inside the insonified sector: the
black display around it would make every frame dark and its border every frame sharp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tigerdata import conditions

Frame = NDArray[np.uint8]
# Laplacian variance (squared grey levels, at 256 pixels) that counts as fully sharp. The median of DDTI frames is 770,
# that of BrEaST frames 600; blurred by one pixel they fall to 50.
SHARP = 500.0
# Rows of one grey level at a frame's end are what decoders leave of a file that ends early: grey, not the display's
# black.
FILL_LEVEL = 10


def sharpness(frame: Frame) -> float:
    """Return the variance of the Laplacian within the sector of a frame [H, W], as a share of `SHARP`, at most 1.

    Frames longer than `conditions.QUALITY_SIDE` are reduced to it first; smaller ones are taken as they are, because an
    enlarged frame is always soft.
    """
    import cv2

    scale = conditions.QUALITY_SIDE / max(frame.shape)
    if scale < 1:
        shape = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
        frame = np.asarray(cv2.resize(frame, shape, interpolation=cv2.INTER_AREA))
    inside = conditions.sector(frame)
    core = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0  # the sector's own border is sharp
    core = core if core.any() else inside
    if not core.any():
        return 0.0
    return min(1.0, float(cv2.Laplacian(frame.astype(np.float32), cv2.CV_32F)[core].var()) / SHARP)


def light(frame: Frame) -> float:
    """Return the 95th percentile of the sector's grey levels over 255: a dark frame is dark where it is brightest."""
    inside = conditions.sector(frame)
    return float(np.percentile(frame[inside], 95)) / 255.0 if inside.any() else 0.0


def information(frame: Frame) -> float:
    """Return the entropy of the sector's grey levels over its maximum of 8 bits; 0 for a constant frame."""
    inside = conditions.sector(frame)
    levels = np.bincount(frame[inside] if inside.any() else frame.ravel(), minlength=256).astype(float)
    share = levels[levels > 0] / levels.sum()
    return float(-(share * np.log2(share)).sum()) / 8.0


def complete(frame: Frame) -> float:
    """Return the share of rows above a fill: the block of rows of one and the same grey at the end of a cut file."""
    last = int(frame[-1, 0])
    if last <= FILL_LEVEL:
        return 1.0
    filled = (np.abs(frame.astype(int) - last) <= 1).all(1)[::-1]
    rows = len(filled) if filled.all() else int(np.argmin(filled))
    return 1.0 - rows / len(filled)


def usual_size(frames: list[tuple[int, int]]) -> list[float]:
    """Return for each (width, height) how near its sides are to the set's median ones: the smallest of four ratios."""
    sides = np.asarray(frames, dtype=float).reshape(-1, 2)
    middle = np.median(sides, axis=0) if len(sides) else np.ones(2)
    ratio = np.minimum(sides / middle, middle / sides)
    return [float(v) for v in ratio.min(axis=1)]


def free_of_text(frame: Frame) -> float:
    """Return 1 for a frame without writing outside its sector, and less the more letters there are: 1 / (1 + n / 4).

    Letters are bright parts of the size of writing on the display's black, three or more of them in a row; single
    specks are noise. Writing on tissue is not looked for here.
    """
    import cv2

    height, width = frame.shape
    reach = np.ones((9, 9), np.uint8)
    outside = cv2.dilate(conditions.sector(frame).astype(np.uint8), reach) == 0
    bright = ((frame > 80) & outside).astype(np.uint8)
    _, _, stats, centres = cv2.connectedComponentsWithStats(bright, connectivity=8)
    tall, wide, area = stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_AREA]
    largest = max(8.0, 0.08 * height)
    letters = centres[1:][(tall >= 4) & (tall <= largest) & (wide >= 1) & (wide <= 4 * largest) & (area >= 6)]
    in_row = [y for _, y in letters if (np.abs(letters[:, 1] - y) < largest / 4).sum() >= 3]
    return 1.0 / (1.0 + len(in_row) / 4.0)
