"""A cascade in pixel space after Imagen (Saharia et al. 2022): words to a small image, both to a big one.

Two of diffusers' U-Nets. As there, most weights lie at low resolutions, the second network sees the small image with
noise of a known strength added (noise conditioning augmentation, Ho et al. 2022), and both read the same text states.
Unlike there, the text encoder is no pre-trained language model: it learns with the first network, then stays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from tigergen.baselines.dit import pictures
from tigergen.baselines.work import Asked, DenoisingModule, Images, Work, finish, fit, guided_images, text_of, together
from tigergen.model.assemble import build, norm_groups
from tigergen.model.pipeline import TigerPipeline, without_bars
from tigergen.model.weighting import use_weighted_attention
from tigergen.sampling.schedulers import image_noise
from tigergen.training.draws import Noise
from tigergen.training.inputs import CoarseInputs, TextStates
from tigergen.training.tasks import objective_of

SECOND = "super_resolution"
# Strength of the noise on the small image while sampling, as a share of the noise schedule; in training it is drawn.
AUGMENTATION = 0.1
# Draws of the second network are not those of the first.
APART = 1 << 40


def pixel_preset(preset: Mapping[str, Any]) -> dict[str, Any]:
    """The preset with pixels for latents: its codec only standardises the grey values."""
    return {**preset, "model": {**preset["model"], "downsample": 1}}


def new_unet(preset: Mapping[str, Any], side: int, halvings: int, second: bool, seed: int) -> UNet2DConditionModel:
    """A U-Net on images of `side` pixels: `halvings` thin levels without attention before those of Tiger's U-Net."""
    model = preset["model"]
    deep = list(model["unet_channels"])
    channels = [max(deep[0] >> (halvings - n), 8) for n in range(halvings)] + deep
    heads = model["attention_heads"]
    each = [0] * halvings + ([heads] * len(deep) if isinstance(heads, int) else list(heads))
    attends = ["CrossAttn" if count else "" for count in each]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=side,
            in_channels=2 if second else 1,
            out_channels=1,
            block_out_channels=tuple(channels),
            layers_per_block=model["layers_per_block"],
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in attends),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(attends)),
            attention_head_dim=tuple(max(count, 1) for count in each),
            norm_num_groups=norm_groups(channels),
            cross_attention_dim=model["text_width"],
            addition_embed_type="text" if model["pooled_words"] else None,
            addition_embed_type_num_heads=model["text_heads"],
            # The strength of the noise on the small image is told like a time step.
            class_embed_type="timestep" if second else None,
        )
    use_weighted_attention(unet)
    return unet


def halved(pixels: Tensor) -> Tensor:
    """Images [B, 1, s, s] at half the side, by area."""
    return F.avg_pool2d(pixels, 2)


class SmallInputs(CoarseInputs):
    """Small images and prompts."""

    def __init__(self, pipe: TigerPipeline, work: Work) -> None:
        super().__init__(pipe, work.cases)
        self.latents = halved(self.latents)


