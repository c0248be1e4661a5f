"""Two processes and one, one pass and two: the same gradients from the same global batch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kb.files import read_json
from tigergen.training import checkpoint, stages

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def probe(toy: ModuleType) -> ModuleType:
    """The module `ddp_gradients`."""
    spec = importlib.util.spec_from_file_location("ddp_gradients", HERE / "ddp_gradients.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def coarse_folder(toy: ModuleType, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("ddp") / "coarse"
    stages.coarse(toy.toy_cases(), toy.micro(), folder, steps=2)
    return str(folder)


@pytest.fixture(scope="module")
def alone(toy: ModuleType, probe: ModuleType, coarse_folder: str, tmp_path_factory) -> list[torch.Tensor]:
    """Gradients of one process in one pass."""
    return probe.first_gradients(coarse_folder, tmp_path_factory.mktemp("alone"), toy.micro("training.clip=0"))


def worst(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    scale = max(float(one.abs().max()) for one in first)
    assert scale > 0 and len(first) == len(second)
    return max(float((one - two).abs().max()) for one, two in zip(first, second, strict=True)) / scale


def test_accumulation_gives_the_same_gradients(
    toy: ModuleType, probe: ModuleType, coarse_folder: str, alone: list[torch.Tensor], tmp_path: Path
) -> None:
    preset = toy.micro("training.clip=0", "training.accumulation=2")
    assert worst(alone, probe.first_gradients(coarse_folder, tmp_path, preset)) < 1e-5
    other = toy.micro("training.clip=0", "training.seed=1")
    assert worst(alone, probe.first_gradients(coarse_folder, tmp_path, other)) > 1e-2


def test_two_processes_give_the_gradients_of_one_and_a_run_can_go_from_one_to_two_and_back(
    toy: ModuleType, probe: ModuleType, alone: list[torch.Tensor], coarse_folder: str, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def stop(event: dict) -> None:
        if event["step"] == 3:
            raise Killed

    given, unseen = (toy.toy_cases(), probe.passed_on()), toy.toy_cases(4, seed=9)
    whole = stages.coarse(*given, tmp_path / "whole", held_out=unseen)["figures"]
    with pytest.raises(Killed):
        stages.coarse(*given, tmp_path / "passed", held_out=unseen, progress=stop)
    assert [path.name for path in (tmp_path / "passed" / "checkpoint").glob("state*")] == ["state-00000002.pt"]
    # torchrun is what starts several CPU processes on one machine; `accelerate launch --cpu` would ask for MPI.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launch, str(HERE / "ddp_gradients.py"), str(tmp_path), coarse_folder]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    gradients = [torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert worst(gradients[0], gradients[1]) == 0
    assert worst(alone, gradients[0]) < 1e-5
    # The same launch went through a whole coarse stage: one record, one model, no checkpoint left.
    assert (tmp_path / "coarse" / "model_index.json").exists()
    assert not (tmp_path / "coarse" / "checkpoint").exists()
    assert (tmp_path / "coarse" / checkpoint.RECORD).read_text().count('"finished": true') == 1
    # The copy was taken when two processes had written step 4; one goes on from there.
    steps: list[int] = []
    returned = stages.coarse(
        *given, tmp_path / "returned", held_out=unseen, progress=lambda event: steps.append(event["step"])
    )["figures"]  # fmt: skip
    assert steps == [5, 6]
    passed = read_json(tmp_path / "passed" / checkpoint.RECORD)["figures"]
    for figures in (passed, returned):
        # Of sums in another order AdamW makes another last bit, or a whole step where a gradient is zero but for it.
        assert figures["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert figures["last_held_out"] == pytest.approx(whole["last_held_out"], rel=1e-4)
