"""Generators in the latent space that Tiger uses: Stable Diffusion, with a mask channel, with ControlNet, and Tiger.

Stable Diffusion is Tiger's own coarse stage with all the steps. SD-C and Tiger begin with one and the same coarse stage
and spend the rest of the steps on their control; the U-Net's decoder learns along as far as the preset lets Tiger's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from tigergen.augment.work import claim
from tigergen.baselines.work import (
    UNWATCHED,
    Asked,
    DenoisingModule,
    Images,
    Work,
    figures_of,
    finish,
    fit,
    guided_images,
    text_of,
    together,
)
from tigergen.data import Cases
from tigergen.model.assemble import build
from tigergen.model.codec import block_size
from tigergen.model.pipeline import TigerPipeline, to_conditions, without_bars
from tigergen.model.tokens import join_prompts
from tigergen.model.unet import Features, predict
from tigergen.model.weighting import use_weighted_attention
from tigergen.training import presets, stages
from tigergen.training.draws import Noise
from tigergen.training.inputs import CoarseInputs, Prompts, TextStates, cached_latents
from tigergen.training.tasks import objective_of

CONTROLNET = "controlnet"
# Channels of ControlNet's condition embedding, one more than there are halvings (diffusers' own).
EMBEDDING = (16, 32, 96, 256)


def preset_of(work: Work, *changes: str) -> dict[str, Any]:
    """The preset with the work's seed, with nothing held out, and with `changes`."""
    fixed = [f"training.{name}={work.training[name]}" for name in ("seed", *UNWATCHED)]
    return presets.override(work.preset, [*fixed, *changes])


def train_sd(work: Work) -> dict[str, Any]:
    """Stable Diffusion: the coarse stage with all the steps."""
    record = _coarse(work, work.folder, work.steps)
    return finish(work, _figures(record, work, ("unet", "text_encoder"), work.folder))


def open_tiger(folder: Path) -> Any:
    """Draws with the pipeline of a folder; `mode` of the sampling settings says which encoders take part."""
    pipe = TigerPipeline.from_pretrained(folder)

    def draw(asked: Asked, sampling: Mapping[str, Any]) -> Images:
        settings = {name: value for name, value in sampling.items() if name != "quality"}
        given = (asked.fg, asked.bg, asked.masks, asked.sobels)
        images: Images = pipe(*given, roles=asked.roles, seeds=asked.seeds, **settings)
        return images

    return draw


def _coarse(work: Work, folder: Path, steps: int) -> dict[str, Any]:
    preset = preset_of(work, f"coarse.steps={steps}")
    return stages.coarse(work.cases, preset, folder, knowledge=work.knowledge, progress=work.progress)


def _shared_coarse(work: Work) -> tuple[dict[str, Any], int]:
    """The coarse stage that several methods begin with, trained by whoever comes first, and its steps."""
    steps = max(1, round(work.steps * work.coarse_share))
    with claim(work.coarse.parent / f"{work.coarse.name}.lock", wait=True):
        record = _coarse(work, work.coarse, steps)
    return _figures(record, work, ("unet", "text_encoder"), work.coarse), steps


def _figures(record: Mapping[str, Any], work: Work, parts: Sequence[str], folder: Path) -> dict[str, Any]:
    pipe = TigerPipeline.from_pretrained(folder)
    figures, batch = record["figures"], work.preset["training"]["batch"]
    return figures_of(figures, figures["steps"], batch, [getattr(pipe, part) for part in parts])


def train_tiger(work: Work) -> dict[str, Any]:
    """Coarse stage, then FG-Encoder, BG-Encoder and fusion; option `fusion="sum"` leaves out what the fusion learns."""
    coarse, steps = _shared_coarse(work)
    preset = preset_of(work, f"coarse.steps={steps}", f"fine.steps={max(1, work.steps - steps)}")
    record = stages.fine(
        work.coarse, work.cases, preset, work.folder, knowledge=work.knowledge, progress=work.progress,
        prepare=plain_fusion if work.options.get("fusion") == "sum" else None,
    )  # fmt: skip
    parts = ("fg_encoder", "bg_encoder", "fusion")
    return finish(work, together(coarse, _figures(record, work, parts, work.folder)))


