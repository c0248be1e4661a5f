"""What augmentation promises, measured: the same images however they are made, flat memory, and the rate.

Needs nothing but the program: the workspace of the project's own tests (drawn frames) and models of the preset `tiny`
with random weights, whose images are noise but cost what trained ones cost. Gates and writing are those of a real run;
so that noise is written like an image, nothing is rejected. `--workspace`: its fine model and its images instead.

same: 1 and 2 processes, batches of 1, 7 and 32, a run killed and restarted; grey levels against 1 process, batch 32.
memory: the peak of a process that makes few and many images of 16 px, and what is used before the first image.
rate: attempts a second of augment (gates, files, closing) over those of the bare sampler, in turns, medians.

Usage: python benchmarks/bench_augment.py [same memory rate] [--workspace DIR] [--many 20000]
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from tests.proof_corpus import make_workspace
from tigerdata.workspace import Workspace
from tigergen.augment import files
from tigergen.augment import run as runs
from tigergen.augment.gates import GateSettings
from tigergen.augment.plan import make_plan
from tigergen.augment.slots import Slots, donor_quality

KEEP = GateSettings(keep_all=True)
COUNTS = {"train": {"benign": 60, "FTC": 20}, "val": {"benign": 20, "FTC": 10}}
# As many training images to compare with as a real study's rare class and its neighbours have.
LARGE = {"train": {"benign": 600, "FTC": 200}, "val": {"benign": 60, "FTC": 40}}
SMALL = (
    "model.image_size=16", "model.unet_channels=[32, 32]", "model.attention_heads=2",
    "model.text_width=32", "model.text_heads=2",
)  # fmt: skip
SHARE, GROWTH, LEVELS = 0.85, 0.05, 1


def random_model(folder: Path, phrases: list[str], *settings: str) -> Path:
    """A model folder of the preset `tiny` with random weights."""
    from tigergen.model import add_control, build
    from tigergen.training import presets

    preset = presets.load("tiny", settings)
    pipe = add_control(build(preset, phrases, seed=0))
    pipe.save_pretrained(folder)
    return folder


def child(*given: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=_child, args=given)
    process.start()
    return process


def _child(ws: Any, plan: dict[str, Any], model: Path, out: Path, batch: int) -> None:
    import torch

    torch.set_num_threads(1)
    runs.augment(ws, plan, model, out, batch=batch, gates=KEEP)


def pixels(folder: Path) -> dict[str, Any]:
    return {str(p.relative_to(folder)): files.read_pixels(p) for p in sorted(folder.rglob("*.png"))}


def same(ws: Any, model: Path, place: Path, n: int) -> bool:
    """Print one row a way of running; whether all are as promised."""
    # Small blocks, so that two processes have some to share; children inherit this.
    runs.BLOCK, runs.BATCHES = 16, 1
    plan = make_plan(ws, "FTC", n, seed=1)
    first: dict[str, Any] = {}
    bytes_at: dict[int, dict[str, bytes]] = {}
    good = True
    for batch in (32, 7, 1):
        for way in ("1 process", "2 processes", "killed and restarted"):
            out = place / f"{batch} {way}"
            started = [child(ws, plan, model, out, batch) for _ in range(2 if way == "2 processes" else 1)]
            if way == "killed and restarted":
                # A block of one batch has no parts: its own record comes at once.
                while not any((out / runs.WORK).glob("[pb]*s/*.json")):
                    if not started[0].is_alive():
                        raise SystemExit("the run to be killed had ended already; more --images make it last longer")
                    time.sleep(0.01)
                os.kill(started[0].pid, signal.SIGKILL)
                started.append(child(ws, plan, model, out, batch))
            for process in started:
                process.join()
            made = pixels(out)
            first = first or made
            content = {name: (out / name).read_bytes() for name in made}
            equal = content == bytes_at.setdefault(batch, content)
            away = [np.abs(made[name].astype(int) - image.astype(int)) for name, image in first.items()]
            worst = max(int(d.max()) for d in away)
            fine = made.keys() == first.keys() and equal and worst <= LEVELS
            good &= fine
            row = {"way": way, "batch": batch, "images": len(made), f"bytes equal at batch {batch}": equal}
            row |= {"largest difference to batch 32, grey levels": worst}
            row |= {"pixels that differ": f"{np.mean([(d > 0).mean() for d in away]):.2e}", "as promised": fine}
            print(json.dumps({"same": row}), flush=True)
    return good


def memory(ws: Any, model: Path, place: Path, counts: tuple[int, int]) -> bool:
    """Print the peaks; whether the larger run's is the smaller one's within `GROWTH`."""
    peaks = []
    for number in counts:
        given = [str(ws.path), str(model), str(place / f"{number}"), str(number)]
        done = subprocess.run([sys.executable, __file__, "--peak", *given], check=True, capture_output=True, text=True)
        peaks.append(json.loads(done.stdout.strip().splitlines()[-1]))
    growth = peaks[1]["peak MB"] / peaks[0]["peak MB"] - 1
    fine = growth < GROWTH
    for row in peaks:
        print(json.dumps({"memory": row}), flush=True)
    print(json.dumps({"memory": {"growth": f"{growth:+.1%}", "allowed": GROWTH, "as promised": fine}}), flush=True)
    return fine


def peak(ws: Any, model: Path, out: Path, n: int) -> None:
    """Make a run in this process and print its peak memory, also that of making and of closing alone."""
    import resource

    import torch

    torch.set_num_threads(1)
    plan = make_plan(ws, "FTC", n // 2, seed=1, sampling={"steps": 1})
    marks: dict[str, float] = {}

    def mb() -> float:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

    def watch(event: Any) -> None:
        marks.setdefault("first batch MB", mb())
        marks["last block MB"] = mb()

    began = time.monotonic()
    result = runs.augment(ws, plan, model, out, batch=32, gates=KEEP, progress=watch)
    seconds = time.monotonic() - began
    row = {"images": result["accepted"], "plan rows": len(plan["rows"]), **marks, "peak MB": mb()}
    print(json.dumps({**row, "seconds": round(seconds, 1)}))


def rate(ws: Any, model: Path, place: Path, n: int, rounds: int, own: bool) -> bool:
    """Print the ratio of medians; whether it is at least `SHARE`."""
    import torch

    from tigerdata.prompts import roles
    from tigergen import workshop
    from tigergen.data import load_cases
    from tigergen.model import TigerPipeline

    torch.set_num_threads(1)
    pipe = TigerPipeline.from_pretrained(model)
    size = int(pipe.config["image_size"])
    train = load_cases(ws, "train", size)
    place_of = {i: k for k, i in enumerate(train.image_ids)}
    judge, segmenter = (workshop.own_judge(ws), workshop.own_segmenter(ws)) if own else (None, None)
    bare, whole, spent = [], [], []
    for number in range(rounds + 1):
        plan = make_plan(ws, "FTC", n // len(set(train.labels)), seed=number)
        slots = Slots(plan, donor_quality(ws.kb, train))
        todo = [slots.at(k) for k in range(len(slots))]
        settings = {k: v for k, v in plan["sampling"].items() if k != "quality"}
        began = time.perf_counter()
        for start in range(0, len(todo), 16):
            some = todo[start : start + 16]
            at = [place_of[s.donor] for s in some]
            own_roles = [roles(ws.kb, s.label, s.fg) for s in some]
            given = ([s.fg for s in some], [s.bg for s in some], train.masks[at], train.sobel[at])
            pipe(*given, roles=own_roles, seeds=[s.seed for s in some], **settings)
        sampled = time.perf_counter() - began
        marks: list[float] = []

        def started(_: Any, marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())

        out = place / f"{number}"
        before = _Started(pipe)
        runs.augment(ws, plan, model, out, gates=KEEP, pipe=before, judge=judge, segmenter=segmenter, progress=started)
        end = time.perf_counter()
        if number:  # the first round loads libraries
            bare.append(len(todo) / sampled)
            whole.append(before.images / (end - before.began))
            spent.append(1000 * ((end - before.began) / before.images - sampled / len(todo)))
    ratio = statistics.median(whole) / statistics.median(bare)
    row = {
        "images a round": len(todo), "rounds": rounds, "training images": len(train), "px": size,
        "bare sampler, images/s": round(statistics.median(bare), 2),
        "augment, images/s": round(statistics.median(whole), 2),
        "gates and writing, ms an image": round(statistics.median(spent), 1), "judge": judge is not None,
        "segmenter": segmenter is not None, "ratio": round(ratio, 3), "must": SHARE, "as promised": ratio >= SHARE,
    }  # fmt: skip
    print(json.dumps({"rate": row}), flush=True)
    return ratio >= SHARE


class _Started:
    """A pipeline that knows when it was first called, and for how many images: start-up is not the rate."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.config, self.began, self.images = pipe, pipe.config, 0.0, 0

    def __call__(self, fg: Any, *given: Any, **named: Any) -> Any:
        self.began = self.began or time.perf_counter()
        self.images += len(fg)
        return self.pipe(fg, *given, **named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["same", "memory", "rate"], help="same, memory, rate")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=32, help="images of each way of running in `same`, a class")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        path, model, out, n = options.peak
        peak(Workspace.open(path), Path(model), Path(out), int(n))
        return
    good = True
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        own = options.workspace is not None
        small = Workspace.open(options.workspace) if own else make_workspace(place / "ws", COUNTS)
        phrases = small.kb.phrases()
        if "same" in options.what:
            model = small.path / "models" / "fine" if own else random_model(place / "m64", phrases)
            good &= same(small, model, place / "same", options.images)
        if "memory" in options.what:
            tiny = random_model(place / "m16", phrases, *SMALL)
            good &= memory(small, tiny, place / "memory", (options.few, options.many))
        if "rate" in options.what:
            large = small if own else make_workspace(place / "large", LARGE)
            model = small.path / "models" / "fine" if own else random_model(place / "r64", phrases)
            good &= rate(large, model, place / "rate", 96, options.rounds, own)
    print("verdict:", "as promised" if good else "NOT as promised")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
