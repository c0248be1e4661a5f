"""Checkpoints: the last few and the best, readable whatever happened to the newest, and of no matter to the weights."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kb.errors import UserError
from kb.files import read_json, write_json
from tigergen.training import checkpoint, stages
from tigergen.training.watch import Watch


class Killed(Exception):
    """Stands for the end of the process."""


def state(step: int) -> dict[str, Any]:
    return {"step": step, "parameters": [torch.full((64,), float(step))]}


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoint").iterdir())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    parts = sorted(folder.glob("*/*.safetensors"))
    return {f"{part.parent.name}.{name}": value for part in parts for name, value in load_file(part).items()}


def test_the_last_few_are_kept_and_the_best_of_each(tmp_path: Path) -> None:
    checkpoint.save_best(tmp_path, 1, [torch.ones(1)])
    checkpoint.save_best(tmp_path, 2, [torch.ones(1)])
    for step in (2, 4, 6):
        checkpoint.save_checkpoint(tmp_path, state(step), keep=2)
    assert names(tmp_path) == ["best-00000002.pt", "state-00000004.pt", "state-00000006.pt"]
    checkpoint.save_best(tmp_path, 7, [torch.full((1,), 7.0)])
    checkpoint.save_checkpoint(tmp_path, state(8), keep=2)
    # Whoever goes on from step 6 has seen nothing better than step 2.
    assert names(tmp_path) == ["best-00000002.pt", "best-00000007.pt", "state-00000006.pt", "state-00000008.pt"]
    checkpoint.save_checkpoint(tmp_path, state(10), keep=2)
    assert names(tmp_path) == ["best-00000007.pt", "state-00000008.pt", "state-00000010.pt"]
    stored = checkpoint.load_best(tmp_path, 7)
    assert stored is not None and stored[0].item() == 7
    assert checkpoint.load_best(tmp_path, 3) is None


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:  # one bit of one weight
        place = content.find(torch.full((64,), 4.0).numpy().tobytes())
        assert place > 0
        content[place + 10] ^= 4
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["cut", "empty", "bit"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_one_sentence(tmp_path: Path, how: str) -> None:
    for step in (2, 4):
        checkpoint.save_checkpoint(tmp_path, state(step), keep=2)
    damage(tmp_path / "checkpoint" / "state-00000004.pt", how)
    told: list[str] = []
    stored = checkpoint.load_checkpoint(tmp_path, told.append)
    assert stored is not None and stored["step"] == 2
    assert len(told) == 1 and "state-00000004.pt is damaged" in told[0] and "step 2" in told[0]
    (tmp_path / "checkpoint" / "state-00000002.pt").unlink()
    with pytest.raises(UserError, match=r"state-00000004\.pt cannot be read; delete"):
        checkpoint.load_checkpoint(tmp_path)


def test_what_was_written_after_the_step_gone_on_from_is_removed(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path, state(2), keep=2)
    checkpoint.save_checkpoint(tmp_path, state(4), keep=2)
    checkpoint.save_best(tmp_path, 3, [])
    (tmp_path / "checkpoint" / ".partial-abc.pt").write_bytes(b"half")
    checkpoint.drop_newer(tmp_path, 2)
    assert names(tmp_path) == ["state-00000002.pt"]


def test_a_full_disk_is_a_sentence_and_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch) -> None:
    checkpoint.save_checkpoint(tmp_path, state(2), keep=2)

    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file\nframe 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot be written .*the one before is kept: make room"):
        checkpoint.save_checkpoint(tmp_path, state(4), keep=2)
    assert names(tmp_path) == ["state-00000002.pt"]


@pytest.fixture(scope="module")
def uphill(toy: ModuleType) -> dict[str, Any]:
    """A run whose held-out loss is lowest in the middle: eight images, a high learning rate."""
    preset = toy.micro(
        "training.held_out_every=2", "training.checkpoint_every=4", "training.ema=0.0", "coarse.lr=0.02",
        "coarse.steps=16", "training.clip=0.0",
    )  # fmt: skip
    return {"cases": toy.toy_cases(8), "preset": preset, "held_out": toy.toy_cases(8, seed=9)}


@pytest.fixture
def best_at_six(monkeypatch) -> None:
    """The held-out losses as if step 6 had been the best."""
    look = Watch.look

    def bent(self: Watch, step: int, loss: float, held_out: Any, seen: Any) -> Any:
        losses = held_out * 0 + 1 + abs(step - 6) / 100
        return look(self, step, loss, losses, losses)

    monkeypatch.setattr(Watch, "look", bent)


def killer(*steps: int):
    left = list(steps)

    def progress(event: dict[str, Any]) -> None:
        if left and event["step"] == left[0]:
            left.pop(0)
            raise Killed

    return progress


def test_the_best_weights_are_taken_or_the_last_as_asked_and_a_killed_run_takes_the_same(
    toy: ModuleType, uphill: dict[str, Any], best_at_six: None, tmp_path: Path
) -> None:
    def run(name: str, final: str, progress: Any = None) -> dict[str, Any]:
        preset = {**uphill["preset"], "training": {**uphill["preset"]["training"], "final": final}}
        return stages.coarse(
            uphill["cases"], preset, tmp_path / name, held_out=uphill["held_out"], progress=progress
        )["figures"]  # fmt: skip

    best, last = run("best", "best"), run("last", "last")
    assert (best["taken_step"], best["best_step"], last["taken_step"], last["best_step"]) == (6, 6, 16, 6)
    assert best["held_out"] == best["best_held_out"] == 1.0 and best["last_held_out"] == 1.1
    assert last["held_out"] == last["last_held_out"] == 1.1
    # The weights of a run that ends at step 6, but for the learning rate, which is constant after the warm-up here.
    short = stages.coarse(uphill["cases"], uphill["preset"], tmp_path / "short", held_out=uphill["held_out"], steps=6)
    assert short["figures"]["taken_step"] == 6
    one, two, other = (weights(tmp_path / name) for name in ("best", "short", "last"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    # Killed at 7: goes on from 4, and step 6 is the best once more; at 11: goes on from 8, whose best is 6.
    for step in (7, 11):
        with pytest.raises(Killed):
            run("killed", "best", killer(step))
    told = run("killed", "best")
    assert {key: told[key] for key in best if key not in ("seconds", "images_per_s")} == {
        key: best[key] for key in best if key not in ("seconds", "images_per_s")
    }
    three = weights(tmp_path / "killed")
    assert all(torch.equal(one[name], three[name]) for name in one)
    assert not (tmp_path / "killed" / "checkpoint").exists()


def test_best_weights_that_cannot_be_read_are_replaced_by_the_last_with_a_sentence(
    uphill: dict[str, Any], best_at_six: None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tigergen.training.loop.load_best", lambda out, step: None)
    events: list[dict[str, Any]] = []
    given = uphill["cases"], uphill["preset"], tmp_path
    figures = stages.coarse(*given, held_out=uphill["held_out"], progress=events.append)["figures"]
    assert figures["taken_step"] == 16 and figures["held_out"] == figures["last_held_out"]
    assert [event["warning"] for event in events if "warning" in event] == [
        "The best weights, of step 6, cannot be read; the last are kept."
    ]


def test_without_held_out_images_the_last_weights_are_taken(uphill: dict[str, Any], tmp_path: Path) -> None:
    figures = stages.coarse(uphill["cases"], uphill["preset"], tmp_path, steps=4)["figures"]
    assert figures["taken_step"] == 4 and figures["best_step"] is None and figures["held_out"] is None


def test_a_run_with_a_damaged_newest_checkpoint_ends_with_the_same_weights(toy: ModuleType, tmp_path: Path) -> None:
    cases, preset = toy.toy_cases(), toy.micro("coarse.steps=8")
    stages.coarse(cases, preset, tmp_path / "whole")
    with pytest.raises(Killed):
        stages.coarse(cases, preset, tmp_path / "killed", progress=killer(7))
    newest = tmp_path / "killed" / "checkpoint" / "state-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    events: list[dict[str, Any]] = []
    stages.coarse(cases, preset, tmp_path / "killed", progress=events.append)
    assert "state-00000006.pt is damaged" in events[0]["warning"] and events[1]["step"] == 5
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_folder_of_an_older_version_goes_on(toy: ModuleType, tmp_path: Path) -> None:
    """One `state.pt`, the best as a pair of losses, and a record that does not know the newer settings."""
    cases, preset = toy.toy_cases(), toy.micro()
    stages.coarse(cases, preset, tmp_path / "whole")
    old = tmp_path / "old"
    with pytest.raises(Killed):
        stages.coarse(cases, preset, old, progress=killer(5))
    content = torch.load(old / "checkpoint" / "state-00000004.pt", weights_only=True)
    assert content["step"] == 4
    shutil.rmtree(old / "checkpoint")
    (old / "checkpoint").mkdir()
    del content["watch"], content["adherence"]
    torch.save({**content, "best": (0.5, 0.5)}, old / "checkpoint" / "state.pt")
    record = read_json(old / checkpoint.RECORD)
    del record["identity"]["training.final"]
    write_json(old / checkpoint.RECORD, record)
    steps: list[int] = []
    stages.coarse(cases, preset, old, progress=lambda event: steps.append(event["step"]))
    assert steps == [5, 6]
    one, two = weights(tmp_path / "whole"), weights(old)
    assert all(torch.equal(one[name], two[name]) for name in one)
    # A setting that the record does not know counts as its default.
    with pytest.raises(UserError, match=r"training\.final"):
        stages.coarse(cases, toy.micro("training.final=last"), old)
    with pytest.raises(UserError, match=r"training\.final = 'best' and not 'last'"):
        stages.coarse(cases, toy.micro("training.final=last"), tmp_path / "whole")


def test_drop_out_in_a_base_leaks_no_state_into_a_run(toy: ModuleType, tmp_path: Path, monkeypatch) -> None:
    """A text encoder with drop-out, in training mode: nothing of the process's random state enters or leaves."""
    plain = stages.build

    def with_drop_out(*given: Any, **options: Any) -> Any:
        pipe = plain(*given, **options)
        for module in pipe.text_encoder.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.5  # CLIP's attention
        pipe.text_encoder.train()
        return pipe

    cases, preset = toy.toy_cases(), toy.micro("training.held_out_every=2", "training.prompt_dropout=0")
    unseen = toy.toy_cases(2, seed=9)
    stages.coarse(cases, preset, tmp_path / "without", held_out=unseen)
    monkeypatch.setattr(stages, "build", with_drop_out)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = stages.coarse(cases, preset, tmp_path / "whole", held_out=unseen)["figures"]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    with pytest.raises(Killed):
        stages.coarse(cases, preset, tmp_path / "killed", held_out=unseen, progress=killer(5))
    torch.rand(17)
    told = stages.coarse(
        cases, preset, tmp_path / "killed", held_out=unseen, progress=lambda event: torch.rand(event["step"])
    )["figures"]  # fmt: skip
    one, two, other = (weights(tmp_path / name) for name in ("whole", "killed", "without"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one), "no drop-out: this test sees nothing"
    assert told["held_out"] == whole["held_out"]
