"""Which share of the machine's matrix-product speed sampling and fine training reach, for `bench_sampling.py`."""

from collections.abc import Callable
from typing import Any

import inputs
import torch

from tigergen.model import TigerPipeline
from tigergen.model.control import Conditions
from tigergen.model.losses import fine_losses
from tigergen.sampling.denoise import Guided
from tigergen.training.estimate import flop_counter

SIZES = (256, 512, 1024, 2048)


def clock() -> float:
    """Seconds for as many threads as torch has here."""
    return inputs.clock(torch.get_num_threads())


def fastest(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Least seconds of one call among those that fit into `seconds`, after a first one."""
    call()
    best, end = float("inf"), clock() + seconds
    while clock() < end:
        begin = clock()
        call()
        best = min(best, clock() - begin)
    return best


def peak() -> float:
    """Floating-point operations a second of the best float32 matrix product."""
    best = 0.0
    for size in SIZES:
        a, b = torch.randn(2, size, size)
        out = torch.empty(size, size)
        best = max(best, 2 * size**3 / fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)))  # type: ignore[misc]
    return best


def flops(call: Callable[[], Any]) -> int:
    """Operations of one call: convolutions, matrix products and attention, forward and backward."""
    with flop_counter() as counter:
        call()
    return counter.get_total_flops()


def shares(pipe: TigerPipeline, batch: int = 16, train_batch: int = 8) -> dict[str, Any]:
    """Peak, and operations, seconds and share of the peak of one guided sampling step and one fine training step."""
    control, width = pipe.control(), pipe.unet.config["cross_attention_dim"]
    side, size = pipe.unet.config["sample_size"], int(pipe.config["image_size"])
    generator = torch.Generator().manual_seed(0)

    def given(count: int) -> dict[str, Any]:
        drawn = lambda *shape: torch.randn(count, *shape, generator=generator)  # noqa: E731
        texts = {name: drawn(pipe.tokenizer.model_max_length, width) for name in ("fg_text", "bg_text")}
        return texts | {name: drawn(1, size, size).sigmoid() for name in ("masks", "sobels")}

    few = given(batch)
    latents = torch.randn(batch, pipe.unet.config["in_channels"], side, side, generator=generator)
    with torch.no_grad():
        fg, bg = control.embed(few["masks"], few["sobels"])
        conditions = Conditions(few["fg_text"], few["bg_text"], fg, bg)
        guided = Guided(pipe.unet, few["fg_text"], few["bg_text"], 2.0, control, conditions)
        sampling = lambda: guided(latents, torch.tensor(500))  # noqa: E731
        found = {"sampling step": (flops(sampling), fastest(sampling, 5), batch)}
    pipe.unet.requires_grad_(False)
    parts = [pipe.unet.up_blocks, pipe.unet.conv_out, control]
    weights = [w for part in parts for w in part.requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=True)
    data = given(train_batch)
    noise, clean = torch.randn(2, train_batch, *latents.shape[1:], generator=generator)
    times = torch.randint(0, 1000, (train_batch,), generator=generator)
    objective = pipe.objective()

    def training() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = fine_losses(pipe.unet, control, objective, clean, noise, times, data["fg_text"], data)
        torch.stack(losses).sum().backward()
        optimizer.step()

    found["fine training step"] = (flops(training), fastest(training, 5), train_batch)
    best = peak()
    rows = {
        name: {"batch": count, "gflop": round(work / 1e9, 2), "seconds": round(taken, 4),
               "gflop_per_s": round(work / taken / 1e9, 1), "share_of_peak": round(work / taken / best, 3)}
        for name, (work, taken, count) in found.items()
    }  # fmt: skip
    return {"threads": torch.get_num_threads(), "peak_gflop_per_s": round(best / 1e9, 1), **rows}
