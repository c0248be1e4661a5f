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
        ("thyroid.yaml", "domain: thyroid", "domain: breast", "is called 'breast' but its file thyroid.yaml"),
        (
            "thyroid.yaml",
            "    sources: [TigerRelease, ACR2017]\n",
            "",
            "'sources' is missing in attributes.calcification",
        ),
        ("thyroid.yaml", "sources: [TigerRelease, ACR2017]", "sources: []", "is empty; name at least one"),
        ("thyroid.yaml", "sources: [TigerRelease, ACR2017]", "sources: ACR2017", "must be a list"),
        ("thyroid.yaml", "sources: [TigerRelease, ACR2017]", "source: [ACR2017]", "'sources' is missing"),
        (
            "thyroid.yaml",
            "phrase: round, en: [round,",
            "phrase: round, en: [round, round,",
            "listed twice under 'round'",
        ),
        ("thyroid.yaml", "phrase: round, en: [round,", "phrase: round, en: [no, round,", "put the word in quotes"),
        ("thyroid.yaml", "phrase: round, en: [round,", "phrase: round, en: [(round,", "does not begin"),
        ("thyroid.yaml", "phrase: round, en: [round,", 'phrase: round, en: ["ball (round",', "without its partner"),
        ("thyroid.yaml", "phrase: round, en: [round,", "phrase: round, en: [round, -round,", "does not begin"),
        (
            "thyroid.yaml",
            "phrase: round, en:",
            "phrase: round, fr:",
            "'en' is missing in attributes.aspect.values.round",
        ),
        ("thyroid.yaml", "      round: {phrase", "     round: {phrase", "not YAML"),
        ("thyroid.yaml", "      round: {phrase", "        round: {phrase", "not YAML"),
        ("thyroid.yaml", "      round: {phrase", "\tround: {phrase", "not YAML"),
        ("thyroid.yaml", "      round: {phrase", "      oval: {phrase", "'oval' is given twice"),
        ("thyroid.yaml", "      side: [left,", "      side: [leftish,", "'leftish' is no value of 'nodule_location'"),
        ("thyroid.yaml", "quality:  ", "qualities:  ", "'quality' is missing|'qualities' is not known"),
        ("thyroid.yaml", "not: {echogenicity: [anechoic]}", "not: {echogenicity: [purple]}", "'purple' is no value"),
        ("thyroid_subtypes.yaml", "phrase: medullary nodule", "phrase: follicular nodule", "already that of"),
        ("thyroid_subtypes.yaml", "joint: {halo: [thin_even]", "joint: {nodule_location: [left]", "background"),
        ("thyroid_subtypes.yaml", "sources: [Suh2013, PUMC2015, UVA]", "sources: [Suh2014]", "'Suh2014' is not listed"),
        ("thyroid_subtypes.yaml", "  TigerPaper: ", "  ACR2017: ", "'ACR2017' is given twice"),
        ("thyroid_subtypes.yaml", "sources:\n  TigerPaper", "domain: x\nsources:\n  TigerPaper", "already given in"),
        ("thyroid_subtypes.yaml", "particular: {halo: [unevenly_thick", "joint: {halo: [unevenly_thick", "given twice"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(domain: Path, file: str, old: str, new: str, words: str) -> None:
    line = edit(domain, file, old, new)
    with pytest.raises(UserError) as raised:
        kb.load("thyroid", domain)
    message = str(raised.value)
    assert re.search(words.replace("(", r"\("), message), message
    found = re.search(rf"{re.escape(file)}:(\d+)", message)
    # A missing key has no line of its own, so that of the entry which lacks it is named; a key that is given twice may
    # be reported at either place. Everything else is named to the line.
    assert found is not None, message
    if "'quality'" not in message and "given twice" not in message:
        assert abs(int(found[1]) - line) <= (4 if "missing" in message else 1), message
    assert "\n" not in message


def test_a_broken_pattern_of_the_report_cues_is_named(domain: Path) -> None:
    line = edit(domain, "common_reports.yaml", "former: ['前者'", "former: ['(前者'")
    with pytest.raises(UserError, match=rf"common_reports\.yaml:{line}.*no regular expression"):
        load_cues("thyroid", domain)


def test_an_unknown_domain_is_named() -> None:
    with pytest.raises(UserError, match=r"there is no organ .liver.; packaged are breast, chest, thyroid"):
        kb.load("liver")


def test_no_surface_form_names_two_values_of_an_attribute() -> None:
    for model in kb.load("thyroid").attributes.values():
        for one, other in itertools.combinations(model.values.values(), 2):
            assert not set(one.surfaces("zh")) & set(other.surfaces("zh"))


def test_files_that_are_no_text_are_one_sentence(domain: Path) -> None:
    path = domain / "thyroid.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_bytes(b"# first line\n" + text.encode("gb18030"))
    with pytest.raises(UserError, match=r"thyroid\.yaml:\d+ is not UTF-8; save the file as UTF-8\."):
        kb.load("thyroid", domain)
    path.write_text("# first line\n# \x07\n" + text, encoding="utf-8")
    with pytest.raises(UserError, match=r"thyroid\.yaml:2 holds a control character"):
        kb.load("thyroid", domain)
    path.write_text("\ufeff" + text, encoding="utf-8")  # an editor's byte order mark is no mistake
    assert kb.load("thyroid", domain).phrases() == kb.load("thyroid").phrases()


def test_the_packaged_vocabulary_is_loaded_once() -> None:
    assert kb.load("thyroid") is kb.load("thyroid")
