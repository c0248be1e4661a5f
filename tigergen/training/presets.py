"""Presets: readable TOML files that hold every setting of a model and its training, checked key by key.

A preset is a nested dict with the sections `model`, `diffusion`, `training`, `coarse` and `fine`. What is read from a
file, from `--set` and from a folder written years ago goes through the same check, so that a misspelt key is an error
and never a default.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

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
    attention_heads: Count = 4
    text_width: Count = 128
    text_layers: Count = 1
    text_heads: Count = 4
    text_length: Count = 32


class DiffusionSettings(Section):
    """Noise schedule, what is predicted, and the weight of each noise level in the loss."""

    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    beta_schedule: Literal["squaredcos_cap_v2", "scaled_linear", "linear"] = "squaredcos_cap_v2"
    timesteps: Count = 1000
    min_snr_gamma: Annotated[float, Field(ge=0.0)] = 5.0


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
    compile: bool = False
    checkpoint_every: Count = 200
    held_out_every: CountOrOff = 200
    held_out_images: Count = 64
    grid_every: CountOrOff = 500
    grid_images: Count = 4


class CoarseSettings(Section):
    """The coarse stage: U-Net and text encoder on prompt-image pairs."""

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


class Preset(Section):
    """A whole preset."""

    description: str = ""
    model: ModelSettings = ModelSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    coarse: CoarseSettings = CoarseSettings()
    fine: FineSettings = FineSettings()


def names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the preset of this name, or of this TOML file, as a nested dict with every key resolved.

    `overrides` are texts such as `"training.batch=4"`, see :func:`override`. Raises UserError for an unknown preset,
    a file that is no TOML, an unknown key (naming it and the known ones) or a value out of range.
    """
    path = FOLDER / f"{name}.toml" if str(name) in names() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise UserError(f"There is no preset '{name}'; known are {', '.join(names())}, or name a TOML file.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"Preset file {path} is not valid TOML ({error}); correct it there.") from error
    return override(check(values, str(path)), overrides)


def check(values: Mapping[str, Any], where: str = "preset") -> dict[str, Any]:
    """Check a nested dict of settings, fill in defaults and return it; `where` is named in the UserError."""
    try:
        preset = Preset.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(error, where)) from error
    resolved = preset.model_dump()
    training = resolved["training"]
    if training["batch"] % training["accumulation"]:
        raise UserError(
            f"{where}: training.batch = {training['batch']} cannot be split into training.accumulation = "
            f"{training['accumulation']} equal passes; choose a multiple."
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
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        fields = Preset.model_fields
        section = fields[location[0]].annotation if len(location) > 1 else Preset
        known = ", ".join(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else ""
        return f"{where}: unknown key '{name}'; known are {known}."
    return f"{where}: {name} = {first['input']!r} is not allowed: {first['msg'].lower()}."
