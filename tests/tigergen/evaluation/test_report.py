"""Evaluation of a run and its report: floors, adherence, one offline file that escapes what it shows."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kb import store
from kb.errors import UserError
from kb.files import read_json
from tests.proof_corpus import FakePipe, frame, make_workspace, model_stub
from tigerdata.conditions import build
from tigergen import workshop
from tigergen.augment.one import remake
from tigergen.augment.plan import make_plan
from tigergen.augment.run import augment
from tigergen.evaluation import arms, svg
from tigergen.evaluation import report_views as views
from tigergen.evaluation.adherence import attribute_table, mask_dice, sobel_correlation
from tigergen.evaluation.dual_encoder import DualEncoder
from tigergen.evaluation.dual_network import DualNetwork
from tigergen.evaluation.evaluate import distance_row, evaluate, tell_apart
from tigergen.evaluation.judge import Judge
from tigergen.evaluation.report import arms_folder, figure, p_value, render, write_report

COUNTS = {
    "train": {"benign": 30, "FTC": 14},
    "val": {"benign": 10, "FTC": 8},
    "test": {"benign": 12, "FTC": 10},
    "pool": {"FTC": 8},
}


class FakeJudge:
    """Always says `regular`; knows one attribute."""

    view = "values"
    figures = {"mean": 0.9, "robustness": {}}

    def predict(self, images: np.ndarray) -> dict:
        return {"shape": (["regular", "irregular"], np.tile([0.9, 0.1], (len(images), 1)))}


class FakeSegmenter:
    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        masks = np.zeros(images.shape, bool)
        masks[:, 20:44, 20:44] = True
        return masks, np.ones(len(images))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("report")
    ws = make_workspace(folder / "ws", COUNTS)
    augment(ws, make_plan(ws, "FTC", 16, rare_below=20), model_stub(folder), folder / "run", pipe=FakePipe())
    return ws, folder / "run"


@pytest.fixture(scope="module")
def measured(made) -> dict:
    ws, run = made
    return evaluate(ws, run, judge=FakeJudge(), segmenter=FakeSegmenter())


def test_a_report_of_an_unmeasured_run_asks_the_workspaces_own_judge(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, run = made
    folder = workshop.model_folder(ws, workshop.JUDGE)
    monkeypatch.setattr(Judge, "load", lambda place: FakeJudge() if place == folder else None)
    for own in (False, True):
        shutil.copytree(run, tmp_path / str(own), ignore=shutil.ignore_patterns("evaluation.json"))
        if own:
            folder.mkdir()
            (folder / "judge.json").touch()
        figures = write_report(ws, tmp_path / "r.html", tmp_path / str(own))
        assert ("attribute_ratio" in figures) == own
    shutil.rmtree(folder)


def test_evaluation_counts_and_floors(made, measured: dict) -> None:
    assert measured["generated"] == {"FTC": 16, "benign": 16}
    assert [r["label"] for r in measured["distances"]] == ["FTC", "benign"]
    ftc = measured["distances"][0]
    assert ftc["n"] == 16 and ftc["generated"]["frechet"] is None and ftc["floor"]["kernel"] is not None
    assert measured["gates"]["accepted"] == 32
    shape = measured["attributes"]["rows"][0]
    real = made[0].cases()
    real = real[real["split"].isin(["val", "test"])]["attributes"]
    assert shape["real"] == pytest.approx(np.mean([a["shape"] == ["regular"] for a in real]))
    assert shape["ratio"] == pytest.approx(shape["generated"] / shape["real"])
    assert abs(measured["edges"]["mean"]) < 0.2, "this generator ignores its conditions"


@pytest.fixture(scope="module")
def dual(made, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    """An encoder of the workspace's phrases but one, with random weights."""
    phrases = sorted({phrase for fg in made[0].cases("train")["fg"] for phrase in fg.split(", ")} - {"solid"})
    figures = {"trained_on": 44, "held_out": 18, "top1": 0.5, "top1_of": 10, "top1_chance": 0.1}
    encoder = DualEncoder(
        DualNetwork(len(phrases), 16, 8, 8), phrases, figures | {"cosine": 0.6, "cosine_shuffled": 0.1}
    )
    encoder.save(tmp_path_factory.mktemp("dual"))
    return encoder


