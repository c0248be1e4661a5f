"""Copy check: is an image a real image again, moved, mirrored, enlarged, brightened or with new speckle on it?

Normalised cross-correlation of band-passed thumbnails over mirrors, sizes of .87 to 1.15 and shifts of up to 12 % (the
all-pairs correlation of Akbar et al. 2025 made tolerant of them). All real images are searched at 16 x 16, the nearest
few at 32 x 32. The threshold is measured, not chosen: what only few real images of other patients reach with their
nearest real image (Dar et al. 2024). A perceptual hash alone is not a copy check: it misses shifts and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from tigerdata.images.duplicates import (
    MIRROR,
    band_pass,
    fingerprints,
    perceptual_hash,
    pixel_hash,
    thumbnail,
    unit,
)
from tigergen.augment.prints import Prints

__all__ = ["CopyIndex", "duplicates", "fingerprints", "inside_correlation"]

_SIDE = 32
_REACH = 4
_WORK = 64
# Steps of 7 %: half a step moves the rim of the window by .4 of a thumbnail pixel, less than the band pass blurs.
_SIZES = (1 / 1.14, 1 / 1.07, 1.0, 1 / 0.935, 1 / 0.87)
# Of a planted copy the original is first or second in the search at 16 x 16 (all of 360 in each of three image sets).
_SHORT_LIST = 8

Images = NDArray[np.uint8]
Vectors = NDArray[np.float32]
Rows = Sequence[int] | NDArray[np.integer]


def _halved(stack: Vectors) -> Vectors:
    """[N, 32, 32] as [N, 16, 16], means of four."""
    half = _SIDE // 2
    return stack.reshape(-1, half, 2, half, 2).mean((2, 4), dtype=np.float32)


def _resized(image: Images) -> Images:
    """The image at every size about its centre, reduced to thumbnails [5, 32, 32]; what is beyond it is reflected."""
    work = thumbnail(image, _WORK) if image.shape[0] > _WORK else image
    side = work.shape[0]
    centre = (side - 1) / 2
    out = []
    for size in _SIZES:
        move = np.array([[size, 0, centre - size * centre], [0, size, centre - size * centre]], np.float32)
        seen = work if size == 1 else cv2.warpAffine(work, move, (side, side), borderMode=cv2.BORDER_REFLECT_101)
        out.append(thumbnail(np.asarray(seen, dtype=np.uint8), _SIDE))
    return np.stack(out)


def _windows(stack: Vectors, reach: int) -> tuple[Vectors, Vectors]:
    """All shifted windows of [V, s, s] as rows [V (2 reach + 1)^2, D], and what makes each row's spread 1.

    Their means stay in: they meet templates of mean 0.
    """
    side = stack.shape[1] - 2 * reach
    rows = np.lib.stride_tricks.sliding_window_view(stack, (side, side), axis=(1, 2)).reshape(-1, side * side)
    spread = np.einsum("nd,nd->n", rows, rows) - rows.sum(1) ** 2 / rows.shape[1]
    return rows, np.where(spread > 1e-6, 1 / np.sqrt(np.maximum(spread, 1e-6)), 0).astype(np.float32)


@dataclass
class Views:
    """An image as the search sees it: all shifts at 16 x 16 (rows of 144), and the thumbnails behind them."""

    coarse: Vectors
    stack: Vectors
    _fine: tuple[Vectors, Vectors] | None = None

    @classmethod
    def of(cls, image: Images) -> "Views":
        """Views of one image uint8 [s, s]: five sizes, each as it is and mirrored."""
        upright = band_pass(_resized(image))
        stack = np.concatenate([upright, upright[:, :, ::-1]])
        rows, scale = _windows(_halved(stack), _REACH // 2)
        return cls(rows * scale[:, None], stack)

    def fine(self) -> tuple[Vectors, Vectors]:
        """All shifts at 32 x 32, rows of 576, and their scale: made once, when the first candidate is looked at."""
        if self._fine is None:
            self._fine = _windows(self.stack, _REACH)
        return self._fine


@dataclass
class CopyIndex:
    """Real images uint8 [N, s, s] with their ids and patients, ready to be searched."""

    images: Images
    ids: list[str]
    patients: list[str]
    _coarse: Vectors = field(init=False, repr=False)
    _fine: Vectors = field(init=False, repr=False)
    _bits: NDArray[np.uint64] = field(init=False, repr=False)
    _hashes: dict[str, int] = field(init=False, repr=False)
    _place: dict[str, int] = field(init=False, repr=False)
    _patient: NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stack = band_pass(np.stack([thumbnail(image, _SIDE) for image in self.images]))
        low, far, near = _halved(stack), slice(_REACH // 2, -_REACH // 2), slice(_REACH, -_REACH)
        self._coarse = unit(low[:, far, far].reshape(len(low), -1))
        self._fine = unit(stack[:, near, near].reshape(len(stack), -1))
        self._bits = np.array([perceptual_hash(image) for image in self.images], np.uint64)
        self._hashes = {pixel_hash(image): n for n, image in enumerate(self.images)}
        self._place = {image_id: n for n, image_id in enumerate(self.ids)}
        self._patient = np.array(self.patients, dtype=object)

    def nearest(self, views: Views, skip: NDArray[np.bool_]) -> tuple[int, float]:
        """Row and correlation of the nearest real image that `skip` [N] leaves in; -1 and 0 where it leaves none."""
        low = np.where(skip, -2.0, (views.coarse @ self._coarse.T).max(0))
        rows = np.argsort(-low, kind="stable")[:_SHORT_LIST]
        rows = rows[low[rows] > -2]
        if not len(rows):
            return -1, 0.0
        scores = self.correlation(views, rows)
        best = int(scores.argmax())
        return int(rows[best]), float(scores[best])

    def correlation(self, views: Views, rows: Rows) -> Vectors:
        """Highest correlation with the real images of these rows over mirrors, sizes and shifts; 1 is a copy."""
        windows, scale = views.fine()
        return np.asarray((windows @ self._fine[np.asarray(rows)].T * scale[:, None]).max(0), dtype=np.float32)

    def hash_distance(self, image: Images, skip: NDArray[np.bool_]) -> int:
        """Bits of 64 by which the perceptual hash of an image differs from the nearest one, as it is or mirrored."""
        own = np.uint64(perceptual_hash(image))
        apart = np.minimum(np.bitwise_count(self._bits ^ own), np.bitwise_count(self._bits ^ own ^ MIRROR))
        return int(np.where(skip, 64, apart).min())

    def exact(self, image: Images) -> str | None:
        """Id of a real image with these very pixels, as they are or mirrored."""
        for view in (image, image[:, ::-1]):
            n = self._hashes.get(pixel_hash(view))
            if n is not None:
                return self.ids[n]
        return None

    def of_patient(self, patient: str) -> NDArray[np.bool_]:
        """Which images [N] show this patient."""
        return np.asarray(self._patient == patient, dtype=bool)

    def relatives(self, image_id: str) -> NDArray[np.bool_]:
        """Which images [N] show the patient of this image; none for an id that is not here."""
        n = self._place.get(image_id)
        return np.zeros(len(self.ids), bool) if n is None else self.of_patient(self.patients[n])

    def image(self, image_id: str) -> Images:
        """Pixels of one real image."""
        return self.images[self._place[image_id]]


def inside_correlation(image: Images, donor: Images, mask: NDArray[np.generic]) -> float:
    """Correlation of the nodule's own texture with the donor's, in the eroded mask; 0 when it is too small to tell.

    The background of a generated image follows its donor's edge map by design, the nodule must not.
    """
    inner = binary_erosion(mask.astype(bool), iterations=2)
    if inner.sum() < 40:
        return 0.0
    a, b = (gaussian_filter(i.astype(np.float32), 0.8)[inner] for i in (image, donor))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 1e-3 else 0.0


def duplicates(
    prints: NDArray[np.float16] | Prints, threshold: float, chunk: int = 1024
) -> list[tuple[int, int, float]]:
    """(row, earliest kept row, correlation) for each row that repeats an earlier row which is itself kept."""
    near: dict[int, list[tuple[int, float]]] = {}
    for start in range(0, len(prints), chunk):
        block = prints[start : start + chunk].astype(np.float32)
        for other in range(0, start + chunk, chunk):
            c = block @ prints[other : other + chunk].astype(np.float32).T
            for i, j in zip(*np.nonzero(c >= threshold), strict=True):
                if other + j < start + i:
                    near.setdefault(int(start + i), []).append((int(other + j), float(c[i, j])))
    out: list[tuple[int, int, float]] = []
    dropped: set[int] = set()
    for row in sorted(near):
        kept = [pair for pair in near[row] if pair[0] not in dropped]
        if kept:
            dropped.add(row)
            out.append((row, *kept[0]))
    return out
