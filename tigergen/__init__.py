"""The Tiger Model: train, sample, augment, evaluate."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tigergen.model import TigerPipeline

__all__ = ["TigerPipeline"]


def __getattr__(name: str) -> Any:
    # PEP 562: torch and diffusers are imported on first use, so that `tigergen --help` stays fast.
    if name in __all__:
        from tigergen import model

        return getattr(model, name)
    raise AttributeError(f"module 'tigergen' has no attribute {name!r}")
