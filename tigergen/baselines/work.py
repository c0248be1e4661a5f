"""What every generator of the comparison is given, and what it must return: cases, steps and seed in, images out."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kb.files import read_json, write_json
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigergen.augment.slots import Slot
from tigergen.data import Cases
from tigergen.model.losses import Objective, masked_mse
from tigergen.model.pipeline import TigerPipeline
from tigergen.model.tokens import Roles, join_prompts
from tigergen.sampling.denoise import denoise
from tigergen.sampling.guidance import guide
from tigergen.sampling.schedulers import image_noise, make_sampler
from tigergen.training.inputs import Inputs
from tigergen.training.loop import train
from tigergen.training.tasks import Task, group

Images = NDArray[np.uint8]
RECORD = "generator.json"
# Switched off for everybody: a generator sees the training images of its fold and nothing else.
UNWATCHED = {"held_out_every": 0, "grid_every": 0, "final": "last", "tracker": "none"}


@dataclass(frozen=True)
class Work:
    """One generator to be trained: `steps` optimiser steps in all, however many stages it has.

    `cases`: training images of the fold; `preset`: resolved, the same for every generator; `vocabulary`: every phrase
    that a prompt may hold; `options`: what the method adds; `coarse`: where a coarse stage that several methods begin
    with is kept, and `coarse_share` its share of the steps.
    """

    cases: Cases
    preset: Mapping[str, Any]
    steps: int
    seed: int
    folder: Path
    vocabulary: Sequence[str]
    knowledge: Any
    coarse: Path
    coarse_share: float = 0.3
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None

    @property
    def training(self) -> dict[str, Any]:
        """The preset's section for the training loop, with this seed and nothing held out."""
        return {**self.preset["training"], "seed": self.seed, **UNWATCHED}

    @property
    def labels(self) -> list[str]:
        """The classes in a fixed order."""
        return sorted(set(self.cases.labels))

    def part(self, name: str) -> "Work":
        """The same work in a folder inside this one."""
        return replace(self, folder=self.folder / name)


@dataclass(frozen=True)
class Asked:
    """What a batch of B images shall be: labels, prompts, masks and Sobel maps uint8 [B, s, s], roles, seeds."""

    labels: list[str]
    fg: list[str]
    bg: list[str]
    masks: Images
    sobels: Images
    roles: list[Roles]
    seeds: list[int]

    @classmethod
    def of(cls, slots: Sequence[Slot], donors: Mapping[str, tuple[Images, Images]], base: Any) -> "Asked":
        """The images of these slots of a plan; `donors`: mask and Sobel map of each donor."""
        from tigerdata.prompts import roles

        return cls(
            labels=[s.label for s in slots],
            fg=[s.fg for s in slots],
            bg=[s.bg for s in slots],
            masks=np.stack([donors[s.donor][0] for s in slots]),
            sobels=np.stack([donors[s.donor][1] for s in slots]),
            roles=[roles(base, s.label, s.fg) for s in slots],
            seeds=[s.seed for s in slots],
        )

    @property
    def texts(self) -> list[str]:
        """Whole prompts."""
        return [join_prompts(fg, bg) for fg, bg in zip(self.fg, self.bg, strict=True)]


class Drawer(Protocol):
    """A trained generator: images uint8 [B, s, s] of what is asked, with the settings of the plan's sampling."""

    def __call__(self, asked: Asked, sampling: Mapping[str, Any]) -> Images: ...


class DenoisingModule(nn.Module):
    """A network with its weighted noise or v error, as the one module that the training loop calls.

    `predict(noisy, timesteps, **given)` gives the prediction for what the batch holds beside latents and noise.
    """

    def __init__(self, objective: Objective, predict: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.objective, self.predict = objective, predict
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, clean: Tensor, noise: Tensor, timesteps: Tensor, **given: Any) -> dict[str, Tensor]:
        """Loss of equation 4 for latents [B, C, h, w]."""
        predicted = self.predict(self.objective.noisy(clean, noise, timesteps), timesteps, **given)
        target = self.objective.target(clean, noise, timesteps)
        return {"loss": masked_mse(predicted, target, None, self.objective.weight(timesteps))}


