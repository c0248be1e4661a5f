"""The plan: sources, coverage, donors, and what is refused when it is read."""

import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kb.errors import UserError
from kb.files import write_json
from tests.proof_corpus import make_workspace
from tigergen.augment import plan as plans
from tigergen.augment.coverage import coverage, ways
from tigergen.augment.draws import RareDrawer, observed_profile, spread
from tigergen.augment.slots import Slots
from tigergen.augment.work import blocks, claim

COUNTS = {
    "train": {"benign": 50, "PTC": 40, "FTC": 8},
    "val": {"benign": 12, "FTC": 6},
    "test": {"benign": 6, "FTC": 6},
}


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory):
    return make_workspace(tmp_path_factory.mktemp("plan") / "ws", COUNTS)


@pytest.fixture(scope="module")
def plan(ws):
    return plans.make_plan(ws, "FTC", 30, seed=1, rare_below=20)


def test_every_class_gets_n_and_says_where_it_comes_from(ws, plan) -> None:
    counts: Counter[str] = Counter()
    for row in plan["rows"]:
        counts[row["label"]] += row["count"]
        kinds = {"FTC": ("literature profile [", "observed co-occurrence")}.get(
            row["label"], ("real prompt of the class",)
        )
        assert row["source"].startswith(kinds)
    assert counts == {"FTC": 30, "PTC": 30, "benign": 30} and plans.total(plan) == 90
    sources = {row["source"].split(" [")[0] for row in plan["rows"] if row["label"] == "FTC"}
    assert sources == {"literature profile"}, "thirty rows do not fill all that is missing; nothing else is drawn"


def test_drawn_by_the_profile_a_rare_class_mixes_literature_and_co_occurrence(ws) -> None:
    drawn = plans.make_plan(ws, "FTC", 30, classes=[], seed=1, rare_below=20, draw="profile")
    assert {row["source"].split(" [")[0] for row in drawn["rows"]} == {"literature profile", "observed co-occurrence"}
    assert drawn["refused"]["FTC"], "independent draws of twelve attributes meet contradictions"
    assert not any("fills" in row for row in drawn["rows"])


def test_rows_are_possible_and_cover_more(ws, plan) -> None:
    assert all(ws.kb.impossible(row["attributes"]) is None for row in plan["rows"])
    two_way = plan["coverage"]["FTC"]["two_way"]
    assert two_way["after"] > 3 * two_way["before"] and two_way["after"] <= two_way["possible"]


def test_donors_are_common_training_images_of_the_same_plane(ws, plan) -> None:
    train = ws.cases("train").set_index("image_id")
    for row in plan["rows"]:
        for donor in row["donors"]:
            assert train.loc[donor, "label"] in {"benign", "PTC"}
            if row["attributes"]["sonogram_direction"] != ["oblique"]:
                assert train.loc[donor, "attributes"]["sonogram_direction"] == row["attributes"]["sonogram_direction"]


def test_a_real_prompt_does_not_borrow_the_edges_of_its_own_image(ws, plan) -> None:
    train = ws.cases("train")
    for row in (r for r in plan["rows"] if r["label"] == "benign"):
        own = {i for i, a, lab in zip(train.image_id, train.attributes, train.label, strict=True)
               if a == row["attributes"] and lab == "benign"}  # fmt: skip
        assert not own & set(row["donors"])


def test_same_seed_same_plan_and_the_id_follows_what_is_generated(ws, plan) -> None:
    again = plans.make_plan(ws, "FTC", 30, seed=1, rare_below=20)
    assert again == plan and plans.plan_id(again) == plans.plan_id(plan)
    assert plans.plan_id(plans.make_plan(ws, "FTC", 30, seed=2, rare_below=20)) != plans.plan_id(plan)
    again |= {"warnings": ["a remark"], "estimate": {"hours": 3}}
    assert plans.plan_id(again) == plans.plan_id(plan)


def test_target_only_warns(ws) -> None:
    only = plans.make_plan(ws, "FTC", 4, classes=["FTC"])
    assert {row["label"] for row in only["rows"]} == {"FTC"} and "generated" in only["warnings"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(count=-1), "row 2 .* count -1"),
        (lambda r: r.update(count=2.5), "row 2 .* count 2.5"),
        (lambda r: r.update(fg=r["fg"] + ", purple"), "row 2 .* 'purple'"),
        (lambda r: r.update(fg=r["fg"] + ", rim calcification"), "row 2 .* differ"),
        (lambda r: r.update(donors=["feedfacefeedface"]), "row 2 .* not in the training split"),
        (lambda r: r.update(donors=[]), "row 2 .* no donor"),
        (lambda r: r.update(label="benign"), "row 2 .* does not say its class"),
        (lambda r: r.update(label="../out"), "row 2 .* folder"),
        (lambda r: r.pop("attributes"), "row 2 .* no 'attributes'"),
        (lambda r: r.update(donors="feedfacefeedface"), "row 2 .* no donor"),
        (lambda r: r.update(donors=[["x"]]), "row 2 .* not in the training split"),
        (lambda r: r.update(attributes=["solid"]), "row 2 .* not an object of lists"),
        (lambda r: r.update(fg=r["fg"] + ", papillary nodule"), "row 2 .* two classes: 'follicular nodule' and 'pap"),
    ],
)
def test_a_faulty_row_is_refused_by_its_number(ws, plan, tmp_path: Path, change, message: str) -> None:
    edited = copy.deepcopy(plan)
    change(edited["rows"][1])
    write_json(tmp_path / "plan.json", edited)
    with pytest.raises(UserError, match=message):
        plans.read_plan(tmp_path / "plan.json", ws)


