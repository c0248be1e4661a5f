"""FG- and BG-Encoder: copies of the U-Net's first half that read a condition image, joined by zero convolutions.

ControlNet (Zhang et al. 2023), as diffusers builds it, starts from zero twice: at the end of the condition embedding
and at every output. The second zero keeps the U-Net unharmed at the start; the first only delays learning, so it is
left out here. The condition embedding starts with a pixel-unshuffle: no edge is averaged away on the way down.
"""

from collections.abc import Mapping
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from tigergen.model.unet import Features, embed_time, encode, skip_channels
from tigergen.model.weighting import TextKeys, use_weighted_attention

COPIED = ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block")


class ConditionEmbedding(nn.Module):
    """Condition image [B, C, H, W] in [0, 1] to features [B, out, H/factor, W/factor] without loss of information."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        unshuffled = in_channels * factor**2
        width = max(out_channels, unshuffled)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(factor),
            nn.Conv2d(unshuffled, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, out_channels, 3, padding=1),
        )

    def forward(self, condition: Tensor) -> Tensor:
        """Embed a batch of condition images."""
        return self.layers(condition)


def zero_convolution(channels: int) -> nn.Conv2d:
    """1×1 convolution that starts at zero."""
    convolution = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


class ControlEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own models have this clash
    """Copy of a U-Net's encoder and middle block that reads noisy latents, a prompt and a condition image.

    `unet` is the U-Net's configuration, `factor` the pixels along one side of a latent position. Output: what to add
    to the U-Net's skip connections and middle; all zero before training.
    """

    @register_to_config
    def __init__(self, unet: Mapping[str, Any], conditioning_channels: int = 1, factor: int = 4) -> None:
        super().__init__()
        whole = UNet2DConditionModel.from_config(dict(unet))
        self.conv_in = whole.conv_in
        self.time_proj = whole.time_proj
        self.time_embedding = whole.time_embedding
        self.add_embedding = getattr(whole, "add_embedding", None)
        self.down_blocks = whole.down_blocks
        self.mid_block = whole.mid_block
        channels = skip_channels(self)
        self.condition = ConditionEmbedding(conditioning_channels, channels[0], factor)
        self.zero_convolutions = nn.ModuleList(zero_convolution(count) for count in channels)
        use_weighted_attention(self)

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, factor: int, conditioning_channels: int = 1) -> "ControlEncoder":
        """New encoder with the weights of `unet`'s first half; its condition embedding is random."""
        # Private keys hold the folder the U-Net was read from.
        config = {key: value for key, value in unet.config.items() if key[0] != "_"}
        encoder = cls(unet=config, conditioning_channels=conditioning_channels, factor=factor)
        for name in COPIED:
            if getattr(encoder, name) is not None:
                getattr(encoder, name).load_state_dict(getattr(unet, name).state_dict())
        return encoder.to(unet.device)

    def embed_condition(self, condition: Tensor) -> Tensor:
        """Embedding [B, C, h, w] of condition images [B, 1, H, W] in [0, 1]; the same at every sampling step."""
        return self.condition(condition)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        embedding: Tensor,
        token_weights: Tensor | None = None,
        weighting: str = "log",
        keys: TextKeys | None = None,
    ) -> Features:
        """Control features for noisy `latents` [B, C, h, w] at `timesteps` [B] with `text` [B, T, D].

        `embedding` comes from `embed_condition`; `token_weights` [B, T] weigh the prompt's tokens (equation 8);
        `keys`: those of `text`, where they are computed already (`tigergen.model.weighting.text_keys`).
        """
        emb = embed_time(self, timesteps, latents.dtype, text)
        attention = {"token_weights": token_weights, "weighting": weighting, "text_keys": keys}
        raw = encode(self, self.conv_in(latents) + embedding, emb, text, attention)
        *skips, mid = (zero(level) for zero, level in zip(self.zero_convolutions, (*raw.skips, raw.mid), strict=True))
        return Features(tuple(skips), mid)
