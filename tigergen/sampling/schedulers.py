"""Samplers by name, from diffusers, and the noise of single images."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from kb.errors import UserError

SAMPLERS = ("dpm++", "unipc", "ddim")


def make_sampler(name: str, scheduler: Any, steps: int, device: torch.device | str = "cpu") -> Any:
    """A fresh sampler `name` with the noise schedule of `scheduler`, set to `steps` steps.

    `ddim` is deterministic (eta 0); `dpm++` is DPM-Solver++ of second order, multistep (Lu et al. 2022); `unipc` is
    UniPC of second order with the B2 function (Zhao et al. 2023), its steps counted back from the noise (`trailing`).
    Raises UserError for another name.
    """
    if name == "ddim":
        sampler = DDIMScheduler.from_config(scheduler.config)
    elif name == "dpm++":
        sampler = DPMSolverMultistepScheduler.from_config(
            scheduler.config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
        )
    elif name == "unipc":
        sampler = UniPCMultistepScheduler.from_config(
            scheduler.config, solver_order=2, solver_type="bh2", final_sigmas_type="zero", timestep_spacing="trailing"
        )
    else:
        raise UserError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    sampler.set_timesteps(steps, device=device)
    return sampler


def late_timesteps(sampler: Any, strength: float) -> Tensor:
    """The last share `strength` of the sampler's steps, at least one: where refinement of a real image starts.

    Raises UserError unless 0 < strength <= 1.
    """
    if not 0 < strength <= 1:
        raise UserError(
            f"strength is {strength}; give a number above 0 (keep the image) and up to 1 (start from noise)"
        )
    total = len(sampler.timesteps)
    first = total - max(round(total * strength), 1)
    if hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(first)
    return sampler.timesteps[first:]


def image_noise(seeds: Sequence[int], shape: Sequence[int], draws: int = 1) -> list[Tensor]:
    """`draws` standard normal tensors [len(seeds), *shape]; row k comes from a CPU generator of seed k alone."""
    generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
    return [torch.stack([torch.randn(tuple(shape), generator=one) for one in generators]) for _ in range(draws)]
