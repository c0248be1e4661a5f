"""What coarse and fine training minimise: weighted noise or v error, over the image or apart for nodule and rest."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from kb.errors import UserError
from tigergen.model.unet import Features, add, decode, features, predict

PREDICTIONS = ("v_prediction", "epsilon")


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """SNR = alpha_bar / (1 - alpha_bar), element by element."""
    return alphas_cumprod / (1 - alphas_cumprod)


def min_snr_weight(snr: Tensor, gamma: float, prediction: str, floor: float = 0.0) -> Tensor:
    """Loss weight min(SNR, gamma) / SNR for noise, / (SNR + 1) for v prediction (Hang et al. 2023, Min-SNR).

    `floor` bounds the SNR from below (Salimans and Ho 2022 truncate it at 1): without it the noisiest steps, in which
    words decide how bright a region becomes, count for next to nothing.
    """
    return snr.clamp(min=floor, max=gamma) / (snr if prediction == "epsilon" else snr + 1)


@dataclass(frozen=True)
class Objective:
    """Noise schedule `alphas_cumprod` [T], what the U-Net predicts, and the bounds of the SNR in the loss weight.

    `gamma`: the upper one (None: no weight at all), `floor`: the lower one.
    """

    alphas_cumprod: Tensor
    prediction: str = "v_prediction"
    gamma: float | None = 5.0
    floor: float = 0.0

    @classmethod
    def of(cls, scheduler: Any, gamma: float | None = 5.0, floor: float = 0.0) -> "Objective":
        """The objective that belongs to a diffusers scheduler; raises UserError for another prediction type."""
        prediction = scheduler.config["prediction_type"]
        if prediction not in PREDICTIONS:
            raise UserError(f"the scheduler's prediction type is {prediction!r}; use one of {', '.join(PREDICTIONS)}")
        return cls(scheduler.alphas_cumprod, prediction, gamma, floor)

    def to(self, device: torch.device | str) -> "Objective":
        """The same with its schedule on `device`."""
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    def _alpha_sigma(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        level = self.alphas_cumprod[timesteps][:, None, None, None]
        return level.sqrt(), (1 - level).sqrt()

    def noisy(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = alpha x + sigma noise, [B, C, h, w], for `timesteps` int64 [B]."""
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net should say: the noise, or v = alpha noise - sigma x (Salimans and Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * noise - sigma * clean

    def weight(self, timesteps: Tensor) -> Tensor:
        """Loss weight of each image [B]."""
        if self.gamma is None:
            return torch.ones_like(timesteps, dtype=self.alphas_cumprod.dtype)
        snr = signal_to_noise(self.alphas_cumprod[timesteps])
        return min_snr_weight(snr, self.gamma, self.prediction, self.floor)


def masked_mse(predicted: Tensor, target: Tensor, region: Tensor | None, weight: Tensor) -> Tensor:
    """Mean over all latent elements of weight · region · squared error (equations 4, 14, 15); a scalar.

    `region` [B, 1, h, w] in [0, 1] or None for everywhere, `weight` [B]. Dividing by all elements rather than by the
    region's makes L_FG + L_BG the ordinary error when the two regions are complements.
    """
    error = (predicted - target) ** 2
    if region is not None:
        error = error * region
    return (error.mean(dim=(1, 2, 3)) * weight).mean()


def latent_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Nodule masks [B, 1, H, W] as the covered share of each latent position [B, 1, h, w]."""
    return F.interpolate(masks, size=size, mode="area")


def fg_region(mask: Tensor, leak: float = 0.0) -> Tensor:
    """Where L_FG counts: the nodule, and `leak` of everything else. `fg_region(1 - mask, leak)` is that of L_BG.

    Without a leak nothing holds an encoder back outside its region when it learns from its own loss alone.
    """
    return leak + (1 - leak) * mask


def coarse_loss(
    unet: UNet2DConditionModel, objective: Objective, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor
) -> Tensor:
    """Loss of the U-Net alone (equation 4) for latents `clean` [B, C, h, w] and text states [B, T, D]."""
    predicted = predict(unet, objective.noisy(clean, noise, timesteps), timesteps, text)
    return masked_mse(predicted, objective.target(clean, noise, timesteps), None, objective.weight(timesteps))


def fine_losses(
    unet: UNet2DConditionModel,
    control: Any,
    objective: Objective,
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    text: Tensor,
    conditions: dict[str, Any],
    own: bool = False,
    leak: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """L_FG and L_BG (equations 14, 15) with the U-Net frozen; minimise their sum.

    `control` is a TigerControl (or its DDP wrapper), `conditions` its arguments fg_text, bg_text, masks, sobels and
    optionally fg_weights, weighting, keep. Summed (default), both losses reach both encoders. `own`: each encoder
    learns from its own loss only; then use a `leak` such as 0.15. The U-Net's first half holds nothing trainable and
    runs without a graph.
    """
    noisy = objective.noisy(clean, noise, timesteps)
    target, weight = objective.target(clean, noise, timesteps), objective.weight(timesteps)
    mask = latent_mask(conditions["masks"], (clean.shape[-2], clean.shape[-1]))
    fg_control, bg_control = control(noisy, timesteps, **conditions, mode="own" if own else "fused")
    with torch.no_grad():
        raw, emb = features(unet, noisy, timesteps, text)

    def predicted(extra: Features) -> Tensor:
        return decode(unet, add(raw, extra), emb, text)

    seen_by_fg = predicted(fg_control)
    seen_by_bg = predicted(bg_control) if own else seen_by_fg
    return (
        masked_mse(seen_by_fg, target, fg_region(mask, leak), weight),
        masked_mse(seen_by_bg, target, fg_region(1 - mask, leak), weight),
    )
