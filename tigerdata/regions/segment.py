"""Segmentation of the workspace's frames: train on the masks that are there, predict those that are missing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import sha256_file, write_json
from tigerdata.images.frames import read_clean
from tigerdata.progress import Progress
from tigerdata.regions import masks

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

WEIGHTS = "weights.pt"
MIN_FRAMES = 8


class Segmenter(Protocol):
    """Anything that outlines the nodule of a frame; masks made by another tool can also be imported as files."""

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return masks bool [N, H, W] and confidences [N] for uint8 frames [N, H, W]; confidence 0 = nothing found."""
        ...


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks: 2|A and B| / (|A| + |B|); 1 for two empty masks (Dice 1945)."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 1.0


def train_segmenter(
    ws: Workspace,
    out: str | os.PathLike[str] | None = None,
    imgsz: int = 128,
    epochs: int = 9,
    threads: int = 1,
    seed: int = 0,
    name: str = "default",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a YOLO segmenter on the train part's imported nodule masks and return its Dice on the held-out part.

    `out` (default: models/segmenter of the workspace) gets `weights.pt` and `segmenter.json`. Masks that a segmenter
    predicted never train one. Held out is the val part, or the test part where val has no masks; the result's
    `held_out` says which. Raises UserError without a split `name` or with fewer than `MIN_FRAMES` training masks.
    """
    from tigerdata.regions import yolo

    folder = Path(out) if out is not None else ws.path / "models" / "segmenter"
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT s.split, r.image_id, r.path FROM regions r JOIN splits s USING (image_id)
               WHERE r.kind = 'nodule' AND r.origin LIKE 'import:%' AND s.name = ? ORDER BY r.image_id""",
            [name],
        ).fetchall()
    parts: dict[str, list[tuple[str, str]]] = {}
    for part, image_id, path in rows:
        parts.setdefault(part, []).append((image_id, path))
    training = parts.get("train", [])
    if len(training) < MIN_FRAMES:
        raise UserError(
            f"Only {len(training)} imported nodule masks are in the train part of split '{name}', at least {MIN_FRAMES}"
            " are needed; run `tigerdata split` or import more masks."
        )
    frames = [(read_clean(ws, image_id), masks.load(ws, path)) for image_id, path in training]
    weights = folder / WEIGHTS
    yolo.train(frames, weights, imgsz, epochs, threads, seed, progress)
    held_out = next((part for part in ("val", "test") if parts.get(part)), None)
    score = _score(ws, yolo.YoloSegmenter(weights), parts[held_out]) if held_out else {}
    settings = {"imgsz": imgsz, "epochs": epochs, "threads": threads, "seed": seed, "split": name}
    result = {"frames": len(frames), "held_out": held_out, **score, "weights": str(weights)}
    write_json(folder / "segmenter.json", {"settings": settings, "result": {**result, "weights": WEIGHTS}})
    _register(ws, weights, [image_id for image_id, _ in training], settings | score)
    return result


def _score(ws: Workspace, segmenter: Segmenter, held_out: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Mean and median Dice, and the share of nodules missed altogether (Dice below .1)."""
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


def segment(
    ws: Workspace,
    weights: str | os.PathLike[str] | None = None,
    segmenter: Segmenter | None = None,
    min_score: float = 0.25,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Predict a nodule mask for every accepted image without one, and return counts.

    `weights` defaults to the workspace's own segmenter; `segmenter` is any other object with `predict`. Predictions
    below `min_score` are not stored (`not_found`): an image without a mask makes no case, a wrong mask makes a wrong
    one. Imported masks are never touched; the origin of a predicted one names the model. Raises UserError when there
    is no segmenter.
    """
    from kb import store

    with ws.connect(read_only=True) as con:
        missing = con.execute(
            """SELECT image_id FROM images WHERE rejected IS NULL AND image_id NOT IN
               (SELECT image_id FROM regions WHERE kind = 'nodule') ORDER BY image_id"""
        ).fetchall()
    counts = {"without_mask": len(missing), "predicted": 0, "not_found": 0, "flagged": 0}
    if not missing:
        return counts
    origin = "segmenter"
    if segmenter is None:
        from tigerdata.regions import yolo

        trained = yolo.YoloSegmenter(weights if weights is not None else ws.path / "models" / "segmenter" / WEIGHTS)
        segmenter, origin = trained, f"yolo:{trained.sha256[:16]}"
    rows = []
    for number, (image_id,) in enumerate(missing, 1):
        found, scores = segmenter.predict(read_clean(ws, image_id)[None])
        if scores[0] >= min_score and found[0].any():
            rows.append(masks.save(ws, image_id, "nodule", found[0], origin, float(scores[0])))
        if progress:
            progress({"stage": "segment", "step": number, "steps": len(missing)})
    with ws.connect() as con, store.transaction(con):
        masks.insert(con, rows)
    counts["predicted"] = len(rows)
    counts["not_found"] = len(missing) - len(rows)
    counts["flagged"] = sum(bool(row["flags"]) for row in rows)
    return counts
