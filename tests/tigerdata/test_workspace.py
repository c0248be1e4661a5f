"""Workspaces: made, opened, found, and refused."""

from pathlib import Path

import pytest

from kb.errors import UserError
from tigerdata.prompts import build_prompts
from tigerdata.splits import split
from tigerdata.workspace import DEFAULT_SETTINGS, SETTINGS_FILE, Workspace, open_workspace


def test_settings_survive_the_round_trip_through_toml(tmp_path: Path) -> None:
    given = {"images": {"max_megapixels": 2}, "ddti": {"labels": {"2": 'a "quoted" name', "3": "甲"}}}
    made = Workspace.create(tmp_path / "w", settings=given)
    opened = open_workspace(tmp_path / "w")
    assert opened.settings == made.settings
    assert opened.settings["images"] == DEFAULT_SETTINGS["images"] | {"max_megapixels": 2.0}
    assert opened.settings["ddti"]["labels"]["2"] == 'a "quoted" name'
    assert opened.settings["ddti"]["labels"]["4a"] == "tr_high"


def test_create_again_opens_and_refuses_other_settings(ws: Workspace) -> None:
    before = (ws.path / SETTINGS_FILE).read_bytes()
    assert Workspace.create(ws.path, settings={"privacy": {"ids": "kept"}}).settings == ws.settings
    with pytest.raises(UserError, match="other settings"):
        Workspace.create(ws.path, settings={"images": {"min_side": 3}})
    assert (ws.path / SETTINGS_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"imgaes": {}}, "imgaes"),
        ({"images": {"max_pixel": 1}}, "images.max_pixel"),
        ({"images": 3}, "images"),
        ({"images": {"min_side": "9"}}, "images.min_side"),
        ({"images": {"min_side": True}}, "images.min_side"),
    ],
)
def test_unknown_or_mistyped_settings_are_named(tmp_path: Path, bad: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Workspace.create(tmp_path / "w", settings=bad)
    assert not (tmp_path / "w" / SETTINGS_FILE).exists()


def test_an_unknown_organ_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        Workspace.create(tmp_path / "w", domain="spleen")
    assert not (tmp_path / "w").exists()


def test_a_new_workspace_knows_the_vocabulary(ws: Workspace) -> None:
    with ws.connect(read_only=True) as con:
        row = con.execute("SELECT scope FROM terms WHERE phrase = 'irregular margin'").fetchone()
    assert row == ("fg",)


def test_find_goes_up_to_the_nearest_parent(ws: Workspace, tmp_path: Path) -> None:
    deep = ws.path / "runs" / "a"
    deep.mkdir(parents=True)
    assert Workspace.find(deep).path == ws.path
    with pytest.raises(UserError, match="init"):
        Workspace.find(tmp_path)


@pytest.mark.parametrize("content", ["domain = ", "format = 99", 'domain = "thyroid"\nnonsense = 1'])
def test_a_damaged_settings_file_is_one_sentence(ws: Workspace, content: str) -> None:
    (ws.path / SETTINGS_FILE).write_text(content)
    with pytest.raises(UserError, match=SETTINGS_FILE):
        Workspace.open(ws.path)


def test_the_defaults_are_not_shared_between_workspaces(tmp_path: Path) -> None:
    first = Workspace.create(tmp_path / "a")
    first.settings["images"]["min_side"] = 1
    assert (
        DEFAULT_SETTINGS["images"]["min_side"] == Workspace.create(tmp_path / "b").settings["images"]["min_side"] == 16
    )


def test_cases_have_the_promised_columns_and_parts(small_ws: Workspace) -> None:
    build_prompts(small_ws)
    assert small_ws.cases()["split"].isna().all()
    with pytest.raises(UserError, match="no split"):
        small_ws.cases("train")
    split(small_ws)
    cases = small_ws.cases()
    columns = "image_id sha256 patient_id label split image_path mask_path gland_path plane attributes fg bg uncertain"
    assert list(cases.columns) == columns.split()
    assert list(cases["image_id"]) == sorted(cases["image_id"]) and len(cases) == 24
    assert all(Path(p).is_file() for p in [*cases["image_path"], *cases["mask_path"]])
    assert all(g is None for g in cases["gland_path"])
    assert cases["attributes"].iloc[0] == {"sonogram_direction": ["transverse"]}
    parts = [set(small_ws.cases(part)["image_id"]) for part in ("train", "val", "test")]
    assert set.union(*parts) == set(cases["image_id"]) and sum(map(len, parts)) == 24


def test_an_image_without_a_mask_is_no_case(small_ws: Workspace) -> None:
    build_prompts(small_ws)
    with small_ws.connect() as con:
        lost = con.execute("SELECT min(image_id) FROM regions").fetchone()[0]
        con.execute("DELETE FROM regions WHERE image_id = ?", [lost])
    assert lost not in set(small_ws.cases()["image_id"]) and len(small_ws.cases()) == 23
