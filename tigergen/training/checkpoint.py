"""Where a training run stands: its record, its checkpoint and its statistics, each file old or new, never half."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kb.errors import UserError
from kb.files import atomic_write, read_json, write_json

RECORD = "training.json"
STATISTICS = "stats.jsonl"
# Settings that change what is seen of a run, or how it computes, never its weights.
REPORTING = (
    "checkpoint_every", "held_out_every", "held_out_images", "grid_every", "grid_images", "gradient_checkpointing",
)  # fmt: skip


def identity(stage: str, preset: Mapping[str, Any], data: str, base: str) -> dict[str, Any]:
    """Everything that decides the weights: settings by dotted name, digests `data` of cases, `base` of the start."""
    training = {key: value for key, value in preset["training"].items() if key not in REPORTING}
    sections = {"model": preset["model"], "diffusion": preset["diffusion"], "training": training, stage: preset[stage]}
    settings = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {"stage": stage, "data": data, "base": base, **settings}


def open_record(out: Path, stage: str, preset: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a finished run, or None when there is something to train; refuse a folder of another run.

    Raises UserError naming the first difference when `out` holds a model, finished or not, of other settings or data.
    """
    path = out / RECORD
    if path.exists():
        record: dict[str, Any] = read_json(path)
        stored = record["identity"]
        for key in [*wanted, *stored]:
            if stored.get(key) != wanted.get(key):
                said = "other data" if key in ("data", "base") else f"{key} = {stored.get(key)!r}"
                asked = "" if key in ("data", "base") else f" and not {wanted.get(key)!r}"
                raise UserError(
                    f"{out} holds a {record['stage']} model trained with {said}{asked}; name another output folder, "
                    "or delete this one."
                )
        return record if record["finished"] else None
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, {"stage": stage, "finished": False, "identity": wanted, "preset": preset})
    return None


def forget(out: Path) -> None:
    """Drop record, checkpoint and statistics, so that the next run in `out` starts at step 0."""
    for path in (out / RECORD, out / STATISTICS):
        path.unlink(missing_ok=True)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


def finish_record(out: Path, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Mark the run as finished with its figures, and drop the checkpoint that nobody needs any more."""
    record = {**read_json(out / RECORD), "finished": True, "figures": dict(figures)}
    write_json(out / RECORD, record)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return record


def save_checkpoint(out: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint by `state` (tensors, numbers, texts, and lists and dicts of these)."""
    with atomic_write(out / "checkpoint" / "state.pt") as temporary:
        torch.save(dict(state), temporary)


def load_checkpoint(out: Path) -> dict[str, Any] | None:
    """Return what :func:`save_checkpoint` wrote, or None; UserError when the file is damaged."""
    path = out / "checkpoint" / "state.pt"
    if not path.exists():
        return None
    damaged = UserError(f"Checkpoint {path} cannot be read; delete it to start this stage again.")
    if not zipfile.is_zipfile(path):
        raise damaged
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise damaged from error


def append_statistics(out: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line to stats.jsonl."""
    with (out / STATISTICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def trim_statistics(out: Path, step: int) -> None:
    """Drop the lines after `step`: the steps since the last checkpoint are taken again."""
    path = out / STATISTICS
    if not path.exists():
        return
    # A killed process can leave a last line without its end.
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
    with atomic_write(path) as temporary:
        kept = [line + "\n" for line in lines if json.loads(line)["step"] <= step]
        temporary.write_text("".join(kept), encoding="utf-8")


def save_model(pipe: Any, out: Path) -> None:
    """Write a pipeline's parts into `out`; `model_index.json` comes last, so that a half-written folder is no model."""
    partial = out / ".partial-model"
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_pretrained(partial, safe_serialization=True)
    for part in sorted(partial.iterdir(), key=lambda path: path.name == "model_index.json"):
        target = out / part.name
        if target.is_dir():
            shutil.rmtree(target)
        part.replace(target)
    partial.rmdir()