@torch.no_grad()
def plain_fusion(pipe: TigerPipeline) -> None:
    """Fix the fusion's weight at 1/2 everywhere: half the sum of both encoders, whose last layers learn the scale."""
    assert pipe.fusion is not None
    for parameter in pipe.fusion.parameters():
        parameter.zero_()
        parameter.requires_grad_(False)


class MaskInputs(CoarseInputs):
    """Latents, prompts, and masks as further channels of the latents' size."""

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `tigergen.training.inputs.Inputs`."""
        given = super().batch(indices, whole, noise)
        factor = self.cases.size // self.latents.shape[-1]
        return given | {"masks": mask_channels(self.cases.masks[list(indices)], factor)}


def mask_channels(masks: Images, factor: int) -> Tensor:
    """Masks uint8 [B, s, s] as channels [B, factor², s/factor, s/factor] of -1 and 1: no pixel is averaged away."""
    pixels = torch.from_numpy(np.ascontiguousarray(masks > 0)).float()[:, None]
    return F.pixel_unshuffle(2 * pixels - 1, factor)


def _with_masks(pipe: TigerPipeline, seed: int) -> None:
    config = {key: value for key, value in pipe.unet.config.items() if key[0] != "_"}
    config["in_channels"] += block_size(pipe.vae) ** 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(config)
    use_weighted_attention(unet)
    pipe.register_modules(unet=unet)


def train_sd_s(work: Work) -> dict[str, Any]:
    """U-Net and text encoder from random weights on noisy latents with the mask's channels beside them."""
    preset = preset_of(work)
    pipe = build(preset, work.vocabulary, work.seed, images=work.cases.images)
    inputs = MaskInputs(pipe, work.cases)
    _with_masks(pipe, work.seed)
    unet, encoder = pipe.unet, pipe.text_encoder

    def say(noisy: Tensor, timesteps: Tensor, text: Tensor, masks: Tensor) -> Tensor:
        return predict(unet, torch.cat([noisy, masks], 1), timesteps, encoder(text).last_hidden_state)

    module = DenoisingModule(objective_of(pipe, preset), say, unet=unet, text_encoder=encoder)
    learning = {"unet": [unet], "text_encoder": [encoder]}
    dropout, lr = preset["training"]["prompt_dropout"], preset["coarse"]["lr"]
    figures = fit(work, "sd-s", module, learning, inputs, dropout, work.steps, lr)
    pipe.save_pretrained(work.folder)
    return finish(work, figures)


def open_sd_s(folder: Path) -> Any:
    """Draws with the mask of the donor and the whole prompt."""
    pipe = TigerPipeline.from_pretrained(folder)
    factor = block_size(pipe.vae)

    def draw(asked: Asked, sampling: Mapping[str, Any]) -> Images:
        masks = mask_channels(asked.masks, factor)
        shape = (pipe.unet.config["in_channels"] - factor**2, *masks.shape[2:])
        states = {words: text_of(pipe, asked.texts, words) for words in (True, False)}

        def say(latents: Tensor, times: Tensor, words: bool) -> Tensor:
            return predict(pipe.unet, torch.cat([latents, masks], 1), times, states[words])

        return pipe.to_images(guided_images(pipe.scheduler, shape, asked, sampling, say))

    return draw


class ControlInputs:
    """Latents, states of whole prompts (the text encoder is frozen), mask and Sobel map as channels of one image."""

    branches = 1

    def __init__(self, pipe: TigerPipeline, cases: Cases) -> None:
        self.cases = cases
        self.latents = cached_latents(pipe, cases)
        whole = [join_prompts(fg, bg) for fg, bg in zip(cases.fg, cases.bg, strict=True)]
        self.prompts = Prompts(pipe.tokenizer, whole)
        self.states = TextStates(pipe, self.prompts)

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `tigergen.training.inputs.Inputs`."""
        rows = list(indices)
        return {
            "clean": self.latents[rows],
            "noise": noise.noise,
            "timesteps": noise.timesteps,
            "text": self.states.of(self.prompts.chosen(rows, noise.dropped[:, 0])),
            "condition": condition_image(self.cases.masks[rows], self.cases.sobel[rows]),
        }


def condition_image(masks: Images, sobels: Images) -> Tensor:
    """Mask and Sobel map as one image [B, 2, s, s] in [0, 1]: all that Tiger's two encoders see."""
    return torch.cat(to_conditions(masks, sobels), dim=1)


