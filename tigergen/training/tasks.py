"""What the coarse and the fine stage bring to the training loop: module, batches, held-out loss, grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tigergen.data import Cases
from tigergen.model.control import TigerControl
from tigergen.model.lean import use_lean_blocks
from tigergen.model.losses import Objective, coarse_loss, fine_losses
from tigergen.model.pipeline import TigerPipeline
from tigergen.model.tokens import Roles
from tigergen.training.draws import Noise, held_out_noise, seen_images
from tigergen.training.grid import Measure, adherence, draw_grid, generate, in_words
from tigergen.training.inputs import CoarseInputs, FineInputs, Inputs
from tigergen.training.recompute import recompute

# Held-out cases are measured in groups of so many, and in at least so many groups.
GROUP, GROUPS = 4, 16


class CoarseModule(nn.Module):
    """U-Net and text encoder with their loss, as one module that DDP can wrap."""

    def __init__(self, pipe: TigerPipeline, objective: Objective) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.objective = pipe.unet, pipe.text_encoder, objective
        use_lean_blocks(self)

    def forward(self, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Loss of equation 4 for latents [B, C, h, w] and token numbers [B, T], or known text states [B, T, D]."""
        if text.dim() == 2:
            text = self.text_encoder(text).last_hidden_state
        return {"coarse": coarse_loss(self.unet, self.objective, clean, noise, timesteps, text)}


class FineModule(nn.Module):
    """U-Net and TigerControl with their two masked losses, as one module that DDP can wrap."""

    def __init__(self, pipe: TigerPipeline, control: TigerControl, objective: Objective, settings: Mapping[str, Any]):
        super().__init__()
        self.unet, self.control, self.objective = pipe.unet, control, objective
        self.own, self.leak = settings["loss"] == "own", settings["leak"]
        use_lean_blocks(self)

    def forward(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, conditions: dict[str, Any]
    ) -> dict[str, Tensor]:
        """L_FG and L_BG of equations 14 and 15."""
        given = (self.unet, self.control, self.objective, clean, noise, timesteps, text, conditions)
        fg, bg = fine_losses(*given, own=self.own, leak=self.leak)
        return {"fg": fg, "bg": bg}


