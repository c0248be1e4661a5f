"""Breast and chest reports: organs that are YAML only."""

import re
from pathlib import Path
from typing import Any

import pytest

import kb
from kb.cues import load_cues
from kb.errors import UserError
from kb.vocabulary import DOMAINS
from tigerdata.reports.parser import parse
from tigerdata.reports.pathology import parse_pathology
from tigerdata.reports.unread import coverage

BREAST: list[tuple[str, list[dict[str, Any]]]] = [
    (
        "双侧乳腺腺体结构紊乱，于右侧乳腺外上象限距乳头2cm处可见一低回声结节，大小约12×8mm，边界不清晰，形态不规整，"
        "边缘呈毛刺样改变，后方回声衰减，纵横比>1。双侧腋下可见多个低回声结节，内可见“淋巴门”结构。",
        [{
            "location": {"side": "right", "quadrant": "upper_outer"}, "diameter_mm": [12, 8],
            "echogenicity": "hypoechoic",
            "posterior": "shadowing", "orientation": "not_parallel", "shape": ["irregular"],
            "margin": ["indistinct", "spiculated"],
        }],
    ),
    (
        "双侧乳腺腺体结构稍紊乱，双侧乳导管扩张，最宽处约4mm。于左侧乳腺乳头旁可见一无回声结节，大小约5×4mm，"
        "边界清晰，形态规整，内透声可，未见钙化。BI-RADS 2类。",
        [{
            "location": {"side": "left", "quadrant": "retroareolar"}, "diameter_mm": [5, 4],
            "echogenicity": "anechoic",
            "echotexture": ["clear_fluid"], "calcification": ["absent"], "shape": ["regular"],
            "margin": ["circumscribed"], "tirads": {"system": "BI-RADS", "category": "2"},
        }],
    ),
    ("双侧乳腺未见明确占位性病变。双侧腋下未见明显肿大淋巴结。", []),
    (
        "Right breast, 10 o'clock, 4 cm from the nipple: there is an irregular hypoechoic mass measuring 14 x 11 x "
        "12 mm with spiculated margins, not parallel orientation and posterior acoustic shadowing. Left breast: simple "
        "cyst in the upper outer quadrant, 6 mm, anechoic, circumscribed. IMPRESSION: Right breast mass, BI-RADS 5. "
        "Left breast cyst, BI-RADS 2.",
        [
            {
                "location": {"side": "right"}, "diameter_mm": [14, 11, 12], "echogenicity": "hypoechoic",
                "posterior": "shadowing", "orientation": "not_parallel", "shape": ["irregular"],
                "margin": ["spiculated"], "tirads": {"system": "BI-RADS", "category": "5"},
            },
            {
                "location": {"side": "left", "quadrant": "upper_outer"}, "diameter_mm": [6], "composition": "cystic",
                "echogenicity": "anechoic", "margin": ["circumscribed"],
                "tirads": {"system": "BI-RADS", "category": "2"},
            },
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "nodules"), BREAST, ids=[text[:18] for text, _ in BREAST])
def test_breast(text: str, nodules: list[dict[str, Any]]) -> None:
    found = parse(text, domain="breast")
    assert found["nodules"] == nodules
    assert all(text[e["start"] : e["end"]] == e["surface"] for e in found["evidence"])


CHEST: list[tuple[str, list[tuple[str, Any, Any, bool]], list[str]]] = [
    (
        "FINDINGS: Consolidation in the right lower lobe with a small right pleural effusion. No pneumothorax. "
        "IMPRESSION: Right lower lobe consolidation. Mild cardiomegaly cannot be excluded.",
        [
            ("consolidation", {"side": "right", "zone": "lower"}, None, False),
            ("pleural_effusion", {"side": "right"}, "mild", False),
            ("cardiomegaly", {}, "mild", True),
        ],
        ["pneumothorax"],
    ),
    ("Lungs are clear. No consolidation, effusion or pneumothorax.", [],
     ["consolidation", "pleural_effusion", "pneumothorax"]),
    (
        "两肺纹理增多、增粗，右下肺野见斑片状密度增高影。左侧胸腔少量积液。未见气胸。",
        [
            ("peribronchovascular_interstitial_opacity", {"side": "bilateral"}, None, False),
            ("other_opacity", {"side": "right", "zone": "lower"}, None, False),
            ("pleural_effusion", {"side": "left"}, "mild", False),
        ],
        ["pneumothorax"],
    ),
    ("Previously seen left pneumothorax. If consolidation develops, repeat.", [], []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "entries", "denied"), CHEST, ids=[text[:18] for text, _, _ in CHEST])
def test_chest(text: str, entries: list[tuple[str, Any, Any, bool]], denied: list[str]) -> None:
    found = parse(text, domain="chest")
    assert [
        (n["finding"][0], n["location"], n.get("severity"), "finding" in n.get("uncertain", ()))
        for n in found["nodules"]
    ] == entries
    assert found["negated"] == denied
    assert all(text[e["start"] : e["end"]] == e["surface"] for e in found["evidence"])


@pytest.mark.parametrize("domain", ["thyroid", "breast", "chest"])
def test_every_surface_form_names_its_value(domain: str) -> None:
    """In its own clause a form is found as its value, unless a longer rule of the domain reads it otherwise."""
    from tigerdata.reports.terms import finder
    from tigerdata.reports.text import normalise

    lost = []
    for attribute, model in kb.load(domain).attributes.items():
        for value, entry in model.values.items():
            for surface in entry.surfaces("en") + entry.surfaces("zh"):
                found = finder(domain).find(normalise(surface).text)
                if not any((t.attribute, t.value) == (attribute, value) for t in found):
                    lost.append((attribute, value, surface))
    assert lost == []


def test_chest_knows_the_36_findings_of_vindr_pcxr() -> None:
    assert len(kb.load("chest").attributes["finding"].values) == 36


def test_breast_knows_the_four_classes() -> None:
    assert set(kb.load("breast").subtypes) == {"benign", "IDC", "ILC", "PCB"}


def test_a_cue_that_no_organ_has_is_named_with_its_line(tmp_path: Path) -> None:
    for path in DOMAINS.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "breast_reports.yaml"
    text = file.read_text(encoding="utf-8").replace("  neck:", "  nekk:")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"breast_reports\.yaml:\d+.*'nekk'"):
        load_cues("breast", tmp_path)


