"""What a scanner draws over a frame: text, rulers, callipers, icons and colour, found before anything else looks at it.

Colour is told from tissue by its distance from the display's own tint. Grey signs are found by a network of 3,713
numbers, made by `benchmarks/make_text_finder.py`: letters have sharp strokes of one level, which speckle has not. It
runs in numpy, because an ingest that had to load a deep-learning library would take seconds to start.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import cv2
import numpy as np
from numpy.typing import NDArray

Weights = tuple[tuple[NDArray[np.float32], NDArray[np.float32], int, int], ...]

# Side of a cell that the network judges, in pixels; larger frames are reduced first, so that letters have the size that
# the network knows, and so that no frame takes longer. Colour is looked for at a finer scale: outlines are thin.
CELL = 4
WORKING_SIDE = 640
COLOUR_SIDE = 1536
# (stride, dilation) of the network's layers.
LAYERS = ((2, 1), (2, 1), (1, 2), (1, 4), (1, 1))
# Cells that touch a sure cell count from here on, in logits: a letter's thin end is less sure than its middle.
WEAK = -1.5
# Gaps between letters up to so many cells belong to the line.
BRIDGE = 2
# A field of which more than this looks written is no field with text on it: noise, a drawing, a photograph.
TOO_MUCH = 0.25
# An outline is at least this share of the short side long, and its colour at least this share of the threshold.
OUTLINE = 0.05
PALE = 0.3
# Chroma of grey, and the level below which a pixel is too dark to show a tint.
NEUTRAL = 128
DARK_FOR_TINT = 24
# Coloured areas smaller than this many pixels are chroma noise of JPEG.
MIN_COLOURED = 12


@cache
def _weights() -> Weights:
    from safetensors.numpy import load

    stored = load((resources.files("tigerdata.images") / "text_finder.safetensors").read_bytes())
    return tuple(
        (stored[f"{k}.weight"].astype(np.float32), stored[f"{k}.bias"].astype(np.float32), *LAYERS[k])
        for k in range(len(LAYERS))
    )


def convolve(
    image: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], stride: int, dilation: int
) -> NDArray[np.float32]:
    """Convolve [C, H, W] with `weight` [K, C, n, n], zeros beyond the border: what torch's conv2d gives."""
    size = weight.shape[2]
    pad, reach = dilation * (size // 2), dilation * (size - 1) + 1
    framed = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (reach, reach), axis=(1, 2))
    windows = windows[:, ::stride, ::stride, ::dilation, ::dilation]
    channels, rows, columns = windows.shape[:3]
    table = windows.transpose(0, 3, 4, 1, 2).reshape(channels * size * size, rows * columns)
    return (weight.reshape(len(weight), -1) @ table + bias[:, None]).reshape(-1, rows, columns)


def score(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how surely each cell of 4 x 4 pixels of a uint8 frame [H, W] holds ink: logits [ceil(H/4), ceil(W/4)]."""
    values = levels.astype(np.float32)[None] * np.float32(1 / 255)
    *hidden, last = _weights()
    for layer in hidden:
        values = np.maximum(convolve(values, *layer), 0)
    return convolve(values, *last)[0]


def written(levels: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Return the pixels of a uint8 frame [H, W] that carry signs, bool [H, W]: sure cells and what is joined to them.

    `threshold` is the logit from which a cell is sure. Gaps between the letters of a line are closed.
    """
    height, width = levels.shape
    scale = min(1.0, WORKING_SIDE / max(height, width))
    small = levels
    if scale < 1:
        shape = (max(CELL, round(width * scale)), max(CELL, round(height * scale)))
        small = np.asarray(cv2.resize(levels, shape, interpolation=cv2.INTER_AREA))
    logits = score(small)
    possible = (logits > WEAK).astype(np.uint8)
    _, labels = cv2.connectedComponents(possible)
    sure = np.zeros(int(labels.max()) + 1, bool)
    sure[labels[logits > threshold]] = True
    sure[0] = False
    cells = sure[labels].astype(np.uint8)
    if not cells.any():
        return np.zeros((height, width), bool)
    cells = cv2.morphologyEx(cells, cv2.MORPH_CLOSE, np.ones((1, 2 * BRIDGE + 1), np.uint8))
    cells = np.repeat(np.repeat(cells, CELL, axis=0), CELL, axis=1)[: small.shape[0], : small.shape[1]]
    # Half a cell more: ink that barely enters the next cell is not that cell's to report.
    cells = cv2.dilate(cells, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST), dtype=bool)


def coloured(rgb: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Return the pixels of an RGB frame [H, W, 3] whose colour is not the display's own, bool [H, W].

    A display may tint its greys (blue, sepia): the tint grows with the grey level, and is taken from the frame itself
    and subtracted. `threshold` is in units of YCrCb chroma, 0 to 181.
    """
    height, width = rgb.shape[:2]
    scale = COLOUR_SIDE / max(height, width)
    if scale < 1:
        small = cv2.resize(
            rgb, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
        )
        found = coloured(np.asarray(small, dtype=np.uint8), threshold).astype(np.uint8)
        return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST), dtype=bool)
    planes = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    level, *chroma = (np.asarray(plane, dtype=np.uint8) for plane in planes)
    tints = _tint(level[::3, ::3], [plane[::3, ::3] for plane in chroma])
    red, blue = (
        cv2.subtract(plane, cv2.LUT(level, tint), dtype=cv2.CV_32F) for plane, tint in zip(chroma, tints, strict=True)
    )
    excess = cv2.magnitude(red, blue)
    if excess.max() <= PALE * threshold:
        return np.zeros(level.shape, bool)
    # A thin outline is paler than its colour, because displays and JPEG blend it with the tissue beside it. What gives
    # it away is that it is long, straight and thin.
    pale = (excess > PALE * threshold).astype(np.uint8)
    length = max(12, round(OUTLINE * min(level.shape)))
    across, down = (
        cv2.morphologyEx(pale, cv2.MORPH_OPEN, np.ones(shape, np.uint8)) > 0 for shape in ((1, length), (length, 1))
    )
    thick = cv2.dilate(cv2.erode(pale, np.ones((7, 7), np.uint8)), np.ones((11, 11), np.uint8)) > 0
    found = ((excess > threshold) | ((across | down) & ~thick)).astype(np.uint8)
    if not found.any():
        return found.astype(bool)
    # JPEG halves the colour's resolution: the edge of a coloured line is paler than the line.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found)
    kept = stats[:, cv2.CC_STAT_AREA] >= MIN_COLOURED
    kept[0] = False
    return np.asarray(cv2.dilate(kept[labels].astype(np.uint8), np.ones((5, 5), np.uint8)), dtype=bool)


def _tint(level: NDArray[np.uint8], chroma: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Chroma [2, 256] that the display gives to each grey level: neutral for black, and in proportion to the level.

    The proportion is the median over the frame's pixels, so that overlay cannot move it unless it covers half of what
    is lit; the median of each level could, because a colour box may be most of what is that bright.
    """
    lit = level > DARK_FOR_TINT
    levels = np.arange(256, dtype=np.float32)
    if not lit.any():
        return np.full((2, 256), NEUTRAL, np.float32)
    grey = level[lit].astype(np.float32)
    slopes = [np.median((plane[lit] - np.float32(NEUTRAL)) / grey) for plane in chroma]
    return np.clip([NEUTRAL + slope * levels for slope in slopes], 0, 255).astype(np.float32)
