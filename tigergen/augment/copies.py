"""Copy check: is an image a real training image again, moved, mirrored, brightened or with noise on it?

Normalised cross-correlation of band-passed 32 x 32 thumbnails over mirrors and small shifts (a shift-tolerant form of
the all-pairs correlation of Akbar et al. 2025). The threshold is measured: the correlation that only 2 % of real images
of held-out patients reach with their nearest training image (Dar et al. 2024). pHash alone is not a copy check: it
misses shifts and flips.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from tigerdata.images.duplicates import band_pass, fingerprints, pixel_hash, thumbnail, unit
from tigergen.augment.prints import Prints

__all__ = ["CopyIndex", "duplicates", "fingerprints", "inside_correlation"]

_SIDE = 32
_REACH = 3
_CROP = _SIDE - 2 * _REACH

Images = NDArray[np.uint8]
Vectors = NDArray[np.float32]


def _thumbnails(images: Images) -> Images:
    return np.stack([thumbnail(image, _SIDE) for image in images])


def _centres(images: Images) -> Vectors:
    inner = slice(_REACH, _REACH + _CROP)
    return unit(band_pass(_thumbnails(images))[:, inner, inner].reshape(len(images), -1))


def _moved(images: Images) -> Vectors:
    """All mirrored and shifted crops [N, 2 * 49, D] of each image: shifts of up to 9 % in steps of 3 %."""
    thumbs = band_pass(_thumbnails(images))
    both = np.stack([thumbs, thumbs[:, :, ::-1]], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(both, (_CROP, _CROP), axis=(2, 3))
    return unit(np.ascontiguousarray(windows).reshape(len(images), -1, _CROP * _CROP))


@dataclass
class CopyIndex:
    """Real images uint8 [N, s, s] with their ids and patients, ready to be searched."""

    images: Images
    ids: list[str]
    patients: list[str]
    _centres: Vectors = field(init=False, repr=False)
    _hashes: dict[str, int] = field(init=False, repr=False)
    _place: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._centres = _centres(self.images)
        self._hashes = {pixel_hash(image): n for n, image in enumerate(self.images)}
        self._place = {image_id: n for n, image_id in enumerate(self.ids)}

    def similarity(self, queries: Images, chunk: int = 8) -> Vectors:
        """Highest correlation over mirrors and shifts, float32 [Q, N]; 1 is a copy."""
        out = np.empty((len(queries), len(self.ids)), np.float32)
        for start in range(0, len(queries), chunk):
            moved = _moved(queries[start : start + chunk])
            flat = moved.reshape(-1, moved.shape[-1]) @ self._centres.T
            out[start : start + chunk] = flat.reshape(len(moved), -1, len(self.ids)).max(1)
        return out

    def closest(self, query: Images, members: NDArray[np.bool_]) -> float:
        """Highest correlation of one image with few others, also at half steps of the shift: for the donor's patient.

        The search over all images steps by a thumbnail pixel; half a step costs a copy up to .06 of its correlation,
        which matters where the layout is shared and the threshold is therefore high.
        """
        half = query.shape[0] / _SIDE / 2
        moves = [np.array([[1, 0, x], [0, 1, y]], np.float32) for x in (0, half) for y in (0, half)]
        size = query.shape[::-1]
        views = np.stack([cv2.warpAffine(query, m, size, borderMode=cv2.BORDER_REPLICATE) for m in moves])
        moved = _moved(views.astype(np.uint8))
        return float((moved.reshape(-1, moved.shape[-1]) @ self._centres[members].T).max())

    def threshold(self, held_out: Images, quantile: float = 0.98) -> float:
        """The nearest-neighbour correlation that 1 - quantile of real images of other patients reach."""
        return float(np.quantile(self.similarity(held_out).max(1), quantile))

    def exact(self, image: Images) -> str | None:
        """Id of a real image with these very pixels, as they are or mirrored."""
        for view in (image, image[:, ::-1]):
            n = self._hashes.get(pixel_hash(view))
            if n is not None:
                return self.ids[n]
        return None

    def relatives(self, image_id: str) -> NDArray[np.bool_]:
        """Which images [N] show the patient of this image."""
        n = self._place.get(image_id)
        if n is None:
            return np.zeros(len(self.ids), bool)
        return np.array([p == self.patients[n] for p in self.patients])

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
