"""A tiny Tiger model: two levels of 8 and 16 channels on 16 px images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tigergen.model import TigerPipeline, add_control, build

PHRASES = ["benign", "FTC", "solid", "cystic", "no halo", "transverse plane", "left side"]
PRESET = {
    "model": {"image_size": 16, "downsample": 2, "unet_channels": [8, 16], "attention_heads": 2, "text_width": 16,
              "text_length": 8}
}  # fmt: skip


@pytest.fixture
def fresh() -> Callable[[int], TigerPipeline]:
    """Makes a model without encoders from a seed."""
    return lambda seed: build(PRESET, PHRASES, seed=seed)


@pytest.fixture
def coarse(fresh: Callable[[int], TigerPipeline]) -> TigerPipeline:
    """Model without encoders."""
    return fresh(1)


@pytest.fixture
def tiger(coarse: TigerPipeline) -> TigerPipeline:
    """Model with encoders whose zero convolutions have been moved, as if trained."""
    add_control(coarse, seed=2)
    generator = torch.Generator().manual_seed(3)
    for encoder in (coarse.fg_encoder, coarse.bg_encoder):
        for parameter in encoder.zero_convolutions.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return coarse


@pytest.fixture
def cases() -> dict:
    """Arguments of three images for the pipeline."""
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 16, 16), np.uint8)
    for number in range(3):
        masks[number, 4 : 9 + number, 5:11] = 1
    return {
        "fg": ["FTC, solid", "benign, cystic, no halo", "benign, solid"],
        "bg": ["transverse plane", "left side", "transverse plane, left side"],
        "masks": masks,
        "sobels": rng.integers(0, 256, (3, 16, 16), dtype=np.uint8),
        "roles": [[("FTC", "particular"), ("solid", "joint")], [("no halo", "joint")], []],
        "seeds": [11, 12, 13],
        "steps": 4,
    }
