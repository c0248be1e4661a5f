"""Presets: readable TOML files that hold every setting of a model and its training, checked key by key.

A preset is a nested dict with the sections `model`, `diffusion`, `training`, `coarse` and `fine`, with `vae` where the
model trains its own autoencoder and `sampling` where images are not to be sampled in the default way. What is read from
a file, from `--set` and from a folder written years ago goes through the same check, so that a misspelt key is an error
and never a default.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kb.errors import UserError

FOLDER = Path(__file__).parent / "presets"

Count = Annotated[int, Field(ge=1)]
CountOrOff = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, lt=1.0)]


class Section(BaseModel):
    """A section of a preset: unknown keys are errors, numbers are not read from text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Section):
    """Shape of the networks; lengths in pixels or channels."""

    image_size: Count = 64
    autoencoder: Literal["unshuffle", "kl"] = "unshuffle"
    downsample: Count = 4
    latent_sd: Annotated[float, Field(ge=0.0)] = 0.5
    unet_channels: list[Count] = [48, 64, 96]
    layers_per_block: Count = 1
    attention_heads: Count | list[CountOrOff] = 4
    text_width: Count = 128
    text_layers: Count = 1
    text_heads: Count = 4
    text_length: Count = 32
    pooled_words: bool = False


class DiffusionSettings(Section):
    """Noise schedule, what is predicted, and the weight of each noise level in the loss."""

    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    beta_schedule: Literal["squaredcos_cap_v2", "scaled_linear", "linear"] = "squaredcos_cap_v2"
    timesteps: Count = 1000
    min_snr_gamma: Annotated[float, Field(ge=0.0)] = 5.0
    min_snr_floor: Annotated[float, Field(ge=0.0)] = 0.0


class TrainingSettings(Section):
    """What the coarse and the fine stage share; `batch` counts images over all processes and passes."""

    seed: Annotated[int, Field(ge=0)] = 0
    threads: CountOrOff = 1
    batch: Count = 8
    accumulation: Count = 1
    warmup: CountOrOff = 50
    decay: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    prompt_dropout: Share = 0.1
    balance: Share = 0.5
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: Count = 200
    keep_checkpoints: Count = 2
    final: Literal["best", "last"] = "best"
    held_out_every: CountOrOff = 200
    held_out_images: Count = 64
    grid_every: CountOrOff = 500
    grid_images: Count = 4
    adherence_images: CountOrOff = 16
    tracker: Literal["none", "tensorboard"] = "none"


class VaeSettings(Section):
    """A KL autoencoder of its own, trained before the coarse stage; `channels` has one entry a level."""

    channels: list[Count]
    latent_channels: Count = 4
    layers_per_block: Count = 1
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-6
    edge_weight: Annotated[float, Field(ge=0.0)] = 0.5
    steps: Count = 20000
    lr: Rate = 5e-4


class CoarseSettings(Section):
    """The coarse stage: U-Net and text encoder on prompt-image pairs."""

    method: Literal["full", "lora"] = "full"
    rank: Count = 4
    text_encoder: Literal["train", "frozen"] = "train"
    steps: Count = 4000
    lr: Rate = 1e-3


class FineSettings(Section):
    """The fine stage: FG-Encoder, BG-Encoder and fusion on the coarse U-Net."""

    steps: Count = 4000
    lr: Rate = 1e-3
    loss: Literal["summed", "own"] = "summed"
    leak: Share = 0.0
    branch_dropout: Share = 0.1
    unfreeze: Literal["none", "decoder"] = "decoder"
    weighting: Literal["log", "paper", "off"] = "log"


class SamplingSettings(Section):
    """How a plan samples from a model of this preset, unless the plan says otherwise."""

    sampler: Literal["dpm++", "ddim", "unipc"]
    steps: Count
    guidance: Annotated[float, Field(ge=1.0)]
    keep_control: bool = False


class Preset(Section):
    """A whole preset; `base` names the model folder that it starts from ("": from random weights)."""

    description: str = ""
    base: str = ""
    model: ModelSettings = ModelSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    coarse: CoarseSettings = CoarseSettings()
    fine: FineSettings = FineSettings()
    vae: VaeSettings | None = None
    sampling: SamplingSettings | None = None


