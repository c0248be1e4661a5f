"""The KL autoencoder of a model that is trained from scratch: what it learns from, how it is scaled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from kb.files import atomic_write
from tigergen.data import Cases
from tigergen.model.assemble import norm_groups
from tigergen.model.codec import images_to_latents
from tigergen.model.pipeline import to_pixels
from tigergen.training.draws import Noise
from tigergen.training.inputs import chunk
from tigergen.training.recompute import recompute
from tigergen.training.tasks import Task, few, group


def new_autoencoder(preset: Mapping[str, Any], seed: int = 0) -> AutoencoderKL:
    """An autoencoder with random weights for grey images, of the shape in the preset's section `vae`.

    The same seed gives the same weights; the global random state is left as it was.
    """
    settings = preset["vae"]
    channels = list(settings["channels"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=1,
            out_channels=1,
            latent_channels=settings["latent_channels"],
            block_out_channels=channels,
            layers_per_block=settings["layers_per_block"],
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            norm_num_groups=norm_groups(channels),
            sample_size=preset["model"]["image_size"],
            scaling_factor=1.0,
            shift_factor=0.0,
        )


def differences(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels down and across of images [B, C, H, W]: [B, C, H-1, W] and [B, C, H, W-1]."""
    return images[..., 1:, :] - images[..., :-1, :], images[..., :, 1:] - images[..., :, :-1]


class AutoencoderModule(nn.Module):
    """Autoencoder with its loss: mean absolute error, KL to N(0, 1), mean absolute error of the edges.

    The first two are those of Kingma and Welling 2014 with a Laplace likelihood, as latent diffusion weighs them
    (Rombach et al. 2022). The third stands for the perceptual loss used there, which needs weights from elsewhere: it
    counts differences of neighbouring pixels, where speckle and outlines lie, so that they are not averaged away.
    """

    def __init__(self, vae: AutoencoderKL, kl_weight: float, edge_weight: float) -> None:
        super().__init__()
        self.vae, self.kl_weight, self.edge_weight = vae, kl_weight, edge_weight

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Losses for images [B, 1, H, W] in [-1, 1]; latents are mean + standard deviation · `noise` [B, C, h, w]."""
        posterior = self.vae.encode(images).latent_dist
        shown = self.vae.decode(posterior.mean + posterior.std * noise).sample
        # A mean a latent element, so that the weight does not depend on the size of the image.
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        pairs = zip(differences(shown), differences(images), strict=True)
        edges = sum((ours - real).abs().mean() for ours, real in pairs)
        return {
            "l1": (shown - images).abs().mean(),
            "kl": self.kl_weight * divergence,
            "edges": self.edge_weight * edges,
        }


class ImageInputs:
    """Images alone; nothing is dropped. `latents` [0, C, h, w] tells the shape of the noise."""

    branches = 0

    def __init__(self, cases: Cases, shape: Sequence[int], device: torch.device) -> None:
        self.cases, self.device = cases, device
        self.latents = torch.empty(0, *shape)

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `tigergen.training.inputs.Inputs`."""
        pixels = to_pixels(self.cases.images[list(indices)])
        return {"images": pixels.to(self.device), "noise": noise.noise.to(self.device)}


@dataclass
class AutoencoderTask(Task):
    """The autoencoder for the training loop; its grid shows real images above what comes back."""

    def draw_grid(self, path: Path) -> dict[str, dict[str, float]]:
        """Write real images (top) and their reconstructions (bottom) as PNG; nothing is measured on them."""
        vae: Any = self.module.vae
        pixels = to_pixels(self.shown.images).to(vae.device)
        with torch.no_grad():
            shown = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.float().clamp(-1, 1)
        rows = [np.hstack(list(self.shown.images)), np.hstack(list(((shown[:, 0].cpu() + 1) * 127.5).round().numpy()))]
        with atomic_write(path) as temporary:
            cv2.imwrite(str(temporary), np.vstack(rows).astype(np.uint8))
        return {}


def autoencoder_task(vae: AutoencoderKL, cases: Cases, preset: Mapping[str, Any], held_out: Cases | None) -> Task:
    """What the loop trains: every weight of `vae` on the images of `cases`."""
    settings, training = preset["vae"], preset["training"]
    module = AutoencoderModule(vae, settings["kl_weight"], settings["edge_weight"])
    if training["gradient_checkpointing"]:
        recompute(module)
    side = preset["model"]["image_size"] // preset["model"]["downsample"]
    shape = (settings["latent_channels"], side, side)
    unseen = few(held_out, training["held_out_images"]) if held_out else None
    return AutoencoderTask(
        name="vae",
        pipe=None,  # type: ignore[arg-type]  # there is none yet: this is the first part
        module=module,
        groups=[group("vae", [vae], settings["lr"])],
        inputs=ImageInputs(cases, shape, vae.device),
        dropout=[],
        # No noise levels here: the draw of one costs nothing and is not used.
        timesteps=1,
        seed=training["seed"],
        unseen=ImageInputs(unseen, shape, vae.device) if unseen else None,
        shown=few(held_out or cases, training["grid_images"]),
    )


@torch.no_grad()
def scale_latents(vae: AutoencoderKL, cases: Cases) -> None:
    """Set shift and scaling factor so that the latents of these images have mean 0 and standard deviation 1.

    A noise schedule is made for signals of that size (Rombach et al. 2022, section 3.3 and appendix).
    """
    vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    size = chunk(cases.size)
    parts = [to_pixels(cases.images[start : start + size]) for start in range(0, len(cases), size)]
    latents = torch.cat([images_to_latents(vae, part.to(vae.device)).double().cpu() for part in parts])
    spread = float(latents.std())
    vae.register_to_config(scaling_factor=1 / spread if spread else 1.0, shift_factor=float(latents.mean()))
