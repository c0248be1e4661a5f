"""Run by test_training_ddp under torchrun: one step of a stage, its gradients to a file, and runs that go on."""

import shutil
import sys
from pathlib import Path

import torch

import kb


def main(out: Path, coarse_folder: str) -> None:
    """Write the gradients of the fine stage's first step, then train the coarse stage, in this world.

    Where `out` holds a folder `passed`, the run in it is finished here; at its step 5 it is copied to `returned`.
    """
    from training_toy import micro, toy_cases

    from tigergen.training import stages

    cases, preset = toy_cases(), micro("training.clip=0", "training.batch=4")
    # First, as in a command: a stage must find its companions by itself.
    stages.coarse(cases, preset, out / "coarse", steps=3, knowledge=kb.load("thyroid"))
    assert state().num_processes == 2
    torch.save(first_gradients(coarse_folder, out, preset), out / f"gradients-{state().process_index}.pt")

    def copy(event: dict) -> None:
        if event["step"] == 5:
            shutil.copytree(out / "passed", out / "returned")

    if (out / "passed").exists():
        stages.coarse(cases, passed_on(), out / "passed", held_out=toy_cases(4, seed=9), progress=copy)


def passed_on() -> dict:
    """Settings of the run that goes from one process to two and back: six steps, a checkpoint at every second."""
    from training_toy import micro

    return micro("training.held_out_every=3", "training.final=last")


def state():
    """This process's place in the world."""
    from accelerate import PartialState

    return PartialState()


def first_gradients(coarse_folder: str, out: Path, preset: dict) -> list[torch.Tensor]:
    """Gradients of the fine stage after its first step; they do not depend on how the batch was shared."""
    from accelerate import Accelerator
    from training_toy import toy_cases

    from tigergen.model.assemble import add_control
    from tigergen.model.pipeline import TigerPipeline
    from tigergen.training.loop import _Run
    from tigergen.training.stages import _roles
    from tigergen.training.tasks import fine_task

    torch.set_num_threads(1)
    cases, pipe = toy_cases(), add_control(TigerPipeline.from_pretrained(coarse_folder))
    task = fine_task(pipe, cases, preset, None, _roles(cases, kb.load("thyroid")), None)
    with torch.no_grad():  # zero convolutions would hide the encoders' gradients in the first step
        for name, parameter in task.module.named_parameters():
            if "zero_convolutions" in name:
                parameter.fill_(0.05)
    run = _Run(task, preset["training"], 6, out, Accelerator(mixed_precision="no"))
    run._step(0)
    return [parameter.grad.clone() for parameter in run.parameters]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Path(sys.argv[1]), sys.argv[2])
