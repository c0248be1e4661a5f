"""Random changes of frames by albumentations, the one module that imports it.

albumentations looks for its newest version on import; that is switched off here before the import.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray


def albumentations() -> Any:
    """The library, imported without its look for a newer version."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return importlib.import_module("albumentations")


class Together:
    """Changes a frame and its mask alike: mirror, affine, elastic; and the frame alone: gain, speckle, blur, shadow.

    No flip up to down: shadow and enhancement lie below what makes them. Seeded, one frame after the other.
    """

    def __init__(self, seed: int) -> None:
        a = albumentations()
        self._compose: Any = a.Compose(
            [
                a.HorizontalFlip(p=0.5),
                a.Affine(
                    rotate=(-20, 20),
                    scale=(0.75, 1.45),
                    shear=(-8, 8),
                    translate_percent=(-0.12, 0.12),
                    p=0.9,
                ),
                a.ElasticTransform(alpha=300, sigma=12, p=0.3),
                a.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.3, p=0.7),
                a.RandomGamma(gamma_limit=(70, 145), p=0.5),
                a.MultiplicativeNoise(multiplier=(0.75, 1.25), elementwise=True, p=0.3),
                a.GaussianBlur(sigma_limit=(0.4, 1.5), blur_limit=0, p=0.25),
            ],
            seed=seed,
        )

    def __call__(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray]:
        """Return one changed pair: uint8 [H, W] and bool [H, W]."""
        made = self._compose(image=image, mask=mask.astype(np.uint8))
        return made["image"], made["mask"] > 0