def fit(
    work: Work, name: str, module: DenoisingModule, learning: Mapping[str, Any], inputs: Inputs, dropout: float,
    steps: int, lr: float,
) -> dict[str, Any]:  # fmt: skip
    """Train `module` for `steps` steps in the loop that Tiger is trained in; `learning`: modules that learn, by name.

    The same AdamW, averaging of weights, order of images and draws of noise for every diffusion model; a killed call
    goes on where it was. Returns seconds and the trained parameters.
    """
    groups = [group(part, modules, lr) for part, modules in learning.items()]
    task = Task(
        name=name,
        pipe=None,  # type: ignore[arg-type]  # for sample grids, which are off
        module=module,
        groups=[one for one in groups if one["params"]],
        inputs=inputs,
        dropout=[dropout] * inputs.branches,
        timesteps=len(module.objective.alphas_cumprod),
        seed=work.seed,
        unseen=None,
        shown=work.cases,
    )
    work.folder.mkdir(parents=True, exist_ok=True)
    figures = train(task, work.training, steps, work.folder, True, work.progress)
    return figures_of(figures, steps, work.preset["training"]["batch"], [m for one in learning.values() for m in one])


def figures_of(figures: Mapping[str, Any], steps: int, batch: int, modules: Sequence[Any]) -> dict[str, Any]:
    """Steps, seconds (by the speed of the last session, so that a killed run counts whole) and trained parameters."""
    speed = figures["images_per_s"]
    seconds = steps * batch / speed if speed else 0.0
    trained = {id(p): p.numel() for one in modules for p in one.parameters() if p.requires_grad}
    return {"steps": steps, "seconds": round(seconds, 2), "parameters": sum(trained.values())}


def together(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a generator from those of its stages."""
    return {name: sum(part[name] for part in parts) for name in ("steps", "seconds", "parameters")}


def finish(work: Work, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record that says a generator is done, with the real images behind it; drop its checkpoints."""
    record = {**figures, "seed": work.seed, "labels": work.labels, "trained_on": sorted(set(work.cases.image_ids))}
    record["data"] = work.cases.digest()
    write_json(work.folder / RECORD, record)
    for folder in work.folder.glob("**/checkpoint"):
        shutil.rmtree(folder)
    return record


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a generator that is done, or None."""
    return read_json(folder / RECORD) if (folder / RECORD).is_file() else None


@torch.no_grad()
def guided_images(
    objective_scheduler: Any,
    shape: Sequence[int],
    asked: Asked,
    sampling: Mapping[str, Any],
    predict: Callable[[Tensor, Tensor, bool], Tensor],
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Clean latents [B, *shape] from noise of each image's seed, with the sampler, steps and guidance of the plan.

    `predict(latents, timesteps, words)` is the prediction with (True) or without the words or the label.
    """
    schedule = make_sampler(sampling["sampler"], objective_scheduler, sampling["steps"])
    (noise,) = image_noise(asked.seeds if seeds is None else seeds, shape)
    beta, count = float(sampling["guidance"]), len(noise)

    def guided(latents: Tensor, timestep: Tensor) -> Tensor:
        times = timestep.expand(count)
        told = predict(latents, times, True)
        return told if beta == 1.0 else guide(predict(latents, times, False), told, beta)

    return denoise(guided, schedule, noise * schedule.init_noise_sigma, schedule.timesteps)


def drawn(
    draw: Drawer, slots: Sequence[Slot], donors: Mapping[str, tuple[Images, Images]], base: Any,
    sampling: Mapping[str, Any], batch: int, threads: int = 1,
) -> Iterator[Images]:  # fmt: skip
    """Images of all slots, batch after batch."""
    with torch_threads(threads):
        for start in range(0, len(slots), batch):
            yield draw(Asked.of(slots[start : start + batch], donors, base), sampling)


def text_of(pipe: TigerPipeline, texts: Sequence[str], words: bool) -> Tensor:
    """Text states [B, T, D] of prompts, or of as many empty ones."""
    return pipe.text_states(texts if words else [""] * len(texts))
