"""A new organ needs no Python: an invented one of three attributes, from its files to prompts and roles."""

from pathlib import Path

import pytest

import kb
import tigerdata
from kb.errors import UserError
from tigerdata.prompts import compose, roles
from tigerdata.workspace import Workspace

KNEE = """\
domain: knee
attributes:
  tint:
    scope: fg
    sources: [Atlas]
    values:
      pale: {phrase: pale tint, en: [pale], zh: [浅色]}
      dark: {phrase: dark tint, en: ["(very |)dark"], zh: [深色]}
  rind:
    scope: fg
    multiple: true
    sources: [Atlas]
    values:
      crusty: {phrase: crusty rind, en: [crusty], zh: [硬皮]}
      glassy: {phrase: glassy rind, en: [glassy], zh: [玻璃皮]}
  nodule_location:
    scope: bg
    sources: [Atlas]
    groups: {side: [left, right]}
    values:
      left: {phrase: left knee, en: [left knee, left], zh: [左膝]}
      right: {phrase: right knee, en: [right knee, right], zh: [右膝]}
quality: {}
constraints: []
"""
SUBTYPES = """\
subtypes:
  plain:
    phrase: plain knot
    malignant: false
    sources: [Atlas]
    profile: &even {tint: {pale: .5, dark: .5}, rind: {crusty: .5, glassy: .5}, nodule_location: {left: .5, right: .5}}
  odd:
    phrase: odd knot
    malignant: true
    sources: [Atlas]
    particular: {rind: [glassy]}
    joint: {tint: [dark]}
    profile: *even
sources:
  Atlas: "Invented atlas of knees, for tests"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "organs"
    place.mkdir()
    (place / "knee.yaml").write_text(KNEE, encoding="utf-8")
    (place / "knee_subtypes.yaml").write_text(SUBTYPES, encoding="utf-8")
    # How reports are written is much the same for every organ, and the organ's own words are few.
    (place / "knee_reports.yaml").write_text("extends: common\ncues: {organ_place: [knee, 膝]}\n", encoding="utf-8")
    return place


def test_the_vocabulary_is_read_from_its_folder_or_its_path(folder: Path) -> None:
    base = kb.load("knee", folder)
    assert base.domain == kb.load(folder / "knee.yaml").domain == "knee"
    phrases = base.phrases()
    assert len(phrases) == len(set(phrases)) == 8
    assert base.role("odd", "rind", "glassy") == "particular"
    assert base.role("odd", "tint", "dark") == "joint"
    assert base.role("plain", "tint", "dark") == "common"
    with pytest.raises(UserError, match=r"there is no organ .knee.; packaged are breast, chest, thyroid"):
        kb.load("knee")


def test_a_report_of_the_new_organ_is_parsed_and_becomes_prompts(folder: Path) -> None:
    path = str(folder / "knee.yaml")
    found = tigerdata.parse(
        "Findings: There is a very dark glassy nodule in the left knee measuring 7 mm.", domain=path
    )
    nodule = found["nodules"][0]
    assert (nodule["tint"], nodule["rind"], nodule["diameter_mm"]) == ("dark", ["glassy"], [7])
    assert nodule["location"] == {"side": "left"}
    text = "右膝见一浅色结节，大小约9mm，未见硬皮。"
    parsed = tigerdata.parse(text, domain=path)
    assert parsed["nodules"][0]["tint"] == "pale" and parsed["nodules"][0]["negated"] == ["crusty"]
    assert all(text[row["start"] : row["end"]] == row["surface"] for row in parsed["evidence"])
    attributes = {"tint": ["dark"], "rind": ["glassy"], "nodule_location": ["left"]}
    prompt = compose(kb.load(path), "odd", attributes)
    assert (prompt.fg, prompt.bg) == ("odd knot, dark tint, glassy rind", "left knee")
    assert [role for _, role in roles(kb.load(path), "odd", prompt.fg)] == ["particular", "joint", "particular"]


def test_a_workspace_of_the_new_organ_takes_reports_and_overlays(folder: Path, tmp_path: Path) -> None:
    from tigerdata.reports.ingest import ingest_reports

    ws = Workspace.create(tmp_path / "ws", domain=str(folder / "knee.yaml"))
    assert Workspace.open(ws.path).kb.domain == "knee"
    (ws.path / "vocabulary.yaml").write_text(
        f"extends: {folder / 'knee.yaml'}\nsurfaces: {{rind: {{crusty: {{zh: [树皮样]}}}}}}\n", encoding="utf-8"
    )
    file = tmp_path / "reports.csv"
    file.write_text("text\n左膝见一深色结节，大小约9mm，呈树皮样。\n", encoding="utf-8")
    assert ingest_reports(ws, file)["nodules"] == 1
    with ws.connect(read_only=True) as con:
        found = con.execute("SELECT attribute, value, surface FROM findings WHERE value IS NOT NULL").fetchall()
    assert {("tint", "dark", "深色"), ("rind", "crusty", "树皮样"), ("nodule_location", "left", "左膝")} <= set(found)
