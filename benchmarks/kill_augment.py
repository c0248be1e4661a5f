"""A run that is killed with SIGKILL at random moments ends with the files of a run that is not, byte for byte.

Without options: the workspace of the project's own tests (drawn frames) and a generator that draws frames from seeds,
with a low copy threshold and repeated seeds, so that many images are rejected and duplicates replaced. `--workspace`:
its fine model and default gates; give a smaller --n then. A fifth of the kills fall into the closing of the run, the
others on any moment from the start of the process. Printed: kills, files that differ, whether manifest and disk agree.

Usage: python benchmarks/kill_augment.py [--n 2000] [--kills 20] [--workspace DIR] [--target FTC] [--batch 16]
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from tests.proof_corpus import FakePipe, make_workspace, model_stub
from tigerdata.workspace import Workspace
from tigergen import workshop
from tigergen.augment import run as runs
from tigergen.augment.gates import GateSettings
from tigergen.augment.plan import make_plan

COUNTS = {"train": {"benign": 60, "FTC": 20}, "val": {"benign": 20, "FTC": 10}}
CLOSING_SHARE = 5


class Repeating(FakePipe):
    """Draws one and the same frame for one seed in a hundred."""

    def __call__(self, fg: Any, bg: Any, masks: Any, sobels: Any, roles: Any, seeds: Any, **named: Any) -> Any:
        same = [12_345 if seed % 100 == 0 else seed for seed in seeds]
        return super().__call__(fg, bg, masks, sobels, roles, same, **named)


class Job:
    """What is run: a plan in a workspace, into a folder, in a process of its own."""

    def __init__(self, ws: Any, plan: dict[str, Any], model: Path, batch: int, drawn: bool) -> None:
        self.ws, self.plan, self.model, self.batch, self.drawn = ws, plan, model, batch, drawn

    def start(self, out: Path) -> Any:
        process = multiprocessing.get_context("fork").Process(target=self._work, args=(out,))
        process.start()
        return process

    def _work(self, out: Path) -> None:
        import torch

        torch.set_num_threads(1)
        if self.drawn:
            some = GateSettings(copy_quantile=0.5)
            runs.augment(self.ws, self.plan, self.model, out, batch=self.batch, pipe=Repeating(), gates=some)
        else:
            path = out.with_suffix(".json")
            path.write_text(json.dumps(self.plan))
            workshop.augment(self.ws, out, plan=path, batch=self.batch, report=False)


def waited(process: Any, until: Callable[[], bool]) -> float | None:
    """Seconds until something is there; None when the process ended before."""
    began = time.monotonic()
    while not until():
        if not process.is_alive():
            return None
        time.sleep(0.005)
    return time.monotonic() - began


def state(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def manifest_is_disk(folder: Path) -> bool:
    """Whether the images on disk are those that the manifest calls accepted, with its hashes."""
    table = pd.read_parquet(folder / "manifest.parquet").query("accepted")
    labels = {path.parent.name for path in map(Path, table["file"])}
    disk = {name: sha for name, sha in state(folder).items() if name.split("/")[0] in labels}
    return disk == dict(zip(table["file"], table["sha256"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="images, over all classes")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--target", default="FTC")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        ws = Workspace.open(options.workspace) if options.workspace else make_workspace(place / "ws", COUNTS)
        classes = len(set(ws.cases("train")["label"]))
        plan = make_plan(ws, options.target, max(options.n // classes, 1), seed=1)
        model = workshop.model_folder(ws, workshop.FINE) if options.workspace else model_stub(place)
        job = Job(ws, plan, model, options.batch, options.workspace is None)
        ok = compare(job, place, options.kills, chance)
    raise SystemExit(0 if ok else "The killed run differs.")


def compare(job: Job, place: Path, kills: int, chance: random.Random) -> bool:
    """Run once through and once killed; print and return whether nothing differs."""
    whole, killed = place / "whole", place / "killed"
    began = time.monotonic()
    process = job.start(whole)
    waited(process, lambda: any((whole / runs.WORK).glob("claims/*")))
    starting = time.monotonic() - began
    waited(process, (whole / runs.WORK / "finish.lock").exists)
    working = time.monotonic() - began - starting
    process.join()
    closing = time.monotonic() - began - starting - working
    if process.exitcode:
        raise SystemExit("The uninterrupted run failed.")
    done, last = 0, kills // CLOSING_SHARE
    for number in range(kills):
        process = job.start(killed)
        if number >= kills - last:
            waited(process, (killed / runs.WORK / "finish.lock").exists)
            time.sleep(chance.uniform(0, 0.9 * closing))
        else:
            process.join(chance.uniform(0.3, 1) * starting + chance.uniform(0, 1.2 * working / kills))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            done += 1
        process.join()
    left = sorted(str(path.relative_to(killed)) for path in killed.rglob(".partial-*")) if killed.exists() else []
    complete_before = (killed / "manifest.parquet").exists()
    process = job.start(killed)
    process.join()
    first, second = state(whole), state(killed)
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    summary = runs.summary(whole)
    same = not process.exitcode and not differing and manifest_is_disk(whole) and manifest_is_disk(killed)
    figures = {
        "images": len(job.plan["rows"]) and sum(row["count"] for row in job.plan["rows"]),
        "accepted": summary["accepted"], "rejected": summary["rejected"], "batch": job.batch,
        "seconds to start, work, close": [round(starting, 2), round(working, 2), round(closing, 2)],
        "kills": done, "of them while closing": last, "half-written files left by kills": len(left),
        "complete before the last start": complete_before, "files": len(first), "files that differ": differing[:10],
        "manifest = disk": manifest_is_disk(killed), "verdict": "the same, byte for byte" if same else "DIFFERENT",
    }  # fmt: skip
    print(json.dumps(figures, ensure_ascii=False), flush=True)
    return same


if __name__ == "__main__":
    main()
