"""The training loop that coarse and fine stage share: one process or many, killed or not, the same weights."""

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from kb.errors import UserError
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigergen.training.checkpoint import append_statistics, load_checkpoint, save_checkpoint, trim_statistics
from tigergen.training.draws import Order, class_weights, draw_noise
from tigergen.training.ema import Ema
from tigergen.training.tasks import Task

# Losses are shown as a mean over so many steps; statistics are written as often.
WINDOW = 50
# Losses of so many times the best ones: the weights have left the region where they had learned something.
DIVERGED = 2.0


def learning_rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Factor of the learning rate in `step` (from 0): rises over `warmup` steps, falls to zero over the last share."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
    return rise * fall


def train(
    task: Task,
    settings: Mapping[str, Any],
    steps: int,
    out: Path,
    resume: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train `task.module` for `steps` steps and leave the averaged weights in it; return the figures of the run.

    `settings` is the preset's section `training`. Every draw depends on (seed, step, place in the global batch) only,
    so that a killed run continues to the very weights of an uninterrupted one (bit for bit on a CPU), and a run of
    two processes draws what a run of one does. Raises UserError with step and image ids when loss or gradient stop
    being finite (the checkpoint on disk is then the last good one), or when held-out and training loss have doubled.
    """
    with torch_threads(settings["threads"]):
        # Precision is set by the preset and autocast below; accelerate's own setting is one per process and for good.
        accelerator = Accelerator(mixed_precision="no")
        return _Run(task, settings, steps, out, accelerator).train(resume, progress)


class _Run:
    def __init__(
        self, task: Task, settings: Mapping[str, Any], steps: int, out: Path, accelerator: Accelerator
    ) -> None:
        self.task, self.settings, self.steps, self.out, self.accelerator = task, settings, steps, out, accelerator
        batch, passes, processes = settings["batch"], settings["accumulation"], accelerator.num_processes
        if batch % (passes * processes):
            raise UserError(
                f"training.batch = {batch} cannot be shared equally by {processes} processes in {passes} passes; "
                f"choose a multiple of {passes * processes}."
            )
        self.share = batch // (passes * processes)
        self.order = Order(class_weights(task.inputs.cases.labels, settings["balance"]), settings["seed"])
        self.latent_shape = tuple(task.inputs.latents.shape[1:])
        self.parameters = [parameter for group in task.groups for parameter in group["params"]]
        optimizer = torch.optim.AdamW(
            [{**group, "initial_lr": group["lr"]} for group in task.groups],
            weight_decay=settings["weight_decay"],
            fused=True,
        )
        if settings["compile"]:
            compile_step(task.module, accelerator.device)
        self.module, self.optimizer = accelerator.prepare(task.module, optimizer)
        self.ema = Ema(self.parameters, settings["ema"])
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.best: tuple[float, float] | None = None

    def train(self, resume: bool, progress: Progress | None) -> dict[str, Any]:
        first = self._restore() if resume else 0
        if self.accelerator.is_main_process:
            trim_statistics(self.out, first)
        started = time.monotonic()
        held_out: float | None = None
        row: dict[str, Any] = {}
        for step in range(first, self.steps):
            row = self._step(step)
            done = step + 1
            last = done == self.steps
            if self._due(done, "held_out_every") or last:
                held_out = self._held_out()
                self._check_divergence(done, row["loss"], held_out)
            if self._due(done, "grid_every") or (last and self.settings["grid_every"]):
                self._draw_grid(done)
            # Sampling between the steps belongs to the price of a run, so it counts in images a second.
            speed = (done - first) * self.settings["batch"] / (time.monotonic() - started)
            row |= {"held_out": held_out, "images_per_s": round(speed, 2)}
            if self.accelerator.is_main_process:
                if done % WINDOW == 0 or last or self._due(done, "held_out_every"):
                    append_statistics(self.out, row)
                if done % self.settings["checkpoint_every"] == 0 and not last:
                    self._save(done)
                if progress is not None:
                    eta = (self.steps - done) * self.settings["batch"] / speed
                    event = {"stage": self.task.name, "step": done, "steps": self.steps, "loss": row["loss"]}
                    progress(event | {"held_out": held_out, "images_per_s": row["images_per_s"], "eta_s": round(eta)})
        self.ema.copy_to_parameters()
        figures = {key: row[key] for key in ("loss", "held_out", "images_per_s")}
        return {"steps": self.steps, **figures, "seconds": round(time.monotonic() - started, 1)}

    def _step(self, step: int) -> dict[str, Any]:
        settings, accelerator = self.settings, self.accelerator
        factor = learning_rate(step, self.steps, settings["warmup"], settings["decay"])
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        whole = self.order.indices(step, settings["batch"])
        passes = settings["accumulation"]
        parts: dict[str, float] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(passes):
            start = (accelerator.process_index * passes + number) * self.share
            places = range(start, start + self.share)
            noise = draw_noise(
                settings["seed"], step, places, self.latent_shape, self.task.timesteps, self.task.dropout
            )
            batch = self.task.inputs.batch([whole[place] for place in places], whole, noise)
            # Gradients are exchanged once a step, in its last pass.
            between = accelerator.no_sync(self.module) if number + 1 < passes else nullcontext()
            with between:
                with _precision(accelerator.device, settings["precision"]):
                    losses = self.module(**batch)
                total = torch.stack(list(losses.values())).sum()
                accelerator.backward(total / passes)
            for name, value in losses.items():
                parts[name] = parts.get(name, 0.0) + float(value.detach()) / passes
        # The norm is taken after the exchange: one process with a bad loss makes it bad in all, and all stop.
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, settings["clip"] or math.inf))
        if not math.isfinite(norm):
            ids = ", ".join(self.task.inputs.cases.image_ids[index] for index in whole)
            raise UserError(
                f"Stage {self.task.name}: loss or gradient is not finite in step {step} with images {ids}; the last "
                "good checkpoint is kept: lower the learning rate or remove the images, and run the command again."
            )
        self.optimizer.step()
        self.ema.update()
        self.losses.append(sum(parts.values()))
        mean = sum(self.losses) / len(self.losses)
        shown = {name: round(value, 6) for name, value in parts.items()} if len(parts) > 1 else {}
        return {"step": step + 1, "loss": round(mean, 6), "gradient": round(norm, 5), "lr_factor": factor, **shown}

    def _due(self, done: int, name: str) -> bool:
        return bool(self.settings[name]) and done % self.settings[name] == 0

    def _held_out(self) -> float | None:
        if not self.accelerator.is_main_process or not self.settings["held_out_every"]:
            return None
        with self.ema.applied(), torch.no_grad():
            value = self.task.held_out()
        return None if value is None else round(value, 6)

    def _check_divergence(self, done: int, loss: float, held_out: float | None) -> None:
        """Stop when held-out and training loss have both doubled; the first alone is a model that memorises."""
        if held_out is None:
            return
        best_held_out, best_loss = self.best or (held_out, loss)
        if held_out > DIVERGED * best_held_out and loss > DIVERGED * best_loss:
            raise UserError(
                f"Stage {self.task.name} has diverged: at step {done} the held-out loss is {held_out}, its best was "
                f"{best_held_out}. Lower {self.task.name}.lr (or training.clip) and run the command with the new value "
                "in a new folder; the last checkpoint may be spoilt already."
            )
        self.best = (min(held_out, best_held_out), min(loss, best_loss))

    def _draw_grid(self, done: int) -> None:
        if self.accelerator.is_main_process:
            with self.ema.applied():
                self.task.draw_grid(self.out / "grids" / f"{self.task.name}-{done:06d}.png")

    def _save(self, done: int) -> None:
        save_checkpoint(
            self.out,
            {
                "step": done,
                "parameters": [parameter.detach() for parameter in self.parameters],
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict(),
                "losses": list(self.losses),
                "best": self.best,
            },
        )

    def _restore(self) -> int:
        state = load_checkpoint(self.out)
        if state is None:
            return 0
        with torch.no_grad():
            for parameter, stored in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(stored)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        self.losses.extend(state["losses"])
        self.best = state.get("best")
        return int(state["step"])


def compile_step(module: torch.nn.Module, device: torch.device) -> None:
    """Let torch.compile take over a stage's module when it is called; raises UserError where it cannot.

    In place: the weights keep their names, and `module.forward`, which the held-out loss calls for batches of other
    sizes, stays as it is.
    """
    compilers = [os.environ.get("CXX") or "g++", "clang++"]
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UserError(
            f"training.compile needs a C++ compiler on a CPU and found none ({', '.join(compilers)}); install one or "
            "set training.compile to false."
        )
    module.compile()


def _precision(device: torch.device, precision: str) -> Any:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
