"""Make the judge of simulated frames that TigerData ships: `python benchmarks/make_phantom_judge.py OUT`.

42,000 uniform frames, 12 epochs of the network at width 40 (together over an hour of one core), figures
on frames of a seed that neither this judge nor any corpus uses. The weights are written as float16.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import kb
from tigerdata.phantom.corpus import uniform_frames
from tigerdata.progress import reporter
from tigergen import workshop
from tigergen.evaluation.judge import measure, train_judge

PARTS = ((0, 14_000), (2, 16_000), (1, 12_000))  # (seed above `workshop.JUDGE_SEED`, frames)


def main() -> None:
    """Render, train, measure, halve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    parts = [uniform_frames(n, workshop.JUDGE_SIZE, workshop.JUDGE_SEED + seed) for seed, n in PARTS]
    images = np.concatenate([part[0] for part in parts])
    attributes = [row for part in parts for row in part[2]]
    made = train_judge(images, attributes, kb.load("thyroid"), out, "phantom", epochs=12, width=40, progress=reporter())
    made.network.half().float()  # the figures are those of the weights as they are stored
    made.figures |= measure(made, *workshop.unseen_frames(workshop.UNSEEN_FRAMES))
    made.save(out)
    weights = load_file(out / "judge.safetensors")
    save_file(
        {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}, out / "judge.safetensors"
    )


if __name__ == "__main__":
    main()
