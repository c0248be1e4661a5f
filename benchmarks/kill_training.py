"""Training that is killed with SIGKILL at ten random moments ends with the weights of training that is not.

Needs nothing but the program. Coarse and fine stage of a small model on simulated frames, in one process and in two
(DDP, gloo): one run goes through; the other is killed ten times, at random steps and at a random moment within the
step, checkpoints being written at every third, and is then left to end. Printed: how many of the weights differ in any
bit, and the largest difference.

Usage: python benchmarks/kill_training.py [--kills 10] [--processes 1 2]
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

import kb
from tigerdata.conditions import build
from tigerdata.phantom.corpus import uniform_frames
from tigerdata.prompts import compose
from tigergen.data import Cases
from tigergen.training import presets, stages

STEPS, SIZE = 60, 32
SETTINGS = [
    f"model.image_size={SIZE}", "model.unet_channels=[16, 32]", "model.attention_heads=2",
    "model.text_width=32", "model.text_heads=2", "training.checkpoint_every=3",
    "training.held_out_every=5", "training.held_out_images=8",
    "training.grid_every=0", f"coarse.steps={STEPS}", f"fine.steps={STEPS}",
]  # fmt: skip


def frames(count: int, seed: int) -> Cases:
    """Simulated frames with conditions and prompts."""
    base, labels = kb.load("thyroid"), ["benign", "FTC"]
    images, masks, attributes = uniform_frames(count, 128, seed)
    built = [build(image, mask > 0, SIZE) for image, mask in zip(images, masks, strict=True)]
    prompts = [compose(base, labels[number % 2], row) for number, row in enumerate(attributes)]
    names = [f"frame{seed}-{number}" for number in range(count)]
    return Cases(
        images=np.stack([one.image for one in built]), masks=np.stack([one.mask for one in built]),
        sobel=np.stack([one.sobel for one in built]), fg=[one.fg for one in prompts], bg=[one.bg for one in prompts],
        labels=[labels[number % 2] for number in range(count)], attributes=attributes, image_ids=names,
        patient_ids=names,
    )  # fmt: skip


class Run:
    """A stage in processes of its own, which tell their steps through a pipe."""

    def __init__(self, stage: str, start: Path, out: Path, cases: tuple[Cases, Cases], processes: int) -> None:
        context = multiprocessing.get_context("fork")  # a fresh interpreter would take ten seconds to import torch
        self.steps, told = context.Pipe(duplex=False)
        port = free_port()
        self.processes = [
            context.Process(target=work, args=(stage, start, out, cases, rank, processes, port, told))
            for rank in range(processes)
        ]
        for process in self.processes:
            process.start()
        told.close()

    def reach(self, step: int) -> bool:
        """Wait until a step is done; False when the run ends before."""
        while True:
            try:
                if self.steps.recv() >= step:
                    return True
            except EOFError:
                return False

    def kill(self) -> None:
        """End it as a power cut would."""
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
        self.join()

    def join(self) -> bool:
        """Wait for the end; whether it was a good one."""
        for process in self.processes:
            process.join()
        return all(process.exitcode == 0 for process in self.processes)


def work(
    stage: str, start: Path, out: Path, cases: tuple[Cases, Cases], rank: int, processes: int, port: int, told: Any
) -> None:
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)

    def tell(event: Mapping[str, Any]) -> None:
        told.send(event["step"])

    given = (cases[0], presets.load("tiny", SETTINGS), out)
    options: dict[str, Any] = {"held_out": cases[1], "knowledge": kb.load("thyroid"), "progress": tell}
    if stage == "coarse":
        stages.coarse(*given, **options)
    else:
        stages.fine(start, *given, **options)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    parts = sorted(folder.glob("*/*.safetensors"))
    return {f"{part.parent.name}.{name}": value for part in parts for name, value in load_file(part).items()}


def main(kills: int, worlds: Sequence[int], seed: int = 0) -> None:
    cv2.setNumThreads(0)  # its threads would not survive the fork
    chance = random.Random(seed)
    cases = frames(48, 1), frames(8, 2)
    with tempfile.TemporaryDirectory() as name:
        for processes in worlds:
            folder = Path(name) / f"{processes}"
            for stage in ("coarse", "fine"):
                print(json.dumps(compare(stage, folder, cases, processes, kills, chance)), flush=True)


def compare(
    stage: str, folder: Path, cases: tuple[Cases, Cases], processes: int, kills: int, chance: random.Random
) -> dict[str, Any]:
    """Train a stage twice, once killed; what differs."""
    whole, killed, start = folder / stage, folder / f"{stage}-killed", folder / "coarse"
    began = time.perf_counter()
    if not Run(stage, start, whole, cases, processes).join():
        raise SystemExit(f"The uninterrupted {stage} run failed.")
    seconds = time.perf_counter() - began
    moments = sorted(chance.sample(range(1, STEPS), kills))
    done = 0
    for step in moments:
        run = Run(stage, start, killed, cases, processes)
        if run.reach(step):
            time.sleep(chance.random() * 2 * seconds / STEPS)  # in the middle of a step, or of a checkpoint
            run.kill()
            done += 1
        run.join()
    if not Run(stage, start, killed, cases, processes).join():
        raise SystemExit(f"The killed {stage} run could not go on.")
    first, second = weights(whole), weights(killed)
    if first.keys() != second.keys():
        raise SystemExit(f"The {stage} runs hold different parts.")
    worst = max(float((value - second[key]).abs().max()) for key, value in first.items())
    records = [json.loads((out / "training.json").read_text())["figures"] for out in (whole, killed)]
    timed = ("images_per_s", "seconds")
    return {
        "stage": stage, "processes": processes, "steps": STEPS, "killed at": moments, "kills": done,
        "tensors": len(first), "tensors that differ": sum(not torch.equal(first[key], second[key]) for key in first),
        "largest difference": worst,
        "same figures": all(records[0][key] == records[1][key] for key in records[0] if key not in timed),
        "taken step": records[0]["taken_step"],
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    main(options.kills, options.processes)
