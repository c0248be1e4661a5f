"""The denoising loop: guided prediction of a batch, and what is held fixed on the way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from tigergen.model.control import Conditions, TigerControl
from tigergen.model.unet import Features, decode_deep, decode_last, embed_time, encode, encode_top, top_skips
from tigergen.model.weighting import TextKeys, text_keys
from tigergen.sampling.guidance import guide, weigh_resolutions
from tigergen.sampling.settings import ALWAYS


@dataclass
class Guided:
    """Guided prediction for a batch of B images, step after step; both halves of the guidance run as one batch.

    `text`, `empty`: U-Net text states [B, T, D] of the prompts and of what stands in their place in the unguided half
    (empty or negative prompts); `beta`: guidance scale, guiding while the step's share of `length` timesteps lies in
    `interval`; `control`, `conditions`, `mode`: what TigerControl is given, or None without control. `keep_control`:
    the unguided half keeps the control of the guided half, so that guidance strengthens words only; otherwise
    (equation 13) it has none. `reuse_control`, `reuse_deep`: see `tigergen.sampling.settings.Sampling`.

    A half that does nothing does not run: the unguided one where beta is 1 or outside the interval, the one with
    control where beta is 0. Keys and values of all texts are computed once. One object serves one pass over the steps:
    what it remembers from step to step goes with it.
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
    interval: tuple[float, float] = ALWAYS
    length: int = 1000
    reuse_control: int = 1
    reuse_deep: int = 1
    _step: int = field(default=0, init=False)
    _extra: Features | None = field(default=None, init=False)
    _deep: tuple[int, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._texts = torch.cat([self.text, self.empty])
        self._keys = text_keys(self.unet, self._texts)
        self._deep = (0, self.text[:0])
        if self.control is not None and self.conditions is not None:
            self.conditions = self.control.remember(self.conditions)

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Prediction [B, C, h, w] for noisy latents [B, C, h, w] at one `timestep` (scalar tensor)."""
        count, guiding = len(latents), self._guiding(timestep)
        times = timestep.expand(count)
        # Rows of the two halves: the guided one lies first.
        first, last = (count if self.beta == 0 and guiding else 0), (2 * count if guiding else count)
        controlled = self.conditions is not None and (first == 0 or self.keep_control)
        extra = self._control(latents, times) if controlled else None
        if last - first == count:
            predicted = self._predict(latents, times, first, extra)
        else:
            both = self._predict(torch.cat([latents, latents]), times.repeat(2), first, extra)
            predicted = guide(both[count:], both[:count], self.beta)
        self._step += 1
        return predicted

    def _guiding(self, timestep: Tensor) -> bool:
        if self.beta == 1.0:
            return False
        # Reading a timestep makes an accelerator wait, so it is read only where it matters.
        return self.interval == ALWAYS or self.interval[0] <= float(timestep) / self.length <= self.interval[1]

    def _control(self, latents: Tensor, times: Tensor) -> Features:
        if self._extra is None or self._step % self.reuse_control == 0:
            assert self.control is not None and self.conditions is not None
            extra, _ = self.control.control(latents, times, self.conditions, self.mode)
            self._extra = weigh_resolutions(extra) if self.resolution_weighting else extra
        return self._extra

    def _predict(self, latents: Tensor, times: Tensor, first: int, extra: Features | None) -> Tensor:
        """Prediction of the U-Net for the rows from `first` of both halves; control is added to the guided half."""
        rows = slice(first, first + len(latents))
        text, attention = self._texts[rows], {"text_keys": _rows(self._keys, rows)}
        emb = embed_time(self.unet, times, latents.dtype, text)
        hidden = self.unet.conv_in(latents)
        top = top_skips(self.unet)
        start, kept = self._deep
        if self._step % self.reuse_deep and start == first and len(kept) >= len(latents):
            skips = encode_top(self.unet, hidden, emb, text, attention)
            if extra is not None:
                skips = self._add(skips, extra.skips[:top])
            deep = kept[: len(latents)]
        else:
            own = encode(self.unet, hidden, emb, text, attention)
            if extra is not None:
                *added, mid = self._add((*own.skips, own.mid), (*extra.skips, extra.mid))
                own = Features(tuple(added), mid)
            skips, deep = own.skips[:top], decode_deep(self.unet, own, emb, text, attention)
            if self.reuse_deep > 1:
                self._deep = (first, deep)
        return decode_last(self.unet, deep, skips, emb, text, attention)

    def _add(self, levels: tuple[Tensor, ...], extra: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Add the control of B images to the first B rows of each level, or with `keep_control` to every B rows.

        In place: nothing else reads these levels any more.
        """
        for level, more in zip(levels, extra, strict=True):
            if self.keep_control:
                level.unflatten(0, (-1, len(more))).add_(more)
            else:
                level[: len(more)].add_(more)
        return levels


def _rows(keys: TextKeys, rows: slice) -> TextKeys:
    return [(key[rows], value[rows]) for key, value in keys]


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
