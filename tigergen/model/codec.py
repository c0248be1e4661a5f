"""A lossless latent space behind the interface of diffusers' AutoencoderKL, for images too small for an autoencoder."""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor
from torch.nn import functional as F


class PointDistribution:
    """The distribution that holds one latent: sampling it and its mode are the same."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The latent itself [B, C, h, w]."""
        return self.latents

    def mode(self) -> Tensor:
        """The latent itself [B, C, h, w]."""
        return self.latents


@dataclass
class CodecOutput(BaseOutput):
    """Result of `encode`, shaped as that of AutoencoderKL."""

    latent_dist: PointDistribution


class PixelShuffleCodec(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own models have this clash
    """Moves each `factor` × `factor` block of pixels into channels and back: exact, nothing to train.

    Images [B, in_channels, H, W] in [-1, 1], latents [B, in_channels · factor², H/factor, W/factor].
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 1,
        factor: int = 4,
        latent_channels: int = 16,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ):
        super().__init__()
        if latent_channels != in_channels * factor**2:
            raise ValueError(f"latent_channels must be in_channels * factor**2 = {in_channels * factor**2}")
        # diffusers asks a model for its dtype and device, which it reads from a tensor.
        self.register_buffer("anchor", torch.zeros(1))

    def encode(self, x: Tensor, return_dict: bool = True) -> CodecOutput | tuple[PointDistribution]:
        """Images [B, C, H, W] to a distribution that holds their latents."""
        posterior = PointDistribution(F.pixel_unshuffle(x, self.config["factor"]))
        return CodecOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Latents [B, C, h, w] to images [B, in_channels, H, W]."""
        image = F.pixel_shuffle(z, self.config["factor"])
        return DecoderOutput(sample=image) if return_dict else (image,)


def standardisation(images: Tensor, sd: float) -> tuple[float, float]:
    """(scaling factor, shift factor) that give latents of the fixed codec mean 0 and standard deviation `sd`.

    `images` [B, C, H, W] in [-1, 1]. A noise schedule is made for a certain size of signal: raw pixels of ultrasound
    (mean -0.44, standard deviation 0.27) are small beside it, and the last sampling steps then leave a grid of blocks.
    Constant images have no spread to scale by: they are left as they are.
    """
    spread = float(images.double().std())
    return (sd / spread, float(images.double().mean())) if spread > 0 else (1.0, 0.0)


def block_size(vae: ModelMixin) -> int:
    """Pixels along one side of a latent position: the codec's factor, or 2 a down-sampling of an AutoencoderKL."""
    if isinstance(vae, PixelShuffleCodec):
        return int(vae.config["factor"])
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def images_to_latents(vae: ModelMixin, images: Tensor) -> Tensor:
    """Grey images [B, 1, H, W] in [-1, 1] to scaled latents; the grey channel is repeated for a colour autoencoder."""
    pixels = images.expand(-1, int(vae.config["in_channels"]), -1, -1)
    latents = vae.encode(pixels).latent_dist.mode()
    return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config["scaling_factor"]


def latents_to_images(vae: ModelMixin, latents: Tensor) -> Tensor:
    """Scaled latents to grey images [B, 1, H, W] clamped to [-1, 1]."""
    unscaled = latents / vae.config["scaling_factor"] + (vae.config.get("shift_factor") or 0.0)
    return vae.decode(unscaled).sample.mean(dim=1, keepdim=True).clamp(-1, 1)
