"""Open a model where this process is to compute: the accelerator that a launcher gave it, or the CPU."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tigergen.model import TigerPipeline


def open_pipe(folder: str | os.PathLike[str]) -> "TigerPipeline":
    """Open a model folder on this process's device. Raises UserError when it is none."""
    from tigergen.model import TigerPipeline

    return TigerPipeline.from_pretrained(Path(folder)).to(device())


def device() -> str:
    """`cuda:N`, N being what torchrun and `accelerate launch` call the local rank, or `cpu`.

    No process group is made for that: the processes of a run share a folder and nothing else, so that one of them may
    die, or another be added, at any time. `ACCELERATE_USE_CPU=true` keeps to the CPU, as in training.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    kind = found.type if found is not None else "cpu"
    return f"{kind}:{int(os.environ.get('LOCAL_RANK', 0)) % max(torch.accelerator.device_count(), 1)}"


def is_first() -> bool:
    """Whether this process is the one of its launcher that speaks: rank 0, or started without a launcher."""
    return int(os.environ.get("RANK", 0)) == 0
