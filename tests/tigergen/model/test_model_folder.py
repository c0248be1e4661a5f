"""What a model folder says of itself: an id that follows weights and settings, and nothing else."""

import json
from pathlib import Path

from kb.files import write_json
from tigergen.model.folder import model_id, sampling, settings, trained_on, write_trained_on


def write(folder: Path, seconds: float = 1.0, weights: bytes = b"one", side: int = 64, width: int = 8) -> Path:
    write_json(folder / "model_index.json", {"_name_or_path": str(folder), "image_size": side})
    write_json(folder / "training.json", {"seconds": seconds})
    write_json(folder / "unet" / "config.json", {"_name_or_path": str(folder / "unet"), "width": width})
    (folder / "unet" / "model.safetensors").write_bytes(weights)
    return folder


def test_a_model_keeps_its_id_wherever_and_however_long_it_was_trained(tmp_path: Path) -> None:
    first = model_id(write(tmp_path / "here"))
    assert model_id(write(tmp_path / "there", seconds=2.0)) == first
    write_trained_on(tmp_path / "there", ["b", "a", "b"])
    assert trained_on(tmp_path / "there") == ["a", "b"] and trained_on(tmp_path / "here") is None
    (tmp_path / "there" / "checkpoint").mkdir()
    (tmp_path / "there" / "checkpoint" / "state.pt").write_bytes(b"half-way")
    assert model_id(tmp_path / "there") == first


def test_weights_and_settings_of_every_part_make_another_id(tmp_path: Path) -> None:
    others = [{}, {"weights": b"two"}, {"side": 32}, {"width": 16}]
    ids = [model_id(write(tmp_path / str(k), **change)) for k, change in enumerate(others)]
    assert len(set(ids)) == len(others) and all(len(one) == 16 for one in ids)


def test_settings_lie_in_the_model_and_do_not_make_another_one(tmp_path: Path) -> None:
    """A folder from before they did is read by its record, and keeps the id that a database may hold."""
    folder = write(tmp_path / "old")
    first = model_id(folder)
    assert settings(folder) == {} and sampling(folder) == {}
    write_json(folder / "training.json", {"stage": "fine", "preset": {"fine": {"lr": 0.1}, "model": {"image_size": 8}}})
    assert settings(folder) == {"fine": {"fine": {"lr": 0.1}, "model": {"image_size": 8}}}
    chosen = {"sampler": "ddim", "steps": 50}
    for order in (1, -1):
        stages = dict([("coarse", {"lr": 1, "model": 2}), ("fine", {"sampling": chosen})][::order])
        index = dict([("_name_or_path", "x"), ("image_size", 64), ("settings", stages)][::order])
        (folder / "model_index.json").write_text(json.dumps(index))
        assert model_id(folder) == first
        assert settings(folder) == stages
    write_json(
        folder / "model_index.json", {"image_size": 64, "settings": {"coarse": {}, "fine": {"sampling": chosen}}}
    )
    assert sampling(folder) == chosen