@dataclass
class Task:
    """A stage for the loop: `module` is called with a batch of `inputs` and gives named losses to be summed.

    `groups`: one AdamW group a branch with "name", "params" and "lr"; `dropout`: the chance of each branch of
    `inputs` to be dropped; `unseen`: held-out cases or None; `shown`: the cases of the sample grid and their roles,
    of which the first `grid_images` are drawn and the first `adherence_images` measured, by `measure` too.
    """

    name: str
    pipe: TigerPipeline
    module: nn.Module
    groups: list[dict[str, Any]]
    inputs: Inputs
    dropout: list[float]
    timesteps: int
    seed: int
    unseen: Inputs | None
    shown: Cases
    shown_roles: list[Roles] | None = None
    grid_images: int = 4
    adherence_images: int = 0
    measure: Measure | None = None

    def held_out(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Losses [G] of the held-out cases, and of as many training cases at the same noise levels; nothing dropped.

        Each is the mean of a few cases with neighbouring timesteps, one case where there are few; pair g of the two
        has the same timesteps and noise in every call. None without held-out cases.
        """
        if self.unseen is None:
            return None
        count = len(self.unseen.cases)
        # Single cases would cost the most time, few groups the verdict of `watch.Gap`.
        group = min(GROUP, max(1, count // GROUPS))
        count -= count % group
        seen = seen_images(self.seed, len(self.inputs.cases), count)
        return self._losses(self.unseen, range(count), group), self._losses(self.inputs, seen, group)

    @torch.no_grad()
    def _losses(self, inputs: Inputs, indices: Sequence[int], group: int) -> NDArray[np.float64]:
        noise, timesteps = held_out_noise(self.seed, len(indices), inputs.latents.shape[1:], self.timesteps)
        nothing = np.zeros((group, inputs.branches), dtype=bool)
        out = np.zeros(len(indices) // group)
        for place in range(len(out)):
            part = slice(place * group, (place + 1) * group)
            drawn = Noise(noise[part], timesteps[part], nothing)
            # `forward`: a compiled module is made for the batches of training.
            losses = self.module.forward(**inputs.batch(indices[part], indices, drawn))
            out[place] = sum(float(value) for value in losses.values())
        return out

    def draw_grid(self, path: Path) -> dict[str, dict[str, float]]:
        """Write the sample grid and return the figures of adherence that stand under it, see `grid.adherence`."""
        text = self.name == "coarse"
        # Words are all that a coarse model follows: without a judge there is nothing to measure.
        measured = 0 if text and self.measure is None else self.adherence_images
        count = min(max(self.grid_images, measured), len(self.shown))
        cases, roles = few(self.shown, count), self.shown_roles and self.shown_roles[:count]
        images = generate(self.pipe, cases, "text" if text else "joint", roles)
        figures = {}
        if measured:
            figures = adherence(images[:measured], few(cases, measured), edges=not text, measure=self.measure)
        caption = [f"{name} {words}" for name, words in in_words(figures).items()]
        draw_grid(path, few(cases, self.grid_images), images, caption)
        return figures


def coarse_task(
    pipe: TigerPipeline,
    cases: Cases,
    preset: Mapping[str, Any],
    held_out: Cases | None,
    measure: Measure | None = None,
) -> Task:
    """The coarse stage: what is not frozen of U-Net and text encoder learns, one prompt branch."""
    objective = objective_of(pipe, preset)
    module = CoarseModule(pipe, objective)
    if preset["training"]["gradient_checkpointing"]:
        recompute(module)
    groups = [group(name, [getattr(module, name)], preset["coarse"]["lr"]) for name in ("unet", "text_encoder")]
    return Task(
        name="coarse",
        pipe=pipe,
        module=module,
        groups=[one for one in groups if one["params"]],
        inputs=CoarseInputs(pipe, cases),
        dropout=[preset["training"]["prompt_dropout"]],
        timesteps=len(objective.alphas_cumprod),
        seed=preset["training"]["seed"],
        unseen=CoarseInputs(pipe, few(held_out, preset["training"]["held_out_images"])) if held_out else None,
        shown=few(held_out or cases, _shown(preset)),
        grid_images=preset["training"]["grid_images"],
        adherence_images=preset["training"]["adherence_images"],
        measure=measure,
    )


def fine_task(
    pipe: TigerPipeline,
    cases: Cases,
    preset: Mapping[str, Any],
    held_out: Cases | None,
    roles: list[Roles] | None,
    held_out_roles: list[Roles] | None,
    measure: Measure | None = None,
) -> Task:
    """The fine stage: FG-Encoder, BG-Encoder and fusion learn, the U-Net's decoder too if `fine.unfreeze` says so."""
    settings, training = preset["fine"], preset["training"]
    objective = objective_of(pipe, preset)
    pipe.text_encoder.requires_grad_(False)
    pipe.unet.requires_grad_(False)
    control = pipe.control()
    module = FineModule(pipe, control, objective, settings)
    if training["gradient_checkpointing"]:
        recompute(module)
    parts: dict[str, list[Any]] = {"fg": [control.fg_encoder], "bg": [control.bg_encoder], "fusion": [control.fusion]}
    if settings["unfreeze"] == "decoder":
        parts["decoder"] = [pipe.unet.up_blocks, pipe.unet.conv_norm_out, pipe.unet.conv_out]
        for part in parts["decoder"]:
            part.requires_grad_(True)
    unseen = None
    if held_out is not None:
        some = few(held_out, training["held_out_images"])
        unseen = FineInputs(pipe, some, settings["weighting"], held_out_roles and held_out_roles[: len(some)])
    shown_roles = held_out_roles if held_out is not None else roles
    return Task(
        name="fine",
        pipe=pipe,
        module=module,
        groups=[group(name, modules, settings["lr"]) for name, modules in parts.items()],
        inputs=FineInputs(pipe, cases, settings["weighting"], roles),
        dropout=[training["prompt_dropout"]] * 3 + [settings["branch_dropout"]] * 2,
        timesteps=len(objective.alphas_cumprod),
        seed=training["seed"],
        unseen=unseen,
        shown=few(held_out or cases, _shown(preset)),
        shown_roles=shown_roles and shown_roles[: _shown(preset)],
        grid_images=training["grid_images"],
        adherence_images=training["adherence_images"],
        measure=measure,
    )


def objective_of(pipe: TigerPipeline, preset: Mapping[str, Any]) -> Objective:
    """What a model minimises under the loss weights of a preset."""
    weights = preset["diffusion"]
    return pipe.objective(weights["min_snr_gamma"] or None, weights["min_snr_floor"])


def group(name: str, modules: Sequence[Any], lr: float) -> dict[str, Any]:
    learning = [parameter for one in modules for parameter in one.parameters() if parameter.requires_grad]
    return {"name": name, "params": learning, "lr": lr}


def _shown(preset: Mapping[str, Any]) -> int:
    """Number of cases that a grid generates images for."""
    return max(preset["training"]["grid_images"], preset["training"]["adherence_images"])


def few(cases: Cases, count: int) -> Cases:
    """The first `count` cases."""
    return cases.select(range(min(count, len(cases))))
