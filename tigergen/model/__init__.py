"""The Tiger Model's parts: latent codec, U-Net, FG- and BG-Encoder, attentional fusion, weighting, losses, pipeline.

Names load on first use, so that importing one small part does not import diffusers' pipelines.
"""

import importlib
from typing import Any

_HOME = {
    "AttentionalFusion": "fusion",
    "ControlEncoder": "encoders",
    "PixelShuffleCodec": "codec",
    "TigerControl": "control",
    "TigerPipeline": "pipeline",
    "add_control": "assemble",
    "build": "assemble",
    "from_base": "base",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
