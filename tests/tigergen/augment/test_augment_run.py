"""Running a plan: killed, restarted, in several processes, the outcome is the same; the files say what they are."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kb.errors import UserError
from tests.proof_corpus import FakePipe, make_workspace, model_stub
from tigergen.augment import closing, work
from tigergen.augment import run as runs
from tigergen.augment.closing import files_id
from tigergen.augment.gates import GateSettings
from tigergen.augment.plan import make_plan

COUNTS = {"train": {"benign": 40, "FTC": 8}, "val": {"benign": 12, "FTC": 6}}
MANY = GateSettings(copy_quantile=0.5)  # a low threshold, so that many images are rejected and made again
BATCH, BLOCK = 6, 24  # 48 images: two blocks of four batches, and the images that are made again


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "BLOCK", BLOCK)
        yield


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    ws = make_workspace(folder / "ws", COUNTS)
    return ws, make_plan(ws, "FTC", 24, seed=1, rare_below=20), model_stub(folder)


def state(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def reference(setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ws, plan, model = setting
    out = tmp_path_factory.mktemp("reference") / "out"
    result = runs.augment(ws, plan, model, out, batch=BATCH, pipe=FakePipe(), gates=MANY, attempts=6)
    assert result["complete"] and result["rejected"]["copy: too near to a real image"] > 5
    return out


def test_manifest_equals_disk(reference: Path) -> None:
    manifest = pd.read_parquet(reference / "manifest.parquet")
    kept = manifest[manifest["accepted"]]
    assert {str(p.relative_to(reference)) for p in reference.rglob("*.png")} == set(kept["file"])
    for row in kept.itertuples():
        assert hashlib.sha256((reference / row.file).read_bytes()).hexdigest() == row.sha256
    assert kept["index"].is_unique and manifest["synthetic"].all()
    assert manifest[~manifest["accepted"]]["reason"].notna().all()
    lines = [json.loads(line) for line in (reference / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == list(kept["file"])
    assert not (reference / ".work").exists()


def test_class_folders_load_as_imagefolder(reference: Path) -> None:
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(reference))
    kept = pd.read_parquet(reference / "manifest.parquet").query("accepted")
    assert data.classes == ["FTC", "benign"] and len(data) == len(kept)


def test_the_same_call_again_changes_nothing(setting, reference: Path) -> None:
    ws, plan, model = setting
    before, pipe = state(reference), FakePipe()
    assert runs.augment(ws, plan, model, reference, batch=BATCH, pipe=pipe, gates=MANY, attempts=6)["complete"]
    assert pipe.calls == 0 and state(reference) == before


class Dying(FakePipe):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def __call__(self, *given, **named):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__call__(*given, **named)


def test_a_run_that_dies_again_and_again_ends_the_same(setting, reference: Path, tmp_path: Path) -> None:
    ws, plan, model = setting
    deaths = 0
    for after in range(2, 40, 3):
        try:
            runs.augment(ws, plan, model, tmp_path / "out", batch=BATCH, pipe=Dying(after), gates=MANY, attempts=6)
            break
        except KeyboardInterrupt:
            deaths += 1
    assert deaths >= 2 and state(tmp_path / "out") == state(reference)


def _child(ws_path: str, plan: dict, model: str, out: str, shard: tuple[int, int], slow: float) -> None:
    from tigerdata.workspace import Workspace

    class Slow(FakePipe):
        def __call__(self, *given, **named):
            time.sleep(slow)
            return super().__call__(*given, **named)

    runs.augment(Workspace.open(ws_path), plan, model, out, shard, BATCH, pipe=Slow(), gates=MANY, attempts=6)


def start(setting, out: Path, shard: tuple[int, int] = (0, 1), slow: float = 0.05):
    ws, plan, model = setting
    given = (str(ws.path), plan, str(model), str(out), shard, slow)
    process = multiprocessing.get_context("fork").Process(target=_child, args=given)
    process.start()
    return process


def test_sigkill_at_random_moments_ends_the_same(setting, reference: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = start(setting, tmp_path / "out")
        time.sleep(float(rng.uniform(0.2, 0.7)))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    process = start(setting, tmp_path / "out", slow=0)
    process.join()
    assert process.exitcode == 0 and state(tmp_path / "out") == state(reference)


@pytest.mark.parametrize("shards", [[(0, 1), (0, 1)], [(0, 2), (1, 2)]])
def test_two_processes_share_a_folder(setting, reference: Path, tmp_path: Path, shards) -> None:
    both = [start(setting, tmp_path / "out", shard, slow=0.02) for shard in shards]
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    assert state(tmp_path / "out") == state(reference)


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_sigterm_finishes_the_batch_and_is_continued(setting, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(setting, out, slow=0.4)
    # The signal must find a batch in hand: the handler is there once the first claim is.
    wait_for(lambda: list((out / ".work").glob("claims/*.lock")))
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0 and not (out / "manifest.parquet").exists()
    records = [r for part in (out / ".work" / "parts").glob("*.json") for r in json.loads(part.read_text())]
    assert len(records) == BATCH, "the batch in hand is kept, and no other is begun"
    assert {str(p.relative_to(out)) for p in out.rglob("*.png")} == {r["file"] for r in records if r["accepted"]}
    again = FakePipe()
    ws, plan, model = setting
    runs.augment(ws, plan, model, out, batch=BATCH, pipe=again, gates=MANY, attempts=6)
    assert state(out) == state(reference)
    rows = len(pd.read_parquet(reference / "manifest.parquet"))
    assert again.calls == rows - BATCH, "what was kept is not made again"


def test_the_block_of_a_killed_process_is_taken_over(setting, reference: Path, tmp_path: Path) -> None:
    """The second process waits for the block that the first holds, and makes it when the first is gone."""
    out = tmp_path / "out"
    first = start(setting, out, slow=30)
    wait_for(lambda: list((out / ".work").glob("claims/000000.lock")))
    second = start(setting, out, slow=0)
    wait_for(lambda: (out / ".work" / "blocks" / "000001.json").exists())
    time.sleep(0.5)
    assert second.is_alive() and not (out / ".work" / "blocks" / "000000.json").exists()
    os.kill(first.pid, signal.SIGKILL)
    second.join(60)
    assert second.exitcode == 0 and state(out) == state(reference)
    first.join()


def test_a_waiting_process_hears_of_sigterm(setting, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(setting, out, slow=30)
    wait_for(lambda: list((out / ".work").glob("claims/000000.lock")))
    second = start(setting, out, slow=0)
    wait_for(lambda: (out / ".work" / "blocks" / "000001.json").exists())
    os.kill(second.pid, signal.SIGTERM)
    second.join(30)
    assert second.exitcode == 0
    first.kill()
    first.join()


def test_what_a_power_cut_leaves_is_mended(setting, reference: Path, tmp_path: Path) -> None:
    """All blocks are committed; then files lose their content, half-written and stray ones lie about."""
    ws, plan, model = setting
    out = tmp_path / "out"

    class Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise Cut

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(closing, "finish", cut)
        runs.augment(ws, plan, model, out, batch=BATCH, pipe=FakePipe(), gates=MANY, attempts=6)
    images = sorted(out.rglob("*.png"))
    images[0].write_bytes(b"")
    images[-1].unlink()
    (out / "FTC" / ".partial-abc.png").write_bytes(images[1].read_bytes())
    (out / "FTC" / "999999.png").write_bytes(images[1].read_bytes())
    (out / ".work" / "blocks" / ".partial-x.json").write_text("[")
    runs.augment(ws, plan, model, out, batch=BATCH, pipe=FakePipe(), gates=MANY, attempts=6)
    assert state(out) == state(reference)


def test_progress_counts_what_all_made_by_reason(setting, reference: Path, tmp_path: Path) -> None:
    ws, plan, model = setting
    with pytest.raises(KeyboardInterrupt):
        runs.augment(ws, plan, model, tmp_path / "out", batch=BATCH, pipe=Dying(5), gates=MANY, attempts=6)
    told: list[dict] = []
    given = {"batch": BATCH, "pipe": FakePipe(), "gates": MANY, "attempts": 6, "progress": told.append}
    runs.augment(ws, plan, model, tmp_path / "out", **given)
    manifest = pd.read_parquet(reference / "manifest.parquet")
    last, rejected = told[-1], manifest[~manifest["accepted"]]
    assert (last["step"], last["steps"]) == (48, 48) and last["accepted"] == manifest["accepted"].sum()
    reasons = rejected["reason"].str.split(" of image").str[0].value_counts()
    assert last["rejected"] == len(rejected) > 30 and reasons["copy: too near to a real image"] > 30
    assert sorted(last["for"].split(", ")) == sorted(f"{reason} {count}" for reason, count in reasons.items())
    assert last["images_per_s"] > 0 and last["eta_s"] == 0
    assert [e["step"] for e in told] == sorted(e["step"] for e in told)
    assert all(a | {"images_per_s": 0, "eta_s": 0} != b | {"images_per_s": 0, "eta_s": 0} for a, b in pairwise(told))


def test_locks_that_a_file_system_lacks_are_told(setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws, plan, model = setting

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(work.fcntl, "flock", no_locks)
    with pytest.raises(UserError, match="has no file locks"):
        runs.augment(ws, plan, model, tmp_path / "out", pipe=FakePipe())


def test_the_batch_size_does_not_change_an_image(setting, reference: Path, tmp_path: Path) -> None:
    ws, plan, model = setting
    runs.augment(ws, plan, model, tmp_path / "out", batch=5, pipe=FakePipe(), gates=MANY, attempts=6)
    assert state(tmp_path / "out") == state(reference)


def test_duplicates_are_replaced_once_all_blocks_are_there(setting, tmp_path: Path) -> None:
    """Every fifth seed draws one and the same frame: all but the first of them are made again."""
    ws, plan, model = setting

    class Repeating(FakePipe):
        def __call__(self, fg, bg, masks, sobels, roles, seeds, **named):
            return super().__call__(
                fg, bg, masks, sobels, roles, [123_457 if s % 5 == 0 else s for s in seeds], **named
            )

    result = runs.augment(ws, plan, model, tmp_path / "out", pipe=Repeating(), attempts=8)
    assert result["unfilled"] == 0 and result["rejected"]["duplicate"] >= 5
    kept = pd.read_parquet(tmp_path / "out" / "manifest.parquet").query("accepted")
    pixels = {np.asarray(Image.open(tmp_path / "out" / f)).tobytes() for f in kept["file"]}
    assert len(pixels) == len(kept) == 48
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")} == set(kept["file"])


def test_slots_that_cannot_be_filled_are_told(setting, tmp_path: Path) -> None:
    ws, plan, model = setting

    class Black(FakePipe):
        def __call__(self, *given, **named):
            return super().__call__(*given, **named) * 0

    result = runs.augment(ws, plan, model, tmp_path / "out", pipe=Black(), attempts=2)
    assert result["accepted"] == 0 and result["unfilled"] == 48
    assert result["rejected"] == {"technical: constant or without contrast": 96}


def test_samples_and_run_are_in_the_database(setting, reference: Path) -> None:
    ws, plan, _ = setting
    with ws.connect(read_only=True) as con:
        rows = con.execute("SELECT run_id, count(*) FROM samples WHERE accepted GROUP BY run_id").fetchall()
    # Other tests run other plans in this workspace: the reference's own run is the one looked for.
    accepted = pd.read_parquet(reference / "manifest.parquet")["accepted"].sum()
    assert (files_id(reference), accepted) in rows


def test_another_plan_or_a_foreign_folder_is_refused(setting, reference: Path, tmp_path: Path) -> None:
    ws, plan, model = setting
    with pytest.raises(UserError, match="another plan"):
        runs.augment(ws, plan | {"seed": 9}, model, reference, batch=BATCH, pipe=FakePipe(), gates=MANY, attempts=6)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="not empty"):
        runs.augment(ws, plan, model, tmp_path / "full", pipe=FakePipe())
    with pytest.raises(UserError, match="shard 2/2"):
        runs.augment(ws, plan, model, tmp_path / "new", shard=(2, 2), pipe=FakePipe())
    with pytest.raises(UserError, match="no model folder"):
        runs.augment(ws, plan, tmp_path / "none", tmp_path / "new")


def test_the_disk_is_checked_beforehand(setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws, plan, model = setting
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(UserError, match="make room"):
        runs.augment(ws, plan, model, tmp_path / "out", pipe=FakePipe())
