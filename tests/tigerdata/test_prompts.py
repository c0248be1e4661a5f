"""Prompts: the total and disjoint split, roles, and which nodule and class an image gets."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kb
from kb import store
from kb.errors import UserError
from tigerdata.images.ingest import ingest_images
from tigerdata.prompts import build_prompts, compose, phrases, roles
from tigerdata.workspace import Workspace

BASE = kb.load("thyroid")


@st.composite
def described(draw: st.DrawFn) -> dict[str, list[str]]:
    chosen = draw(st.lists(st.sampled_from(sorted(BASE.attributes)), unique=True))
    return {
        a: draw(st.lists(st.sampled_from(sorted(BASE.attributes[a].values)), unique=True, min_size=1, max_size=3))
        for a in chosen
    }


@given(described(), st.sampled_from([*BASE.subtypes, "tr_high"]))
def test_the_split_is_total_and_disjoint_and_can_be_read_back(attributes: dict[str, list[str]], label: str) -> None:
    quality = [words[0] for words in BASE.quality.values()]
    prompt = compose(BASE, label, attributes, quality)
    fg, bg = phrases(prompt.fg), phrases(prompt.bg)
    assert fg[0] == (BASE.subtypes[label].phrase if label in BASE.subtypes else label)
    assert not set(fg) & set(bg) and len(set(fg)) == len(fg) and len(set(bg)) == len(bg)
    assert bg[len(bg) - 3 :] == quality
    back: dict[str, set[str]] = {}
    for side, told in (("fg", fg[1:]), ("bg", bg[:-3])):
        for phrase in told:
            attribute, value = BASE.parse_phrase(phrase)
            assert BASE.scope(attribute, value) == side
            back.setdefault(attribute, set()).add(value)
    assert back == {a: set(v) for a, v in attributes.items()}


@given(described())
def test_every_foreground_phrase_has_its_role(attributes: dict[str, list[str]]) -> None:
    prompt = compose(BASE, "FTC", attributes)
    found = roles(BASE, "FTC", prompt.fg)
    assert [p for p, _ in found] == phrases(prompt.fg) and found[0] == (BASE.subtypes["FTC"].phrase, "particular")
    for phrase, role in found[1:]:
        attribute, value = BASE.parse_phrase(phrase)
        in_yaml = BASE.subtypes["FTC"]
        expected = (
            "particular" if value in in_yaml.particular.get(attribute, ())
            else "joint" if value in in_yaml.joint.get(attribute, ()) else "common"
        )  # fmt: skip
        assert role == expected


def test_roles_are_seen_from_the_target() -> None:
    fg = compose(BASE, "benign", {"halo": ["unevenly_thick"], "composition": ["solid"]}).fg
    assert dict(roles(BASE, "FTC", fg))[BASE.phrase("halo", "unevenly_thick")] == "particular"
    assert dict(roles(BASE, "FTC", fg))[BASE.subtypes["benign"].phrase] == "common"
    assert {r for _, r in roles(BASE, "tr_high", "tr_high, solid")} == {"common"}
    with pytest.raises(UserError):
        roles(BASE, "FTC", "FTC, purple")


def test_a_wording_shared_by_attributes_stays_apart() -> None:
    prompt = compose(BASE, "PTC", {"shape": ["irregular"], "margin": ["irregular_margin"]})
    assert len(phrases(prompt.fg)) == 3


@pytest.mark.parametrize("attributes", [{"colour": ["red"]}, {"margin": ["purple"]}])
def test_unknown_words_are_refused(attributes: dict[str, list[str]]) -> None:
    with pytest.raises(UserError):
        compose(BASE, "PTC", attributes)


@pytest.mark.parametrize("label", ["", "a, b"])
def test_a_label_that_would_break_the_prompt_is_refused(label: str) -> None:
    with pytest.raises(UserError, match="rename"):
        compose(BASE, label, {})


class Hospital:
    """Writes what the report and pathology ingest would write, row by row."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    def nodule(self, exam: str, ordinal: int, patient: str, *findings: tuple[str, str] | tuple[str, str, str]) -> None:
        nodule_id = f"{exam}-{ordinal}"
        rows = [
            {"finding_id": f"{nodule_id}.{k}", "nodule_id": nodule_id, "attribute": f[0], "value": f[1],
             "certainty": f[2] if len(f) > 2 else "positive"}
            for k, f in enumerate(findings)
        ]  # fmt: skip
        own = {
            "nodule_id": nodule_id,
            "patient_id": patient,
            "exam_id": exam,
            "ordinal": ordinal,
            "source": "reports.csv",
        }
        with self.ws.connect() as con:
            store.insert(con, "nodules", pd.DataFrame([own]))
            store.insert(con, "findings", pd.DataFrame(rows))

    def pathology(
        self, patient: str, exam: str | None, subtype: str, ordinal: int | None = None, conflict: str | None = None
    ) -> None:
        with self.ws.connect() as con:
            number = con.execute("SELECT count(*) FROM pathology").fetchone()[0]
            con.execute(
                "INSERT INTO pathology (pathology_id, patient_id, exam_id, nodule_ordinal, subtype, conflict) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [f"p{number}", patient, exam, ordinal, subtype, conflict],
            )

    def prompts(self) -> dict[str, tuple[str, str, str, dict]]:
        with self.ws.connect(read_only=True) as con:
            rows = con.execute(
                "SELECT i.exam_id, p.label, p.fg, p.bg, p.attributes FROM prompts p JOIN images i USING (image_id)"
            ).fetchall()
        return {row[0]: (row[1], row[2], row[3], json.loads(row[4])) for row in rows}


