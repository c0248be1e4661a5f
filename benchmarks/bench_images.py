"""Ingest and conditions of 512-px frames: images a second on one process and on two, peak memory at n and 4n.

Simulated frames (speckle with an ellipse and its mask, PNG); with TIGER_REAL_DATA, the DDTI files enlarged and cut in
other places each time. The result must not depend on the number of processes, and memory must not grow with n.
"""

import argparse
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from inputs import measured

SIDE, MUST_SPEEDUP, MUST_GROWTH_MB = 512, 1.7, 60.0
IMAGES = 500

CODE = """
import json, sys, time
from tigerdata.images.ingest import ingest_images
from tigerdata.workspace import Workspace
if __name__ == '__main__':
    begin = time.monotonic()
    workers = int(sys.argv[3])
    found = ingest_images(Workspace.open(sys.argv[1]), sys.argv[2], workers=workers)
    ingest = time.monotonic() - begin
    from conditions_of import conditions_of
    begin = time.monotonic()
    digest = conditions_of(sys.argv[1], workers)
    print(json.dumps({'ingest_s': ingest, 'conditions_s': time.monotonic() - begin, 'digest': digest,
                      **{k: found[k] for k in ('files', 'taken', 'images', 'nodule_masks')}}))
"""
# In a module, because a spawned process imports what it calls.
CONDITIONS = """
import hashlib
from itertools import starmap
from pathlib import Path
import cv2
from tigerdata.conditions import build, quality_scores
from tigerdata.processes import batches, in_order

def part(root, names):
    out = []
    for name in names:
        frame = cv2.imread(f'{root}/images/{name}.png', 0)
        mask = cv2.imread(f'{root}/regions/{name}.nodule.png', 0) > 127
        made = build(frame, mask, 256)
        out.append(hashlib.sha256(made.sobel.tobytes() + made.mask.tobytes()).hexdigest()[:8]
                   + f"{quality_scores(frame)['detail']:.6f}")
    return out

def conditions_of(root, workers):
    names = sorted(p.stem for p in Path(root, 'images').glob('*.png'))
    calls = ((root, names) for names in batches(names, 32))
    results = starmap(part, calls) if workers < 2 else in_order(part, calls, workers, 3 * workers + 1)
    return hashlib.sha256(str(list(results)).encode()).hexdigest()[:16]
"""


def frame(number: int, sources: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A frame [512, 512] of which no two are alike, and its mask."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    centre = tuple(int(v) for v in rng.integers(180, 330, 2))
    cv2.ellipse(mask, centre, (int(rng.integers(50, 110)), int(rng.integers(40, 80))), 0, 0, 360, 255, -1)
    if sources:
        source = sources[number % len(sources)]
        y, x = (int(rng.integers(0, 1 + s // 5)) for s in source.shape)
        part = source[y : y + 4 * source.shape[0] // 5, x : x + 4 * source.shape[1] // 5]
        return cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), mask
    coarse = cv2.resize(rng.normal(100, 40, (20, 20)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    speckle = cv2.GaussianBlur(rng.rayleigh(1.0, (SIDE, SIDE)).astype(np.float32), (0, 0), 1.2)
    return np.clip(coarse * speckle * np.where(mask > 0, 0.5, 0.9), 0, 255).astype(np.uint8), mask


def write_set(root: Path, count: int, sources: list[np.ndarray]) -> Path:
    """Images, masks and images.csv."""
    root.mkdir()
    lines = ["file,mask_file,patient_id,label"]
    for number in range(count):
        image, mask = frame(number, sources)
        cv2.imwrite(str(root / f"{number}.png"), image)
        cv2.imwrite(str(root / f"{number}m.png"), mask)
        lines.append(f"{number}.png,{number}m.png,P{number // 2},{('PTC', 'benign')[number % 2]}")
    (root / "images.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def run(folder: Path, images: Path, workers: int) -> dict[str, float]:
    """Both steps in a process of its own: seconds, peak memory of it and its workers in MB, counts."""
    from tigerdata.workspace import Workspace

    workspace = Workspace.create(folder).path
    (folder.parent / "conditions_of.py").write_text(CONDITIONS, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder.parent), os.environ.get("PYTHONPATH")]))
    # One thread a process: OpenCV and BLAS would use the second core for the first process.
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    found = measured(CODE, workspace, images, workers, env=env)
    return {"mb": found.pop("peak") / 1e6, **found}


def main() -> None:
    """Run; exit code 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    real = os.environ.get("TIGER_REAL_DATA")
    files = sorted(Path(real, "ddti").glob("*.a.jpg")) if real else []
    sources = [s for f in files if (s := cv2.imread(str(f), cv2.IMREAD_GRAYSCALE)) is not None]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        few = write_set(Path(name) / "few", options.images, sources)
        many = write_set(Path(name) / "many", 4 * options.images, sources)
        one = run(Path(name) / "ws1", many, 1)
        two = run(Path(name) / "ws2", many, 2)
        small = run(Path(name) / "ws3", few, 1)
    print(f"{SIDE} x {SIDE} px, {'DDTI, enlarged' if real else 'simulated'}, load of the machine before {load:.1f}")
    seconds = {}
    for title, result in (("1 process", one), ("2 processes", two)):
        seconds[title] = result["ingest_s"] + result["conditions_s"]
        rates = [result["files"] / result[k] for k in ("ingest_s", "conditions_s")]
        print(
            f"{title}: {result['files'] / seconds[title]:.1f} images/s (ingest {rates[0]:.1f}, conditions "
            f"{rates[1]:.1f}), at most {result['mb']:.0f} MB in all"
        )
    gain, growth = seconds["1 process"] / seconds["2 processes"], one["mb"] - small["mb"]
    print(f"2 beside 1: {gain:.2f}x; memory at {small['files']} and {one['files']} images: {growth:+.0f} MB")
    assert one["digest"] == two["digest"] and one["taken"] == two["taken"] == one["files"]
    if options.images >= IMAGES:
        missed = [f"speed-up {gain:.2f} < {MUST_SPEEDUP}"] if gain < MUST_SPEEDUP else []
        missed += [f"growth {growth:.0f} MB > {MUST_GROWTH_MB:.0f}"] if growth > MUST_GROWTH_MB else []
        if missed:
            raise SystemExit("; ".join(missed))


if __name__ == "__main__":
    main()
