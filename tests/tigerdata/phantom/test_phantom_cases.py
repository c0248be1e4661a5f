"""Drawn cases: constraints hold, profiles are met, visible values cover the vocabulary."""

from collections import Counter

import numpy as np
import pytest

import kb
from tigerdata.phantom.cases import draw_attributes, draw_patient, uniform_attributes
from tigerdata.phantom.visible import VISIBLE_VALUES, shown, undrawn


@pytest.fixture(scope="module")
def base():
    return kb.load("thyroid")


@pytest.fixture(scope="module")
def drawn(base):
    return {
        label: [draw_attributes(base, base.profile(label), np.random.default_rng([k, 1]))[0] for k in range(700)]
        for label in base.subtypes
    }


def test_no_drawn_combination_is_impossible_or_unseen(base, drawn):
    for cases in drawn.values():
        for attributes in cases:
            assert base.impossible(attributes) is None and undrawn(attributes) is None


def test_the_first_attribute_follows_its_profile(base, drawn):
    for label, cases in drawn.items():
        counts = Counter(case["composition"][0] for case in cases)
        for value, share in base.profile(label)["composition"].items():
            assert counts[value] / len(cases) == pytest.approx(share, abs=0.06)


def test_later_attributes_stay_near_their_profile(base, drawn):
    """Constraints move probability, so only the larger values are compared, with room."""
    for label, cases in drawn.items():
        for name in ("calcification", "aspect", "shape", "diameter"):
            counts = Counter(value for case in cases for value in case[name])
            for value, share in base.profile(label)[name].items():
                assert counts[value] / len(cases) == pytest.approx(share, abs=0.12), (label, name, value)


def test_classes_differ_as_the_knowledge_base_says(drawn):
    def share(label, name, value):
        return np.mean([value in case[name] for case in drawn[label]])

    assert share("FTC", "extension", "bulging") > 3 * share("benign", "extension", "bulging")
    assert share("PTC", "calcification", "microcalcification") > 4 * share(
        "benign", "calcification", "microcalcification"
    )
    assert share("ATC", "diameter", "large") > 0.8


def test_every_visible_value_is_in_the_vocabulary_and_represents_itself(base):
    for name, table in VISIBLE_VALUES.items():
        for value, seen in table.items():
            assert value in base.attributes[name].values
            assert table[seen] == seen


def test_shown_is_idempotent_and_hides_what_fluid_hides():
    attributes = {
        "composition": ["predominantly_cystic"],
        "echogenicity": ["hypoechoic"],
        "margin": ["clear", "smooth"],
    }
    seen = shown(attributes)
    assert seen == {"composition": "mixed_cystic_solid", "margin": "clear"}
    assert shown({name: [value] for name, value in seen.items()}) == seen
    assert "margin" not in shown({"margin": ["clear", "lobulated"]})


def test_a_small_nodule_is_asked_only_for_what_its_few_pixels_show():
    row = {"composition": ["solid"], "echogenicity": ["hypoechoic"], "shape": ["irregular"], "halo": ["absent"]}
    row |= {"margin": ["unclear"], "aspect": ["round"], "calcification": ["rim_calcification"]}
    assert shown(row | {"diameter": ["middle"]}).keys() == {*row, "diameter"}
    assert shown(row | {"diameter": ["small"]}).keys() == {"aspect", "calcification", "diameter"}
    assert "echogenicity" not in shown({"composition": ["mixed_cystic_solid"], "echogenicity": ["hypoechoic"]})


def test_uniform_attributes_reach_every_visible_value(base):
    counts: Counter = Counter()
    for k in range(800):
        attributes, _, plane = uniform_attributes(base, np.random.default_rng(k))
        assert base.impossible(attributes) is None and undrawn(attributes) is None
        assert attributes["sonogram_direction"] == [plane]
        counts.update(shown(attributes).items())
    for name, table in VISIBLE_VALUES.items():
        for value in set(table.values()):
            if (name, value) != ("echotexture", "cystic_change"):  # solid nodules have none (knowledge base)
                assert counts[name, value] > 15, (name, value)


def test_patients_keep_their_nodule_and_the_second_one_lies_in_the_other_lobe(base):
    seconds = 0
    for k in range(200):
        patient = draw_patient(base, f"P{k:05d}", "FTC", "train", np.random.default_rng(k))
        assert 1 <= len(patient.visits) <= 2 and all(1 <= len(v.planes) <= 3 for v in patient.visits)
        assert [v.date for v in patient.visits] == sorted(v.date for v in patient.visits)
        assert len({v.exam_id for v in patient.visits}) == len(patient.visits)
        if patient.second:
            seconds += 1
            assert {patient.nodule.side, patient.second.side} == {"left", "right"}
    assert 25 < seconds < 75
