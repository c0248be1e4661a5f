"""Where a training run stands: its record, its checkpoints and its statistics, each file old or new, never half.

The folder `checkpoint` of a run holds `state-<step>.pt`, everything that a run needs to go on, for the last few
checkpoints, and `best-<step>.pt`, averaged weights alone, for the steps that were the best so far by held-out loss.
A state's best is the newest `best` that is no newer than the state: nothing else has to say which belongs to which.
"""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kb.errors import UserError
from kb.files import atomic_write, read_json, write_json
from tigergen.model.folder import RECORD
from tigergen.training import presets

STATISTICS = "stats.jsonl"
LOGS = "logs"
# Settings that change what is seen of a run, or how it computes, never its weights.
REPORTING = (
    "checkpoint_every", "keep_checkpoints", "held_out_every", "held_out_images", "grid_every", "grid_images",
    "adherence_images", "tracker", "gradient_checkpointing",
)  # fmt: skip


def identity(stage: str, preset: Mapping[str, Any], data: str, base: str) -> dict[str, Any]:
    """Everything that decides the weights: settings by dotted name, digests `data` of cases, `base` of the start."""
    training = {key: value for key, value in preset["training"].items() if key not in REPORTING}
    sections = {"model": preset["model"], "diffusion": preset["diffusion"], "training": training, stage: preset[stage]}
    settings = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {"stage": stage, "data": data, "base": base, **settings}


def open_record(out: Path, stage: str, preset: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a finished run, or None when there is something to train; refuse a folder of another run.

    A setting that is younger than the run in `out` counts as its default there. Raises UserError naming the first
    difference when `out` holds a model, finished or not, of other settings or data.
    """
    path = out / RECORD
    if path.exists():
        record: dict[str, Any] = read_json(path)
        stored = {**_defaults(wanted), **record["identity"]}
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


def _defaults(names: Iterable[str]) -> dict[str, Any]:
    """Default of each setting by dotted name; those of optional sections have none."""
    known = presets.check({})
    split = {name: name.partition(".") for name in names}
    return {name: known[head][key] for name, (head, _, key) in split.items() if key and key in known.get(head, {})}


def forget(out: Path) -> None:
    """Drop record, checkpoints, statistics and tracker logs, so that the next run in `out` starts at step 0."""
    for path in (out / RECORD, out / STATISTICS):
        path.unlink(missing_ok=True)
    for folder in ("checkpoint", LOGS):
        shutil.rmtree(out / folder, ignore_errors=True)


def finish_record(out: Path, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Mark the run as finished with its figures, and drop the checkpoints that nobody needs any more."""
    record = {**read_json(out / RECORD), "finished": True, "figures": dict(figures)}
    write_json(out / RECORD, record)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return record


def save_checkpoint(out: Path, state: Mapping[str, Any], keep: int = 1) -> None:
    """Write `state` (tensors, numbers, texts, lists and dicts of these; "step" is its name) and keep the last `keep`.

    Raises UserError when the disk takes no more; the checkpoints before are untouched then.
    """
    _save(_file(out, "state", state["step"]), dict(state))
    states = _files(out, "state")
    old = sorted(states)[: -max(keep, 1)]
    for step in old:
        states.pop(step).unlink()
    (out / "checkpoint" / "state.pt").unlink(missing_ok=True)
    best = _files(out, "best")
    needed = {max((step for step in best if step <= state_step), default=None) for state_step in states}
    for step in set(best) - needed - {max(best, default=None)}:
        best[step].unlink()


def load_checkpoint(out: Path, tell: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """Return the newest state that can be read, or None where none was saved; UserError when all are damaged.

    `tell` is given a sentence when a damaged one was passed over. Folders of older versions hold one `state.pt`.
    """
    states = _files(out, "state")
    paths = [states[step] for step in sorted(states, reverse=True)]
    paths += [path for path in [out / "checkpoint" / "state.pt"] if path.exists()]
    for number, path in enumerate(paths):
        state: dict[str, Any] | None = _load(path)
        if state is not None:
            if number and tell is not None:
                tell(f"Checkpoint {paths[0]} is damaged; the run goes on from the one before, step {state['step']}.")
            return state
    if paths:
        raise UserError(f"Checkpoint {paths[0]} cannot be read; delete {paths[0].parent} to start this stage again.")
    return None


def save_best(out: Path, step: int, weights: Sequence[Tensor]) -> None:
    """Keep averaged weights as the best so far; those of earlier steps go when no kept state refers to them."""
    _save(_file(out, "best", step), {"step": step, "weights": list(weights)})


def load_best(out: Path, step: int) -> list[Tensor] | None:
    """The weights that :func:`save_best` kept for this step, or None when they are missing or damaged."""
    path = _file(out, "best", step)
    stored = _load(path) if path.exists() else None
    return None if stored is None else list(stored["weights"])


def drop_newer(out: Path, step: int) -> None:
    """Remove what a killed run left behind `step`, where it goes on: half-written files, and steps taken again."""
    for path in (out / "checkpoint").glob(".partial-*"):
        path.unlink()
    for kind in ("state", "best"):
        for written, path in _files(out, kind).items():
            if written > step:
                path.unlink()


def _file(out: Path, kind: str, step: int) -> Path:
    return out / "checkpoint" / f"{kind}-{step:08d}.pt"


def _files(out: Path, kind: str) -> dict[int, Path]:
    """Files of a kind by step."""
    return {int(path.stem.partition("-")[2]): path for path in (out / "checkpoint").glob(f"{kind}-*.pt")}


def _save(path: Path, content: dict[str, Any]) -> None:
    try:
        with atomic_write(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(
            f"Checkpoint {path} cannot be written ({str(error).splitlines()[0]}); the one before is kept: make room, "
            "or set training.keep_checkpoints to 1, and run the command again."
        ) from error


def _load(path: Path) -> dict[str, Any] | None:
    """What a file holds, or None when it is damaged."""
    try:
        # torch does not compare checksums: a flipped bit would become a weight.
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                return None
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError):
        return None


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