class BigInputs(CoarseInputs):
    """Images, states of their prompts by the text encoder that has learned, and the small images."""

    def __init__(self, pipe: TigerPipeline, work: Work) -> None:
        super().__init__(pipe, work.cases)
        self.states = TextStates(pipe, self.prompts)

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `tigergen.training.inputs.Inputs`."""
        given = super().batch(indices, whole, noise)
        return given | {"small": halved(given["clean"])}


def _forward(unet: Any, latents: Tensor, timesteps: Tensor, text: Tensor, **more: Any) -> Tensor:
    out: Tensor = unet(latents, timesteps, text, return_dict=False, **more)[0]
    return out


def second_prediction(unet: Any, noisy: Tensor, times: Tensor, text: Tensor, small: Tensor, levels: Tensor) -> Tensor:
    """Prediction of the second network, with the enlarged small image beside the noisy one."""
    beside = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    return _forward(unet, torch.cat([noisy, beside], 1), times, text, class_labels=levels)


def train_imagen(work: Work) -> dict[str, Any]:
    """Half of the steps for the first network and the text encoder, half for the second."""
    preset, side = pixel_preset(work.preset), work.cases.size
    pipe = build(preset, work.vocabulary, work.seed, images=work.cases.images)
    small = new_unet(work.preset, side // 2, 1, False, work.seed)
    pipe.register_modules(unet=small)
    dropout, lr = preset["training"]["prompt_dropout"], preset["coarse"]["lr"]
    first = _first(work, pipe, preset, dropout, lr)
    pipe.text_encoder.requires_grad_(False)
    big = new_unet(work.preset, side, 2, True, work.seed)
    objective = objective_of(pipe, preset)

    def say(noisy: Tensor, timesteps: Tensor, text: Tensor, small: Tensor) -> Tensor:
        # The loop lets what is drawn here follow from seed and step.
        levels = torch.randint(len(objective.alphas_cumprod), (len(small),))
        blurred = objective.noisy(small, torch.randn_like(small), levels)
        return second_prediction(big, noisy, timesteps, text, blurred, levels)

    module = DenoisingModule(objective, say, unet=big)
    steps = max(1, work.steps - work.steps // 2)
    inputs = BigInputs(pipe, work)
    second = fit(work.part(SECOND), "imagen-2", module, {"unet": [big]}, inputs, dropout, steps, lr)
    pipe.save_pretrained(work.folder)
    big.save_pretrained(work.folder / SECOND)
    return finish(work, together(first, second))


def _first(work: Work, pipe: TigerPipeline, preset: Mapping[str, Any], dropout: float, lr: float) -> dict[str, Any]:
    """Train the first network, or take what a killed run has finished of it."""
    from safetensors.torch import load_file, save_file

    from kb.files import atomic_write, read_json, write_json

    own = work.part("first")
    weights, mark = own.folder / "first.safetensors", own.folder / "figures.json"
    unet, encoder = pipe.unet, pipe.text_encoder

    def say(noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        return _forward(unet, noisy, timesteps, encoder(text).last_hidden_state)

    module = DenoisingModule(objective_of(pipe, preset), say, unet=unet, text_encoder=encoder)
    if mark.is_file():
        module.load_state_dict(load_file(weights))
        figures: dict[str, Any] = read_json(mark)
        return figures
    learning = {"unet": [unet], "text_encoder": [encoder]}
    inputs = SmallInputs(pipe, work)
    figures = fit(own, "imagen-1", module, learning, inputs, dropout, max(1, work.steps // 2), lr)
    with atomic_write(weights) as temporary:
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, temporary)
    write_json(mark, figures)
    return figures


def open_imagen(folder: Path) -> Any:
    """Draws from the whole prompt and the seed; mask and edges are not looked at."""
    pipe = TigerPipeline.from_pretrained(folder)
    with without_bars():
        big = UNet2DConditionModel.from_pretrained(folder / SECOND, local_files_only=True).eval()
    use_weighted_attention(big)

    def draw(asked: Asked, sampling: Mapping[str, Any]) -> Images:
        side = asked.masks.shape[-1]
        states = {words: text_of(pipe, asked.texts, words) for words in (True, False)}

        def first(latents: Tensor, times: Tensor, words: bool) -> Tensor:
            return _forward(pipe.unet, latents, times, states[words])

        small = guided_images(pipe.scheduler, (1, side // 2, side // 2), asked, sampling, first)
        objective = pipe.objective()
        level = torch.full((len(small),), int(AUGMENTATION * len(objective.alphas_cumprod)))
        (own,) = image_noise([seed ^ APART for seed in asked.seeds], tuple(small.shape[1:]))
        noisy = objective.noisy(small, own, level)

        def second(latents: Tensor, times: Tensor, words: bool) -> Tensor:
            return second_prediction(big, latents, times, states[words], noisy, level)

        seeds = [(seed ^ APART) + 1 for seed in asked.seeds]
        return pictures(pipe.vae, guided_images(pipe.scheduler, (1, side, side), asked, sampling, second, seeds))

    return draw
