"""A micro corpus and a micro preset: a few thousand weights, a step in milliseconds."""

from typing import Any

import numpy as np

from tigergen.data import Cases
from tigergen.training import presets

MICRO = [
    "model.image_size=16",
    "model.unet_channels=[8, 16]",
    "model.attention_heads=2",
    "model.text_width=16",
    "model.text_heads=2",
    "model.text_length=8",
    "training.batch=4",
    "training.warmup=2",
    "training.checkpoint_every=2",
    "training.held_out_every=0",
    "training.grid_every=0",
    "training.adherence_images=2",
    "coarse.steps=6",
    "fine.steps=6",
]


def micro(*overrides: str) -> dict[str, Any]:
    """The tiny preset cut down, with further overrides."""
    return presets.load("tiny", [*MICRO, *overrides])


def toy_cases(count: int = 12, size: int = 16, seed: int = 0) -> Cases:
    """Bright squares on grey noise; one in four is of the class "FTC"."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 100, (count, size, size), dtype=np.uint8)
    masks = np.zeros_like(images)
    masks[:, 4:10, 5:11] = 1
    images[masks > 0] = 200
    labels = ["FTC" if number % 4 == 0 else "benign" for number in range(count)]
    names = {"FTC": "follicular thyroid carcinoma", "benign": "benign nodule"}
    return Cases(
        images=images,
        masks=masks,
        sobel=(images // 2) * (1 - masks),
        fg=[f"{names[label]}, solid" for label in labels],
        bg=["sonogram transverse"] * count,
        labels=labels,
        attributes=[{"composition": ["solid"]} for _ in labels],
        image_ids=[f"image{seed}{number:03d}" for number in range(count)],
        patient_ids=[f"patient{seed}{number:03d}" for number in range(count)],
    )
