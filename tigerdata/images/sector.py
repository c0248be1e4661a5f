"""Where a frame shows the scan: the insonified sector, the box around it, and the views of a panel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# (left, top, right, bottom) in pixels of the file, right and bottom excluded.
Box = tuple[int, int, int, int]

# A pixel above this grey level belongs to the insonified sector (black borders and JPEG ringing lie below).
SECTOR_LEVEL = 10
# Depths where little comes back are darker and still belong to the field.
FIELD_LEVEL = 6
# Of a row or column that shows the scan, at least this share lies above `DARK_LEVEL` (a single pixel may be a sign).
DARK_LEVEL = 10
LIT_SHARE = 0.04
# A surround of less than this share of the side on all four sides is the display's own line: nothing is cut.
THIN_MARGIN = 0.012
# What of the scan remains after an opening by this share of the short side; letters and rulers do not.
OPENING = 0.045
WORKING_SIDE = 512

# Two views side by side. Each is at least this share of the content wide; of a gap's pixels no more than this are lit.
MIN_VIEW = 0.3
GAP_SHARE = 0.015
MIN_GAP = 2
# A seam is a column where the median jump to its neighbour exceeds the surrounding jumps this many times. Measured: 724
# single views (DDTI, BrEaST, gland, Tiger release) stay at or below 2.0, 9 of 10 abutting views of DDTI lie above 2.2.
SEAM_CONTRAST = 2.2
SEAM_WINDOW = 12


def sector(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the insonified part of a uint8 frame [H, W]: the largest bright region, holes (cysts, shadows) closed."""
    bright = (cv2.blur(image, (7, 7)) > SECTOR_LEVEL).astype(np.uint8)
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(bright)
    if contours:
        largest = max(contours, key=cv2.contourArea)
        cv2.drawContours(filled, [largest], -1, 1, thickness=cv2.FILLED)
    return filled.astype(bool)


def core(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a sector [H, W] without its border, which is the display's, not the anatomy's; all of a thin one."""
    inner = np.asarray(cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)), dtype=bool)
    return inner if inner.any() else inside


def hull(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the convex hull of everything broad and bright in a uint8 frame [H, W]: the field that the probe scans.

    Linear, trapezoid and convex fields are convex but for the small arc at a convex probe's face. Shadows that reach
    the edge are inside; signs beside the field are not, because nothing of them is left in `_broad`.
    """
    broad = _broad(image)
    contours, _ = cv2.findContours(broad, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros_like(broad)
    if contours:
        cv2.fillConvexPoly(filled, cv2.convexHull(np.concatenate(contours)), 1)
    return filled.astype(bool)


def _broad(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bright pixels, 0 or 1 [H, W], that belong to something broad: letters and rulers do not survive the opening."""
    height, width = image.shape
    step = min(height, width) // WORKING_SIDE
    if step > 1:  # a very large frame: the opening's time grows with its width
        small = cv2.resize(image, (width // step, height // step), interpolation=cv2.INTER_AREA)
        broad = _broad(np.asarray(small, dtype=np.uint8))
        return np.asarray(cv2.resize(broad, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    side = max(3, round(OPENING * min(height, width)))
    bright = (cv2.blur(image, (5, 5)) > FIELD_LEVEL).astype(np.uint8)
    # Beyond the frame the scan goes on, or the opening would eat a field that reaches the frame's corners.
    framed = cv2.copyMakeBorder(bright, side, side, side, side, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(framed, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))[side:-side, side:-side]
    return np.ascontiguousarray(opened)


def scan_box(image: NDArray[np.uint8]) -> Box:
    """Return the box of a uint8 frame [H, W] outside which no row or column shows the scan; the whole if none does."""
    height, width = image.shape
    lit = (_broad(image) > 0) & (image >= DARK_LEVEL)
    left, top, right, bottom = 0, 0, width, height
    # Twice: a narrow scan on a wide screen lights a small share of the screen's rows.
    for _ in range(2):
        inner = lit[top:bottom, left:right]
        across, down = _span(inner.mean(axis=0) >= LIT_SHARE), _span(inner.mean(axis=1) >= LIT_SHARE)
        if across is None or down is None:
            return 0, 0, width, height
        left, right, top, bottom = left + across[0], left + across[1], top + down[0], top + down[1]
    thin = max(3, round(THIN_MARGIN * max(height, width)))
    if max(left, top, width - right, height - bottom) <= thin:
        return 0, 0, width, height
    return left, top, right, bottom


def _span(hits: NDArray[np.bool_]) -> tuple[int, int] | None:
    found = np.flatnonzero(hits)
    return (int(found[0]), int(found[-1]) + 1) if found.size else None


def views(image: NDArray[np.uint8], panel_aspect: float | None = None) -> list[Box]:
    """Return the boxes of the scanned views of a uint8 frame [H, W], left to right, without the black surround.

    Two views are told from one by a black gap, or by a column where nearly all rows jump at once. `panel_aspect` is
    what a reader knows of its set: a scan wider than so many frame heights is a panel of two, even where its views are
    so alike that no column jumps; then it is cut in the middle. One view a frame otherwise.
    """
    height, _ = image.shape
    left, top, right, bottom = whole = scan_box(image)
    width = right - left
    known = panel_aspect is not None and width > panel_aspect * height
    cut = _cut(image[top:bottom, left:right], known)
    if cut is None:
        return [whole]
    boxes = []
    for start, stop in ((left, left + cut[0]), (left + cut[1], right)):
        x0, y0, x1, y1 = scan_box(image[:, start:stop])
        boxes.append((start + x0, y0, start + x1, y1))
    return boxes


def _cut(content: NDArray[np.uint8], known: bool) -> tuple[int, int] | None:
    """Columns (end of the left view, start of the right one), or None for a single view."""
    height, width = content.shape
    low, high = round(MIN_VIEW * width), round((1 - MIN_VIEW) * width)
    dark = (content[:, low:high] >= DARK_LEVEL).mean(axis=0) <= GAP_SHARE
    ends = np.flatnonzero(np.diff(np.concatenate([[False], dark, [False]]).astype(np.int8)))
    runs = [(int(a), int(b)) for a, b in zip(ends[::2], ends[1::2], strict=True) if b - a >= MIN_GAP]
    # A gap that goes on beyond the middle leaves no room for a view.
    gaps = [(low + a, low + b) for a, b in runs if a > 0 and b < dark.size]
    if gaps:
        return min(gaps, key=lambda g: abs(g[0] + g[1] - width))
    if not known and width <= height:
        return None
    seam, contrast = _seam(content)
    if contrast >= SEAM_CONTRAST:
        return seam, seam
    return (width // 2, width // 2) if known else None


def _seam(content: NDArray[np.uint8]) -> tuple[int, float]:
    """Return the first column of the right view, in the middle fifth, and how much more its rows jump than others."""
    jumps = np.median(cv2.absdiff(content[:, 1:], content[:, :-1]), axis=0).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(jumps, SEAM_WINDOW, mode="edge"), 2 * SEAM_WINDOW + 1)
    contrast = jumps / (np.median(windows, axis=1) + 1)
    width = content.shape[1]
    low, high = round(0.4 * width), round(0.6 * width)
    best = low + int(np.argmax(contrast[low:high]))
    return best + 1, float(contrast[best])
