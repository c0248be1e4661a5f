"""What a stage will need: parameters, memory, time, before anything is trained. Nothing is written.

Memory and operations are counted on the step itself, run with torch's fake tensors: they have shapes and no contents,
so the biggest model takes seconds and no memory. Time is that of real steps of the same model with random weights where
they are short, and otherwise follows from the operations and the speed of matrix products on this machine.
"""

import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tigerdata.processes import torch_threads
from tigergen.data import Cases
from tigergen.model.assemble import add_control, build
from tigergen.model.base import skeleton
from tigergen.model.tokens import SEPARATOR
from tigergen.training.draws import draw_noise
from tigergen.training.loop import autocast, train
from tigergen.training.stages import prepare_coarse
from tigergen.training.tasks import Task, coarse_task, fine_task
from tigergen.training.vae import autoencoder_task, new_autoencoder

PARTS = ("vae", "text_encoder", "unet", "fg_encoder", "bg_encoder", "fusion")
# Real steps are run when they are expected to take no longer than this and to leave half of the free memory alone.
SHORT_STEP_S = 2.0
REAL_STEPS = 6
# Share of the matrix products' speed that a training step reaches: .46 for `tiny` alone on two cores with AVX2
# (benchmarks/bench_training.py). benchmarks/bench_base.py measures it at full size, and has not been run there.
SHARE_OF_MATMUL = 0.45
FLOAT_BYTES = 4
MEMORY_RULE = (
    "weights + gradients + AdamW (2 numbers a trained weight) + averaged weights + what one step holds at its peak, "
    "counted tensor by tensor, + cached cases + the program"
)


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for; `activations`: the peak of a step beyond a full set of gradients."""

    weights: int
    gradients: int
    adamw: int
    average: int
    activations: int
    cases: int
    program: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def estimate(
    stage: str,
    preset: Mapping[str, Any],
    phrases: Sequence[str],
    images: int = 0,
    folder: str | os.PathLike[str] | None = None,
    short_step_s: float = SHORT_STEP_S,
) -> dict[str, Any]:
    """Parameters, memory and time of `stage` ("vae", "coarse" or "fine") with this preset.

    `phrases`: the vocabulary of a new model; `images`: size of the training split; `folder`: the model that the stage
    starts from, of which settings and vocabulary are read, no weights. Returns `parameters` (trained and frozen a
    part), `memory_bytes` by purpose with `total`, `gmac_per_step` (10^9 multiply-adds, forward and backward),
    `seconds_per_step`, `hours` (without sample grids and held-out losses) and, in words, `memory_rule` and `time_rule`.
    """
    settings, steps = preset["training"], preset[stage]["steps"]
    passes = settings["accumulation"]
    cases = _blank_cases(settings["batch"] // passes, preset["model"]["image_size"], phrases)
    task, flops, peak = _dry_step(stage, preset, phrases, cases, folder)
    parameters = _parameters(task)
    memory = _memory(task, parameters, peak, images, preset)

    def real() -> Task:
        return _task(stage, preset, _model(stage, preset, phrases, folder, PartialState().device), cases)

    seconds, rule = _seconds(real, settings, flops * passes, memory.total, short_step_s)
    return {
        "stage": stage,
        "images": images,
        "parameters": parameters,
        "memory_bytes": {**asdict(memory), "total": memory.total},
        "memory_rule": MEMORY_RULE,
        "gmac_per_step": round(flops * passes / 2e9, 3),
        "steps": steps,
        "seconds_per_step": round(seconds, 4),
        "hours": round(seconds * steps / 3600, 2),
        "time_rule": rule,
    }


def in_words(found: Mapping[str, Any]) -> dict[str, str]:
    """An estimate as `name: text` lines for a person."""
    rows = {
        name: ", ".join(f"{_count(number)} {kind}" for kind, number in part.items() if number) or "no weights"
        for name, part in found["parameters"].items()
    }
    memory = {name: f"{size / 1e9:.2f} GB" for name, size in found["memory_bytes"].items()}
    total = memory.pop("total")
    parts = ", ".join(f"{name} {size}" for name, size in memory.items())
    return {
        "stage": found["stage"],
        **rows,
        "memory": f"{total}: {parts}",
        "memory rule": found["memory_rule"],
        "work": f"{found['gmac_per_step']:,.1f} GMAC a step",
        "time": f"{found['hours']:.2f} hours: {found['steps']:,} steps of {found['seconds_per_step']:.3f} s, "
        "without sample grids and held-out losses",
        "time rule": found["time_rule"],
    }


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def _blank_cases(count: int, side: int, phrases: Sequence[str]) -> Cases:
    """Grey images with one prompt; `count` of them."""
    empty = np.zeros((count, side, side), np.uint8)
    prompt = SEPARATOR.join(phrases[:3])
    return Cases(
        images=empty,
        masks=empty.copy(),
        sobel=empty.copy(),
        fg=[prompt] * count,
        bg=[prompt] * count,
        labels=["benign"] * count,
        attributes=[{} for _ in range(count)],
        image_ids=[str(number) for number in range(count)],
        patient_ids=[str(number) for number in range(count)],
    )


def _model(
    stage: str,
    preset: Mapping[str, Any],
    phrases: Sequence[str],
    folder: str | os.PathLike[str] | None,
    device: torch.device | str,
) -> Any:
    """What the stage trains, with random weights: the pipeline, or for "vae" the autoencoder."""
    seed, meta = preset["training"]["seed"], str(device) == "meta"
    with torch.device("meta") if meta else nullcontext():
        own = new_autoencoder(preset, seed) if preset["model"]["autoencoder"] == "kl" and not folder else None
        if stage == "vae":
            return own if meta or own is None else own.to(device)  # type: ignore[arg-type]
        if folder is not None:
            pipe = skeleton(folder, preset["model"]["image_size"])
        else:
            pipe = build(preset, phrases, seed, own)
        if stage == "coarse":
            prepare_coarse(pipe, preset)
        else:
            add_control(pipe, seed)
    return pipe if meta else pipe.to(device)


def _task(stage: str, preset: Mapping[str, Any], model: Any, cases: Cases) -> Task:
    """The stage as the loop takes it."""
    if stage == "vae":
        return autoencoder_task(model, cases, preset, None)
    if stage == "coarse":
        return coarse_task(model, cases, preset, None)
    return fine_task(model, cases, preset, None, [[] for _ in range(len(cases))], None)


class _Live(TorchDispatchMode):
    """Bytes of the tensors that live, as they come and go; `peak` is their maximum. `known` ones do not count."""

    def __init__(self, known: Iterator[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return

        def gone(_: Any) -> None:
            self.now -= size
            del self.seen[key]

        self.seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def flop_counter() -> FlopCounterMode:
    """Torch's counter of operations, with the attention of CPUs, which is not among its formulas."""
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
            sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    return FlopCounterMode(display=False, custom_mapping=attention)


