"""The training loop that coarse and fine stage share: one process or many, killed or not, the same weights."""

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import is_tensorboard_available
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from kb.errors import UserError
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigergen.training.checkpoint import (
    LOGS,
    append_statistics,
    drop_newer,
    load_best,
    load_checkpoint,
    save_best,
    save_checkpoint,
    trim_statistics,
)
from tigergen.training.draws import Order, class_weights, draw_noise, module_draws
from tigergen.training.ema import Ema
from tigergen.training.grid import in_words
from tigergen.training.inputs import evaluating
from tigergen.training.tasks import Task
from tigergen.training.watch import Watch

# Losses are shown as a mean over so many steps; statistics are written as often.
WINDOW = 50


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

    `settings` is the preset's section `training`; by its `final`, the weights left are those of the step with the
    lowest held-out loss or of the last one. Every draw depends on (seed, step, place in the global batch) only,
    so that a killed run continues to the very weights of an uninterrupted one (bit for bit on a CPU), and a run of
    two processes draws what a run of one does. Raises UserError with step and image ids when loss or gradient stop
    being finite (the checkpoint on disk is then the last good one), when the losses have doubled, or when the tracker's
    package is missing.
    """
    with torch_threads(settings["threads"]):
        accelerator = _accelerator(settings["tracker"], out)
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
        self.watch = Watch(task.name)
        self.adherence: dict[str, Any] = {}

    def train(self, resume: bool, progress: Progress | None) -> dict[str, Any]:
        progress = progress if progress is not None and self.accelerator.is_main_process else None
        first = self._restore(progress) if resume else 0
        if self.accelerator.is_main_process:
            trim_statistics(self.out, first)
        started = time.monotonic()
        row: dict[str, Any] = {}
        taken = self.steps
        for step in range(first, self.steps):
            row = self._step(step)
            done = step + 1
            last = done == self.steps
            if done % WINDOW == 0:  # a mean over so many steps, the same in all processes
                self.watch.check(done, row["loss"], None)
            if self._due(done, "held_out_every") or last:
                self._look(done, row["loss"], progress)
            if last:
                taken = self._settle(progress)
            shown = self._due(done, "grid_every") or (last and bool(self.settings["grid_every"]))
            if shown:
                self._draw_grid(done, settled=last)
                row |= {"adherence": self.adherence}
            # Sampling between the steps belongs to the price of a run, so it counts in images a second.
            speed = (done - first) * self.settings["batch"] / (time.monotonic() - started)
            row |= {**self.watch.shown, "images_per_s": round(speed, 2)}
            if self.accelerator.is_main_process:
                if done % WINDOW == 0 or last or shown or self._due(done, "held_out_every"):
                    append_statistics(self.out, row)
                    self.accelerator.log(_numbers(row), step=done)
                if done % self.settings["checkpoint_every"] == 0 and not last:
                    self._save(done)
            if progress is not None:
                progress(self._event(done, row, round((self.steps - done) * self.settings["batch"] / speed)))
        for tracker in self.accelerator.trackers:
            tracker.finish()
        return self._figures(row, taken, time.monotonic() - started)

    def _event(self, done: int, row: Mapping[str, Any], eta: int) -> dict[str, Any]:
        """What the progress line says of a step."""
        event = {"stage": self.task.name, "step": done, "steps": self.steps, "loss": row["loss"]}
        event |= {"held_out": row["held_out"], "images_per_s": row["images_per_s"], "eta_s": eta}
        event |= in_words({name: kinds for name, kinds in self.adherence.items() if name != "step"})
        return event if self.watch.memorised is None else event | {"memorises_since": self.watch.memorised["step"]}

    def _figures(self, row: Mapping[str, Any], taken: int, seconds: float) -> dict[str, Any]:
        """What the record says of the run; `held_out` is the loss of the weights that were taken."""
        watch = self.watch
        held_out = watch.best_held_out if taken != self.steps else row["held_out"]
        return {
            "steps": self.steps,
            "loss": row["loss"],
            "held_out": held_out,
            "images_per_s": row["images_per_s"],
            "seconds": round(seconds, 1),
            "taken_step": taken,
            "best_step": watch.best_step,
            "best_held_out": watch.best_held_out,
            "last_held_out": row["held_out"],
            "memorised": watch.memorised,
            "adherence": self.adherence,
        }

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
            with between, module_draws(accelerator.device, settings["seed"], step, start):
                with autocast(accelerator.device, settings["precision"]):
                    losses = self.module(**batch)
                total = torch.stack(list(losses.values())).sum()
                accelerator.backward(total / passes)
            for name, value in losses.items():
                parts[name] = parts.get(name, 0.0) + float(value.detach()) / passes
        if accelerator.num_processes > 1:
            shared = accelerator.reduce(torch.tensor(list(parts.values()), device=accelerator.device), "mean")
            parts = dict(zip(parts, shared.tolist(), strict=True))
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

    def _look(self, done: int, loss: float, progress: Progress | None) -> None:
        """Measure the averaged weights on held-out and training images, and keep them when they are the best so far."""
        if not self.accelerator.is_main_process or not self.settings["held_out_every"]:
            return
        with self.ema.applied(), evaluating(self.task.module):
            losses = self.task.held_out()
        if losses is None:
            return
        best, warning = self.watch.look(done, loss, *losses)
        if best and done < self.steps:
            save_best(self.out, done, [shadow.detach() for shadow in self.ema.shadow])
        if warning is not None:
            self._tell(progress, done, warning)

    def _settle(self, progress: Progress | None) -> int:
        """Put the weights to be saved into the module, for good; returns the step they are of."""
        self.ema.copy_to_parameters()
        best = self.watch.best_step if self.settings["final"] == "best" else None
        choice = [best or self.steps]  # known to the main process only; its file is written before it gets here
        broadcast_object_list(choice)
        if choice[0] == self.steps:
            return self.steps
        weights = load_best(self.out, choice[0])
        if weights is None:
            self._tell(
                progress, self.steps, f"The best weights, of step {choice[0]}, cannot be read; the last are kept."
            )
            return self.steps
        self._fill(weights)
        return choice[0]

    def _draw_grid(self, done: int, settled: bool) -> None:
        """Draw the sample grid and measure its images, with the averaged weights or those that are saved."""
        if self.accelerator.is_main_process:
            with nullcontext() if settled else self.ema.applied(), evaluating(self.task.module):
                figures = self.task.draw_grid(self.out / "grids" / f"{self.task.name}-{done:06d}.png")
            self.adherence = {"step": done, **figures} if figures else {}

    def _tell(self, progress: Progress | None, done: int, warning: str) -> None:
        if progress is not None:
            progress({"stage": self.task.name, "step": done, "steps": self.steps, "warning": warning})

    def _save(self, done: int) -> None:
        save_checkpoint(
            self.out,
            {
                "step": done,
                "parameters": [parameter.detach() for parameter in self.parameters],
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict(),
                "losses": list(self.losses),
                "watch": self.watch.state_dict(),
                "adherence": self.adherence,
            },
            self.settings["keep_checkpoints"],
        )

    def _restore(self, progress: Progress | None) -> int:
        """Go on from the newest checkpoint; returns the number of steps that it has behind it."""
        state = load_checkpoint(self.out, lambda sentence: self._tell(progress, 0, sentence))
        step = 0
        if state is not None:
            step = int(state["step"])
            self._fill(state["parameters"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            self.losses.extend(state["losses"])
            self.adherence = state.get("adherence", {})
            if "watch" in state:
                self.watch.load_state_dict(state["watch"])
            elif state.get("best"):  # a checkpoint of an older version, which kept no weights of its best step
                self.watch.lowest_held_out, self.watch.lowest_loss = state["best"]
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            drop_newer(self.out, step)
        return step

    @torch.no_grad()
    def _fill(self, weights: Sequence[torch.Tensor]) -> None:
        for parameter, stored in zip(self.parameters, weights, strict=True):
            parameter.copy_(stored)


def world() -> PartialState:
    """This process's place among those that a launcher such as torchrun started.

    accelerate takes processes without an accelerator for strangers to each other unless it is told that they compute on
    the CPU, and what its first call has found stays: so this is the first.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def _accelerator(tracker: str, out: Path) -> Accelerator:
    world()
    # Precision is set by the preset and autocast below; accelerate's own setting is one per process and for good.
    if tracker == "none":
        return Accelerator(mixed_precision="no")
    if not is_tensorboard_available():
        raise UserError(
            "training.tracker = 'tensorboard' needs the package tensorboard, which is not installed here; install it "
            "with `pip install tensorboard`, or set training.tracker to none."
        )
    accelerator = Accelerator(mixed_precision="no", log_with=tracker, project_dir=out)
    accelerator.init_trackers(LOGS)
    return accelerator


def _numbers(row: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of a row of statistics by name, those of nested figures as outer/inner: what a tracker draws."""
    out: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            out |= _numbers(value, f"{before}{name}/")
        elif isinstance(value, int | float) and name != "step":
            out[before + name] = value
    return out


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


def autocast(device: torch.device, precision: str) -> Any:
    """The context in which a step computes its losses: "fp32" as it is, "bf16" with torch's autocast."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
