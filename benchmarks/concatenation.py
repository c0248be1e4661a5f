"""The yardstick of the Tiger Model: one U-Net that reads mask and Sobel map as further input channels, from scratch.

Usage: python benchmarks/concatenation.py WORKSPACE OUT --minutes 60 [--preset tiny] [--set section.key=value …]

Same cases, latents, prompts, loop, losses over the whole image and sampler as the Tiger Model; trained for the given
minutes of processor time (a falling rate needs the number of steps beforehand: it is set by the speed of the first 30
steps), then measured as `benchmarks/fidelity.py` measures, at several guidance scales.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from fidelity import draw, generate, held_out, measure, tell
from torch import Tensor, nn
from torch.nn import functional as F

from tigerdata.workspace import Workspace
from tigergen.data import Cases, load_cases
from tigergen.model.assemble import build
from tigergen.model.losses import Objective, masked_mse
from tigergen.model.pipeline import TigerPipeline, to_conditions
from tigergen.model.tokens import join_prompts
from tigergen.model.unet import predict
from tigergen.sampling.denoise import denoise
from tigergen.sampling.schedulers import image_noise, make_sampler
from tigergen.training import presets
from tigergen.training.inputs import CoarseInputs
from tigergen.training.loop import train
from tigergen.training.stages import vocabulary_of
from tigergen.training.tasks import Task, objective_of


class Concatenation(nn.Module):
    """U-Net over [latents, unshuffled mask, unshuffled Sobel map], text encoder trained along."""

    def __init__(self, pipe: TigerPipeline, objective: Objective, seed: int) -> None:
        super().__init__()
        config = {key: value for key, value in pipe.unet.config.items() if key[0] != "_"}
        self.factor = int(pipe.vae.config["factor"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet = UNet2DConditionModel.from_config(
                config | {"in_channels": config["in_channels"] + 2 * self.factor**2}
            )
        self.text_encoder, self.objective = pipe.text_encoder, objective

    def joined(self, latents: Tensor, masks: Tensor, sobels: Tensor) -> Tensor:
        """What the U-Net reads."""
        return torch.cat([latents, *(F.pixel_unshuffle(one, self.factor) for one in (masks, sobels))], dim=1)

    def forward(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, masks: Tensor, sobels: Tensor
    ) -> dict[str, Tensor]:
        """Loss of equation 4."""
        noisy = self.objective.noisy(clean, noise, timesteps)
        states = self.text_encoder(text).last_hidden_state
        said = predict(self.unet, self.joined(noisy, masks, sobels), timesteps, states)
        target, weight = self.objective.target(clean, noise, timesteps), self.objective.weight(timesteps)
        return {"loss": masked_mse(said, target, None, weight)}


class Inputs(CoarseInputs):
    """Those of the coarse stage with the two condition images."""

    def __init__(self, pipe: TigerPipeline, cases: Cases) -> None:
        super().__init__(pipe, cases)
        self.masks, self.sobels = to_conditions(cases.masks, cases.sobel)

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Any) -> dict[str, Any]:
        """See `tigergen.training.inputs.Inputs`."""
        rows = list(indices)
        return super().batch(indices, whole, noise) | {"masks": self.masks[rows], "sobels": self.sobels[rows]}


@torch.no_grad()
def sample(
    pipe: TigerPipeline, net: Concatenation, cases: Cases, seeds: Sequence[int], beta: float, steps: int
) -> np.ndarray:
    """Images uint8 [B, s, s]; both halves of the guidance keep the layout, which is all that this model can do."""
    masks, sobels = to_conditions(cases.masks, cases.sobel)
    text = pipe.text_states([join_prompts(fg, bg) for fg, bg in zip(cases.fg, cases.bg, strict=True)])
    empty = pipe.text_states([""] * len(cases))
    size = cases.size // net.factor
    (noise,) = image_noise(seeds, (pipe.unet.config["in_channels"], size, size))
    sampler = make_sampler("dpm++", pipe.scheduler, steps)

    def guided(latents: Tensor, timestep: Tensor) -> Tensor:
        read, times = net.joined(latents, masks, sobels), timestep.expand(2 * len(latents))
        with_words, without = predict(net.unet, read.repeat(2, 1, 1, 1), times, torch.cat([text, empty])).chunk(2)
        return without + beta * (with_words - without)

    return pipe.to_images(denoise(guided, sampler, noise * sampler.init_noise_sigma, sampler.timesteps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.4, 2.0])
    a = parser.parse_args()
    preset = presets.load(a.preset, [*a.set, "training.grid_every=0", "training.decay=0.4"])
    ws, size = Workspace.open(a.workspace), preset["model"]["image_size"]
    cases, unseen = load_cases(ws, "train", size), load_cases(ws, "val", size)
    settings = preset["training"]

    def made() -> tuple[TigerPipeline, Task]:
        pipe = build(preset, vocabulary_of([cases, unseen], ws.kb), settings["seed"], images=cases.images)
        objective = objective_of(pipe, preset)
        net = Concatenation(pipe, objective, settings["seed"])
        groups = [
            {"name": name, "params": list(part.parameters()), "lr": preset["coarse"]["lr"]}
            for name, part in (("unet", net.unet), ("text_encoder", net.text_encoder))
        ]
        few = unseen.select(range(settings["held_out_images"]))
        return pipe, Task(
            name="concatenation", pipe=pipe, module=net, groups=groups, inputs=Inputs(pipe, cases),
            dropout=[settings["prompt_dropout"]], timesteps=len(objective.alphas_cumprod), seed=settings["seed"],
            unseen=Inputs(pipe, few), shown=few,
        )  # fmt: skip

    steps = a.steps
    if steps is None:
        started = time.process_time()
        (a.out / "speed").mkdir(parents=True, exist_ok=True)
        train(made()[1], settings | {"held_out_every": 0}, 40, a.out / "speed", resume=False)
        steps = int(a.minutes * 60 / ((time.process_time() - started) / 40))
    pipe, task = made()
    started = time.process_time()
    figures = train(task, settings, steps, a.out, progress=None)
    tell({"steps": steps, "cpu_minutes": (time.process_time() - started) / 60, **figures})
    torch.save(task.module.state_dict(), a.out / "weights.pt")
    task.module.eval()
    test = held_out(ws, size, a.n)
    for beta in a.guidance:
        images, seconds = generate(lambda part, seeds, b=beta: sample(pipe, task.module, part, seeds, b, 15), test)
        tell({"guidance": beta, "seconds_an_image": seconds, **measure(ws, images, test)})
        draw(a.out / f"grid-{beta}.png", test, images)


if __name__ == "__main__":
    main()