def _dry_step(
    stage: str,
    preset: Mapping[str, Any],
    phrases: Sequence[str],
    cases: Cases,
    folder: str | os.PathLike[str] | None,
) -> tuple[Task, int, int]:
    """The task in fake tensors, operations (floating point) and peak bytes of one forward and backward pass of it."""
    model = _model(stage, preset, phrases, folder, "meta")
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        for part in [model] if stage == "vae" else [getattr(model, name, None) for name in PARTS]:
            if part is not None:
                _give_shapes(part)
    if stage != "vae":
        # The noise schedule is numbers, not weights: it was made without contents too.
        model.register_modules(scheduler=type(model.scheduler).from_config(model.scheduler.config))
    with fake:
        task = _task(stage, preset, model, cases)
    count = len(task.inputs.cases)
    noise = draw_noise(0, 0, range(count), tuple(task.inputs.latents.shape[1:]), task.timesteps, task.dropout)
    with fake:
        batch = task.inputs.batch(range(count), range(count), noise)
        known = (*task.module.parameters(), *task.module.buffers())
        with flop_counter() as flops, _Live(iter(known)) as live:
            with autocast(torch.device("cpu"), preset["training"]["precision"]):
                losses = task.module(**batch)
            torch.stack(list(losses.values())).sum().backward()
    return task, flops.get_total_flops(), live.peak


