"""Presets: every key is known, every error names the key."""

import re

import pytest

from kb.errors import UserError
from tigergen.training import presets


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_preset_states_every_key_itself(name: str) -> None:
    import tomllib

    stated = tomllib.loads((presets.FOLDER / f"{name}.toml").read_text())
    assert presets.load(name) == stated  # nothing is left to a default that a reader cannot see


def test_tiny_holds_the_settings_that_are_known_to_work() -> None:
    tiny = presets.load("tiny")
    assert tiny["training"]["batch"] == 8
    assert tiny["training"]["warmup"] == 50
    assert tiny["training"]["prompt_dropout"] == 0.1
    assert tiny["diffusion"] == {
        "prediction": "v_prediction",
        "beta_schedule": "squaredcos_cap_v2",
        "timesteps": 1000,
        "min_snr_gamma": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training.batchsize=4", ["training.batchsize", "batch", "prompt_dropout"]),
        ("nonsense.batch=4", ["nonsense", "training", "fine"]),
        ("fine.loss=both", ["fine.loss", "both", "summed", "own"]),
        ("training.batch=0", ["training.batch", "0"]),
        ("training.batch", ["training.batch", "section.key=value"]),
        ("training.accumulation=3", ["training.batch", "3", "multiple"]),
    ],
)
def test_wrong_overrides_are_sentences_that_name_the_key(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        presets.load("tiny", [text])
    assert all(word in str(error.value) for word in words), str(error.value)


def test_overrides_keep_types_and_leave_the_preset_alone() -> None:
    tiny = presets.load("tiny")
    changed = presets.override(tiny, ["training.ema=0.9", "model.unet_channels=[64, 64, 128]", "fine.loss=own"])
    assert changed["training"]["ema"] == 0.9
    assert changed["model"]["unet_channels"] == [64, 64, 128]
    assert changed["fine"]["loss"] == "own"
    assert tiny == presets.load("tiny")


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="tiny"):
        presets.load("huge")


def test_broken_file_is_named(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[training\n")
    with pytest.raises(UserError, match=re.escape(str(path))):
        presets.load(path)
    path.write_text("[training]\nbatch = 4\n")
    assert presets.load(path)["training"]["batch"] == 4


@pytest.mark.parametrize("heads", ["[4, 4]", "[4, 4, 0]", "[0, 0, 0, 4]"])
def test_heads_must_fit_the_levels(heads: str) -> None:
    with pytest.raises(UserError, match="does not fit the 3 levels"):
        presets.load("tiny", [f"model.attention_heads={heads}"])
