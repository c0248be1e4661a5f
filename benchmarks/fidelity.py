"""Does a model draw what it is asked: attributes, nodule mask and edges on layouts of patients that it has not seen.

Usage: python benchmarks/fidelity.py WORKSPACE [--model FOLDER] [--n 500] [--guidance 1.4] [--steps 15]
       [--sampler dpm++] [--weighting log|paper|off] [--keep-control] [--grid FILE]

Each case is a held-out image's own mask, Sobel map and prompts with a seed of its own. Agreement is that of the
workspace's judge with the prompt, beside its agreement on the held-out images themselves (its own errors are in both);
intervals resample cases, generated and real together. Which attributes mask and edges tell already, and which only the
words can, are kept apart. The judge's stability under slight blur and noise is printed with them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tigerdata.workspace import Workspace
from tigergen import workshop
from tigergen.data import Cases, load_cases
from tigergen.evaluation.adherence import mask_dice, sobel_correlation
from tigergen.evaluation.features import TextureSpace
from tigergen.evaluation.judge import hits_by_attribute
from tigergen.evaluation.metrics import frechet_distance

# What mask and Sobel map show whatever the prompt says; margin in part (an outline can be smooth or not).
LAID_OUT = ("aspect", "diameter", "extension", "margin", "shape", "sonogram_direction")
BATCH, RESAMPLES = 50, 2000

Sampler = Callable[[Cases, Sequence[int]], np.ndarray]


def held_out(ws: Workspace, size: int, n: int, seed: int = 0) -> Cases:
    """At most `n` cases of the test part, drawn once for all models, of each class as many as there are."""
    cases = load_cases(ws, "test", size)
    return cases.select(np.sort(np.random.default_rng(seed).permutation(len(cases))[:n]))


def generate(sample: Sampler, cases: Cases) -> tuple[np.ndarray, float]:
    """One image a case, uint8 [N, s, s], and the seconds that an image took."""
    started = time.monotonic()
    parts = [
        sample(cases.select(range(start, min(start + BATCH, len(cases)))), range(start, min(start + BATCH, len(cases))))
        for start in range(0, len(cases), BATCH)
    ]
    return np.concatenate(parts), (time.monotonic() - started) / len(cases)


def measure(ws: Workspace, images: np.ndarray, cases: Cases) -> dict[str, Any]:
    """Every figure of the images made for these cases, real ones beside them."""
    judge = workshop.own_judge(ws)
    made, real = (hits_by_attribute(judge, pixels, cases.attributes) for pixels in (images, cases.images))
    rows = {}
    for name in sorted(made):
        a, b = made[name].astype(float), real[name].astype(float)
        if not len(a) or not b.any():
            continue
        rows[name] = {"generated": a.mean(), "real": b.mean(), "ratio": a.mean() / b.mean(), "n": len(a),
                      "ratio_ci": ratio_interval(a, b)}  # fmt: skip
    groups = {"all": list(rows), "laid_out": [r for r in rows if r in LAID_OUT],
              "words_only": [r for r in rows if r not in LAID_OUT]}  # fmt: skip
    out: dict[str, Any] = {"cases": len(cases), "attributes": rows}
    out |= {f"ratio_{group}": float(np.mean([rows[r]["ratio"] for r in names])) for group, names in groups.items()}
    out["sobel"] = float(np.nanmean(sobel_correlation(images, cases.masks, cases.sobel)))
    out["sobel_real"] = float(np.nanmean(sobel_correlation(cases.images, cases.masks, cases.sobel)))
    out["sobel_shuffled"] = float(
        np.nanmean(sobel_correlation(images, np.roll(cases.masks, 1, 0), np.roll(cases.sobel, 1, 0)))
    )
    if (segmenter := workshop.own_segmenter(ws)) is not None:
        for name, pixels in (("dice", images), ("dice_real", cases.images)):
            values = mask_dice(segmenter, pixels, cases.masks)
            out[name] = float(values.mean())
    space = TextureSpace.fit(load_cases(ws, "train", cases.size).images)
    out["frechet"] = frechet_distance(space(cases.images), space(images))
    half = len(cases) // 2
    out["frechet_floor_of_halves"] = frechet_distance(space(cases.images[:half]), space(cases.images[half:]))
    out["grey_sd"], out["grey_sd_real"] = float(images.std()), float(cases.images.std())
    out["judge"] = {k: judge.figures.get(k) for k in ("mean", "held_out", "robustness")}
    return out


def ratio_interval(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of mean(a) / mean(b) when cases are drawn with replacement, both of a case together."""
    picks = np.random.default_rng(seed).integers(0, len(a), (RESAMPLES, len(a)))
    low, high = np.percentile(a[picks].mean(1) / np.maximum(b[picks].mean(1), 1e-9), [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


def draw(path: Path, cases: Cases, images: np.ndarray, count: int = 12) -> None:
    """Columns of cases: mask, Sobel map, real image, generated image."""
    import cv2

    chosen = np.linspace(0, len(cases) - 1, count).astype(int)
    rows = (cases.masks * np.uint8(255), cases.sobel, cases.images, images)
    grid = np.vstack([np.hstack([np.pad(row[k], 1, constant_values=128) for k in chosen]) for row in rows])
    cv2.imwrite(str(path), cv2.resize(grid, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))


def tell(fact: dict[str, Any]) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(fact, default=float) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.4])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--weighting")
    parser.add_argument("--keep-control", action="store_true", help="guidance strengthens words only")
    parser.add_argument("--grid", type=Path)
    a = parser.parse_args()
    from tigerdata.prompts import roles
    from tigergen.model import TigerPipeline

    ws = Workspace.open(a.workspace)
    folder = a.model or workshop.model_folder(ws, workshop.FINE)
    pipe = TigerPipeline.from_pretrained(folder)
    cases = held_out(ws, int(pipe.config["image_size"]), a.n)
    tell(
        {
            "model": str(folder),
            "sampler": a.sampler,
            "steps": a.steps,
            "weighting": a.weighting or "as trained",
            "keep_control": a.keep_control,
        }
    )
    for beta in a.guidance:

        def sample(part: Cases, seeds: Sequence[int], beta: float = beta) -> np.ndarray:
            said = [roles(ws.kb, label, prompt) for label, prompt in zip(part.labels, part.fg, strict=True)]
            return pipe(
                part.fg, part.bg, masks=part.masks, sobels=part.sobel, roles=said, seeds=seeds, steps=a.steps,
                guidance=beta, sampler=a.sampler, weighting=a.weighting, keep_control=a.keep_control,
            )  # fmt: skip

        images, seconds = generate(sample, cases)
        tell({"guidance": beta, "seconds_an_image": seconds, **measure(ws, images, cases)})
        if a.grid:
            draw(a.grid.with_stem(f"{a.grid.stem}-{beta}"), cases, images)


if __name__ == "__main__":
    main()
