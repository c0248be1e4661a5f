"""Segmenters trained from scratch on real frames: U-Net beside YOLO, nodules of DDTI and glands of a frame series.

Usage: python benchmarks/segmentation.py FOLDER OUT [--task nodule|gland] [--model unet|yolo] [--imgsz N] [--epochs N]
       [--start FOLDER] [--test]

FOLDER holds `ddti/` and `gland/`. A run trains once (the same command again only measures), then prints inputs,
settings, processor minutes and the figures of the validation part; `--test` opens the test part, notes in
`looks.jsonl` that it did, and writes overlays of the best, median and worst frames.

Nodules: `tigerdata ingest images --source ddti` as it is, `tigerdata split` 70/15/15 by patient. Glands: the set names
no patient. Neighbouring files are frames of one sweep, so the parts are three contiguous blocks of the file order,
70/15/15, each border moved to the nearest change of sweep (correlation of neighbours below .5). Intervals: percentiles
of 2,000 resamples of whole patients (of whole sweeps).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tigerdata import regions
from tigerdata.images.frames import read_clean
from tigerdata.images.ingest import ingest_images
from tigerdata.progress import reporter
from tigerdata.regions import masks
from tigerdata.regions.segment import SETTINGS, dice
from tigerdata.splits import split
from tigerdata.workspace import Workspace

SHARES = (0.7, 0.15)
SAME_SWEEP = 0.5
RESAMPLES = 2000
PARTS = ("train", "val", "test")
# Passes over the training part that stay below 40 minutes of one thread (AMD EPYC, AVX-512 with bfloat16).
RECIPES: dict[tuple[str, str], dict[str, int]] = {
    ("nodule", "unet"): {"imgsz": 192, "epochs": 60},
    ("nodule", "yolo"): {"imgsz": 192, "epochs": 30},
    ("gland", "unet"): {"imgsz": 192, "epochs": 130},
    ("gland", "yolo"): {"imgsz": 192, "epochs": 30},
}


def nodules(folder: Path, out: Path) -> Workspace:
    """The workspace of the DDTI set, made once."""
    if (out / "tiger.duckdb").exists():
        return Workspace.open(out)
    ws = Workspace.create(out)
    taken = ingest_images(ws, folder / "ddti", source="ddti")
    split(ws, val=0.15, test=0.15)
    tell({"inputs": {k: v for k, v in taken.items() if k != "rejected"}})
    return ws


def sweeps(frames: Sequence[NDArray[np.uint8]]) -> list[int]:
    """Number of the sweep of each frame, in file order: a new one where neighbours hardly correlate."""
    small = [cv2.resize(f, (32, 32), interpolation=cv2.INTER_AREA).astype(float).ravel() for f in frames]
    numbers = [0]
    for a, b in zip(small, small[1:], strict=False):
        numbers.append(numbers[-1] + (np.corrcoef(a, b)[0, 1] < SAME_SWEEP))
    return [int(n) for n in numbers]


def blocks(sweep: Sequence[int]) -> list[str]:
    """Part of each frame: three contiguous blocks whose borders are changes of sweep."""
    changes = [k for k in range(1, len(sweep)) if sweep[k] != sweep[k - 1]]
    wanted = (SHARES[0] * len(sweep), sum(SHARES) * len(sweep))
    first, second = (min(changes, key=lambda k: abs(k - border)) for border in wanted)
    return ["train" if k < first else "val" if k < second else "test" for k in range(len(sweep))]


def clean(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The set's masks hold the letters of a burned-in word: parts below 5 % of the largest one are left out."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [k for k in range(1, number) if areas[k] >= masks.SPECK * areas[1:].max()]
    return np.isin(labels, kept)


def glands(folder: Path, out: Path) -> Workspace:
    """The workspace of the gland frames, made once from copies with cleaned masks and a table of sweeps and parts."""
    if (out / "tiger.duckdb").exists():
        return Workspace.open(out)
    given = out.with_name(out.name + "-set")
    (given / "masks").mkdir(parents=True, exist_ok=True)
    files = sorted((folder / "gland" / "image").iterdir(), key=lambda p: int(p.stem))
    frames = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in files]
    sweep = sweeps(frames)
    lines, mended = ["file,gland_file,patient_id,cohort"], 0
    for file, frame, own, part in zip(files, frames, sweep, blocks(sweep), strict=True):
        drawn = cv2.imread(str(folder / "gland" / "mask" / file.name), cv2.IMREAD_GRAYSCALE) > 127
        tidy = clean(drawn)
        mended += bool((tidy != drawn).any())
        cv2.imwrite(str(given / f"{file.stem}.png"), frame)
        cv2.imwrite(str(given / "masks" / f"{file.stem}.png"), tidy.astype(np.uint8) * 255)
        lines.append(f"{file.stem}.png,masks/{file.stem}.png,sweep{own:02d},{part}")
    (given / "images.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ws = Workspace.create(out, settings={"privacy": {"ids": "kept"}})
    taken = ingest_images(ws, given)
    split(ws, from_cohort=True)
    tell({"inputs": {k: v for k, v in taken.items() if k != "rejected"}, "masks_with_letters": mended})
    return ws


def held_out(ws: Workspace, kind: str, part: str) -> list[tuple[str, str, str]]:
    """Image, patient and mask path of each frame of a part."""
    with ws.connect(read_only=True) as con:
        return con.execute(
            """SELECT r.image_id, s.patient_id, r.path FROM regions r JOIN splits s USING (image_id)
               WHERE r.kind = ? AND r.origin LIKE 'import:%' AND s.split = ? ORDER BY r.image_id""",
            [kind, part],
        ).fetchall()


def interval(values: NDArray[np.float64], groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean over frames when whole groups are drawn with replacement."""
    names = sorted(set(groups))
    rows = [np.flatnonzero(np.asarray(groups) == name) for name in names]
    sums, sizes = np.array([values[r].sum() for r in rows]), np.array([len(r) for r in rows])
    picks = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.percentile(sums[picks].sum(1) / sizes[picks].sum(1), [2.5, 97.5])
    return float(low), float(high)