def test_a_donor_of_the_test_split_and_an_impossible_row_are_refused(ws, plan) -> None:
    edited = copy.deepcopy(plan)
    edited["rows"][0]["donors"] = [ws.cases("test")["image_id"].iloc[0]]
    with pytest.raises(UserError, match="row 1 .* not in the training split"):
        plans.check_plan(edited, ws)
    edited = copy.deepcopy(plan)
    from tigerdata.prompts import compose

    said = {"composition": ["solid"], "echogenicity": ["anechoic"]}
    for attributes, reason in (
        (said, "fluid and cannot be solid"),
        ({"composition": ["solid", "cystic"]}, "one composition"),
    ):
        prompt = compose(ws.kb, "FTC", attributes)
        edited["rows"][0] |= {"label": "FTC", "fg": prompt.fg, "bg": prompt.bg, "attributes": attributes}
        with pytest.raises(UserError, match=f"row 1 .* impossible: .*{reason}"):
            plans.check_plan(edited, ws)


@pytest.mark.parametrize(
    "bad",
    ["not json", '{"format": "other"}', "[]", '{"format": "tiger-plan/1", "seed": 0, "sampling": [], "rows": [], '
     '"target": "FTC"}'],
)  # fmt: skip
def test_an_unreadable_plan_is_a_user_error(ws, tmp_path: Path, bad: str) -> None:
    (tmp_path / "plan.json").write_text(bad)
    with pytest.raises(UserError, match="plan"):
        plans.read_plan(tmp_path / "plan.json", ws)


def test_unknown_class_and_nothing_to_make_are_refused(ws) -> None:
    with pytest.raises(UserError, match="no class 'XTC'"):
        plans.make_plan(ws, "XTC", 3)
    with pytest.raises(UserError, match="0 images"):
        plans.make_plan(ws, "FTC", 0)


def test_drawing_follows_the_profile(ws) -> None:
    profile = {"shape": {"regular": 0.25, "irregular": 0.75}}
    drawer = RareDrawer(ws.kb, profile, "test", [], 10.0)
    rng = np.random.default_rng(0)
    share = np.mean([drawer.draw(rng).attributes == {"shape": ["irregular"]} for _ in range(2000)])
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 2000)


def test_observed_combinations_come_in_their_share(ws) -> None:
    """10 real cases against 30 pseudo-cases: a quarter of the draws starts from a real one."""
    profile = {"shape": {"regular": 1.0}}
    drawer = RareDrawer(ws.kb, profile, "test", [{"shape": ["irregular"]}] * 10, 30.0)
    rng = np.random.default_rng(0)
    share = np.mean([drawer.draw(rng).source == "observed co-occurrence" for _ in range(2000)])
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)


def test_a_class_without_literature_uses_its_own_frequencies() -> None:
    profile = observed_profile([{"shape": ["regular"]}] * 3, [{"shape": ["irregular"]}] * 5)
    assert profile == {"shape": {"irregular": 0.25, "regular": 0.75}}


def test_ways_and_coverage_by_hand(ws) -> None:
    cases = [{"shape": ["regular"], "aspect": ["round"]}, {"shape": ["irregular"], "aspect": ["oval"]}]
    assert len(ways(cases, 1)) == 4 and len(ways(cases, 2)) == 2
    found = coverage(ws.kb, cases[:1], cases[1:])
    aspects = len(ws.kb.attributes["aspect"].values)
    # round + irregular is impossible by the knowledge base.
    assert found["two_way"]["possible"] == 2 * aspects - 1
    assert (found["two_way"]["before"], found["two_way"]["after"]) == (1, 2)
    assert found["one_way"] == {"possible": 2 + aspects, "before": 2, "after": 4}


def test_spread_is_even_and_whole() -> None:
    for count in range(20):
        for parts in range(1, 9):
            out = spread(count, parts)
            assert sum(out) == count and max(out) - min(out) <= 1


def test_slots_depend_on_plan_and_index_alone(plan) -> None:
    slots, again = Slots(plan, {}), Slots(json.loads(json.dumps(plan)), {})
    order = np.random.default_rng(0).permutation(len(slots))
    assert [slots.at(int(k)) for k in order] == [again.at(int(k)) for k in order]
    assert len({slots.at(k).seed for k in range(len(slots))}) == len(slots)
    assert slots.at(5, 1).seed != slots.at(5).seed
    labels = Counter(slots.at(k).label for k in range(len(slots)))
    assert labels == {"FTC": 30, "PTC": 30, "benign": 30}


def test_blocks_partition_the_indices() -> None:
    assert [k for b in blocks(70, 32) for k in b] == list(range(70))


def test_a_claim_is_exclusive_and_freed(tmp_path: Path) -> None:
    with claim(tmp_path / "a.lock") as first, claim(tmp_path / "a.lock") as second:
        assert first and not second
    with claim(tmp_path / "a.lock") as third:
        assert third
