"""FG-Encoder, BG-Encoder and fusion as one module: what a trainer optimises and wraps, and what a sampler calls."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kb.errors import UserError
from tigergen.model.encoders import ControlEncoder
from tigergen.model.fusion import AttentionalFusion
from tigergen.model.unet import Features
from tigergen.model.weighting import TextKeys, text_keys

MODES = ("fused", "own", "sum", "fg", "bg")


@dataclass(frozen=True)
class Conditions:
    """What the two encoders are told about a batch of B images.

    `fg_text`, `bg_text`: text states [B, T, D]; `fg`, `bg`: condition embeddings [B, C, h, w] of nodule mask and Sobel
    map (`TigerControl.embed`); `fg_weights`: token weights [B, T] of the FG prompt or None; `weighting`: their mode;
    `keep`: [B, 2] factors of the FG and BG features (0 drops a branch for one image) or None; `fg_keys`, `bg_keys`:
    keys and values of both texts where they are computed already (`TigerControl.remember`).
    """

    fg_text: Tensor
    bg_text: Tensor
    fg: Tensor
    bg: Tensor
    fg_weights: Tensor | None = None
    weighting: str = "log"
    keep: Tensor | None = None
    fg_keys: TextKeys | None = None
    bg_keys: TextKeys | None = None


class TigerControl(nn.Module):
    """Both encoders and their fusion."""

    def __init__(self, fg_encoder: ControlEncoder, bg_encoder: ControlEncoder, fusion: AttentionalFusion) -> None:
        super().__init__()
        self.fg_encoder = fg_encoder
        self.bg_encoder = bg_encoder
        self.fusion = fusion

    def embed(self, masks: Tensor, sobels: Tensor) -> tuple[Tensor, Tensor]:
        """Condition embeddings of nodule masks and Sobel maps, each [B, 1, H, W] in [0, 1]."""
        return self.fg_encoder.embed_condition(masks), self.bg_encoder.embed_condition(sobels)

    def remember(self, given: Conditions) -> Conditions:
        """The same conditions with keys and values of both texts, which many steps with one prompt then share."""
        keys = text_keys(self.fg_encoder, given.fg_text), text_keys(self.bg_encoder, given.bg_text)
        return replace(given, fg_keys=keys[0], bg_keys=keys[1])

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        fg_text: Tensor,
        bg_text: Tensor,
        masks: Tensor,
        sobels: Tensor,
        fg_weights: Tensor | None = None,
        weighting: str = "log",
        keep: Tensor | None = None,
        mode: str = "fused",
    ) -> tuple[Features, Features]:
        """Embed the condition images, then `control`: the one call of a training step (a wrapper such as DDP sees it).

        Shapes as in `Conditions`; `masks`, `sobels` are [B, 1, H, W] in [0, 1].
        """
        fg, bg = self.embed(masks, sobels)
        given = Conditions(fg_text, bg_text, fg, bg, fg_weights, weighting, keep)
        return self.control(latents, timesteps, given, mode)

    def control(
        self, latents: Tensor, timesteps: Tensor, given: Conditions, mode: str = "fused"
    ) -> tuple[Features, Features]:
        """What the FG loss and what the BG loss may change in the U-Net; one and the same object except in `own`.

        `fused`: attentional fusion of both. `own`: the same values twice, but the first carries gradients to the
        FG-Encoder only and the second to the BG-Encoder only. `sum`: plain sum. `fg`, `bg`: the fusion with the other
        branch at zero, which keeps the scale that training saw; the other encoder does not run.
        """
        if mode not in MODES:
            raise UserError(f"control mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        if mode == "fg":
            fg = self._fg(latents, timesteps, given)
            return _twice(self.fusion(fg, _zeros(fg)))
        if mode == "bg":
            bg = self._bg(latents, timesteps, given)
            return _twice(self.fusion(_zeros(bg), bg))
        fg, bg = self._fg(latents, timesteps, given), self._bg(latents, timesteps, given)
        if mode == "sum":
            return _twice(Features(tuple(a + b for a, b in zip(fg.skips, bg.skips, strict=True)), fg.mid + bg.mid))
        if mode == "own":
            return self.fusion(fg, _detached(bg)), self.fusion(_detached(fg), bg)
        return _twice(self.fusion(fg, bg))

    def _fg(self, latents: Tensor, timesteps: Tensor, given: Conditions) -> Features:
        raw = self.fg_encoder(
            latents, timesteps, given.fg_text, given.fg, given.fg_weights, given.weighting, given.fg_keys
        )
        return raw if given.keep is None else scale(raw, given.keep[:, 0])

    def _bg(self, latents: Tensor, timesteps: Tensor, given: Conditions) -> Features:
        # W_BG is the identity: the BG-Encoder's attention is never weighted.
        raw = self.bg_encoder(latents, timesteps, given.bg_text, given.bg, keys=given.bg_keys)
        return raw if given.keep is None else scale(raw, given.keep[:, 1])


def scale(features: Features, factors: Tensor) -> Features:
    """Multiply each image's features by its factor; `factors` [B]."""
    column = factors[:, None, None, None]
    return Features(tuple(skip * column for skip in features.skips), features.mid * column)


def _twice(features: Features) -> tuple[Features, Features]:
    return features, features


def _zeros(features: Features) -> Features:
    return Features(tuple(torch.zeros_like(skip) for skip in features.skips), torch.zeros_like(features.mid))


def _detached(features: Features) -> Features:
    return Features(tuple(skip.detach() for skip in features.skips), features.mid.detach())
