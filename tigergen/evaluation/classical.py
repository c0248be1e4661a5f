"""Classical augmentation by albumentations, the one module that imports it.

albumentations looks for its newest version on import; that is switched off here before the import.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A


class Classical:
    """Mirror, affine (15 degrees, scale .88-1.12, shift 6 %), gain and offset: seeded, one image after the other."""

    def __init__(self, seed: int) -> None:
        self._compose: Any = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.Affine(rotate=(-15, 15), scale=(0.88, 1.12), translate_percent=(-0.06, 0.06), p=0.9),
                A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.2, p=0.9),
            ],
            seed=seed,
        )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Augmented copies uint8 [B, H, W] of a batch."""
        return np.stack([self._compose(image=image)["image"] for image in images])
