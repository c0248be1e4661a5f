"""The two stages of training: coarse (U-Net and text encoder), then fine (FG-Encoder, BG-Encoder and fusion)."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from kb.errors import UserError
from kb.files import read_json
from kb.weights import term_frequency
from tigerdata.progress import Progress
from tigergen.data import Cases
from tigergen.model.assemble import add_control, build, from_base
from tigergen.model.folder import model_id, trained_on, write_trained_on
from tigergen.model.pipeline import TigerPipeline
from tigergen.model.tokens import Roles, split_phrases
from tigergen.training import presets
from tigergen.training.checkpoint import (
    RECORD,
    finish_record,
    forget,
    identity,
    open_record,
    save_model,
)
from tigergen.training.grid import Measure
from tigergen.training.loop import train, world
from tigergen.training.tasks import coarse_task, fine_task

if TYPE_CHECKING:
    from kb import KnowledgeBase


def coarse(
    cases: Cases,
    preset: Mapping[str, Any],
    out: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    held_out: Cases | None = None,
    knowledge: "KnowledgeBase | None" = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Train U-Net and text encoder on prompt-image pairs and write a pipeline folder without encoders at `out`.

    `preset`: a checked preset, see `presets.load`. `base`: a Stable Diffusion folder on disk to start from; without it
    the model starts from random weights. `steps` overrides `coarse.steps`. `held_out`: cases for the held-out loss and
    the sample grids. `knowledge`: its phrases enter the vocabulary, so that prompts of values that no training image
    shows can be written later. `measure` adds figures to those under the grids, see `grid.adherence`. The same call
    continues a killed run and returns at once when the model is finished; returns the record of the run, also written
    as training.json. Raises UserError when `out` holds another model.
    """
    preset = _with_steps(preset, "coarse", steps)
    _check_size(cases, preset)
    vocabulary = _vocabulary(cases, knowledge, held_out)
    start = _start_id(base) if base is not None else hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()
    wanted = identity("coarse", preset, cases.digest(), start)
    folder, record = Path(out), _open(Path(out), "coarse", preset, wanted, resume)
    if record is not None:
        return record
    size = preset["model"]["image_size"]
    if base is not None:
        pipe = from_base(base, size)
    else:
        pipe = build(preset, vocabulary, preset["training"]["seed"], images=cases.images)
    # A Stable Diffusion folder has no record: no image of ours is behind it.
    before = (trained_on(base) if base is not None else None) or []
    pipe.to(PartialState().device)
    task = coarse_task(pipe, cases, preset, held_out, measure)
    figures = train(task, preset["training"], preset["coarse"]["steps"], folder, resume, progress)
    return _finish(pipe, folder, figures, cases, before)


def fine(
    coarse_folder: str | os.PathLike[str],
    cases: Cases,
    preset: Mapping[str, Any],
    out: str | os.PathLike[str],
    steps: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    held_out: Cases | None = None,
    knowledge: "KnowledgeBase | None" = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Train FG-Encoder, BG-Encoder and fusion on a coarse model and write a whole TigerPipeline folder at `out`.

    The encoders start as copies of the U-Net's first half with zero convolutions. Text encoder and the U-Net's first
    half stay as they are; its decoder learns too unless `fine.unfreeze` is "none" (the paper's frozen U-Net).
    `knowledge` gives each FG phrase its role, seen from the image's own class, hence the token weights of equations 8
    to 10; without it every token weighs 1. The frequency of phrases in `cases` is stored in the folder as the tau that
    sampling uses. Continues, returns and raises as :func:`coarse` does.
    """
    preset = _with_steps(preset, "fine", steps)
    _check_size(cases, preset)
    given = _roles(cases, knowledge)
    data = hashlib.sha256(f"{cases.digest()} {given}".encode()).hexdigest()
    wanted = identity("fine", preset, data, _start_id(coarse_folder))
    folder, record = Path(out), _open(Path(out), "fine", preset, wanted, resume)
    if record is not None:
        return record
    pipe, before = TigerPipeline.from_pretrained(coarse_folder, local_files_only=True), trained_on(coarse_folder)
    add_control(pipe, preset["training"]["seed"])
    frequency = term_frequency([split_phrases(prompt) for prompt in cases.fg])
    pipe.register_to_config(term_frequency=frequency, weighting=preset["fine"]["weighting"])
    pipe.to(PartialState().device)
    unseen_roles = _roles(held_out, knowledge) if held_out else None
    task = fine_task(pipe, cases, preset, held_out, given, unseen_roles, measure)
    figures = train(task, preset["training"], preset["fine"]["steps"], folder, resume, progress)
    return _finish(pipe, folder, figures, cases, before)


def _start_id(folder: str | os.PathLike[str]) -> str:
    """Id of the model that a stage starts from; UserError when the folder holds none."""
    root = Path(folder)
    if not (root / "model_index.json").exists() or not any(root.glob("*/*.safetensors")):
        raise UserError(f"{root} is no model folder (model_index.json or weights are missing); train it first.")
    return model_id(root)


def _open(
    out: Path, stage: str, preset: Mapping[str, Any], wanted: Mapping[str, Any], resume: bool
) -> dict[str, Any] | None:
    """Let the main process look into `out` first; the others follow when its record is there."""
    state = world()
    with state.main_process_first():
        if not resume and state.is_main_process:
            forget(out)
        return open_record(out, stage, preset, wanted)


def _finish(
    pipe: TigerPipeline, out: Path, figures: Mapping[str, Any], cases: Cases, before: Sequence[str] | None
) -> dict[str, Any]:
    """Write the model with its record; `before`: images behind the model it started from (None: not known)."""
    state = PartialState()
    if state.is_main_process:
        pipe.to("cpu")
        # First, so that no model lies there without it.
        write_trained_on(out, None if before is None else [*before, *cases.image_ids])
        save_model(pipe, out)
        finish_record(out, {**figures, "images": len(cases), "classes": cases.counts()})
    state.wait_for_everyone()
    record: dict[str, Any] = read_json(out / RECORD)
    return record


def _with_steps(preset: Mapping[str, Any], stage: str, steps: int | None) -> dict[str, Any]:
    changed = [] if steps is None else [f"{stage}.steps={steps}"]
    return presets.override(preset, changed)


def _check_size(cases: Cases, preset: Mapping[str, Any]) -> None:
    size = preset["model"]["image_size"]
    if cases.size != size:
        raise UserError(f"The cases are {cases.size} px wide, the preset asks for {size}; load them at that size.")


def _vocabulary(cases: Cases, knowledge: "KnowledgeBase | None", held_out: Cases | None) -> list[str]:
    """Phrases that the tokenizer of a new model knows: the knowledge base's, the labels, and those of the prompts."""
    known = list(knowledge.phrases()) if knowledge is not None else []
    prompts = [prompt for one in (cases, held_out) if one is not None for prompt in (*one.fg, *one.bg)]
    seen = {phrase for prompt in prompts for phrase in split_phrases(prompt)}
    return list(dict.fromkeys([*known, *sorted(seen)]))


def _roles(cases: Cases, knowledge: "KnowledgeBase | None") -> list[Roles] | None:
    from tigerdata.prompts import roles

    if knowledge is None:
        return None
    return [roles(knowledge, label, prompt) for label, prompt in zip(cases.labels, cases.fg, strict=True)]
