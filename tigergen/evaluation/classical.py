"""Classical augmentation of a classifier's images by albumentations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigerdata.images.augment import albumentations


class Classical:
    """Mirror, affine (15 degrees, scale .88-1.12, shift 6 %), gain and offset: seeded, one image after the other."""

    def __init__(self, seed: int) -> None:
        a = albumentations()
        self._compose: Any = a.Compose(
            [
                a.HorizontalFlip(p=0.5),
                a.Affine(rotate=(-15, 15), scale=(0.88, 1.12), translate_percent=(-0.06, 0.06), p=0.9),
                a.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.2, p=0.9),
            ],
            seed=seed,
        )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Augmented copies uint8 [B, H, W] of a batch."""
        return np.stack([self._compose(image=image)["image"] for image in images])


class Erasing:
    """Random erasing (Zhong et al. 2020): in half of the images a rectangle of 2-33 % of the area becomes noise."""

    def __init__(self, seed: int) -> None:
        a = albumentations()
        erase = a.Erasing(scale=(0.02, 0.33), ratio=(0.3, 3.3), fill="random", p=0.5)
        self._compose: Any = a.Compose([erase], seed=seed)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Changed copies uint8 [B, H, W] of a batch."""
        return np.stack([self._compose(image=image)["image"] for image in images])