def names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the preset of this name, or of this TOML file, as a nested dict with every key resolved.

    `overrides` are texts such as `"training.batch=4"`, see :func:`override`. Raises UserError for an unknown preset,
    a file that is no TOML, an unknown key (naming it and the known ones) or a value out of range.
    """
    path = _path(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"Preset file {path} is not valid TOML ({error}); correct it there.") from error
    return override(check(values, str(path)), overrides)


def _path(name: str | Path) -> Path:
    path = FOLDER / f"{name}.toml" if str(name) in names() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise UserError(f"There is no preset '{name}'; known are {', '.join(names())}, or name a TOML file.")
    return path


def text(name: str | Path) -> str:
    """Return a preset as TOML with every key resolved and explained.

    A preset that comes with the package states every key and is returned as it lies there, a file of one's own as
    :func:`written` writes it.
    """
    path = _path(name)
    return path.read_text(encoding="utf-8") if path.parent == FOLDER else written(load(path))


def written(preset: Mapping[str, Any]) -> str:
    """Write settings as TOML, each key with the remark that the packaged presets give it."""
    remarks = _remarks()
    lines = [f"{key} = {_toml(preset[key])}" for key in preset if not isinstance(preset[key], dict)]
    for section, values in preset.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]{remarks.get((section, ''), '')}"]
            lines += [f"{key} = {_toml(value)}{remarks.get((section, key), '')}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _remarks() -> dict[tuple[str, str], str]:
    """The comment of each (section, key) in the packaged presets, of (section, "") for the section's own line."""
    found: dict[tuple[str, str], str] = {}
    # The others for the sections that these two do not have.
    for name in dict.fromkeys(["tiny", "base256", *names()]):
        section = ""
        for line in (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines():
            head = re.match(r"\[(\w+)\]", line)
            key = re.match(r"(\w+) = ", line)
            section = head[1] if head else section
            remark = re.search(r"\s{2,}#.*", line)
            if head or key:
                place = (section, "" if key is None else key[1])
                found.setdefault(place, "  " + remark[0].strip() if remark else "")
    return found


def _toml(value: Any) -> str:
    # What settings hold is written alike in JSON and in TOML: texts, numbers, true and false, lists of them.
    return json.dumps(value, ensure_ascii=False)


def needs(preset: Mapping[str, Any]) -> str:
    """Say in a few words what must be there before the coarse stage of this preset can start."""
    if preset["base"]:
        return f"a {preset['base']} folder (--base)"
    if preset["model"]["autoencoder"] == "kl":
        return "an autoencoder (`tigergen train vae`)"
    return "nothing"


def check(values: Mapping[str, Any], where: str = "preset") -> dict[str, Any]:
    """Check a nested dict of settings, fill in defaults and return it; `where` is named in the UserError."""
    try:
        preset = Preset.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, where)) from error
    resolved = preset.model_dump(exclude_none=True)
    training, model = resolved["training"], resolved["model"]
    heads = model["attention_heads"]
    if isinstance(heads, list) and (len(heads) != len(model["unet_channels"]) or not heads[-1]):
        raise UserError(
            f"{where}: model.attention_heads = {heads} does not fit the {len(model['unet_channels'])} levels of "
            "model.unet_channels; give one number, or one a level, and at the coarsest level 1 or more."
        )
    diffusion = resolved["diffusion"]
    if diffusion["min_snr_floor"] and diffusion["prediction"] == "epsilon":
        # Divided by the SNR, as the weight of noise prediction is, a floor would have no bound in the noisiest steps.
        raise UserError(
            f"{where}: diffusion.min_snr_floor = {diffusion['min_snr_floor']} does not go with diffusion.prediction = "
            "'epsilon'; set it to 0 or predict v."
        )
    if training["batch"] % training["accumulation"]:
        raise UserError(
            f"{where}: training.batch = {training['batch']} cannot be split into training.accumulation = "
            f"{training['accumulation']} equal passes; choose a multiple."
        )
    if preset.vae is not None and 2 ** (len(preset.vae.channels) - 1) != model["downsample"]:
        raise UserError(
            f"{where}: vae.channels has {len(preset.vae.channels)} levels, which make "
            f"{2 ** (len(preset.vae.channels) - 1)} px a latent position, but model.downsample is "
            f"{model['downsample']}; give one level more than there are halvings."
        )
    return resolved


def override(preset: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the preset with `section.key=value` texts applied, checked again; values are JSON or plain words.

    >>> override(load("tiny"), ["training.batch=4", "fine.loss=own"])["training"]["batch"]
    4
    """
    values = json.loads(json.dumps(dict(preset)))
    for text in overrides:
        name, equals, value = text.partition("=")
        *sections, key = name.strip().split(".")
        if not equals or not key or len(sections) > 1:
            raise UserError(f"'--set {text}' is not of the form section.key=value, such as training.batch=4.")
        target = values
        for section in sections:
            target = target.get(section)
            if not isinstance(target, dict):
                known = ", ".join(key for key, value in values.items() if isinstance(value, dict))
                raise UserError(f"'--set {text}': there is no section '{section}'; known are {known}.")
        try:
            target[key] = json.loads(value)
        except json.JSONDecodeError:
            target[key] = value.strip()
    return check(values, "--set")


def _sentence(error: ValidationError, where: str) -> str:
    """Write the first of pydantic's complaints as one sentence that names the key and what would be right."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if not str(part).isdigit()]
    # Deeper parts name the kinds of number that a key may hold.
    name = ".".join(location[:2])
    if first["type"] == "extra_forbidden":
        fields = Preset.model_fields
        section = _section(fields[location[0]].annotation) if len(location) > 1 else Preset
        return f"{where}: unknown key '{name}'; known are {', '.join(section.model_fields)}."
    if first["type"] == "missing":
        return f"{where}: {name} is missing; give it a value."
    return f"{where}: {name} = {first['input']!r} is not allowed: {first['msg'].lower()}."


def _section(annotation: Any) -> type[Section]:
    """The section that a field of the preset holds; optional ones are written `Section | None`."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next(kind for kind in kinds if issubclass(kind, Section))
