"""Training of the Tiger Model: presets, the coarse and the fine stage. Names load on first use."""

import importlib
from typing import Any

_HOME = {"coarse": "stages", "fine": "stages"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
