"""What the coarse and the fine stage bring to the training loop: module, batches, held-out loss, grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tigergen.data import Cases
from tigergen.model.control import TigerControl
from tigergen.model.lean import use_lean_blocks
from tigergen.model.losses import Objective, coarse_loss, fine_losses
from tigergen.model.pipeline import TigerPipeline
from tigergen.model.tokens import Roles
from tigergen.training.draws import Noise, held_out_noise
from tigergen.training.grid import draw_grid
from tigergen.training.inputs import CoarseInputs, FineInputs, Inputs, chunk


class CoarseModule(nn.Module):
    """U-Net and text encoder with their loss, as one module that DDP can wrap."""

    def __init__(self, pipe: TigerPipeline, objective: Objective) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.objective = pipe.unet, pipe.text_encoder, objective
        use_lean_blocks(self)

    def forward(self, clean: Tensor, noise: Tensor, timesteps: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Loss of equation 4 for latents [B, C, h, w] and token numbers [B, T]."""
        text = self.text_encoder(ids).last_hidden_state
        return {"coarse": coarse_loss(self.unet, self.objective, clean, noise, timesteps, text)}


class FineModule(nn.Module):
    """U-Net and TigerControl with their two masked losses, as one module that DDP can wrap."""

    def __init__(self, pipe: TigerPipeline, control: TigerControl, objective: Objective, own: bool, leak: float):
        super().__init__()
        self.unet, self.control, self.objective, self.own, self.leak = pipe.unet, control, objective, own, leak
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
    `inputs` to be dropped; `unseen`: held-out cases or None; `shown`: the cases of the sample grid and their roles.
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

    @torch.no_grad()
    def held_out(self) -> float | None:
        """Mean loss of the held-out cases, each with its own fixed timestep and noise and nothing dropped."""
        if self.unseen is None:
            return None
        count = len(self.unseen.cases)
        noise, timesteps = held_out_noise(self.seed, count, self.unseen.latents.shape[1:], self.timesteps)
        total = 0.0
        size = chunk(self.unseen.cases.size)
        for start in range(0, count, size):
            part = list(range(start, min(start + size, count)))
            nothing = np.zeros((len(part), self.unseen.branches), dtype=bool)
            batch = self.unseen.batch(part, range(count), Noise(noise[part], timesteps[part], nothing))
            # `forward`: a compiled module is made for the batches of training.
            total += sum(float(value) for value in self.module.forward(**batch).values()) * len(part)
        return total / count

    def draw_grid(self, path: Path) -> None:
        """Write the sample grid."""
        mode = "text" if self.name == "coarse" else "joint"
        draw_grid(self.pipe, self.shown, path, mode, self.shown_roles)


def coarse_task(pipe: TigerPipeline, cases: Cases, preset: Mapping[str, Any], held_out: Cases | None) -> Task:
    """The coarse stage: U-Net and text encoder learn, one prompt branch."""
    objective = pipe.objective(preset["diffusion"]["min_snr_gamma"] or None)
    module = CoarseModule(pipe, objective)
    names = ("unet", "text_encoder")
    return Task(
        name="coarse",
        pipe=pipe,
        module=module,
        groups=[_group(name, [getattr(module, name)], preset["coarse"]["lr"]) for name in names],
        inputs=CoarseInputs(pipe, cases),
        dropout=[preset["training"]["prompt_dropout"]],
        timesteps=len(objective.alphas_cumprod),
        seed=preset["training"]["seed"],
        unseen=CoarseInputs(pipe, _few(held_out, preset["training"]["held_out_images"])) if held_out else None,
        shown=_few(held_out or cases, preset["training"]["grid_images"]),
    )


def fine_task(
    pipe: TigerPipeline,
    cases: Cases,
    preset: Mapping[str, Any],
    held_out: Cases | None,
    roles: list[Roles] | None,
    held_out_roles: list[Roles] | None,
) -> Task:
    """The fine stage: FG-Encoder, BG-Encoder and fusion learn, the U-Net's decoder too if `fine.unfreeze` says so."""
    settings, training = preset["fine"], preset["training"]
    objective = pipe.objective(preset["diffusion"]["min_snr_gamma"] or None)
    pipe.text_encoder.requires_grad_(False)
    pipe.unet.requires_grad_(False)
    control = pipe.control()
    module = FineModule(pipe, control, objective, settings["loss"] == "own", settings["leak"])
    parts: dict[str, list[Any]] = {"fg": [control.fg_encoder], "bg": [control.bg_encoder], "fusion": [control.fusion]}
    if settings["unfreeze"] == "decoder":
        parts["decoder"] = [pipe.unet.up_blocks, pipe.unet.conv_norm_out, pipe.unet.conv_out]
        for part in parts["decoder"]:
            part.requires_grad_(True)
    unseen = None
    if held_out is not None:
        few = _few(held_out, training["held_out_images"])
        unseen = FineInputs(pipe, few, settings["weighting"], held_out_roles and held_out_roles[: len(few)])
    shown_roles = held_out_roles if held_out is not None else roles
    return Task(
        name="fine",
        pipe=pipe,
        module=module,
        groups=[_group(name, modules, settings["lr"]) for name, modules in parts.items()],
        inputs=FineInputs(pipe, cases, settings["weighting"], roles),
        dropout=[training["prompt_dropout"]] * 3 + [settings["branch_dropout"]] * 2,
        timesteps=len(objective.alphas_cumprod),
        seed=training["seed"],
        unseen=unseen,
        shown=_few(held_out or cases, training["grid_images"]),
        shown_roles=shown_roles and shown_roles[: training["grid_images"]],
    )


def _group(name: str, modules: Sequence[Any], lr: float) -> dict[str, Any]:
    return {"name": name, "params": [parameter for one in modules for parameter in one.parameters()], "lr": lr}


def _few(cases: Cases, count: int) -> Cases:
    """The first `count` cases."""
    return cases.select(range(min(count, len(cases))))
