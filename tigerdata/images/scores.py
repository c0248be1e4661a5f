"""Scores of a clean frame from its pixels alone: 1 is nothing wrong, 0 is as bad as can be.

In the manner of cleanvision (one score a check, a threshold beside it), but measured inside the insonified sector: the
black display around it would make every frame dark and its border every frame sharp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tigerdata.conditions import QUALITY_SIDE
from tigerdata.images import burned_in
from tigerdata.images.sector import core, sector

Frame = NDArray[np.uint8]
# Laplacian variance (squared grey levels, at 256 pixels) that counts as fully sharp. The median of DDTI frames is 770,
# that of BrEaST frames 600; blurred by one pixel they fall to 50.
SHARP = 500.0
# Rows of one grey level at a frame's end are what decoders leave of a file that ends early: grey, not the display's
# black.
FILL_LEVEL = 10
# Side of a letter with the cells around it, in pixels: a single mark is no writing.
LETTER = 16


def sharpness(frame: Frame) -> float:
    """Return the variance of the Laplacian within the sector of a frame [H, W], as a share of `SHARP`, at most 1.

    Frames longer than `QUALITY_SIDE` are reduced to it first; smaller ones are taken as they are, because an
    enlarged frame is always soft.
    """
    import cv2

    scale = QUALITY_SIDE / max(frame.shape)
    if scale < 1:
        shape = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
        frame = np.asarray(cv2.resize(frame, shape, interpolation=cv2.INTER_AREA))
    inner = core(sector(frame))
    if not inner.any():
        return 0.0
    return min(1.0, float(cv2.Laplacian(frame.astype(np.float32), cv2.CV_32F)[inner].var()) / SHARP)


def light(frame: Frame) -> float:
    """Return the 95th percentile of the sector's grey levels over 255: a dark frame is dark where it is brightest."""
    inside = sector(frame)
    return float(np.percentile(frame[inside], 95)) / 255.0 if inside.any() else 0.0


def information(frame: Frame) -> float:
    """Return the entropy of the sector's grey levels over its maximum of 8 bits; 0 for a constant frame."""
    inside = sector(frame)
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


def free_of_text(frame: Frame, threshold: float) -> float:
    """Return 1 for a frame [H, W] without writing, and less the more letters there are: 1 / (1 + n / 4).

    Writing is what cleaning would mask (`burned_in.written`, whose `threshold` this is), wherever it stands; n is its
    area in letters of `LETTER` pixels a side, at the size at which cleaning looks.
    """
    scale = min(1.0, burned_in.WORKING_SIDE / max(frame.shape))
    letters = np.count_nonzero(burned_in.written(frame, threshold)) * scale**2 / LETTER**2
    return 1.0 / (1.0 + letters / 4.0)