def measure(ws: Workspace, kind: str, weights: Path, part: str, picture: Path | None) -> dict[str, Any]:
    """Dice and IoU on a part, with intervals; `picture` gets the overlays."""
    segmenter, rows = regions.open_segmenter(weights), held_out(ws, kind, part)
    frames = [read_clean(ws, image_id) for image_id, _, _ in rows]
    truth = [masks.load(ws, path) for _, _, path in rows]
    started = time.process_time()
    found = [segmenter.predict(frame[None])[0][0] for frame in frames]
    each = (time.process_time() - started) / len(rows)
    overlap = np.array([dice(a, b) for a, b in zip(found, truth, strict=True)])
    iou = overlap / (2 - overlap)
    patients = [patient for _, patient, _ in rows]
    if picture is not None:
        overlays(picture, frames, truth, found, overlap)
    return {
        "part": part,
        "frames": len(rows),
        "groups": len(set(patients)),
        "dice": overlap.mean(),
        "dice_ci": interval(overlap, patients),
        "dice_median": np.median(overlap),
        "iou": iou.mean(),
        "iou_ci": interval(iou, patients),
        "missed": (overlap < 0.1).mean(),
        "seconds_a_frame": each,
    }


def overlays(path: Path, frames: Sequence, truth: Sequence, found: Sequence, overlap: NDArray[np.float64]) -> None:
    """Six best, six median, six worst frames: the drawn outline green, the found one red, Dice in the corner."""
    order, n = np.argsort(-overlap), len(overlap)
    middle = max(0, n // 2 - 3)
    lines = []
    for chosen in (order[:6], order[middle : middle + 6], order[-6:]):
        tiles = []
        for k in chosen:
            picture = cv2.cvtColor(frames[k], cv2.COLOR_GRAY2BGR)
            for mask, colour in ((truth[k], (0, 220, 0)), (found[k], (0, 0, 255))):
                edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(picture, edges, -1, colour, 2)
            scale = 240 / max(picture.shape[:2])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:240, :240]
            tile = np.zeros((240, 240, 3), np.uint8)
            tile[: small.shape[0], : small.shape[1]] = small
            cv2.putText(tile, f"{overlap[k]:.2f}", (5, 232), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 255, 255), 2)
            tiles.append(tile)
        lines.append(np.hstack(tiles))
    cv2.imwrite(str(path), np.vstack(lines))


def tell(fact: dict[str, Any]) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(fact, ensure_ascii=False, default=lambda v: round(float(v), 4)) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=("nodule", "gland"), default="nodule")
    parser.add_argument("--model", choices=("unet", "yolo"), default="unet")
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--start", type=Path, help="folder of a U-Net whose weights the training begins with")
    parser.add_argument("--test", action="store_true", help="open the test part")
    a = parser.parse_args()
    recipe = RECIPES[a.task, a.model] | {k: v for k in ("imgsz", "epochs") if (v := getattr(a, k))}
    ws = (nodules if a.task == "nodule" else glands)(a.folder, a.out / a.task)
    tell({"task": a.task, **{p: len(held_out(ws, a.task, p)) for p in PARTS}})
    model = a.out / f"{a.task}-{a.model}-{recipe['imgsz']}-{recipe['epochs']}"
    if a.start:
        model = model.with_name(model.name + "-after-" + a.start.name)
    if not (model / SETTINGS).exists():
        regions.train_segmenter(ws, model, kind=a.task, model=a.model, **recipe, start=a.start, progress=reporter())
    saved = json.loads((model / SETTINGS).read_text(encoding="utf-8"))
    tell({"settings": saved["settings"], "minutes": saved["result"]["minutes"]})
    tell(measure(ws, a.task, model, "val", None))
    if a.test:
        with (a.out / "looks.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": model.name, "at": time.strftime("%Y-%m-%d %H:%M")}) + "\n")
        tell(measure(ws, a.task, model, "test", a.out / f"{model.name}-test.png"))


if __name__ == "__main__":
    main()
