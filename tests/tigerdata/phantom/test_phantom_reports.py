"""Simulated reports: each clause states one value, the gold is in the text, the parser agrees, categories are right."""

import json
import re

import pytest

import kb
import tigerdata
from tigerdata.phantom.corpus import CorpusSettings, _Tables, patients
from tigerdata.phantom.risk import acr_tirads, c_tirads
from tigerdata.phantom.wording import PATHOLOGY, TABLES

ATTRIBUTES = (
    "composition",
    "echogenicity",
    "echotexture",
    "calcification",
    "aspect",
    "shape",
    "margin",
    "halo",
    "extension",
)


@pytest.fixture(scope="module")
def tables():
    counts = {"train": {"benign": 50, "PTC": 50, "FTC": 50, "MTC": 15, "ATC": 15}}
    rows = _Tables(CorpusSettings(counts=counts, seed=5))
    number = 0
    for patient, frames in patients(CorpusSettings(counts=counts, seed=5)):
        number += len(rows.add(patient, frames, number))
    return rows


@pytest.fixture(scope="module")
def reports(tables):
    expected = {row["exam_id"]: (row["language"], row["expected"], row) for row in tables.truth}
    return [(f"{r['findings']}\n{r['impression']}", *expected[r["exam_id"]]) for r in tables.reports]


def surfaces(base, language):
    """Independent longest match: surface -> the (attribute, value) pairs it stands for."""
    table: dict[str, set] = {}
    for name in ATTRIBUTES:
        for value, entry in base.attributes[name].values.items():
            for text in entry.surfaces(language):
                table.setdefault(re.sub(r"[()]", "", text).lower(), set()).add((name, value))
    return table


@pytest.mark.parametrize("language", ["zh", "en"])
def test_each_clause_names_its_value(language):
    base = kb.load("thyroid")
    table = surfaces(base, language)
    for name in ATTRIBUTES:
        for value, clauses in TABLES[language][name].items():
            if value == "no_capsule" or (value == "absent" and name != "extension"):
                continue  # denials are made of a cue and the name of what is denied
            for clause in (c for c in clauses if "纵横比" not in c):  # a ratio is read by number
                hits = [s for s in table if s in clause.lower() and (name, value) in table[s]]
                assert hits or value == "absent", (name, value, clause)


def test_every_value_of_the_profiles_has_words_in_both_languages():
    base = kb.load("thyroid")
    for label in base.subtypes:
        for name, values in base.profile(label).items():
            for value in values:
                for language in ("zh", "en"):
                    assert name == "diameter" or TABLES[language][name][value]
        assert PATHOLOGY["zh"][label] and PATHOLOGY["en"][label]


def test_the_text_states_each_gold_value_and_the_size(reports):
    for text, language, expected, _ in reports:
        for nodule in expected["nodules"]:
            for name in ATTRIBUTES:
                values = nodule.get(name, [])
                for value in values if isinstance(values, list) else [values]:
                    words = [*TABLES[language][name][value], "未见钙化及声晕"]
                    if "calcification" in nodule.get("uncertain", []):
                        words += ["可疑微钙化", "possible microcalcifications"]
                    assert any(word in text or word.capitalize() in text for word in words), (name, value, text)
            largest = max(nodule["diameter_mm"])
            assert f"{largest:.0f}" in text or f"{largest / 10:.1f}" in text
            side = nodule.get("location", {}).get("side")
            assert side is None or any(word in text for word in TABLES[language]["nodule_location"][side])


def test_gold_is_true(reports):
    for _, _, expected, row in reports:
        for nodule in expected["nodules"]:
            if nodule.get("location", {}).get("side") != row["attributes"]["nodule_location"][0]:
                continue  # the second nodule, or no side stated
            for name in ATTRIBUTES:
                values = nodule.get(name, [])
                assert set(values if isinstance(values, list) else [values]) <= set(row["attributes"][name])
            assert kb.load("thyroid").size_class(max(nodule["diameter_mm"])) == row["attributes"]["diameter"][0]


def test_attributes_are_missing_at_random_and_both_languages_occur(reports):
    stated = [
        name in nodule for _, _, e, _ in reports for nodule in e["nodules"] for name in ("shape", "margin", "aspect")
    ]
    assert 0.78 < sum(stated) / len(stated) < 0.92
    assert {language for _, language, _, _ in reports} == {"zh", "en"}
    assert any(len(e["nodules"]) == 2 for _, _, e, _ in reports)
    assert any(nodule.get("multiple") for _, _, e, _ in reports for nodule in e["nodules"])
    assert any("lymph_nodes" in e for _, _, e, _ in reports)


def slots(nodule):
    found = set()
    for name in ATTRIBUTES:
        values = nodule.get(name) or []
        found |= {(name, value) for value in (values if isinstance(values, list) else [values])}
    return found | {(key, value) for key, value in (nodule.get("location") or {}).items() if key in ("side", "pole")}


def test_the_parser_reads_what_was_written(reports):
    hit = gold_total = found_total = 0
    for text, _, expected, _ in reports:
        parsed = tigerdata.parse(text)["nodules"]
        gold, found = [slots(n) for n in expected["nodules"]], [slots(n) for n in parsed]
        gold_total += sum(map(len, gold))
        found_total += sum(map(len, found))
        hit += sum(len(a & b) for a, b in zip(gold, found, strict=False))
    assert 2 * hit / (gold_total + found_total) >= 0.98


def test_the_class_is_never_named_in_a_report(reports):
    for text, _, _, _ in reports:
        assert not re.search("癌|carcinoma|malignan|恶性|良性|benign", text)


def test_pathology_names_the_class_of_its_patient(tables):
    labels = {row["patient_id"]: row["label"] for row in tables.truth}
    assert {row["patient_id"] for row in tables.pathology} == set(labels)
    for row in tables.pathology:
        entities = PATHOLOGY["zh"][labels[row["patient_id"]]] + PATHOLOGY["en"][labels[row["patient_id"]]]
        assert any(entity in row["text"] for entity in entities)


def test_risk_categories_by_hand():
    suspicious = {
        "composition": ["solid"], "echogenicity": ["hypoechoic"], "calcification": ["microcalcification"],
        "aspect": ["taller_than_wide"], "margin": ["irregular_margin"], "extension": ["absent"],
    }  # fmt: skip
    assert c_tirads(suspicious) == "4C"  # taller, solid, micro, margin = 4
    assert acr_tirads(suspicious) == "5"  # 2 + 2 + 3 + 2 + 3 = 12 points
    plain = {"composition": ["solid"], "echogenicity": ["isoechoic"], "margin": ["clear"], "calcification": ["absent"]}
    assert (c_tirads(plain), acr_tirads(plain)) == ("4A", "3")
    assert acr_tirads({"composition": ["spongiform"], "calcification": ["microcalcification"]}) == "1"
    assert c_tirads({"composition": ["cystic"], "calcification": ["comet_tail"]}) == "2"


def test_reports_are_valid_json_with_the_contract_keys(reports):
    for _, _, expected, _ in reports:
        assert json.loads(json.dumps(expected)) == expected
        assert set(expected) <= {"nodules", "gland", "lymph_nodes"}
