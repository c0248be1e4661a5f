"""Train the parts of the Tiger Model inside a workspace: load its cases, train, and enter the model in the database."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from tigerdata.progress import Progress

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

COARSE, FINE, JUDGE, SEGMENTER = "coarse", "fine", "judge", "segmenter"


def model_folder(ws: "Workspace", kind: str) -> Path:
    """Where a workspace keeps its model of a kind: coarse, fine, judge or segmenter."""
    return ws.path / "models" / kind


def train_coarse(
    ws: "Workspace",
    preset: str | os.PathLike[str] = "tiny",
    overrides: Iterable[str] = (),
    base: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the coarse stage on the training split; `base` is a Stable Diffusion folder on disk. Returns its record."""
    from tigergen.data import load_cases
    from tigergen.training import presets, stages

    settings = presets.load(str(preset), overrides)
    size = settings["model"]["image_size"]
    cases, held_out = load_cases(ws, "train", size), load_cases(ws, "val", size)
    out = model_folder(ws, COARSE)
    record = stages.coarse(cases, settings, out, base=base, progress=progress, held_out=held_out, knowledge=ws.kb)
    _enter(ws, COARSE, out, settings)
    return record


def train_fine(
    ws: "Workspace",
    preset: str | os.PathLike[str] = "tiny",
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train FG-Encoder, BG-Encoder and fusion on the workspace's coarse model. Returns the record of the run.

    Raises UserError when there is no coarse model yet.
    """
    from tigergen.data import load_cases
    from tigergen.training import presets, stages

    coarse = model_folder(ws, COARSE)
    if not (coarse / "model_index.json").is_file():
        raise UserError(f"{ws.path} has no finished coarse model; run `tigergen train coarse` first.")
    settings = presets.load(str(preset), overrides)
    size = settings["model"]["image_size"]
    cases, held_out = load_cases(ws, "train", size), load_cases(ws, "val", size)
    out = model_folder(ws, FINE)
    record = stages.fine(coarse, cases, settings, out, progress=progress, held_out=held_out, knowledge=ws.kb)
    _enter(ws, FINE, out, settings)
    return record


def _enter(ws: "Workspace", kind: str, folder: Path, settings: dict[str, Any]) -> None:
    """Write the model into the table `models`: what it is, where it lies and which split it has seen."""
    import pandas as pd

    from kb import store
    from tigergen.augment.files import model_id

    identity = model_id(folder)
    row = {
        "model_id": identity,
        "kind": kind,
        "path": os.path.relpath(folder, ws.path),
        "sha256": identity,
        "trained_on": "default:train",
        "settings": json.dumps(settings, sort_keys=True),
    }
    with ws.connect() as con:
        con.begin()
        con.execute("DELETE FROM models WHERE kind = ?", [kind])
        store.insert(con, "models", pd.DataFrame([row]))
        con.commit()
