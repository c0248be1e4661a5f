"""The stages of training: a model's own autoencoder, coarse (U-Net and text encoder), fine (encoders and fusion)."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from kb.errors import UserError
from kb.files import read_json
from kb.weights import term_frequency
from tigerdata.progress import Progress
from tigergen.data import Cases
from tigergen.model.assemble import DIFFUSION, MODEL, add_control, build
from tigergen.model.base import check_base, from_base
from tigergen.model.folder import model_id, settings, trained_on, write_trained_on
from tigergen.model.lora import add_lora, merge_lora
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
from tigergen.training.vae import autoencoder_task, new_autoencoder, scale_latents

if TYPE_CHECKING:
    from kb import KnowledgeBase


VAE_PART = "vae"


def autoencoder(
    cases: Cases,
    preset: Mapping[str, Any],
    out: str | os.PathLike[str],
    steps: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    held_out: Cases | None = None,
) -> dict[str, Any]:
    """Train the KL autoencoder of a preset with `model.autoencoder = "kl"`; its weights come to lie in `out`/vae.

    Arguments, return value and errors as of :func:`coarse`, which takes the folder as `vae`. Latents are scaled to mean
    0 and standard deviation 1 on `cases`.
    """
    if "vae" not in preset:
        raise UserError("This preset trains no autoencoder: it has no section [vae]; take base256, or add the section.")
    preset = _with_steps(preset, "vae", steps)
    _check_size(cases, preset)
    whole = identity("vae", preset, cases.digest(), "")
    # The U-Net that will work on these latents may still be changed.
    kept = ("model.image_size", "model.downsample")
    wanted = {k: v for k, v in whole.items() if not k.startswith(("model.", "diffusion.")) or k in kept}
    folder, record = Path(out), _open(Path(out), "vae", preset, wanted, resume)
    if record is not None:
        return record
    vae = new_autoencoder(preset, preset["training"]["seed"]).to(PartialState().device)
    task = autoencoder_task(vae, cases, preset, held_out)
    figures = train(task, preset["training"], preset["vae"]["steps"], folder, resume, progress)
    scale_latents(vae, cases)
    return _finish(_Alone(vae), folder, figures, cases, [])


class _Alone:
    """An autoencoder, saved as the part of a pipeline that it will be."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae

    def to(self, device: str) -> None:
        self.vae.to(device)  # type: ignore[arg-type]  # diffusers' decorator hides the argument

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.vae.save_pretrained(folder / VAE_PART, safe_serialization=safe_serialization)


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
    vae: str | os.PathLike[str] | None = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Train U-Net and text encoder on prompt-image pairs and write a pipeline folder without encoders at `out`.

    `preset`: a checked preset, see `presets.load`. `base`: a Stable Diffusion folder on disk to start from; without it
    the model starts from random weights. `vae`: what :func:`autoencoder` wrote, for a new model with
    `model.autoencoder = "kl"`. With `coarse.method = "lora"` adapters are trained and merged into the U-Net at the end.
    `steps` overrides `coarse.steps`. `held_out`: cases for the held-out loss and the sample grids. `knowledge`: its
    phrases enter the vocabulary, so that prompts of values that no training image shows can be written later. `measure`
    adds figures to those under the grids, see `grid.adherence`. The same call continues a killed run and returns at
    once when the model is finished; returns the record of the run, also written as training.json. Raises UserError
    when `out` holds another model, and when `base` or `vae` is missing or of another kind than the preset says.
    """
    preset = _with_steps(preset, "coarse", steps)
    check_start(preset, base, vae)
    _check_size(cases, preset)
    vocabulary = vocabulary_of([cases, held_out], knowledge)
    start = _start_id(base) if base is not None else hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()
    if vae is not None:
        start += f" {model_id(vae)}"
    wanted = identity("coarse", preset, cases.digest(), start)
    folder, record = Path(out), _open(Path(out), "coarse", preset, wanted, resume)
    if record is not None:
        return record
    size = preset["model"]["image_size"]
    seed = preset["training"]["seed"]
    if base is not None:
        pipe = from_base(base, size)
    else:
        own = AutoencoderKL.from_pretrained(str(Path(vae) / VAE_PART), local_files_only=True) if vae else None
        pipe = build(preset, vocabulary, seed, own, cases.images)
    # A Stable Diffusion folder has no record: no image of ours is behind it.
    before = [image for part in (base, vae) if part is not None for image in trained_on(part) or []]
    prepare_coarse(pipe, preset)
    pipe.register_to_config(settings={"coarse": preset})
    pipe.to(PartialState().device)
    task = coarse_task(pipe, cases, preset, held_out, measure)
    figures = train(task, preset["training"], preset["coarse"]["steps"], folder, resume, progress)
    if preset["coarse"]["method"] == "lora":
        merge_lora(pipe.unet)
    return _finish(pipe, folder, figures, cases, before)


def prepare_coarse(pipe: TigerPipeline, preset: Mapping[str, Any]) -> None:
    """Freeze what the preset's coarse stage does not train, and give the U-Net its adapters."""
    if preset["coarse"]["text_encoder"] == "frozen":
        pipe.text_encoder.requires_grad_(False)
    if preset["coarse"]["method"] == "lora":
        add_lora(pipe.unet, preset["coarse"]["rank"], preset["training"]["seed"])


