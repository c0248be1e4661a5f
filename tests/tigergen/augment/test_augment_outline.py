"""The plan as a product: variants, the file for people, cost measured, the command."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kb.errors import UsageError, UserError
from kb.files import read_json
from tests.proof_corpus import SIZE, FakePipe, make_workspace, model_stub
from tigergen.augment import outline, planfile
from tigergen.augment import plan as plans
from tigergen.augment.donors import DonorPool
from tigergen.augment.estimate import estimate
from tigergen.augment.run import augment
from tigergen.commands import gen_app

COUNTS = {"train": {"benign": 40, "PTC": 30, "FTC": 8}, "val": {"benign": 8, "FTC": 4}}


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory):
    return make_workspace(tmp_path_factory.mktemp("outline") / "ws", COUNTS)


@pytest.fixture(scope="module")
def plan(ws):
    return plans.make_plan(ws, "FTC", 24, rare_below=20)


def test_counts_sum_to_what_was_asked(ws) -> None:
    made = plans.make_plan(ws, "FTC", strategy={"FTC": 301, "PTC": "balance", "MTC": "match:PTC"}, rare_below=20)
    counts: Counter[str] = Counter()
    for row in made["rows"]:
        counts[row["label"]] += row["count"]
    assert counts == {"FTC": 301, "PTC": 279, "MTC": 309} == made["generated"]
    assert made["warnings"][0].startswith("benign receive no generated images")
    balanced = plans.make_plan(ws, "FTC", balance=True, rare_below=20)
    assert balanced["generated"] == {"FTC": 32, "PTC": 10, "benign": 0}
    assert plans.make_plan(ws, "FTC", rare_below=20)["generated"] == {"FTC": 32, "PTC": 32, "benign": 32}


def test_rows_that_fill_come_first_and_fill_most_first(plan) -> None:
    fills = [row.get("fills", 0) for row in plan["rows"] if row["label"] == "FTC"]
    assert fills[0] > fills[len(fills) // 2] > 0
    assert fills == sorted(fills, key=lambda n: n == 0), "no filling row after one that fills nothing"
    two_way = plan["coverage"]["FTC"]["two_way"]
    assert sum(fills) == two_way["after"] - two_way["before"] == sum(len(v) for v in two_way["filled"].values())
    assert not any("fills" in row for row in plan["rows"] if row["label"] != "FTC")


def test_coverage_triples_where_the_literature_has_room(plan) -> None:
    two_way = plan["coverage"]["FTC"]["two_way"]
    assert two_way["after"] >= 3 * two_way["before"]
    assert two_way["after"] <= two_way["allowed"] <= two_way["possible"]


def test_donor_planes_count_images(ws, plan) -> None:
    train = ws.cases("train").set_index("image_id")
    used = Counter(train.loc[sorted({d for row in plan["rows"] for d in row["donors"]}), "plane"])
    assert {plane: n["used"] for plane, n in plan["donor_planes"].items()} == used
    assert sum(n["pool"] for n in plan["donor_planes"].values()) == 70


def test_an_image_without_a_plane_is_counted_as_unknown(ws) -> None:
    cases = ws.cases("train").head(3).copy()
    cases["plane"] = [None, float("nan"), "transverse"]
    planes = DonorPool(cases).by_plane([{"donors": [cases["image_id"].iloc[0]]}])
    assert planes == {"transverse": {"pool": 1, "used": 0}, "unknown": {"pool": 2, "used": 1}}


def test_tiger_n_says_the_class_and_nothing_else(ws, tmp_path: Path) -> None:
    named = plans.make_plan(ws, "FTC", 24, variant="N", rare_below=20)
    assert {(r["label"], r["fg"], r["bg"]) for r in named["rows"]} == {
        ("FTC", "follicular nodule", ""),
        ("PTC", "papillary nodule", ""),
        ("benign", "benign nodule", ""),
    }
    assert named["sampling"]["quality"] == [] and named["generated"] == {"FTC": 24, "PTC": 24, "benign": 24}
    # 70 donors at 8 a row: nine rows let all of them lend.
    ftc = [row for row in named["rows"] if row["label"] == "FTC"]
    assert len(ftc) == 9 and len({d for row in ftc for d in row["donors"]}) == 70
    assert named["coverage"]["FTC"]["two_way"]["after"] == named["coverage"]["FTC"]["two_way"]["before"]
    done = augment(ws, named, model_stub(tmp_path), tmp_path / "run", pipe=FakePipe())
    assert done["complete"] and done["per_class"] == {"FTC": 24, "PTC": 24, "benign": 24}


def test_real_prompts_everywhere_when_no_class_is_rare(ws) -> None:
    made = plans.make_plan(ws, "FTC", 24, rare_below=0)
    assert {row["source"] for row in made["rows"]} == {"real prompt of the class"}
    train = ws.cases("train")
    assert all(row["attributes"] in list(train[train["label"] == row["label"]]["attributes"]) for row in made["rows"])


@pytest.mark.parametrize("setting", [{"variant": "X"}, {"draw": "all"}, {"values": "any"}])
def test_an_unknown_setting_is_a_usage_error(ws, setting) -> None:
    with pytest.raises(UsageError, match=f"no {next(iter(setting))} "):
        plans.make_plan(ws, "FTC", 3, **setting)


def test_the_file_is_for_people(ws, plan, tmp_path: Path) -> None:
    plans.write_plan(tmp_path / "plan.json", plan)
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "plan.json") == plan and plans.read_plan(tmp_path / "plan.json", ws) == plan
    assert list(read_json(tmp_path / "plan.json"))[-1] == "rows"
    # Each row is a block of its own; everything else that fits stands on one line.
    assert text.count('\n   "label": ') == text.count('\n   "donors": ') == len(plan["rows"])
    assert '"composition": ["' in text and '"one_way": {"possible": ' in text
    prose = ('"fg"', '"bg"', '"reason"', '"donor_policy"', '"No')
    assert all(len(line) <= 121 for line in text.splitlines() if not line.strip().startswith(prose))
    plans.write_plan(tmp_path / "again.json", copy.deepcopy(plan))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


@pytest.mark.parametrize(
    "value", [[], {}, [[]], {"a": {}}, ["x" * 200, "é"], [{"a": list(range(99))}], {"a": [[1], 2]}]
)
def test_the_text_is_the_json_of_the_plan(value) -> None:
    assert json.loads(planfile.plan_text({"a": value, "rows": [value]})) == {"a": value, "rows": [value]}


def test_a_plan_of_an_older_version_still_runs(ws, plan) -> None:
    """Before, a plan said less about itself: no fills, no planes, a list of filled pairs."""
    old = {name: plan[name] for name in ("format", "target", "seed", "sampling", "rows")}
    old["rows"] = [{k: v for k, v in row.items() if k != "fills"} for row in plan["rows"]]
    plans.check_plan(old, ws)


def test_cost_is_measured_on_images_of_the_plan(ws, plan, tmp_path: Path) -> None:
    pipe = FakePipe()
    (tmp_path / "model_index.json").write_text("{}")
    found = estimate(ws, plan, tmp_path, pipe=pipe)
    assert pipe.calls == 2 + 16, "one to warm up, one to see how long it takes, then a batch"
    assert found["images"] == 72 and found["disk_bytes"] == pytest.approx(72 * found["bytes_per_image"], rel=0.01)
    # 64 x 64 gray pixels of noise, the provenance and a record.
    assert SIZE * SIZE / 2 < found["bytes_per_image"] < 3 * SIZE * SIZE
    assert found["hours"] == pytest.approx(72 * found["seconds_per_image"] / 3600, abs=1e-3)
    assert "16 images" in found["time_rule"]
    none = estimate(ws, plan, tmp_path / "nothing")
    assert none["hours"] is None and "no fine model" in none["time_rule"]


def test_a_slow_model_is_measured_on_one_image(ws, plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tigergen.augment.estimate.SHORT_IMAGE_S", 0.0)
    (tmp_path / "model_index.json").write_text("{}")
    pipe = FakePipe()
    assert "1 image of this plan" in estimate(ws, plan, tmp_path, pipe=pipe)["time_rule"] and pipe.calls == 2


def test_the_outline_of_a_plan(plan) -> None:
    short = outline.outline(plan)
    assert (short["images"], short["combinations"]) == (72, len(plan["rows"]))
    ftc = short["classes"]["FTC"]
    assert ftc["two_way"]["factor"] == round(ftc["two_way"]["after"] / ftc["two_way"]["before"], 2)
    assert short["impossible"]["a nodule has one composition"] == 15
    rows = outline.table(plan)
    assert [set(row) for row in rows] == [set(outline.COLUMNS)] * 3
    assert rows[0]["class"] == "FTC" and f"({ftc['two_way']['factor']:.2f} x)" in rows[0]["two_way"]
    said = dict(outline.lines(plan))
    assert {"impossible", "donors", "pairs of FTC"} <= set(said) and "time" not in said


def test_cost_in_words() -> None:
    assert [outline.duration(s) for s in (12, 200, 40000)] == ["12 s", "3 min", "11.1 h"]
    assert [outline.size(n) for n in (900, 4200, 5e6, 3.1e9)] == ["900 B", "4.2 kB", "5.0 MB", "3.1 GB"]


def call(ws, *words: str):
    return CliRunner().invoke(gen_app, ["plan", *words, "-w", str(ws.path)], catch_exceptions=False)


def test_the_command_shows_a_table_or_json(ws, tmp_path: Path) -> None:
    out = str(tmp_path / "plan.json")
    shown = call(ws, "--target", "FTC", "--n", "3", "--target-only", "--out", out)
    assert shown.exit_code == 0 and "3 images in 3 combinations" in shown.stdout
    assert "warning: Only 'FTC'" in shown.stdout and "time and disk: not measured" in shown.stdout
    strategy = '{"FTC": 4, "PTC": "balance"}'
    machine = call(ws, "--target", "FTC", "--strategy", strategy, "--out", out, "--no-estimate", "--json")
    found = json.loads(machine.stdout)
    assert found["plan"] == out and found["estimate"] is None
    assert {label: c["generated"] for label, c in found["classes"].items()} == {"FTC": 4, "PTC": 10}
    assert read_json(out)["generated"] == {"FTC": 4, "PTC": 10}


def test_the_command_refuses_what_excludes_each_other(ws) -> None:
    with pytest.raises(UsageError, match="--target-only or --class"):
        call(ws, "--target", "FTC", "--target-only", "--class", "PTC")
    with pytest.raises(UsageError, match="one of --n"):
        call(ws, "--target", "FTC", "--n", "3", "--balance")
    with pytest.raises(UserError, match="no class 'XTC'"):
        call(ws, "--target", "XTC", "--n", "3")
