"""Frames of any aspect into the square that a segmenter sees, and its answer back into the frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fit(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Pad a frame [H, W] at the right and bottom to a square and bring it to `size` x `size`."""
    import cv2

    side = max(image.shape)
    square = np.zeros((side, side), dtype=np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), dtype=np.uint8)


def unfit(soft: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Bring a map on the square back to the frame that it came from: float32 [H, W] of `shape`."""
    import cv2

    side = max(shape)
    square = cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(square[: shape[0], : shape[1]], dtype=np.float32)
