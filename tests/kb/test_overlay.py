"""Overlays of a workspace and organs of one's own: what they change, and what they may not."""

import re
import shutil
import time
from pathlib import Path

import pytest

import kb
from kb.cues import load_cues
from kb.errors import UserError
from kb.locate import DOMAINS

OVERLAY = """\
extends: thyroid
surfaces:
  margin:
    clear: {en: [crisp border line], zh: ["边界(很|)锐利"]}
known: [爆米花征]
classes: [tr_high]
roles:
  FTC:
    sources: [Board]
    particular: {echogenicity: [markedly_hypoechoic]}
    common: {halo: [interrupted]}
  tr_high:
    sources: [assumption]
    joint: {composition: [solid]}
sources:
  Board: "Consensus of three radiologists, 2026"
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    path = tmp_path / "vocabulary.yaml"
    path.write_text(OVERLAY, encoding="utf-8")
    return path


def test_an_overlay_adds_words_and_changes_roles(overlay: Path) -> None:
    base, plain = kb.load(str(overlay)), kb.load("thyroid")
    assert base.attributes["margin"].values["clear"].surfaces("zh")[-2:] == ["边界很锐利", "边界锐利"]
    assert plain.role("FTC", "halo", "interrupted") == "particular"
    assert base.role("FTC", "halo", "interrupted") == "common"
    assert base.literature_role("FTC", "halo", "interrupted") == "particular"
    assert base.role("FTC", "echogenicity", "markedly_hypoechoic") == "particular"
    assert base.role_sources("FTC", "echogenicity", "markedly_hypoechoic") == ("Board",)
    assert base.role("tr_high", "composition", "solid") == "joint"
    assert base.role("PTC", "halo", "absent") == plain.role("PTC", "halo", "absent") == "joint"
    assert base.phrases() == plain.phrases()
    assert base.sources["Board"].startswith("Consensus")


def test_parsing_reads_the_words_of_the_overlay(overlay: Path) -> None:
    import tigerdata
    from tigerdata.reports.unread import unread

    text = "左叶见一低回声结节，大小约5mm，边界很锐利，伴爆米花征。"
    assert "margin" not in tigerdata.parse(text)["nodules"][0]
    assert tigerdata.parse(text, domain=str(overlay))["nodules"][0]["margin"] == ["clear"]
    assert [surface for *_, surface in unread(text)][-1] == "爆米花征"
    assert unread(text, str(overlay)) == []
    assert load_cues(str(overlay)).cues == load_cues("thyroid").cues


def test_an_edited_overlay_is_read_again_by_the_parser(overlay: Path) -> None:
    import tigerdata

    text = "左叶见一低回声结节，大小约5mm，边界很锋利。"
    assert "margin" not in tigerdata.parse(text, domain=str(overlay))["nodules"][0]
    time.sleep(0.01)
    overlay.write_text(OVERLAY.replace("边界(很|)锐利", "边界(很|)锋利"), encoding="utf-8")
    assert tigerdata.parse(text, domain=str(overlay))["nodules"][0]["margin"] == ["clear"]


def test_the_later_overlay_wins(overlay: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text(
        "extends: thyroid\nroles: {FTC: {sources: [assumption], joint: {halo: [interrupted]}}}\n", encoding="utf-8"
    )
    assert kb.load("thyroid", overlays=[overlay, second]).role("FTC", "halo", "interrupted") == "joint"
    assert kb.load("thyroid", overlays=[second, overlay]).role("FTC", "halo", "interrupted") == "common"


def test_an_edited_file_is_read_again(overlay: Path) -> None:
    assert kb.load(overlay).role("FTC", "halo", "interrupted") == "common"
    time.sleep(0.01)
    overlay.write_text(OVERLAY.replace("common: {halo", "joint: {halo"), encoding="utf-8")
    assert kb.load(overlay).role("FTC", "halo", "interrupted") == "joint"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("crisp border line", "circumscribed", "already names 'clear' of 'margin'"),
        ("crisp border line", "ill-defined", "already names 'unclear' of 'margin'"),
        ("crisp border line", "'(crisp'", "does not begin"),
        ("crisp border line", "'crisp (border'", "without its partner"),
        ("clear: {en", "crisp: {en", "'crisp' is no value of 'margin'"),
        ("  margin:", "  margins:", "no attribute 'margins'"),
        ("sources: [Board]", "sources: [Bored]", "source 'Bored' is not listed"),
        ("sources: [Board]", "sources: []", "'sources' in roles.FTC is empty"),
        ("    sources: [Board]\n", "", "'sources' is missing in roles.FTC"),
        ("  FTC:", "  FTCC:", "'FTCC' is no subtype"),
        ("common: {halo: [interrupted]}", "common: {echogenicity: [markedly_hypoechoic]}", "has two roles"),
        ("common: {halo: [interrupted]}", "common: {nodule_location: [left]}", "background"),
        ("common: {halo: [interrupted]}", "unusual: {halo: [interrupted]}", "'unusual' is not known in roles.FTC"),
        ("common: {halo: [interrupted]}", "common: {halo: interrupted}", "must be a list"),
        ("  Board: ", "  ACR2017: ", "is already listed"),
        ("extends: thyroid", "extend: thyroid", "'extends' is missing"),
        ("known: [爆米花征]", "known: [no]", "put the word in quotes"),
        ("classes: [tr_high]", "roles: {}", "given twice"),
        ("roles:\n", " roles:\n", "not YAML"),
        ("    particular:", "   particular:", "not YAML"),
    ],
)
def test_a_mistake_in_an_overlay_is_one_sentence_with_its_line(overlay: Path, old: str, new: str, words: str) -> None:
    line = OVERLAY[: OVERLAY.index(old)].count("\n") + 1
    overlay.write_text(OVERLAY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as raised:
        kb.load("thyroid", overlays=[overlay])
    message = str(raised.value)
    assert words in message and "\n" not in message
    found = re.search(r"vocabulary\.yaml:(\d+)", message)
    far = 10 if "given twice" in words or "extends" in words else 1
    assert found is not None and abs(int(found[1]) - line) <= far, message


def test_an_overlay_of_another_organ_is_refused(tmp_path: Path) -> None:
    for part in ("", "_subtypes", "_reports"):
        shutil.copy(DOMAINS / f"thyroid{part}.yaml", tmp_path / f"knee{part}.yaml")
    knee = tmp_path / "knee.yaml"
    knee.write_text(knee.read_text(encoding="utf-8").replace("domain: thyroid", "domain: knee"), encoding="utf-8")
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("extends: knee.yaml\n", encoding="utf-8")
    assert kb.load(overlay).domain == "knee"
    with pytest.raises(UserError, match=r"mine\.yaml:1: it extends 'knee', but the organ here is 'thyroid'"):
        kb.load("thyroid", overlays=[overlay])


def test_a_circle_of_overlays_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match="circle"):
        kb.load(tmp_path / "a.yaml")
    with pytest.raises(UserError, match=r"no file .*none\.yaml"):
        kb.load(tmp_path / "none.yaml")