def test_words_and_donors_stand_beside_their_floors(made, dual: DualEncoder, tmp_path: Path) -> None:
    ws, run = made
    shutil.copytree(run, tmp_path / "run")
    found = evaluate(ws, tmp_path / "run", dual=dual)["dual_encoder"]
    assert found["weights_sha256"] == dual.weights_sha256 and found["figures"] == dual.figures
    held = ws.cases()
    held = held[held["split"].isin(["val", "test"])]
    table = pd.read_parquet(run / "manifest.parquet").query("accepted")
    assert found["unknown_phrases"]["solid"] == sum("solid" in fg.split(", ") for fg in [*table["fg"], *held["fg"]])
    for row in found["rows"]:
        own = table[table["label"] == row["label"]]
        images = np.stack([views.Pictures(run, SimpleNamespace(image_ids=[])).made(f) for f in own["file"]])
        pairs = dual.image_vectors(images) * dual.text_vectors(list(own["fg"]))
        score = row["clip_score"]
        assert score["n"] == 16 and score["n_real"] == (held["label"] == row["label"]).sum()
        assert score["generated"]["cosine_100"] == pytest.approx(max(100 * float(pairs.sum(1).mean()), 0), abs=1e-3)
        assert set(score["floor"]) == set(score["real"]) == {"cosine_100", "hessel"} and score["prompts"] > 1
        assert (row["cmmd"]["generated"] is None) == (row["cmmd"]["n"] < 10)
    write_report(ws, tmp_path / "report.html", tmp_path / "run", arms=tmp_path / "none")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    read(page)
    assert "Image and prompt in one space" in page and dual.weights_sha256[:16] in page and "solid" in page
    assert "Gradient similarity with the donor" in page and "CMMD" in page


def test_an_encoder_that_has_seen_what_is_held_out_is_not_asked(made, dual: DualEncoder, tmp_path: Path) -> None:
    ws, run = made
    shutil.copytree(run, tmp_path / "run")
    cases = ws.cases()
    leaky = DualEncoder(dual.network, dual.phrases, dual.figures, cases[cases["split"] != "test"]["image_id"])
    said = evaluate(ws, tmp_path / "run", dual=leaky)["dual_encoder"]
    assert said == {"left_out": "the dual encoder was trained on 18 of the images that are held out now; run "
                    "`tigergen train judge` again."}  # fmt: skip
    assert "there is no dual encoder" in evaluate(ws, tmp_path / "run")["dual_encoder"]["left_out"]
    write_report(ws, tmp_path / "report.html", tmp_path / "run", arms=tmp_path / "none")
    assert "There was no dual encoder that could be asked" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_copy_of_the_condition_is_followed_and_another_image_is_not() -> None:
    image, mask = frame(1, 1)
    other = frame(2, 2)[0]
    edges = build(image, mask, 64).sobel
    found = sobel_correlation(np.stack([image, other]), np.stack([mask] * 2), np.stack([edges] * 2))
    assert found[0] == pytest.approx(1) and abs(found[1]) < 0.3
    assert np.isnan(sobel_correlation(np.full((1, 64, 64), 9, np.uint8), mask[None], edges[None])[0])


def test_mask_dice_and_attribute_table_by_hand() -> None:
    masks = np.zeros((2, 64, 64))
    masks[0, 20:44, 20:44] = 1
    assert list(mask_dice(FakeSegmenter(), np.zeros((2, 64, 64), np.uint8), masks)) == [1.0, 0.0]
    images = np.zeros((4, 64, 64), np.uint8)
    asked = [{"shape": ["regular"]}] * 1 + [{"shape": ["irregular"]}] * 3
    said = [{"shape": ["regular"]}] * 2 + [{"shape": ["irregular"]}, {}]
    row = attribute_table(FakeJudge(), images, asked, images, said)[0]
    assert (row["generated"], row["n_generated"], row["n_real"]) == (0.25, 4, 3)
    assert row["ratio"] == pytest.approx(0.25 / (2 / 3))