def new_controlnet(unet: UNet2DConditionModel, factor: int) -> ControlNetModel:
    """diffusers' ControlNet with the weights of the U-Net's first half, for condition images of two channels."""
    blank = ControlNetModel.from_unet(
        unet,
        conditioning_embedding_out_channels=EMBEDDING[: factor.bit_length()],
        conditioning_channels=2,
        load_weights_from_unet=False,
    )
    # from_unet forgets the number of heads that pool the words.
    config = {key: value for key, value in blank.config.items() if key[0] != "_"}
    config["addition_embed_type_num_heads"] = unet.config["addition_embed_type_num_heads"]
    control: ControlNetModel = ControlNetModel.from_config(config)
    for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        if getattr(unet, name, None) is not None:
            getattr(control, name).load_state_dict(getattr(unet, name).state_dict())
    return control


def controlled(unet: Any, control: Any, latents: Tensor, timesteps: Tensor, text: Tensor, condition: Tensor) -> Tensor:
    """The U-Net's prediction with what ControlNet adds to skip connections and middle."""
    down, mid = control(latents, timesteps, text, condition, return_dict=False)
    return predict(unet, latents, timesteps, text, Features(tuple(down), mid))


def train_sd_c(work: Work) -> dict[str, Any]:
    """Coarse stage, then ControlNet (Zhang et al. 2023) on mask and Sobel map with the whole prompt."""
    coarse, steps = _shared_coarse(work)
    preset = preset_of(work)
    pipe = TigerPipeline.from_pretrained(work.coarse)
    pipe.text_encoder.requires_grad_(False)
    pipe.unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)
        control = new_controlnet(pipe.unet, block_size(pipe.vae))
    learning: dict[str, list[Any]] = {"controlnet": [control]}
    if preset["fine"]["unfreeze"] == "decoder":
        learning["decoder"] = [pipe.unet.up_blocks, pipe.unet.conv_norm_out, pipe.unet.conv_out]
        for part in learning["decoder"]:
            part.requires_grad_(True)
    unet = pipe.unet

    def say(noisy: Tensor, timesteps: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        return controlled(unet, control, noisy, timesteps, text, condition)

    module = DenoisingModule(objective_of(pipe, preset), say, unet=unet, controlnet=control)
    dropout, lr = preset["training"]["prompt_dropout"], preset["fine"]["lr"]
    inputs = ControlInputs(pipe, work.cases)
    figures = fit(work, "sd-c", module, learning, inputs, dropout, max(1, work.steps - steps), lr)
    pipe.save_pretrained(work.folder)
    control.save_pretrained(work.folder / CONTROLNET)
    return finish(work, together(coarse, figures))


def open_sd_c(folder: Path) -> Any:
    """Draws with mask, Sobel map and whole prompt; the control stays in both halves of the guidance."""
    pipe = TigerPipeline.from_pretrained(folder)
    with without_bars():
        control = ControlNetModel.from_pretrained(folder / CONTROLNET, local_files_only=True).eval()

    def draw(asked: Asked, sampling: Mapping[str, Any]) -> Images:
        condition = condition_image(asked.masks, asked.sobels)
        side = condition.shape[-1] // block_size(pipe.vae)
        states = {words: text_of(pipe, asked.texts, words) for words in (True, False)}

        def say(latents: Tensor, times: Tensor, words: bool) -> Tensor:
            return controlled(pipe.unet, control, latents, times, states[words], condition)

        shape = (pipe.unet.config["in_channels"], side, side)
        return pipe.to_images(guided_images(pipe.scheduler, shape, asked, sampling, say))

    return draw
