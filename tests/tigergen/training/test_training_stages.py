"""Coarse and fine stage on a micro model: what trains, what is written, and that a killed run goes on bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import kb
from kb.errors import UserError
from tigergen.model.folder import trained_on
from tigergen.model.pipeline import TigerPipeline
from tigergen.training import checkpoint, stages
from tigergen.training.inputs import FineInputs


class Killed(Exception):
    """Stands for the end of the process."""


def killer(step: int):
    def progress(event: dict[str, Any]) -> None:
        if event["step"] == step:
            raise Killed

    return progress


def weights(folder: Path) -> dict[str, torch.Tensor]:
    parts = sorted(folder.glob("*/*.safetensors"))
    return {f"{part.parent.name}.{name}": value for part in parts for name, value in load_file(part).items()}


def assert_same(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys() and len(one) > 20
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.fixture(scope="module")
def trained(toy: ModuleType, tmp_path_factory) -> Path:
    """An uninterrupted coarse and fine run."""
    folder = tmp_path_factory.mktemp("trained")
    base = kb.load("thyroid")
    stages.coarse(toy.toy_cases(), toy.micro(), folder / "coarse", knowledge=base)
    stages.fine(folder / "coarse", toy.toy_cases(), toy.micro(), folder / "fine", knowledge=base)
    return folder


def test_a_run_killed_between_checkpoints_ends_with_the_weights_of_an_uninterrupted_one(
    toy: ModuleType, trained: Path, tmp_path: Path
) -> None:
    base = kb.load("thyroid")
    cases, preset = toy.toy_cases(), toy.micro()
    for step in (3, 5):  # checkpoints lie at 2 and 4
        with pytest.raises(Killed):
            stages.coarse(cases, preset, tmp_path / "coarse", progress=killer(step), knowledge=base)
    stages.coarse(cases, preset, tmp_path / "coarse", knowledge=base)
    assert_same(trained / "coarse", tmp_path / "coarse")
    with pytest.raises(Killed):
        stages.fine(tmp_path / "coarse", cases, preset, tmp_path / "fine", progress=killer(3), knowledge=base)
    stages.fine(tmp_path / "coarse", cases, preset, tmp_path / "fine", knowledge=base)
    assert_same(trained / "fine", tmp_path / "fine")


def test_a_run_ended_by_sigkill_continues_to_the_same_weights(toy: ModuleType, tmp_path: Path) -> None:
    steps = "coarse.steps=40"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from training_toy import micro, toy_cases\n"
        "from tigergen.training import stages\n"
        f"stages.coarse(toy_cases(), micro({steps!r}), sys.argv[2], progress=lambda e: print(e['step'], flush=True))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "killed")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    ) as run:
        assert run.stdout is not None
        assert any(line.strip() == "7" for line in run.stdout)
        time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "model_index.json").exists()
    assert checkpoint.load_checkpoint(tmp_path / "killed") is not None
    stages.coarse(toy.toy_cases(), toy.micro(steps), tmp_path / "killed")
    stages.coarse(toy.toy_cases(), toy.micro(steps), tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "killed")
    told = [json.loads(line)["step"] for line in (tmp_path / "killed" / "stats.jsonl").read_text().splitlines()]
    assert told == [40]


def test_finished_model_returns_at_once_and_other_settings_are_refused(toy: ModuleType, trained: Path) -> None:
    base, cases, out = kb.load("thyroid"), toy.toy_cases(), trained / "coarse"

    def never(event: dict[str, Any]) -> None:
        raise AssertionError("trained again")

    record = stages.coarse(cases, toy.micro(), out, progress=never, knowledge=base)
    assert record["finished"] and record["figures"]["steps"] == 6
    # What is only shown of a run does not make it another run.
    stages.coarse(cases, toy.micro("training.checkpoint_every=5"), out, progress=never, knowledge=base)
    with pytest.raises(UserError, match=r"training\.batch = 4 and not 2"):
        stages.coarse(cases, toy.micro("training.batch=2"), out, knowledge=base)
    with pytest.raises(UserError, match="other data"):
        stages.coarse(toy.toy_cases(seed=1), toy.micro(), out, knowledge=base)
    with pytest.raises(UserError, match="holds a coarse model"):
        stages.fine(out, cases, toy.micro(), out, knowledge=base)


def test_fine_training_changes_what_it_says_and_stores_tau(toy: ModuleType, trained: Path) -> None:
    before, after = weights(trained / "coarse"), weights(trained / "fine")
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"up_blocks", "conv_norm_out", "conv_out"}
    zeros = [name for name in after if "zero_convolutions" in name and name.endswith("weight")]
    assert zeros and all(after[name].abs().max() > 0 for name in zeros)
    assert any(name.startswith("fusion.") for name in after)
    pipe = TigerPipeline.from_pretrained(trained / "fine")
    shares = {"benign nodule": 9 / 24, "follicular thyroid carcinoma": 3 / 24, "solid": 0.5}
    assert dict(pipe.config["term_frequency"]) == pytest.approx(shares)
    assert not (trained / "fine" / "checkpoint").exists()


def test_frozen_unet_is_the_coarse_one(toy: ModuleType, trained: Path, tmp_path: Path) -> None:
    preset = toy.micro("fine.unfreeze=none", "fine.loss=own", "fine.leak=0.15")
    stages.fine(trained / "coarse", toy.toy_cases(), preset, tmp_path / "own", steps=2)
    before, after = weights(trained / "coarse"), weights(tmp_path / "own")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_losses_that_stop_being_finite_stop_the_run_and_keep_the_last_good_checkpoint(
    toy: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    from tigergen.training.tasks import CoarseModule

    plain, calls = CoarseModule.forward, []

    def breaks_in_step_five(self, **batch: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        factor = float("nan") if len(calls) == 6 else 1.0
        return {name: loss * factor for name, loss in plain(self, **batch).items()}

    monkeypatch.setattr(CoarseModule, "forward", breaks_in_step_five)
    with pytest.raises(UserError, match=r"not finite in step 5 with images image0\d+.*checkpoint is kept"):
        stages.coarse(toy.toy_cases(), toy.micro(), tmp_path / "out")
    state = checkpoint.load_checkpoint(tmp_path / "out")
    assert state is not None and state["step"] == 4
    assert all(torch.isfinite(one).all() for one in state["parameters"])


def test_grid_and_held_out_loss_leave_the_weights_alone(toy: ModuleType, trained: Path, tmp_path: Path) -> None:
    import cv2

    preset = toy.micro("training.held_out_every=3", "training.grid_every=6", "training.grid_images=2")
    events: list[dict[str, Any]] = []
    record = stages.fine(
        trained / "coarse", toy.toy_cases(), preset, tmp_path / "fine", progress=lambda e: events.append(dict(e)),
        held_out=toy.toy_cases(4, seed=9), knowledge=kb.load("thyroid"),
    )  # fmt: skip
    assert_same(trained / "fine", tmp_path / "fine")
    assert [event["step"] for event in events] == list(range(1, 7))
    assert set(events[-2]) == {"stage", "step", "steps", "loss", "held_out", "images_per_s", "eta_s"}
    assert set(events[-1]) - set(events[-2]) == {"edges"}
    assert events[1]["held_out"] is None and 0 < record["figures"]["held_out"] < 10
    grid = cv2.imread(str(tmp_path / "fine" / "grids" / "fine-000006.png"), cv2.IMREAD_GRAYSCALE)
    assert grid.shape[0] == 2 * 20 + 14 and grid.shape[1] >= 4 * 20
    assert grid[2:18, 2:18].max() == 255  # the mask of the first row


def test_cached_inputs_equal_fresh_ones(toy: ModuleType, trained: Path) -> None:
    from tigergen.training.draws import draw_noise

    pipe, cases = TigerPipeline.from_pretrained(trained / "fine"), toy.toy_cases()
    roles = [[("solid", "particular")] for _ in range(len(cases))]
    inputs = FineInputs(pipe, cases, "log", roles)
    noise = draw_noise(0, 0, range(3), inputs.latents.shape[1:], 1000, [0.0] * 5)
    for _ in range(2):  # the second time every text state is known
        batch = inputs.batch([5, 1, 5], [5, 1, 5, 0], noise)
        assert torch.equal(batch["clean"], pipe.to_latents(cases.images[[5, 1, 5]]))
        assert torch.allclose(
            batch["conditions"]["fg_text"], pipe.text_states([cases.fg[k] for k in (5, 1, 5)]), atol=1e-6
        )
        assert np.array_equal(batch["conditions"]["sobels"][:, 0].numpy() * 255, cases.sobel[[5, 1, 5]])
    # "solid" is the third token; particular: delta 0, weight .6 + 5/2 (equation 9).
    assert batch["conditions"]["fg_weights"][:, 2].tolist() == pytest.approx([3.1] * 3)


def test_cases_of_another_size_are_refused(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="32 px"):
        stages.coarse(toy.toy_cases(size=32), toy.micro(), tmp_path / "out")


def test_a_start_without_a_model_is_refused(toy: ModuleType, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model_index.json").write_bytes((trained / "coarse" / "model_index.json").read_bytes())
    for start in ("absent", "bare"):
        with pytest.raises(UserError, match="no model folder .* train it first"):
            stages.fine(tmp_path / start, toy.toy_cases(), toy.micro(), tmp_path / "out")


def test_a_model_says_which_images_are_behind_it(
    toy: ModuleType, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training on other images adds to those of the model it started from, which shaped the weights too."""
    own, others = toy.toy_cases().image_ids, toy.toy_cases(4, seed=9)
    assert trained_on(trained / "coarse") == trained_on(trained / "fine") == own
    stages.fine(trained / "coarse", others, toy.micro(), tmp_path / "fine", steps=1)
    assert trained_on(tmp_path / "fine") == sorted([*own, *others.image_ids])
    # Any folder that from_base takes may have been trained here before; this one stands for it.
    monkeypatch.setattr(stages, "from_base", lambda folder, size: TigerPipeline.from_pretrained(folder))
    stages.coarse(others, toy.micro(), tmp_path / "next", base=trained / "coarse", steps=1)
    assert trained_on(tmp_path / "next") == sorted([*own, *others.image_ids])


def test_a_start_that_does_not_say_makes_a_model_that_does_not(toy: ModuleType, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "coarse", tmp_path / "coarse")
    (tmp_path / "coarse" / "trained_on.json").unlink()
    stages.fine(tmp_path / "coarse", toy.toy_cases(), toy.micro(), tmp_path / "fine", steps=1)
    assert trained_on(tmp_path / "fine") is None


def test_a_run_whose_held_out_loss_doubles_stops_and_says_what_to_lower(toy: ModuleType, tmp_path: Path) -> None:
    preset = toy.micro("training.held_out_every=1", "training.clip=0.0", "training.ema=0.0", "coarse.lr=0.9")
    unseen = toy.toy_cases(count=4, seed=1)
    with pytest.raises(UserError, match=r"Stage coarse has diverged: at step \d+ .* Lower coarse.lr"):
        stages.coarse(toy.toy_cases(), preset, tmp_path, steps=12, held_out=unseen)
    calm = toy.micro("training.held_out_every=1", "coarse.lr=0.001")
    record = stages.coarse(toy.toy_cases(), calm, tmp_path / "calm", steps=12, held_out=unseen)
    assert record["figures"]["steps"] == 12
