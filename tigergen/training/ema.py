"""Exponential moving average of weights, with warm-up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def ema_decay(step: int, decay: float) -> float:
    """Decay after `step` updates: min(decay, (1 + n) / (10 + n)), so that the random start is forgotten at once."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """Averaged copies of parameters: shadow ← decay·shadow + (1 − decay)·parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        # Without decay the average is the parameter itself: no second copy, which a big model could not afford.
        self.shadow = [parameter.detach().clone() if decay else parameter for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of the average."""
        self.updates += 1
        if not self.decay:
            return
        weight = 1.0 - ema_decay(self.updates, self.decay)
        torch._foreach_lerp_(self.shadow, [parameter.detach() for parameter in self.parameters], weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the module for the length of the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        """Put the averaged weights into the module for good."""
        for parameter, shadow in zip(self.parameters, self.shadow, strict=True):
            parameter.copy_(shadow)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, shadow in zip(self.parameters, self.shadow, strict=True):
            parameter.data, shadow.data = shadow.data, parameter.data

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"updates": self.updates, "shadow": [shadow.detach() for shadow in self.shadow]}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for mine, stored in zip(self.shadow, state["shadow"], strict=True):
            mine.copy_(stored)
        self.updates = state["updates"]
