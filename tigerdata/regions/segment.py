"""Segmentation of the workspace's frames: predict the masks that are missing, by a segmenter trained here or given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.images.frames import read_clean
from tigerdata.progress import Progress
from tigerdata.regions import masks

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

SETTINGS = "segmenter.json"
# The weights of each model, in the order in which a folder is asked for them.
WEIGHTS = {"unet": "weights.safetensors", "yolo": "weights.pt"}


class Segmenter(Protocol):
    """Anything that outlines the nodule, or the gland, of a frame; masks of another tool can be imported as files."""

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return masks bool [N, H, W] and confidences [N] for uint8 frames [N, H, W]; confidence 0 = nothing found."""
        ...


class StoredSegmenter(Segmenter, Protocol):
    """A segmenter that came from a file."""

    kind: str
    path: Path
    sha256: str


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks: 2|A and B| / (|A| + |B|); 1 for two empty masks (Dice 1945)."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 1.0


def default_folder(ws: Workspace, kind: str = "nodule") -> Path:
    """Where the workspace keeps its own segmenter of a kind of region."""
    check_kind(kind)
    return ws.path / "models" / "segmenter" / kind


def check_kind(kind: str) -> None:
    """UserError for a kind of region that masks are not kept of."""
    if kind not in masks.KINDS:
        raise UserError(f"There is no --kind {kind}; write {' or '.join(masks.KINDS)}.")


def open_segmenter(path: str | os.PathLike[str]) -> StoredSegmenter:
    """Open a segmenter: a folder that `train_segmenter` wrote, or a weights file (.safetensors: U-Net, .pt: YOLO).

    A .pt file is a pickle: open only files that you made or trust. UserError when there is none, or none of ours.
    """
    given = Path(path)
    file = next((given / name for name in WEIGHTS.values() if (given / name).is_file()), given)
    if file.suffix == Path(WEIGHTS["yolo"]).suffix:
        from tigerdata.regions.yolo import YoloSegmenter

        return YoloSegmenter(file)
    if file.is_dir() or not file.exists():
        raise UserError(f"{given} holds no segmenter; train one with `tigergen train segmenter`.")
    from tigerdata.regions.unet import UNetSegmenter

    return UNetSegmenter(file)


def segment(
    ws: Workspace,
    weights: str | os.PathLike[str] | None = None,
    segmenter: Segmenter | None = None,
    min_score: float = 0.25,
    kind: str = "nodule",
    progress: Progress | None = None,
) -> dict[str, int]:
    """Predict a mask of a `kind` (nodule, gland) for every accepted image without one, and return counts.

    `weights` (a folder or a file, see `open_segmenter`) defaults to the workspace's own segmenter of that kind;
    `segmenter` is any other object with `predict`. Predictions below `min_score` are not stored (`not_found`): an image
    without a mask makes no case, a wrong mask makes a wrong one. Imported masks are never touched; the origin of a
    predicted one names the model. Raises UserError when there is no segmenter, or one of another kind.
    """
    from kb import store

    check_kind(kind)
    with ws.connect(read_only=True) as con:
        missing = con.execute(
            """SELECT image_id FROM images WHERE rejected IS NULL AND image_id NOT IN
               (SELECT image_id FROM regions WHERE kind = ?) ORDER BY image_id""",
            [kind],
        ).fetchall()
    counts = {"without_mask": len(missing), "predicted": 0, "not_found": 0, "flagged": 0}
    if not missing:
        return counts
    origin = "segmenter"
    if segmenter is None:
        stored = open_segmenter(weights if weights is not None else default_folder(ws, kind))
        if stored.kind != kind:
            raise UserError(f"{stored.path} outlines the {stored.kind}, not the {kind}; give --kind {stored.kind}.")
        model = next(name for name, file in WEIGHTS.items() if Path(file).suffix == stored.path.suffix)
        segmenter, origin = stored, f"{model}:{stored.sha256[:16]}"
    rows = []
    for number, (image_id,) in enumerate(missing, 1):
        found, scores = segmenter.predict(read_clean(ws, image_id)[None])
        if scores[0] >= min_score and found[0].any():
            rows.append(masks.save(ws, image_id, kind, found[0], origin, float(scores[0])))
        if progress:
            progress({"stage": f"segment {kind}s", "step": number, "steps": len(missing)})
    with ws.connect() as con, store.transaction(con):
        masks.insert(con, rows)
    counts["predicted"] = len(rows)
    counts["not_found"] = len(missing) - len(rows)
    counts["flagged"] = sum(bool(row["flags"]) for row in rows)
    return counts