@pytest.fixture
def hospital(ws: Workspace, listed: Callable[..., Path]) -> Callable[[list[dict[str, str]]], Hospital]:
    def admit(rows: list[dict[str, str]]) -> Hospital:
        ingest_images(ws, listed(rows))
        return Hospital(ws)

    return admit


def image(patient: str, exam: str, **more: str) -> dict[str, str]:
    return {"patient_id": patient, "exam_id": exam, **more}


def test_one_nodule_of_the_exam_is_the_images(hospital: Callable[..., Hospital]) -> None:
    h = hospital([image("P1", "E1", plane="longitudinal", label="benign")])
    h.nodule(
        "E1", 1, "P1", ("margin", "clear"), ("margin", "smooth"), ("nodule_location", "left"),
        ("nodule_location", "upper"), ("sonogram_direction", "transverse"),
        ("calcification", "microcalcification", "negated"),
        ("halo", "absent", "uncertain"), ("tirads", "4A"), ("composition", "no_such_value"),
    )  # fmt: skip
    h.pathology("P1", "E1", "PTC")
    result = build_prompts(h.ws)
    label, fg, bg, attributes = h.prompts()["E1"]
    told = [BASE.phrase("margin", "clear"), BASE.phrase("margin", "smooth"), BASE.phrase("halo", "absent")]
    assert label == "PTC" and phrases(fg) == [BASE.subtypes["PTC"].phrase, *told]
    assert attributes == {
        "margin": ["clear", "smooth"], "halo": ["absent"], "nodule_location": ["left", "upper"],
        "sonogram_direction": ["longitudinal"],
    }  # fmt: skip
    assert phrases(bg)[:3] == [BASE.phrase("nodule_location", v) for v in ("left", "upper")] + [
        BASE.phrase("sonogram_direction", "longitudinal")
    ]
    assert len(phrases(bg)) == 6
    assert result["uncertain"] == 1 and result["value_not_in_vocabulary"] == 1
    assert h.ws.cases()["uncertain"].tolist() == [["halo"]]


def test_several_nodules_are_told_apart_by_side_or_left_out(hospital: Callable[..., Hospital]) -> None:
    rows = [
        image("P1", "E1", label="PTC", nodule_location="right"),
        image("P2", "E2", label="PTC"),
        image("P3", "E3", label="PTC", nodule_location="isthmus"),
    ]
    h = hospital(rows)
    for patient, exam in (("P1", "E1"), ("P2", "E2"), ("P3", "E3")):
        h.nodule(exam, 1, patient, ("margin", "clear"), ("nodule_location", "left"), ("nodule_location", "upper"))
        h.nodule(exam, 2, patient, ("margin", "unclear"), ("nodule_location", "right"), ("nodule_location", "lower"))
    result = build_prompts(h.ws)
    assert set(h.prompts()) == {"E1"}
    assert h.prompts()["E1"][3]["margin"] == ["unclear"]
    assert (result["nodule_ambiguous"], result["nodule_contradicts_image"]) == (1, 1)


