"""The Tiger Model as a diffusers pipeline: a folder of parts in, images out.

`TigerPipeline.from_pretrained(folder)` resolves this package's own parts by their module names, which diffusers only
accepts when the modules are imported already: this module imports them all.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from kb.errors import UserError
from kb.files import read_json
from tigergen.model import codec, encoders, fusion
from tigergen.model.control import Conditions, TigerControl
from tigergen.model.losses import Objective, latent_mask
from tigergen.model.tokens import Roles, encode, join_prompts
from tigergen.model.weighting import check_mode, use_weighted_attention
from tigergen.sampling.denoise import Guided, Hold, denoise
from tigergen.sampling.schedulers import image_noise, late_timesteps, make_sampler
from tigergen.sampling.settings import MODES, STRENGTH, Sampling

# Sampling settings that a saved model brings along.
SAVED = ("weighting", "keep_control", "resolution_weighting")


@contextmanager
def without_bars() -> Iterator[None]:
    """Let diffusers and transformers draw no progress bar in the block; afterwards they are as the caller had them.

    Progress goes through callbacks only: a bar would get between the lines of a log and the JSON of a parent process.
    """
    drawing = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in drawing:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in drawing:
            log.enable_progress_bar()


class TigerPipeline(DiffusionPipeline):
    """U-Net with FG- and BG-Encoder, sampled from prompts, nodule masks and Sobel maps.

    Without encoders (after coarse training) only `mode="text"` works. Settings kept in `model_index.json`:
    `image_size` in pixels; `weighting`, the default mode of the token weights; `term_frequency`, phrase to its share
    among all FG phrases of the training corpus (tau of equation 10); `keep_control` and `resolution_weighting`,
    defaults of the guidance; `settings`, the resolved preset of each stage that trained it.
    """

    _optional_components = ["fg_encoder", "bg_encoder", "fusion"]

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        fg_encoder: encoders.ControlEncoder | None = None,
        bg_encoder: encoders.ControlEncoder | None = None,
        fusion: fusion.AttentionalFusion | None = None,
        image_size: int = 64,
        weighting: str = "log",
        term_frequency: Mapping[str, float] | None = None,
        keep_control: bool = False,
        resolution_weighting: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Diffusers' own attention, except that it takes keys and values that were computed before.
        use_weighted_attention(unet)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            fg_encoder=fg_encoder,
            bg_encoder=bg_encoder,
            fusion=fusion,
        )
        self.register_to_config(
            image_size=image_size,
            weighting=check_mode(weighting),
            term_frequency=dict(term_frequency or {}),
            keep_control=keep_control,
            resolution_weighting=resolution_weighting,
            settings=dict(settings or {}),
        )

    @classmethod
    @without_bars()
    def from_pretrained(cls, folder: str | os.PathLike[str], **options: Any) -> "TigerPipeline":  # type: ignore[override]
        """Open a saved model folder; `options` as in diffusers. Reads safetensors only and never the network.

        Raises UserError if there is no such folder or it holds no Tiger model.
        """
        index = Path(folder) / cls.config_name
        if not index.is_file():
            raise UserError(f"{folder} is no model folder: it has no {cls.config_name}; give one that training wrote")
        if read_json(index).get("_class_name") != cls.__name__:
            raise UserError(f"{index} is not of a {cls.__name__}; start from another base with from_base")
        return super().from_pretrained(str(folder), **{"use_safetensors": True, "local_files_only": True, **options})

    @without_bars()
    def save_pretrained(self, *args: Any, **options: Any) -> None:
        """Write the model folder; arguments as in diffusers."""
        super().save_pretrained(*args, **options)

    def control(self) -> TigerControl:
        """The encoders and their fusion as one module; raises UserError for a model without them."""
        if self.fg_encoder is None or self.bg_encoder is None or self.fusion is None:
            raise UserError("this model has no FG- and BG-Encoder yet; run fine training, or sample with mode 'text'")
        return TigerControl(self.fg_encoder, self.bg_encoder, self.fusion)

    def objective(self, gamma: float | None = 5.0, floor: float = 0.0) -> Objective:
        """Noise schedule and prediction type of this model, on its device."""
        return Objective.of(self.scheduler, gamma, floor).to(self.device)

    def prepare(self, compiler: str | Callable[..., Any] | None = None, channels_last: bool = False) -> "TigerPipeline":
        """Make the model ready for many images and return it; images change by rounding only (docs/sampling.md).

        compiler: a backend of `torch.compile`, such as `inductor`, for every block of U-Net and encoders; they are
        compiled in the first call, and again for another batch size. channels_last: keep convolution weights so.
        Both change the modules themselves: not for a model that is still to be trained.
        """
        for part in (self.unet, self.fg_encoder, self.bg_encoder):
            if part is None:
                continue
            if channels_last:
                part.to(memory_format=torch.channels_last)
            if compiler is not None:
                for block in (*part.down_blocks, part.mid_block, *getattr(part, "up_blocks", ())):
                    block.compile(backend=compiler, dynamic=False)
        return self

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """Text states [B, T, D] of prompts; equal prompts are computed once."""
        unique = list(dict.fromkeys(prompts))
        ids = encode(self.tokenizer, unique).ids.to(self.device)
        states = self.text_encoder(ids).last_hidden_state
        return states[[unique.index(prompt) for prompt in prompts]]

    def to_latents(self, images: np.ndarray) -> Tensor:
        """Grey images uint8 [B, H, W] as scaled latents [B, C, h, w]."""
        return codec.images_to_latents(self.vae, to_pixels(images).to(self.device, self.unet.dtype))

    def to_images(self, latents: Tensor) -> np.ndarray:
        """Scaled latents [B, C, h, w] as grey images uint8 [B, H, W]."""
        pixels = codec.latents_to_images(self.vae, latents)[:, 0]
        return ((pixels.float() + 1) * 127.5).round().to(torch.uint8).cpu().numpy()

    def settings(self, refined: bool = False, **given: Any) -> Sampling:
        """The sampling settings that `given` comes to: this model's own where it says nothing (or None).

        `refined`: for images that start from real ones. `settings(...).record()` is what a manifest should say.
        Raises UserError for a setting that means nothing.
        """
        for name in SAVED:
            if given.get(name) is None:
                given[name] = self.config[name]
        if refined and given.get("strength") is None:
            given["strength"] = STRENGTH
        if not refined and given.get("strength") is not None:
            raise UserError(f"strength is {given['strength']} but there is no real image to refine; give init_images")
        return Sampling(**given)

    @torch.no_grad()
    def __call__(
        self,
        fg: Sequence[str],
        bg: Sequence[str],
        masks: np.ndarray | None = None,
        sobels: np.ndarray | None = None,
        roles: Sequence[Roles] | None = None,
        tau: Mapping[str, float] | None = None,
        seeds: Sequence[int] | None = None,
        init_images: np.ndarray | None = None,
        negative: str | Sequence[str] = "",
        **settings: Any,
    ) -> np.ndarray:
        """Generate one image for each FG and BG prompt; returns uint8 [B, H, W].

        masks: uint8 [B, H, W], 0/1, the nodule; sobels: uint8 [B, H, W], 0-255, edges outside it (both needed unless
        mode is `text`). roles: a list of (phrase, role) for each FG prompt; tau: frequency of joint phrases, by
        default that of the training corpus. seeds: one an image (default 0, 1, ...); image k is drawn from seeds[k]
        alone, so the rest of the batch changes it by rounding only (at most 1-2 grey levels in few pixels).
        init_images: refine these real images uint8 [B, H, W] with setting `strength` (default 0.5).
        negative: prompt of the unguided half instead of the empty one, one for all images or one each.
        settings: the fields of `tigergen.sampling.settings.Sampling` by name (steps, guidance, sampler, mode, ...).
        """
        count = len(fg)
        unwanted = [negative] * count if isinstance(negative, str) else negative
        given = {"masks": masks, "sobels": sobels, "roles": roles, "seeds": seeds, "init": init_images}
        shape = self._check(count, bg=bg, negative=unwanted, **given)
        how = self.settings(refined=init_images is not None, **settings)
        if count == 0:
            return np.zeros((0, *shape), np.uint8)
        guided = Guided(
            unet=self.unet,
            text=self.text_states([join_prompts(*pair) for pair in zip(fg, bg, strict=True)]),
            empty=self.text_states(unwanted),
            beta=float(how.guidance),
            keep_control=how.keep_control,
            resolution_weighting=how.resolution_weighting,
            interval=how.guidance_interval,
            length=len(self.scheduler.alphas_cumprod),
            reuse_control=how.reuse_control,
            reuse_deep=how.reuse_deep,
        )
        if how.mode != "text":
            if masks is None or sobels is None:
                raise UserError(f"sampling mode {how.mode!r} needs masks and Sobel maps; give both, or mode 'text'")
            guided = self._with_control(guided, fg, bg, masks, sobels, roles, tau, how.weighting)
        clean = None if init_images is None else self.to_latents(init_images)
        start, later = self._noise(seeds if seeds is not None else range(count), shape)
        passes = [("fg", start), ("bg", later)] if how.mode == "sequential" else [(MODES[how.mode], start)]
        known: Tensor | None = None
        for branch, noise in passes:
            schedule = make_sampler(how.sampler, self.scheduler, how.steps, self.device)
            timesteps, latents, hold = schedule.timesteps, noise * schedule.init_noise_sigma, None
            if clean is not None:
                timesteps = late_timesteps(schedule, how.strength or 0.0)
                latents = self.objective().noisy(clean, noise, timesteps[:1].long().expand(count))
            if known is not None and masks is not None:
                hold = Hold(known, noise, self._held(masks, latents), self.objective().noisy)
                latents = hold(latents, timesteps[0])
            known = denoise(replace(guided, mode=branch), schedule, latents, timesteps, hold)
        assert known is not None
        return self.to_images(known)

    def _with_control(
        self,
        guided: Guided,
        fg: Sequence[str],
        bg: Sequence[str],
        masks: np.ndarray,
        sobels: np.ndarray,
        roles: Sequence[Roles] | None,
        tau: Mapping[str, float] | None,
        weighting: str,
    ) -> Guided:
        control, how = self.control(), check_mode(weighting)
        weights = None
        if roles is not None and how != "off":
            frequency = self.config["term_frequency"] if tau is None else tau
            weights = encode(self.tokenizer, fg, roles, frequency).weights.to(self.device)
        embedded = control.embed(*(c.to(self.device, self.unet.dtype) for c in to_conditions(masks, sobels)))
        given = Conditions(self.text_states(fg), self.text_states(bg), *embedded, fg_weights=weights, weighting=how)
        return replace(guided, control=control, conditions=given)

    def _noise(self, seeds: Sequence[int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        block = codec.block_size(self.vae)
        size = (self.unet.config["in_channels"], shape[0] // block, shape[1] // block)
        first, second = image_noise(seeds, size, draws=2)
        return first.to(self.device, self.unet.dtype), second.to(self.device, self.unet.dtype)

    @staticmethod
    def _held(masks: np.ndarray, latents: Tensor) -> Tensor:
        """Latent positions that any pixel of the nodule touches, 0/1 [B, 1, h, w]."""
        covered = latent_mask(_to_tensor(masks > 0), (latents.shape[-2], latents.shape[-1]))
        return (covered > 0).to(latents.device)

    def _check(self, count: int, **given: Any) -> tuple[int, int]:
        """Raise UserError unless everything given has `count` rows; returns height and width of the images."""
        for name, value in given.items():
            if value is not None and len(value) != count:
                raise UserError(f"{count} FG prompts but {len(value)} of {name}; give one for each image")
        size = int(self.config["image_size"])
        shape = next((g.shape[1:] for g in (given["masks"], given["init"]) if g is not None), (size, size))
        step = codec.block_size(self.vae)
        for name in ("masks", "sobels", "init"):
            if given[name] is not None and given[name].shape[1:] != shape:
                raise UserError(f"{name} are {given[name].shape[1:]} pixels, others {shape}; give one size")
        if shape[0] % step or shape[1] % step:
            raise UserError(f"images of {shape} pixels do not divide into blocks of {step}; resize them")
        return (int(shape[0]), int(shape[1]))


def to_pixels(images: np.ndarray) -> Tensor:
    """Grey images uint8 [B, H, W] as float32 [B, 1, H, W] in [-1, 1]."""
    return _to_tensor(images) / 127.5 - 1


def to_conditions(masks: np.ndarray, sobels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Masks (0/1) and Sobel maps (0-255), uint8 [B, H, W], as float32 [B, 1, H, W] in [0, 1]."""
    return _to_tensor(masks > 0), _to_tensor(sobels) / 255


def _to_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()[:, None]
