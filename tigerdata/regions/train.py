"""Training a segmenter on the masks that came with the workspace's images, from random weights."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.errors import UserError
from kb.files import sha256_file, write_json
from tigerdata.images.frames import read_clean
from tigerdata.progress import Progress
from tigerdata.regions import masks
from tigerdata.regions.segment import (
    SETTINGS,
    WEIGHTS,
    Segmenter,
    check_kind,
    default_folder,
    dice,
    open_segmenter,
)

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

MIN_FRAMES = 8


def train_segmenter(
    ws: Workspace,
    out: str | os.PathLike[str] | None = None,
    kind: str = "nodule",
    model: str = "unet",
    imgsz: int | None = None,
    epochs: int | None = None,
    width: float = 1.0,
    threads: int = 1,
    seed: int = 0,
    name: str = "default",
    progress: Progress | None = None,
    start: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Train a segmenter on the train part's imported masks of a `kind` and return its Dice on the held-out part.

    `model` is "unet" (`regions.unet`) or "yolo" (`regions.yolo`, extra `yolo`); `imgsz` (pixels of the longer side)
    and `epochs` default to the model's recipe; `width` multiplies its channels. `out` (default: models/segmenter/KIND
    of the workspace) gets the weights and `segmenter.json`, settings and result. Masks that a segmenter predicted
    never train one. `start`: folder or weights file of a U-Net whose weights training begins with, say one that
    outlines nodules for one of glands; its hash is noted. Held out is the val part, or the test part where val has no
    masks; `held_out` says which. `minutes` are processor time of the training alone. Raises UserError without a split
    `name`, with fewer than `MIN_FRAMES` training masks, or for a setting that cannot be.
    """
    check_kind(kind)
    if model not in WEIGHTS:
        raise UserError(f"There is no --model {model}; write {' or '.join(WEIGHTS)}.")
    if start is not None and model != "unet":
        raise UserError(f"--start begins with the weights of a U-Net, not of {model}; leave it out or train a U-Net.")
    begin = None if start is None else Path(start) / WEIGHTS["unet"] if Path(start).is_dir() else Path(start)
    folder = Path(out) if out is not None else default_folder(ws, kind)
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT s.split, r.image_id, r.path FROM regions r JOIN splits s USING (image_id)
               WHERE r.kind = ? AND r.origin LIKE 'import:%' AND s.name = ? ORDER BY r.image_id""",
            [kind, name],
        ).fetchall()
    parts: dict[str, list[tuple[str, str]]] = {}
    for part, image_id, path in rows:
        parts.setdefault(part, []).append((image_id, path))
    training = parts.get("train", [])
    if len(training) < MIN_FRAMES:
        raise UserError(
            f"Only {len(training)} imported {kind} masks are in the train part of split '{name}', at least {MIN_FRAMES}"
            " are needed; run `tigerdata split` or import more masks."
        )
    frames = [(read_clean(ws, image_id), masks.load(ws, path)) for image_id, path in training]
    weights = folder / WEIGHTS[model]
    started = time.process_time()
    recipe = _train(model, frames, weights, kind, imgsz, epochs, width, threads, seed, progress, begin)
    minutes = (time.process_time() - started) / 60
    for other in set(WEIGHTS.values()) - {weights.name}:
        (folder / other).unlink(missing_ok=True)  # a folder holds one segmenter, the newest
    held_out = next((part for part in ("val", "test") if parts.get(part)), None)
    score = _score(ws, open_segmenter(weights), parts[held_out]) if held_out else {}
    settings = {"kind": kind, "model": model, **recipe, "threads": threads, "seed": seed, "split": name}
    settings |= {"start": sha256_file(begin)} if begin is not None else {}
    result = {"frames": len(frames), "held_out": held_out, **score, "minutes": round(minutes, 2)}
    write_json(folder / SETTINGS, {"settings": settings, "result": {**result, "weights": weights.name}})
    _register(ws, weights, [image_id for image_id, _ in training], settings | score)
    return {"kind": kind, "model": model, **result, "weights": str(weights)}


def _train(
    model: str, frames: Sequence, weights: Path, kind: str, imgsz: int | None, epochs: int | None, width: float,
    threads: int, seed: int, progress: Progress | None, start: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Train by the model's recipe, changed by what was asked for, and return the recipe that it was."""
    asked = {key: value for key, value in (("imgsz", imgsz), ("epochs", epochs)) if value is not None}
    if model == "yolo":
        from tigerdata.regions import yolo

        plain = yolo.Recipe()
        recipe = replace(plain, width=plain.width * width, **asked)
        yolo.train(frames, weights, kind, recipe, threads, seed, progress)
        return asdict(recipe)
    from tigerdata.regions import unet

    first = unet.Recipe(epochs=unet.passes(len(frames)))
    # Channels in eights: the processor's vectors hold that many and more.
    channels = tuple(max(8, round(own * width / 8) * 8) for own in first.widths)
    chosen = replace(first, widths=channels, **asked)
    unet.train(frames, weights, kind, chosen, threads, seed, progress, start)
    return asdict(chosen)


def _score(ws: Workspace, segmenter: Segmenter, held_out: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Mean and median Dice, and the share of regions missed altogether (Dice below .1)."""
    values = []
    for image_id, path in held_out:
        found, _ = segmenter.predict(read_clean(ws, image_id)[None])
        values.append(dice(found[0], masks.load(ws, path)))
    scores = np.asarray(values)
    return {
        "held_out_frames": len(values),
        "dice": float(scores.mean()),
        "dice_median": float(np.median(scores)),
        "missed": float((scores < 0.1).mean()),
    }


def _register(ws: Workspace, weights: Path, trained_on: Sequence[str], settings: dict[str, Any]) -> None:
    import pandas as pd

    from kb import store

    sha256 = sha256_file(weights)
    row = {
        "model_id": sha256[:16],
        "kind": "segmenter",
        "path": os.path.relpath(weights, ws.path),
        "sha256": sha256,
        "trained_on": json.dumps(list(trained_on)),
        "settings": json.dumps(settings, sort_keys=True),
    }
    with ws.connect() as con:
        store.insert(con, "models", pd.DataFrame([row]), replace=True)