def test_the_images_own_descriptors_come_before_the_report(hospital: Callable[..., Hospital]) -> None:
    h = hospital([image("P1", "E1", label="PTC", margin="spiculated")])
    h.nodule("E1", 1, "P1", ("margin", "clear"), ("echogenicity", "hypoechoic"))
    build_prompts(h.ws)
    assert h.prompts()["E1"][3] == {"echogenicity": ["hypoechoic"], "margin": ["spiculated"]}


def test_a_contradiction_within_one_attribute_stays_out(hospital: Callable[..., Hospital]) -> None:
    h = hospital([image("P1", "E1", label="PTC")])
    h.nodule("E1", 1, "P1", ("composition", "solid"), ("composition", "cystic"), ("margin", "clear"))
    assert build_prompts(h.ws)["contradiction_left_out"] == 1
    assert h.prompts()["E1"][3] == {"margin": ["clear"]}


@pytest.mark.parametrize(
    "found, label, excluded",
    [
        ([("E1", "FTC")], "FTC", None),
        ([("E9", "FTC")], "FTC", None),  # another examination of the same patient
        ([("E9", "FTC"), ("E1", "MTC")], "MTC", None),
        ([("E1", "none"), ("E1", "indeterminate")], "benign", None),
        ([("E1", "FTC"), ("E1", "benign")], None, "pathology_conflict"),
        ([("E1", "other_malignant")], None, "pathology_outside_classes"),
        ([], "benign", None),
    ],
)
def test_pathology_comes_before_the_images_label(
    hospital: Callable[..., Hospital], found: list[tuple[str, str]], label: str | None, excluded: str | None
) -> None:
    h = hospital([image("P1", "E1", label="benign")])
    h.nodule("E1", 1, "P1", ("margin", "clear"))
    for exam, subtype in found:
        h.pathology("P1", exam, subtype)
    result = build_prompts(h.ws)
    if label:
        assert h.prompts()["E1"][0] == label
    else:
        assert h.prompts() == {} and result[str(excluded)] == 1


def test_a_marked_conflict_and_an_ordinal_are_respected(hospital: Callable[..., Hospital]) -> None:
    h = hospital([image("P1", "E1"), image("P2", "E2", nodule_location="right")])
    h.nodule("E1", 1, "P1", ("margin", "clear"))
    h.pathology("P1", "E1", "PTC", conflict="two subtypes")
    h.nodule("E2", 1, "P2", ("nodule_location", "left"))
    h.nodule("E2", 2, "P2", ("nodule_location", "right"), ("margin", "clear"))
    h.pathology("P2", "E2", "benign", ordinal=1)
    h.pathology("P2", "E2", "PTC", ordinal=2)
    assert build_prompts(h.ws)["pathology_conflict"] == 1
    assert {exam: row[0] for exam, row in h.prompts().items()} == {"E2": "PTC"}


def test_a_class_folder_gives_prompts_of_the_class_alone(small_ws: Workspace) -> None:
    result = build_prompts(small_ws)
    assert result["prompts"] == 24 and result["class_only"] == 24
    assert set(small_ws.cases()["fg"]) == {BASE.subtypes["PTC"].phrase, BASE.subtypes["benign"].phrase}


def test_without_a_class_there_is_no_prompt_and_a_second_call_changes_nothing(
    hospital: Callable[..., Hospital],
) -> None:
    h = hospital([image("P1", "E1"), image("P2", "E2", label="PTC")])
    first, rows = build_prompts(h.ws), h.prompts()
    assert first["no_label"] == 1 and set(rows) == {"E2"}
    assert build_prompts(h.ws) == first and h.prompts() == rows