def test_distances_and_telling_apart_see_a_shift_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    groups = {n: np.array(["x"] * 120) for n in ("generated", "held", "known")}
    vectors = {n: rng.normal(size=(120, 8)) for n in groups}
    same, apart = distance_row("x", vectors, groups, rng), tell_apart("x", vectors, groups, rng)
    assert abs(same["generated"]["kernel"]) < 0.3 and 0.3 < apart["generated"] < 0.7
    vectors["generated"] = vectors["generated"] + 2
    moved, seen = distance_row("x", vectors, groups, rng), tell_apart("x", vectors, groups, rng)
    assert moved["generated"]["kernel"] > 10 * abs(moved["floor"]["kernel"]) and seen["generated"] > 0.95
    few = {n: g[:5] for n, g in groups.items()}
    assert distance_row("x", {n: v[:5] for n, v in vectors.items()}, few, rng)["generated"] is None


class Checker(HTMLParser):
    """Collects what a page could load, and checks that tags close in order."""

    VOID = {"meta", "img", "br", "line", "circle", "rect", "link", "input"}

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inputs: list[tuple[str, bool]] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        if tag == "input":
            assert ("autocomplete", "off") in attrs
            self.inputs.append((dict(attrs)["id"], "checked" in dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_the_report_is_one_offline_file(made, measured: dict, tmp_path: Path) -> None:
    ws, run = made
    for arm in ("natural", "classical", "generated", "real"):
        arms.run_arm(ws, arm, "FTC", arms_folder(ws, "FTC"), seeds=2, iterations=2, run=run)
    result = write_report(ws, tmp_path / "report.html", run)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = read(page)
    assert "script" not in found.tags and "link" not in found.tags and found.addresses
    assert found.inputs == [("en", True), ("zh", False)], "a switch that needs no script and remembers nothing"
    assert all(a.startswith("data:image/png;base64,") for a in found.addresses)
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page
    train, kept = ws.cases("train"), pd.read_parquet(run / "manifest.parquet").query("accepted")
    said = [json.loads(a) for a in kept[kept["label"] == "FTC"]["attributes"]]
    having = Counter((a, v) for case in said for a, values in case.items() for v in values)
    shots = sum(min(n, views.PER_VALUE) for n in having.values())
    assert found.tags.count("img") == 2 * 5 * 4 + 2 * views.PAIRS * 2 + 3 * shots and found.tags.count("svg") >= 4
    assert f"{len(train)}</td><td>{train['patient_id'].nunique()}</td>" in page, "what it was measured on"
    assert result["verdict"] in page.replace("&#39;", "'") and set(result["auroc"]) == {
        "natural",
        "classical",
        "generated",
        "real",
    }
    for heading in (
        "Does it help",
        "Balance",
        "What was generated",
        "Attributes by class",
        "How far from real",
        "Can a plain classifier tell",
        "Gates",
        "What this was measured on",
        "Make one image again",
    ):
        assert heading in page
    assert page.count("14 → 30") == 1


def test_coverage_counts_accepted_images_and_not_the_plan(made, measured: dict, tmp_path: Path) -> None:
    from tigergen.data import load_cases
    from tigergen.evaluation.report import shown_coverage

    ws, run = made
    train, plan = load_cases(ws, "train", 64), read_json(run / "plan.json")
    kept = pd.read_parquet(run / "manifest.parquet").query("accepted")
    found, planned = shown_coverage(ws.kb, train, kept, plan)["FTC"]["two_way"], plan["coverage"]["FTC"]["two_way"]
    assert (found["before"], found["after"]) == (planned["before"], planned["after"]) and found["factor"] >= 3
    few = kept[kept["label"] != "FTC"]
    none = shown_coverage(ws.kb, train, few, plan)["FTC"]["two_way"]
    assert none["after"] == none["before"] == found["before"] and none["planned"] == planned["after"]
    write_report(ws, tmp_path / "report.html", run)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    pairs = f"{found['before']:,} → {found['after']:,}"
    assert page.count(pairs) == 3, "as a tile, in the chart and in the table"
    assert "a nodule has one composition" in page and "pairs that no real FTC image" in page


def test_bars_of_coverage_are_shares_of_what_is_possible() -> None:
    bars = svg.coverage([{"label": "<b>", "before": 25, "after": 75, "possible": 100}])
    widths = {kind: float(w) for w, kind in re.findall(r'width="([\d.]+)" height="16" class="(\w+)"', bars)}
    assert widths["real"] == pytest.approx(widths["rail"] / 4, abs=0.1)
    assert widths["made"] == pytest.approx(3 * widths["rail"] / 4, abs=0.1) and "<b>" not in bars
    assert "0.0" in svg.coverage([{"label": "x", "before": 0, "after": 0, "possible": 0}])


def test_without_arms_the_report_says_so(made, measured: dict, tmp_path: Path) -> None:
    ws, run = made
    result = write_report(ws, tmp_path / "report.html", run, arms=tmp_path / "none")
    assert result["kind"] == "unknown" and "No classifier was trained" in (tmp_path / "report.html").read_text()


def test_what_is_shown_is_escaped(made, measured: dict, tmp_path: Path) -> None:
    from tigergen.evaluation import report

    ws, run = made
    plan = {"target": "FTC", "rows": [], "seed": 0, "sampling": {}, "warnings": ["<script>alert(1)</script>"]}
    page = render(report.gather(ws, run, plan, "FTC", measured, None))
    assert "<script>" not in page and "&lt;script&gt;" in page
    rows = [{"title": "<b>&", "ci": [0.5, 0.6], "per_seed": [0.55], "test": 0.55}]
    assert "<b>" not in svg.dot_plot(rows) and "<b>" not in svg.balance([{"label": "<b>", "real": 1, "generated": 0}])


def test_the_command_of_the_report_makes_the_image_again(made, tmp_path: Path) -> None:
    ws, run = made
    table = pd.read_parquet(run / "manifest.parquet").query("accepted")
    for row in (table.iloc[0], table.iloc[-1]):
        again = remake(ws.path, run, int(row["index"]), int(row["attempt"]), tmp_path / "again.png", pipe=FakePipe())
        assert again["difference"] == 0 and again["seed"] == row["seed"] and again["donor"] == row["donor_image_id"]
    with pytest.raises(UserError, match="0 to 31"):
        remake(ws.path, run, 32, 0, tmp_path / "again.png", pipe=FakePipe())
    with pytest.raises(UserError, match="no model"):
        remake(ws.path, run, 0, 0, tmp_path / "again.png")


def test_an_unfinished_run_is_refused(made, tmp_path: Path) -> None:
    ws, _ = made
    with pytest.raises(UserError, match="no finished run"):
        write_report(ws, tmp_path / "r.html", tmp_path)
    with pytest.raises(UserError, match="no finished run"):
        evaluate(ws, tmp_path)


def test_charts_put_numbers_where_they_belong() -> None:
    rows = [{"title": "a", "ci": [0.7, 0.8], "per_seed": [0.74, 0.76], "test": 0.75}]
    chart = svg.dot_plot(rows)
    big = re.search(r'<circle cx="([\d.]+)" cy="[\d.]+" r="6"', chart)
    bar = re.search(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" [^>]*class="bar', chart)
    assert big and bar
    assert float(big[1]) == pytest.approx((float(bar[1]) + float(bar[2])) / 2, abs=0.11)
    assert figure(-0.0001, 2) == "0.00" and figure(None) == "–" and figure(-0.25, 2) == "−0.25"
    assert (p_value(0.0704), p_value(0.0010), p_value(0.0004)) == ("0.070", "0.001", "< 0.001")


@pytest.mark.parametrize("ci", [(0.5, 0.53), (0.4, 0.9), (0.02, 0.98), (0.0, 1.0), (0.31, 0.94)])
@pytest.mark.parametrize("width", [760, 520])
def test_labels_of_the_axis_do_not_touch_however_wide_the_intervals(ci: tuple[float, float], width: int) -> None:
    chart = svg.dot_plot([{"title": "a", "ci": list(ci), "per_seed": [ci[0]], "test": sum(ci) / 2}], width=width)
    found = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="muted" text-anchor="middle">([\d.]+)</text>', chart)
    places = sorted((float(x), text) for x, text in found)
    assert len(places) >= 2, "an axis of one label has no scale"
    for (x, text), (after, other) in zip(places, places[1:], strict=False):
        assert after - x >= svg.CHARACTER * (len(text) + len(other)) / 2 + 2, (ci, width, places)
    ends = re.search(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" [^>]*class="bar', chart)
    assert ends and 290 <= float(ends[1]) < float(ends[2]) <= width - 60 + 0.05, "the interval lies on the axis"
    step = (places[1][0] - places[0][0]) / (float(places[1][1]) - float(places[0][1]))
    assert float(ends[1]) == pytest.approx(places[0][0] + step * (ci[0] - float(places[0][1])), abs=0.2)


def test_the_tiny_tiger_goes_all_the_way(tmp_path: Path) -> None:
    """A real pipeline with random weights: plan, generate, measure, report. Its noise must not pass as ultrasound."""
    from tigergen.augment.gates import GateSettings
    from tigergen.model import add_control
    from tigergen.model import build as build_model

    ws = make_workspace(tmp_path / "ws", {"train": {"benign": 8, "FTC": 4}, "val": {"benign": 4, "FTC": 2}})
    preset = {"model": {"image_size": 32, "unet_channels": [32, 32], "text_width": 32}}
    pipe = add_control(build_model(preset, ws.kb.phrases(), seed=0))
    pipe.save_pretrained(tmp_path / "model")
    plan = make_plan(ws, "FTC", 3, rare_below=6, sampling={"steps": 2})
    # Random weights give noise, which has contrast and brightness: the copy gates alone decide here.
    result = augment(ws, plan, tmp_path / "model", tmp_path / "run", gates=GateSettings(copy_quantile=1.0), attempts=2)
    assert result["complete"] and result["accepted"] + result["unfilled"] == 6
    table = pd.read_parquet(tmp_path / "run" / "manifest.parquet")
    assert set(table["width"]) == {32} and table["roles"].str.contains("particular").any()
    with ws.connect() as con:
        row = {"model_id": table["model_id"][0], "kind": "fine", "path": "../model"}
        store.insert(con, "models", pd.DataFrame([row]))
    kept = table[table["accepted"]]
    if len(kept):
        again = remake(
            ws.path, tmp_path / "run", int(kept["index"].iloc[0]), int(kept["attempt"].iloc[0]), tmp_path / "a.png"
        )
        assert again["difference"] <= 2


def test_augment_writes_the_report_of_a_finished_run_once(
    made, measured: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, run = made
    shutil.copytree(run, tmp_path / "run")
    result = {"complete": False, "accepted": 32}
    monkeypatch.setattr("tigergen.augment.run.augment", lambda *a, **k: result)
    report = tmp_path / "run" / "report.html"

    def call(**options: bool) -> bool:
        workshop.augment(ws, tmp_path / "run", plan=run / "plan.json", **options)
        return report.exists()

    assert not call(), "a run that is not finished has no report"
    result["complete"] = True
    assert not call(report=False) and call()
    assert "No classifier was trained" in report.read_text(encoding="utf-8"), "arms of other runs are not this run's"
    report.write_text("mine")
    assert call() and report.read_text() == "mine"


def test_without_held_out_images_the_report_says_what_was_not_measured(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", {"train": {"benign": 8, "FTC": 4}})
    augment(ws, make_plan(ws, "FTC", 3, rare_below=6), model_stub(tmp_path), tmp_path / "run", pipe=FakePipe())
    write_report(ws, tmp_path / "new" / "report.html", tmp_path / "run")
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert "There are no real held-out images" in page and "How far from real" in page and "kernel distance" not in page
    assert not (tmp_path / "run" / "evaluation.json").exists()
