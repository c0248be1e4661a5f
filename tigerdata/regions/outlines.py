"""Regions that other tools write as polygons or run lengths, drawn as masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def fill(outlines: Iterable[Sequence[tuple[float, float]]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels [H, W] whose centre lies in any of the polygons, given by their corners (x, y).

    Pixel (0, 0) covers 0 <= x, y < 1. A polygon that crosses itself is inside by the even-odd rule; what lies outside
    the image is cut off. OpenCV's `fillPoly` also paints the outline itself, which makes a nodule of 20 pixels a tenth
    larger.
    """
    height, width = shape
    mask = np.zeros(shape, dtype=bool)
    rows = np.arange(height) + 0.5
    for outline in outlines:
        x, y = np.asarray(outline, dtype=np.float64).reshape(-1, 2).T
        x1, y1 = np.roll(x, -1), np.roll(y, -1)
        # Each edge crosses the rows between its ends; every crossing turns inside to outside from there on rightwards.
        row, edge = np.nonzero((y[None] <= rows[:, None]) != (y1[None] <= rows[:, None]))
        at = x[edge] + (rows[row] - y[edge]) / (y1[edge] - y[edge]) * (x1[edge] - x[edge])
        turns = np.zeros((height, width + 1), dtype=np.int32)
        np.add.at(turns, (row, np.clip(np.ceil(at - 0.5), 0, width).astype(np.intp)), 1)
        mask |= np.cumsum(turns, axis=1)[:, :width] % 2 == 1
    return mask


def decode_counts(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed string; ValueError for a string that is none.

    Each number is a sequence of 5-bit groups, lowest first, as characters from '0'; bit 6 says that another follows,
    and the highest bit of the last group is the sign. From the fourth number on, it is the difference to the number
    two before.
    """
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            group = ord(text[position]) - 48 if position < len(text) else -1
            if not 0 <= group < 64 or shift > 60:
                raise ValueError("no compressed run lengths")
            value |= (group & 31) << shift
            more = bool(group & 32)
            position, shift = position + 1, shift + 5
            if not more and group & 16:
                value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def run_lengths(counts: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask [H, W] of COCO run lengths: down the columns, outside first; ValueError if they do not fit."""
    lengths = np.asarray(counts, dtype=np.int64)
    height, width = shape
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError("run lengths do not fill the image")
    inside = np.arange(lengths.size) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T