def _give_shapes(part: torch.nn.Module) -> None:
    """Put fake tensors of a CPU in the place of tensors without a device: attention is then what it is on a CPU."""
    for module in part.modules():
        for name, value in module._parameters.items():
            if value is not None:
                shape = torch.empty(value.shape, dtype=value.dtype)
                module._parameters[name] = torch.nn.Parameter(shape, requires_grad=value.requires_grad)
        for name, value in module._buffers.items():  # type: ignore[assignment]
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)


def _parameters(task: Task) -> dict[str, dict[str, int]]:
    """Numbers of trained and frozen weights of each part; adapters count as their part's."""
    learning = {id(parameter) for group in task.groups for parameter in group["params"]}
    if task.pipe is None:
        parts = {task.name: task.module}
    else:
        parts = {name: part for name in PARTS if (part := getattr(task.pipe, name, None)) is not None}
    found = {}
    for name, part in parts.items():
        sizes = [(parameter.numel(), id(parameter) in learning) for parameter in part.parameters()]
        found[name] = {
            "trained": sum(size for size, learns in sizes if learns),
            "frozen": sum(size for size, learns in sizes if not learns),
        }
    return found


def _memory(
    task: Task,
    parameters: Mapping[str, Mapping[str, int]],
    peak: int,
    images: int,
    preset: Mapping[str, Any],
) -> Memory:
    trained = FLOAT_BYTES * sum(part["trained"] for part in parameters.values())
    frozen = FLOAT_BYTES * sum(part["frozen"] for part in parameters.values())
    # Gradients of earlier passes lie there while the next one runs.
    held = peak + (trained if preset["training"]["accumulation"] > 1 else 0)
    pixels = preset["model"]["image_size"] ** 2
    latents = FLOAT_BYTES * int(np.prod(task.inputs.latents.shape[1:])) if task.name != "vae" else 0
    return Memory(
        weights=trained + frozen,
        gradients=trained,
        adamw=2 * trained,
        average=trained if preset["training"]["ema"] else 0,
        activations=max(held - trained, 0),
        cases=images * (3 * pixels + latents),
        program=_program() if PartialState().device.type == "cpu" else 0,
    )


def _program() -> int:
    """Bytes that this process holds: Python and its libraries, before any model."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _seconds(
    make: Callable[[], Task], settings: Mapping[str, Any], flops: int, memory: int, short_step_s: float
) -> tuple[float, str]:
    """Seconds of one optimiser step, and how they were found."""
    device = PartialState().device
    with torch_threads(settings["threads"]):
        rate = matmul_rate(device, settings["precision"])
    expected = flops / (SHARE_OF_MATMUL * rate)
    where = f"{device.type}, {settings['precision']}"
    if expected > short_step_s or memory > _free_memory(device) / 2:
        share = f"{SHARE_OF_MATMUL:.0%} of the {rate / 2e9:.0f} GMAC/s that matrix products reach here ({where})"
        return expected, f"scaled: operations counted on shapes, at {share}"
    times = [time.perf_counter()]
    quiet = {**settings, "held_out_every": 0, "grid_every": 0, "checkpoint_every": REAL_STEPS + 1}
    with tempfile.TemporaryDirectory() as folder:
        train(make(), quiet, REAL_STEPS, Path(folder), progress=lambda event: times.append(time.perf_counter()))
    spent = [later - earlier for earlier, later in zip(times[1:], times[2:], strict=False)]
    return median(spent), f"measured: the median of {len(spent)} real steps of this model with random weights ({where})"


def matmul_rate(device: torch.device, precision: str = "fp32", side: int | None = None) -> float:
    """Floating point operations a second of a square matrix product on this device, the best of several tries."""
    size = side or (1024 if device.type == "cpu" else 8192)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.rand(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        product = left @ right
        # Work on an accelerator is queued: reading a number waits for it.
        float(product[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**33
