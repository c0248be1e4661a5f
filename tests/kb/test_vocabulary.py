"""The thyroid vocabulary keeps its promises, and a mistake in a YAML file is one sentence with its line."""

import itertools
import re
import shutil
from pathlib import Path

import pytest

import kb
from kb.cues import load_cues
from kb.errors import UserError
from kb.vocabulary import DOMAINS
from kb.yamlfile import expand

FILES = ("thyroid.yaml", "thyroid_subtypes.yaml", "thyroid_reports.yaml", "common_reports.yaml")


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(DOMAINS / name, tmp_path / name)
    return tmp_path


def edit(folder: Path, name: str, old: str, new: str) -> int:
    """Replace the first `old` and return its line."""
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


def test_phrases_are_unique_and_can_be_read_back() -> None:
    base = kb.load("thyroid")
    phrases = base.phrases()
    assert len(phrases) == len(set(phrases))
    assert not [p for p in phrases if "," in p]
    for attribute, model in base.attributes.items():
        for value in model.values:
            assert base.parse_phrase(base.phrase(attribute, value)) == (attribute, value)
    assert base.phrase("margin", "irregular_margin") != base.phrase("shape", "irregular")
    assert base.parse_phrase(base.subtypes["FTC"].phrase) == ("subtype", "FTC")
    with pytest.raises(UserError, match="no phrase"):
        base.parse_phrase("purple nodule")


def test_twelve_attributes_of_which_two_are_background() -> None:
    base = kb.load("thyroid")
    assert len(base.attributes) == 12
    background = {name for name in base.attributes if base.scope(name) == "bg"}
    assert background == {"nodule_location", "sonogram_direction"}
    assert base.scope("definition") == "bg" and base.scope("subtype") == "fg"


def test_roles_follow_the_target() -> None:
    base = kb.load("thyroid")
    assert base.role("FTC", "halo", "unevenly_thick") == "particular"
    assert base.role("FTC", "halo", "thin_even") == "joint"
    assert base.role("PTC", "halo", "thin_even") == "common"
    assert base.role("FTC", "subtype", "FTC") == "particular"
    assert base.role("a free label", "halo", "thin_even") == "common"


@pytest.mark.parametrize("subtype", ["benign", "PTC", "FTC", "MTC", "ATC"])
def test_profiles_are_distributions_over_known_values(subtype: str) -> None:
    base = kb.load("thyroid")
    profile = base.profile(subtype)
    assert set(profile) == set(base.attributes)
    for attribute, chances in profile.items():
        assert sum(chances.values()) == pytest.approx(1)
        assert set(chances) <= set(base.attributes[attribute].values)
    profile["halo"]["absent"] = 9.0
    assert base.profile(subtype)["halo"]["absent"] < 1


def test_ftc_and_benign_overlap_in_every_attribute() -> None:
    """No single attribute separates them: the best threshold on one attribute is right in less than 80 % of cases."""
    base = kb.load("thyroid")
    ftc, benign = base.profile("FTC"), base.profile("benign")
    for attribute in base.attributes:
        values = set(ftc[attribute]) | set(benign[attribute])
        best = sum(max(ftc[attribute].get(v, 0), benign[attribute].get(v, 0)) for v in values) / 2
        assert best < 0.8, attribute


def test_impossible_combinations_are_named() -> None:
    base = kb.load("thyroid")
    reason = base.impossible({"composition": ["solid"], "echogenicity": ["anechoic"]})
    assert reason and "solid" in reason and "anechoic" in reason
    assert base.impossible({"composition": ["cystic"], "echogenicity": ["anechoic"]}) is None
    assert base.impossible({"margin": ["clear", "unclear"]})
    assert base.impossible({"calcification": ["microcalcification", "macrocalcification"]}) is None


def test_size_classes_meet_at_their_bounds() -> None:
    base = kb.load("thyroid")
    assert [base.size_class(mm) for mm in (0.5, 9.9, 10, 19.99, 20, 75)] == [
        "small", "small", "middle", "middle", "large", "large",
    ]  # fmt: skip


def test_alternatives_are_expanded_in_all_combinations() -> None:
    assert expand("(a|b)c(d|)") == ["acd", "ac", "bcd", "bc"]
    assert expand("plain") == ["plain"]


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("thyroid.yaml", "phrase: irregular margin", "phrase: irregular shape", "already that of"),
        ("thyroid.yaml", "phrase: hyperechoic", "phrase: 'hyper, echoic'", "comma"),
        ("thyroid.yaml", "sources: [TigerRelease, ACR2017]", "sources: [Nobody1999]", "Nobody1999"),
        ("thyroid.yaml", "scope: bg", "scope: middle", "scope"),
        ("thyroid.yaml", "phrase: round, en: [round,", "phrase: round, en: [oval, round,", "already names"),
        ("thyroid_subtypes.yaml", "particular: {halo: [unevenly_thick", "particular: {halo: [purple", "purple"),
        ("thyroid_subtypes.yaml", "shape: {regular: .82", "shape: {regular: .72", "sum to 0.9"),
        ("thyroid_subtypes.yaml", "joint: {aspect: [taller", "joint: {aspects: [taller", "no attribute 'aspects'"),
        ("thyroid_subtypes.yaml", "malignant: false", "malignant: false\n    malignant: true", "twice"),
        ("thyroid.yaml", "domain: thyroid", "domain: [thyroid", "not YAML"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(domain: Path, file: str, old: str, new: str, words: str) -> None:
    line = edit(domain, file, old, new)
    with pytest.raises(UserError) as raised:
        kb.load("thyroid", domain)
    message = str(raised.value)
    assert words in message
    found = re.search(rf"{re.escape(file)}:(\d+)", message)
    assert found is not None and abs(int(found[1]) - line) <= 1, message
    assert "\n" not in message


def test_a_broken_pattern_of_the_report_cues_is_named(domain: Path) -> None:
    line = edit(domain, "common_reports.yaml", "former: ['前者'", "former: ['(前者'")
    with pytest.raises(UserError, match=rf"common_reports\.yaml:{line}.*no regular expression"):
        load_cues("thyroid", domain)


def test_an_unknown_domain_is_named() -> None:
    with pytest.raises(UserError, match=r"no file liver\.yaml"):
        kb.load("liver")


def test_no_surface_form_names_two_values_of_an_attribute() -> None:
    for model in kb.load("thyroid").attributes.values():
        for one, other in itertools.combinations(model.values.values(), 2):
            assert not set(one.surfaces("zh")) & set(other.surfaces("zh"))
