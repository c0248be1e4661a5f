"""The denoising loop: guided prediction of a batch, and what is held fixed on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from tigergen.model.control import Conditions, TigerControl
from tigergen.model.unet import Features, predict
from tigergen.sampling.guidance import guide, weigh_resolutions


@dataclass(frozen=True)
class Guided:
    """Guided prediction for a batch of B images; both halves of the guidance run as one batch.

    `text`, `empty`: U-Net text states [B, T, D] of the prompts and of empty prompts; `conditions`, `mode`: what
    TigerControl is given, or None without control; `beta`: guidance scale (1: none). `keep_control`: the
    unconditional half keeps the control of the conditional half, so that guidance strengthens words only; otherwise
    (equation 13) it has none.
    """

    unet: UNet2DConditionModel
    text: Tensor
    empty: Tensor
    beta: float
    control: TigerControl | None = None
    conditions: Conditions | None = None
    mode: str = "fused"
    keep_control: bool = False
    resolution_weighting: bool = False

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Prediction [B, C, h, w] for noisy latents [B, C, h, w] at one `timestep` (scalar tensor)."""
        times = timestep.expand(len(latents))
        extra = self._control(latents, times)
        if self.beta == 1.0:
            return predict(self.unet, latents, times, self.text, extra)
        if extra is not None:
            extra = _for_both_halves(extra, self.keep_control)
        twice = torch.cat([latents, latents])
        both = predict(self.unet, twice, times.repeat(2), torch.cat([self.text, self.empty]), extra)
        conditional, unconditional = both.chunk(2)
        return guide(unconditional, conditional, self.beta)

    def _control(self, latents: Tensor, times: Tensor) -> Features | None:
        if self.control is None or self.conditions is None:
            return None
        extra, _ = self.control.control(latents, times, self.conditions, self.mode)
        return weigh_resolutions(extra) if self.resolution_weighting else extra


def _for_both_halves(control: Features, keep: bool) -> Features:
    def double(level: Tensor) -> Tensor:
        return torch.cat([level, level if keep else torch.zeros_like(level)])

    return Features(tuple(double(skip) for skip in control.skips), double(control.mid))


def denoise(
    prediction: Callable[[Tensor, Tensor], Tensor],
    sampler: Any,
    latents: Tensor,
    timesteps: Tensor,
    hold: "Hold | None" = None,
) -> Tensor:
    """Run `sampler` over `timesteps` from noisy `latents`; what `hold` names is put back after every step."""
    for number, timestep in enumerate(timesteps):
        latents = sampler.step(prediction(latents, timestep), timestep, latents).prev_sample
        if hold is not None:
            following = timesteps[number + 1] if number + 1 < len(timesteps) else None
            latents = hold(latents, following)
    return latents


@dataclass(frozen=True)
class Hold:
    """Keeps `known` latents where `where` is 1, at the noise level of each step.

    `known`, `noise` [B, C, h, w]; `where` [B, 1, h, w] 0/1; `noisy(clean, noise, timesteps)` adds noise.
    """

    known: Tensor
    noise: Tensor
    where: Tensor
    noisy: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __call__(self, latents: Tensor, timestep: Tensor | None) -> Tensor:
        """Latents with the known part put back, noised to `timestep` (None: clean, after the last step)."""
        known = self.known
        if timestep is not None:
            known = self.noisy(known, self.noise, timestep.expand(len(known)))
        return torch.where(self.where.bool(), known, latents)
