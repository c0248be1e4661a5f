"""Every kind of leak that contract 7 names, planted where it would come about: each export is refused, by name."""

from pathlib import Path

import pytest

from tests.planted_leaks import PLANTS, Scene, clean, refused
from tigerdata import leaks
from tigerdata.export import export
from tigerdata.leaks import LeakError


@pytest.fixture(scope="module")
def unplanted(tmp_path_factory: pytest.TempPathFactory):
    return clean(tmp_path_factory.mktemp("clean"))


def test_what_leaks_nothing_is_exported(unplanted, tmp_path: Path) -> None:
    ws, run = unplanted
    result = export(ws, tmp_path / "set", run, draft=True)
    assert result["checks"] == [f"not so: {kind}" for kind in leaks.QUERIES] and result["synthetic"] == 12
    scene = Scene(ws, run)
    assert scene.ids("train", lent=True) and scene.ids("train", lent=False), "both kinds are there to be planted"


@pytest.mark.parametrize("what", PLANTS)
def test_a_planted_leak_is_refused_with_its_pair(unplanted, tmp_path: Path, what: str) -> None:
    kind, plant = PLANTS[what]
    named, error = refused(*unplanted, plant, tmp_path)
    assert isinstance(error, LeakError), f"{what} was exported"
    assert error.kind == kind and named in error.pairs
    assert kind in str(error) and "nothing was written" in str(error)
    assert not (tmp_path / "set").exists() and not list(tmp_path.glob(".partial-*"))
    if error.pairs.index(named) < 5:
        assert all(part in str(error) for part in named)


def test_every_query_has_a_plant() -> None:
    """One kind cannot come about by an export, which puts every generated image into train: a manifest says it."""
    assert set(leaks.QUERIES) - {kind for kind, _ in PLANTS.values()} == {"a generated image is outside train"}


def test_a_prompt_that_a_training_image_shares_or_a_profile_drew_is_no_leak(unplanted, tmp_path: Path) -> None:
    """The words of a test image are no leak where a training image says the same, or where they were drawn."""

    def shared(scene: Scene) -> tuple[str, str]:
        held, own = scene.ids("test")[0], scene.ids("train")[0]
        file = scene.repeat(held)
        query = "UPDATE prompts SET attributes = (SELECT attributes FROM prompts WHERE image_id = ?), label = ?"
        label = str(scene.real.set_index("image_id")["label"][held])
        scene.execute(f"{query} WHERE image_id = ?", held, label, own)
        return file, held

    def drawn(scene: Scene) -> tuple[str, str]:
        held = scene.ids("test")[0]
        return scene.repeat(held, source="literature profile [A]"), held

    for name, plant in (("shared", shared), ("drawn", drawn)):
        assert refused(*unplanted, plant, tmp_path / name)[1] is None


def test_images_without_a_patient_are_no_relatives(unplanted, tmp_path: Path) -> None:
    def nobody(scene: Scene) -> tuple[str, str]:
        for image_id in (scene.ids("train")[0], scene.ids("test")[0]):
            scene.give(image_id, "")
        return "", ""

    assert refused(*unplanted, nobody, tmp_path)[1] is None
