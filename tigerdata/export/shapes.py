"""Masks as polygons, run lengths and boxes: the inverse of `tigerdata.regions.outlines`, with the same coordinates.

Pixel (0, 0) covers 0 <= x, y < 1.
"""

import numpy as np
from numpy.typing import NDArray


def outlines(mask: NDArray[np.bool_]) -> tuple[list[NDArray[np.float64]], bool]:
    """Return the outer outline of each part of a mask [H, W], corners (x, y) [N, 2], and whether a part has a hole.

    The lines follow the edges of pixels, clockwise as seen on a screen: filled again, they give the mask to the pixel
    (holes filled). Parts that touch at a corner only are two parts.
    """
    inside = np.pad(mask.astype(bool), 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each pixel's edge to a pixel outside, walked with the inside on the right: (shift to the neighbour, begin, end).
    for dy, dx, (bx, by), (ex, ey) in (
        (-1, 0, (0, 0), (1, 0)),
        (0, 1, (1, 0), (1, 1)),
        (1, 0, (1, 1), (0, 1)),
        (0, -1, (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(inside & ~np.roll(inside, (-dy, -dx), (0, 1)))
        for y, x in zip((rows - 1).tolist(), (columns - 1).tolist(), strict=True):
            steps.setdefault((x + bx, y + by), []).append((x + ex, y + ey))
    outer, hollow = [], False
    for start in sorted(steps, key=lambda p: (p[1], p[0])):
        while steps.get(start):
            loop = _loop(start, steps)
            x, y = loop.T
            if float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) > 0:
                outer.append(loop)
            else:
                hollow = True
    return outer, hollow


def _loop(start: tuple[int, int], steps: dict[tuple[int, int], list[tuple[int, int]]]) -> NDArray[np.float64]:
    """Take one closed walk out of `steps`; its corners only."""
    walk, here, heading = [start], start, (0, 0)
    while True:
        ways = steps[here]
        # Where two pixels touch at a corner, the turn to the right stays with the pixel that we walk around.
        right = (here[0] - heading[1], here[1] + heading[0])
        there = ways.pop(ways.index(right) if len(ways) > 1 and right in ways else 0)
        turn = (there[0] - here[0], there[1] - here[1])
        if turn == heading:
            walk.pop()
        walk.append(there)
        here, heading = there, turn
        if here == start:
            break
    return np.array(walk[:-1], dtype=np.float64)


def run_lengths_of(mask: NDArray[np.bool_]) -> list[int]:
    """Return COCO's run lengths of a mask [H, W]: down the columns, outside first."""
    flat = mask.T.ravel()
    ends = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    lengths = np.diff(ends).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return x, y, width and height in pixels of a mask [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
