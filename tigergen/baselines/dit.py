"""Diffusion Transformer (Peebles and Xie 2023): diffusers' own model on Tiger's latents, told the class alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from kb.files import read_json
from tigergen.baselines.work import RECORD, Asked, DenoisingModule, Images, Work, finish, fit, guided_images
from tigergen.data import Cases
from tigergen.model.assemble import build
from tigergen.model.codec import PixelShuffleCodec, block_size, latents_to_images
from tigergen.model.pipeline import TigerPipeline, without_bars
from tigergen.training.draws import Noise
from tigergen.training.inputs import cached_latents
from tigergen.training.tasks import objective_of

DEPTH, HEADS, PATCH = 6, 4, 2


class LabelInputs:
    """Latents and class numbers; one branch of drop-out, the class (its number is then that of no class)."""

    branches = 1

    def __init__(self, cases: Cases, latents: Tensor, labels: Sequence[str]) -> None:
        self.cases, self.latents, self.none = cases, latents, len(labels)
        self.numbers = torch.tensor([list(labels).index(label) for label in cases.labels])

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `tigergen.training.inputs.Inputs`."""
        rows = list(indices)
        dropped = torch.from_numpy(noise.dropped[:, 0])
        numbers = torch.where(dropped, torch.tensor(self.none), self.numbers[rows])
        return {"clean": self.latents[rows], "noise": noise.noise, "timesteps": noise.timesteps, "classes": numbers}


def new_dit(channels: int, side: int, classes: int, weights: int, seed: int) -> DiTTransformer2DModel:
    """A transformer of six blocks whose width makes it about `weights` parameters large (that of the U-Net).

    Starts as the paper says (section 3.2 and its code): every block is the identity (adaLN-Zero), the output zero.
    """
    # A block holds about 18 d² (attention 4, MLP 8, adaLN 6) and its embeddings d² + 256 d; d in steps of 4 a head.
    widths = [HEADS * 4 * n for n in range(2, 128)]
    width = min(widths, key=lambda d: abs(DEPTH * (19 * d * d + 256 * d) - weights))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DiTTransformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=width // HEADS,
            in_channels=channels,
            num_layers=DEPTH,
            sample_size=side,
            patch_size=PATCH,
            num_embeds_ada_norm=classes,
            norm_num_groups=1,
        )
        for part in model.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
    for block in model.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)  # type: ignore[union-attr,arg-type]
    nn.init.zeros_(model.proj_out_1.weight)
    nn.init.zeros_(model.proj_out_2.weight)
    return model


def train_dit(work: Work) -> dict[str, Any]:
    """Transformer on latents and class, from random weights."""
    pipe = build(work.preset, work.vocabulary, work.seed, images=work.cases.images)
    labels, latents = work.labels, cached_latents(pipe, work.cases)
    weights = sum(p.numel() for p in pipe.unet.parameters())
    model = new_dit(latents.shape[1], latents.shape[-1], len(labels), weights, work.seed)
    for block in model.transformer_blocks:
        # The batch says which classes are dropped; each block would draw again for itself.
        block.norm1.emb.class_embedder.dropout_prob = 0.0  # type: ignore[union-attr]

    def say(noisy: Tensor, timesteps: Tensor, classes: Tensor) -> Tensor:
        out: Tensor = model(noisy, timesteps, classes, return_dict=False)[0]
        return out

    module = DenoisingModule(objective_of(pipe, work.preset), say, transformer=model)
    dropout, lr = work.preset["training"]["prompt_dropout"], work.preset["coarse"]["lr"]
    inputs = LabelInputs(work.cases, latents, labels)
    figures = fit(work, "dit", module, {"transformer": [model]}, inputs, dropout, work.steps, lr)
    save_space(pipe, work.folder)
    model.save_pretrained(work.folder / "transformer")
    return finish(work, figures)


def save_space(pipe: TigerPipeline, folder: Path) -> None:
    """Keep codec and noise schedule beside a network that is no pipeline."""
    pipe.vae.save_pretrained(folder / "vae")
    pipe.scheduler.save_pretrained(folder / "scheduler")


@without_bars()
def open_space(folder: Path) -> tuple[PixelShuffleCodec, DDIMScheduler]:
    """What :func:`save_space` kept."""
    vae = PixelShuffleCodec.from_pretrained(folder / "vae", local_files_only=True)
    return vae, DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)


def pictures(vae: Any, latents: Tensor) -> Images:
    """Grey images uint8 [B, s, s] of scaled latents."""
    pixels = latents_to_images(vae, latents)[:, 0]
    images: Images = ((pixels.float() + 1) * 127.5).round().to(torch.uint8).numpy()
    return images


def open_dit(folder: Path) -> Any:
    """Draws from class and seed; prompt, mask and edges are not looked at."""
    vae, scheduler = open_space(folder)
    labels = read_json(folder / RECORD)["labels"]
    with without_bars():
        model = DiTTransformer2DModel.from_pretrained(folder / "transformer", local_files_only=True).eval()

    def draw(asked: Asked, sampling: Mapping[str, Any]) -> Images:
        told = torch.tensor([labels.index(label) for label in asked.labels])
        side = asked.masks.shape[-1] // block_size(vae)

        def say(latents: Tensor, times: Tensor, words: bool) -> Tensor:
            classes = told if words else torch.full_like(told, len(labels))
            out: Tensor = model(latents, times, classes, return_dict=False)[0]
            return out

        shape = (model.config["in_channels"], side, side)
        return pictures(vae, guided_images(scheduler, shape, asked, sampling, say))

    return draw
