"""Risk scores computed from attributes, by hand from the guidelines' tables."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kb.errors import UserError
from kb.scores import load_scores
from kb.vocabulary import DOMAINS
from tigerdata.reports.parser import parse
from tigerdata.reports.scores import compute

SOLID_CANCER = {
    "composition": "solid", "echogenicity": "markedly_hypoechoic", "aspect": "taller_than_wide",
    "margin": ["spiculated"], "calcification": ["microcalcification"],
}  # fmt: skip
PLAIN = {
    "composition": "solid", "echogenicity": "hypoechoic", "aspect": "wider_than_tall", "margin": ["clear"],
    "calcification": ["absent"],
}  # fmt: skip

CASES: list[tuple[dict[str, Any], dict[str, tuple[int | None, str]]]] = [
    (SOLID_CANCER, {"ACR-TIRADS": (13, "5"), "C-TIRADS": (5, "5"), "EU-TIRADS": (None, "5"), "K-TIRADS": (None, "5")}),
    (PLAIN, {"ACR-TIRADS": (4, "4"), "C-TIRADS": (1, "4A"), "EU-TIRADS": (None, "4"), "K-TIRADS": (None, "4")}),
    (PLAIN | {"echogenicity": "isoechoic"},
     {"ACR-TIRADS": (3, "3"), "C-TIRADS": (1, "4A"), "EU-TIRADS": (None, "3"), "K-TIRADS": (None, "3")}),
    (PLAIN | {"composition": "cystic", "echogenicity": "anechoic", "calcification": ["comet_tail"]},
     {"ACR-TIRADS": (0, "1"), "C-TIRADS": (-1, "2"), "EU-TIRADS": (None, "2"), "K-TIRADS": (None, "2")}),
    (PLAIN | {"composition": "mixed_cystic_solid", "echogenicity": "isoechoic"},
     {"ACR-TIRADS": (2, "2"), "C-TIRADS": (0, "3"), "EU-TIRADS": (None, "3"), "K-TIRADS": (None, "3")}),
    (PLAIN | {"calcification": ["microcalcification", "macrocalcification", "rim_calcification"]},
     {"ACR-TIRADS": (10, "5"), "C-TIRADS": (2, "4B"), "EU-TIRADS": (None, "5"), "K-TIRADS": (None, "5")}),
    # The margin counts once: the highest of its values.
    (PLAIN | {"margin": ["lobulated", "irregular_margin", "unclear"], "extension": ["extrathyroidal"]},
     {"ACR-TIRADS": (7, "5"), "C-TIRADS": (2, "4B"), "EU-TIRADS": (None, "5"), "K-TIRADS": (None, "5")}),
    (PLAIN | {"margin": ["unclear"]},
     {"ACR-TIRADS": (4, "4"), "C-TIRADS": (2, "4B"), "EU-TIRADS": (None, "4"), "K-TIRADS": (None, "4")}),
    ({"composition": "spongiform", "echogenicity": "isoechoic", "calcification": ["microcalcification"]},
     {"ACR-TIRADS": (0, "1"), "EU-TIRADS": (None, "2"), "K-TIRADS": (None, "2")}),
]  # fmt: skip


@pytest.mark.parametrize(("nodule", "wanted"), CASES)
def test_known_scores(nodule: dict[str, Any], wanted: dict[str, tuple[int | None, str]]) -> None:
    found = compute(nodule)
    for system, (points, category) in wanted.items():
        assert (found[system].get("points"), found[system].get("category")) == (points, category), system
        features = found[system]["features"]
        if points is not None:
            assert sum(f["points"] for f in features) == points
        assert all(f["value"] in str(nodule[f["attribute"]]) for f in features)


@pytest.mark.parametrize("attribute", list(PLAIN))
def test_a_missing_attribute_makes_no_score(attribute: str) -> None:
    nodule = {k: v for k, v in PLAIN.items() if k != attribute}
    for system, found in compute(nodule).items():
        if system == "EU-TIRADS" and attribute in ("echogenicity", "composition"):
            assert "category" not in found
            continue
        assert "category" not in found, system
        assert attribute in found["lacks"] and attribute in found["not_computable"]


def test_a_kind_of_calcium_that_is_not_named_leaves_the_acr_score_open() -> None:
    found = compute(PLAIN | {"calcification": ["calcification_unspecified"]})
    assert found["ACR-TIRADS"]["lacks"] == ["calcification"]
    assert found["C-TIRADS"]["category"] == "4A"


def test_a_feature_that_is_only_suspected_is_named() -> None:
    found = compute(SOLID_CANCER | {"uncertain": ["calcification", "halo"]})
    assert found["ACR-TIRADS"]["uncertain"] == ["calcification"]
    assert "uncertain" not in compute(SOLID_CANCER)["ACR-TIRADS"]


TEXT = "左叶见一实性低回声结节，大小5×4mm，边界清，纵横比<1，未见钙化，C-TIRADS 3类。"


def test_a_computed_score_is_apart_from_the_stated_category_and_only_on_request() -> None:
    assert "computed" not in parse(TEXT)["nodules"][0]
    nodule = parse(TEXT, computed=True)["nodules"][0]
    assert nodule["tirads"] == {"system": "C-TIRADS", "category": "3"}
    assert nodule["computed"]["C-TIRADS"]["category"] == "4A"
    plain = parse(TEXT, computed=True)
    del plain["nodules"][0]["computed"]
    assert plain == parse(TEXT)


def test_an_organ_without_tables_has_no_scores() -> None:
    assert load_scores("breast") is None
    assert parse("右乳见一低回声结节，大小5×4mm。", domain="breast", computed=True)["nodules"][0]["computed"] == {}


def test_a_value_that_the_vocabulary_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    for path in DOMAINS.glob("thyroid*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "thyroid_scores.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("spiculated: 2", "spikes: 2", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"thyroid_scores\.yaml:\d+: 'spikes' is no value of 'margin'"):
        load_scores("thyroid", tmp_path)


@pytest.mark.realdata
def test_acr_points_of_the_duke_table(real_data: Path) -> None:
    from benchmarks import duke_points

    counts = Counter(duke_points.explain(row) for row in duke_points.read(real_data))
    assert sum(counts.values()) == 1428
    assert counts[duke_points.UNNAMED] == 0
    assert counts[duke_points.OTHER_SUM] == 1
    assert counts[duke_points.EQUAL] == 1128
    slips = sum(n for name, n in counts.items() if "slip" in name or "add up" in name)
    assert slips - counts[duke_points.COLUMN] == 184  # the rows whose columns do not add up to the total