def check_start(
    preset: Mapping[str, Any], base: str | os.PathLike[str] | None, vae: str | os.PathLike[str] | None
) -> None:
    """Raise UserError unless everything is there that the coarse stage of this preset starts from."""
    if base is not None:
        check_base(base, preset)
    elif preset["base"]:
        raise UserError(
            f"This preset starts from a {preset['base']} folder on disk (diffusers layout, safetensors); name it with "
            "--base FOLDER."
        )
    elif preset["model"]["autoencoder"] == "kl" and not (vae and (Path(vae) / VAE_PART / "config.json").is_file()):
        raise UserError(
            "This preset needs an autoencoder of its own and there is no finished one; run `tigergen train vae` first."
        )


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
    prepare: Callable[[TigerPipeline], None] | None = None,
) -> dict[str, Any]:
    """Train FG-Encoder, BG-Encoder and fusion on a coarse model and write a whole TigerPipeline folder at `out`.

    The encoders start as copies of the U-Net's first half with zero convolutions. Text encoder and the U-Net's first
    half stay as they are; its decoder learns too unless `fine.unfreeze` is "none" (the paper's frozen U-Net).
    `knowledge` gives each FG phrase its role, seen from the image's own class, hence the token weights of equations 8
    to 10; without it every token weighs 1. The frequency of phrases in `cases` is stored in the folder as the tau that
    sampling uses. `prepare` may change the new parts before they learn, for ablations. Continues, returns and raises as
    :func:`coarse` does.
    """
    preset = _with_steps(preset, "fine", steps)
    _check_same_model(coarse_folder, preset)
    _check_size(cases, preset)
    given = _roles(cases, knowledge)
    data = hashlib.sha256(f"{cases.digest()} {given}".encode()).hexdigest()
    wanted = identity("fine", preset, data, _start_id(coarse_folder))
    folder, record = Path(out), _open(Path(out), "fine", preset, wanted, resume)
    if record is not None:
        return record
    pipe, before = TigerPipeline.from_pretrained(coarse_folder, local_files_only=True), trained_on(coarse_folder)
    add_control(pipe, preset["training"]["seed"])
    if prepare is not None:
        prepare(pipe)
    frequency = term_frequency([split_phrases(prompt) for prompt in cases.fg])
    known = {**settings(coarse_folder), "fine": preset}
    pipe.register_to_config(term_frequency=frequency, weighting=preset["fine"]["weighting"], settings=known)
    # Half-precision weights are for keeping a model, not for training it.
    pipe.to(PartialState().device, torch.float32)
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
    pipe: Any, out: Path, figures: Mapping[str, Any], cases: Cases, before: Sequence[str] | None
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


def _check_same_model(coarse_folder: str | os.PathLike[str], preset: Mapping[str, Any]) -> None:
    """Raise UserError where the preset describes another model than the one that it is to go on with."""
    before = settings(coarse_folder).get("coarse", {})
    for section, keys in (("model", MODEL), ("diffusion", DIFFUSION)):
        for key in keys:
            has = before.get(section, {}).get(key, preset[section][key])
            if has != preset[section][key]:
                raise UserError(
                    f"The coarse model {coarse_folder} was trained with {section}.{key} = {has!r} and this preset says "
                    f"{preset[section][key]!r}; give the preset and settings of its coarse stage."
                )


def _check_size(cases: Cases, preset: Mapping[str, Any]) -> None:
    size = preset["model"]["image_size"]
    if cases.size != size:
        raise UserError(f"The cases are {cases.size} px wide, the preset asks for {size}; load them at that size.")


def vocabulary_of(parts: Sequence[Any], knowledge: "KnowledgeBase | None") -> list[str]:
    """Phrases that the tokenizer of a new model knows: the knowledge base's, the labels, and those of the prompts.

    `parts`: cases with their prompts as `fg` and `bg`, or None.
    """
    known = list(knowledge.phrases()) if knowledge is not None else []
    prompts = [prompt for one in parts if one is not None for prompt in (*one.fg, *one.bg)]
    seen = {phrase for prompt in prompts for phrase in split_phrases(prompt)}
    return list(dict.fromkeys([*known, *sorted(seen)]))


def _roles(cases: Cases, knowledge: "KnowledgeBase | None") -> list[Roles] | None:
    from tigerdata.prompts import roles

    if knowledge is None:
        return None
    return [roles(knowledge, label, prompt) for label, prompt in zip(cases.labels, cases.fg, strict=True)]