def test_a_new_organ_is_three_files(tmp_path: Path) -> None:
    """The thyroid's files under another name and with another word for an organ part give another organ."""
    for path in DOMAINS.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        name = path.name.replace("thyroid", "testis") if path.name.startswith("thyroid") else path.name
        (tmp_path / name).write_text(re.sub(r"(?m)^domain: thyroid", "domain: testis", text), encoding="utf-8")
    assert load_cues("testis", tmp_path)["organ_place"].search("右叶")
    assert kb.load("testis", tmp_path).attributes["margin"]


@pytest.mark.realdata
def test_real_breast_texts(real_data: Path) -> None:
    import json

    rows = json.loads((real_data / "reports_zh" / "breast.json").read_text(encoding="utf-8"))
    texts = [row["finding"] for part in rows.values() for row in part]
    assert len(texts) == 2089
    for text in set(texts):
        assert all(text[e["start"] : e["end"]] == e["surface"] for e in parse(text, domain="breast")["evidence"])
    assert coverage(texts, "breast").share >= 0.90


@pytest.mark.parametrize(
    ("text", "subtype", "conflict"),
    [
        ("(右乳)浸润性小叶癌，2级", "ILC", None),
        ("左乳浸润性导管癌，伴导管原位癌成分", "IDC", None),
        ("浸润性导管癌；另见浸润性小叶癌", "IDC", "IDC; ILC"),
        ("DCIS, left breast", "in_situ", None),
        ("Fibroadenoma, no atypia", "benign", None),
        ("未见癌", "none", None),
    ],
)
def test_pathology_of_the_breast(text: str, subtype: str, conflict: str | None) -> None:
    found = parse_pathology(text, domain="breast")
    assert (found["subtype"], found["conflict"]) == (subtype, conflict)


@pytest.mark.parametrize(
    ("text", "subtype"),
    [
        ("甲状腺间变癌，另见乳头状癌", "ATC"),
        ("甲状腺未分化癌", "ATC"),
        ("滤泡亚型乳头状癌", "PTC"),
        ("Oncocytic (Hürthle cell) carcinoma", "other_malignant"),
    ],
)
def test_names_of_thyroid_cancers_that_contain_others(text: str, subtype: str) -> None:
    assert parse_pathology(text)["subtype"] == subtype


def test_an_unknown_organ_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no organ 'lung'; packaged are breast, chest, thyroid"):
        parse("A nodule.", domain="lung")


def test_what_outranks_must_be_an_entity(tmp_path: Path) -> None:
    for file in DOMAINS.glob("breast*.yaml"):
        text = file.read_text(encoding="utf-8").replace("outranks: {IDC:", "outranks: {IDD:")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"breast_reports\.yaml:\d+.*'IDD'"):
        load_cues("breast", tmp_path)
