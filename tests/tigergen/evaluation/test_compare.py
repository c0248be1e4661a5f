"""The comparison as a whole: nothing leaks, the same seed gives the same table, a killed run continues to it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kb.errors import UserError
from tests.proof_corpus import SIZE, make_workspace
from tigergen.baselines import train
from tigergen.baselines.methods import METHODS, select
from tigergen.evaluation import dual_encoder
from tigergen.evaluation.compare import run as compare_run
from tigergen.evaluation.compare.comparison import Comparison, open_folder
from tigergen.evaluation.compare.folds import check_patients, load_data, open_folds
from tigergen.evaluation.compare.run import compare
from tigergen.evaluation.compare.settings import Prices, Settings, Sizes, scale, total

MICRO = (
    "model.image_size=16", "model.unet_channels=[8, 16]", "model.attention_heads=2",
    "model.text_width=16", "model.text_heads=2", "model.text_length=24", "training.batch=4", "training.warmup=2",
    "training.checkpoint_every=2", "sampling.steps=2",
)  # fmt: skip
COUNTS = {
    "train": {"benign": 16, "FTC": 8, "PTC": 6},
    "val": {"benign": 10, "FTC": 8, "PTC": 4},
    "test": {"benign": 12, "FTC": 10, "PTC": 4},
    "pool": {"FTC": 8},
}
SMALL = Settings(
    "FTC", methods=("none", "basic", "pg-gan", "dit", "tiger-f", "real"), folds=1, seeds=2, generator_seeds=1, steps=4,
    iterations=2, architecture="small", overrides=MICRO, amounts=(0.0, 1.0), curve=("tiger-f",), recipes=1,
)  # fmt: skip
TOLD = ("table", "differences", "ceiling", "curve", "additions", "quality", "dual_encoders", "verdict")
LEAST_PAIRS = 20


@pytest.fixture(scope="module", autouse=True)
def few_pairs_are_enough():
    """The corpus is small; that fewer pairs than it has train no encoder is a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dual_encoder, "LEAST_PAIRS", LEAST_PAIRS)
        yield


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory):
    """FTC frames have a bright corner, so that there is something to learn; which corner it is differs."""
    ws = make_workspace(tmp_path_factory.mktemp("compare") / "ws", COUNTS)
    for n, case in enumerate(ws.cases().to_dict("records")):
        if case["label"] == "FTC":
            image = cv2.imread(case["image_path"], cv2.IMREAD_GRAYSCALE)
            y, x = [(0, 0), (0, 40), (40, 0), (40, 40)][n % 4]
            image[y : y + 24, x : x + 24] = 255 - image[y : y + 24, x : x + 24] // 3
            cv2.imwrite(case["image_path"], image)
    return ws


@pytest.fixture(scope="module")
def done(ws, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, compare(ws, SMALL, out)


def test_the_page_and_the_tables_say_the_same(done) -> None:
    out, found = done
    assert [row["method"] for row in found["table"]] == list(SMALL.methods)
    assert {d["method"] for d in found["differences"]} == {"none", "basic", "pg-gan", "dit"}
    assert [d["method"] for d in found["ceiling"]] == ["real"]
    assert found["n_test"] == 22 and found["n_test_target"] == 10 and found["n_train"] == [24]
    made = {row["method"]: row["n_generated"] for row in found["table"]}
    assert made == {"none": 0, "basic": 0, "real": 0, "pg-gan": 24, "dit": 24, "tiger-f": 24}, "1.0 times the real ones"
    assert {(p["kind"], p["images"]) for p in found["additions"]} == {("generated", 0), ("real", 0), ("generated", 12)}
    lines = (out / "table.csv").read_text().splitlines()
    assert lines[0].startswith("method,title,group,number,recipe,n_generated,auroc,auroc_low,auroc_high")
    assert float(lines[-2].split(",")[6]) == pytest.approx(found["table"][-2]["auroc"]["mean"])
    page = (out / "report.html").read_text()
    assert "Tiger-F against each other method" in page and "http" not in page.replace("http-equiv", "")
    assert (out / "grids" / "dit.png").exists() and (out / "curve.svg").read_text().startswith("<svg xmlns=")
    steps = {row["method"]: row["steps"] for row in found["generators"]}
    assert steps == dict.fromkeys(("pg-gan", "dit", "tiger-f"), 4)
    json.dumps(found)


def test_generated_images_go_into_every_class_in_equal_share(ws, done) -> None:
    comparison = Comparison(ws, SMALL, done[0])
    data = comparison.data[0]
    for name in ("pg-gan", "tiger-f"):
        part = comparison.training_part(data, METHODS[name], "generated", 1.0, 0)
        assert np.bincount(part.y[part.generated]).tolist() == [12, 12] and (~part.generated).sum() == 24
    half, whole = (comparison.generated(data, METHODS["dit"], 0, a) for a in (0.5, 1.0))
    known = {image.tobytes() for image in whole.images}
    assert len(half.y) == 12 and all(image.tobytes() in known for image in half.images), "larger amounts hold smaller"


def test_no_generator_plan_or_pool_knows_a_patient_of_val_or_test(ws, tmp_path: Path) -> None:
    settings = replace(SMALL, methods=("none", "pg-gan"), folds=2, seeds=1, curve=("none",), rare={"FTC": 4})
    out = tmp_path / "out"
    found = compare(ws, settings, out)
    comparison, everybody = Comparison(ws, settings, out), ws.cases()
    patient = dict(zip(everybody["image_id"], everybody["patient_id"], strict=True))
    tested: list[str] = []
    for data in comparison.data:
        record = json.loads((comparison.generator_folder(data, METHODS["pg-gan"], 0) / "generator.json").read_text())
        seen = {patient[i] for i in record["trained_on"]}
        donors = np.load(next(comparison.images_folder(data, METHODS["pg-gan"], 0).glob("*.npz")))["donors"]
        assert record["trained_on"] == sorted(data.train.image_ids) and set(donors) <= set(data.train.image_ids)
        for name in ("val", "test"):
            assert not seen & set(data.parts[name].patients)
        assert not set(data.parts["pool"].patients) & set(data.parts["test"].patients)
        assert (data.parts["train"].y == 1).sum() <= 4, "FTC is kept rare in every fold"
        tested += data.parts["test"].patients
    assert len(set(tested)) == found["n_test_patients"] and found["folds"] == 2
    together = everybody[everybody["label"].isin(["FTC", "benign"])]
    assert set(tested) == set(together["patient_id"]), "each patient is tested once"
    mixed = {"train": data.train, "val": data.train.select([]), "test": data.train}
    with pytest.raises(UserError, match="patients are in train and in test"):
        check_patients(mixed)


def test_words_and_donors_are_measured_with_an_encoder_of_the_folds_training_images(ws, done) -> None:
    out, found = done
    data = Comparison(ws, SMALL, out).data[0]
    stored = json.loads((out / "fold-1" / "dual-encoder" / "dual_encoder.json").read_text())
    assert stored["image_ids"] == sorted(data.train.image_ids) and stored["figures"]["trained_on"] == 30
    everybody = ws.cases()
    held = everybody[everybody["split"].isin(["val", "test", "pool"])]
    assert not set(stored["image_ids"]) & set(held["image_id"]), "no held-out image and no image of the pool"
    (encoder,) = found["dual_encoders"]
    assert encoder["fold"] == 1 and encoder["weights_sha256"] == stored["weights_sha256"]
    rows = {(q["method"], q["label"]): q for q in found["quality"]}
    assert set(rows) == {(m, label) for m in ("pg-gan", "dit", "tiger-f") for label in ("benign", "FTC")}
    for q in rows.values():
        assert (q["clip_n"], q["gradient_n"]) == (12, 12) and q["clip_real_n"] == {"FTC": 18, "benign": 22}[q["label"]]
        assert None not in (q["clip"], q["clip_floor"], q["clip_real"], q["gradient"], q["gradient_floor"])
        assert q["dual_encoder"] == encoder["weights_sha256"][:16] and len(q["weights_sha256"]) == 16
        assert (q["cmmd"] is None) == (q["cmmd_n"] < 10)
    assert len({q["clip_real"] for q in rows.values() if q["label"] == "FTC"}) == 1, "the same for every method"
    block = np.load(next((out / "fold-1" / "images" / "tiger-f").glob("*/block-*.npz")))
    own = block["labels"] == "FTC"
    trained = dual_encoder.DualEncoder.load(out / "fold-1" / "dual-encoder")
    cosine = (trained.image_vectors(block["images"][own]) * trained.text_vectors([*map(str, block["fg"][own])])).sum(1)
    assert rows["tiger-f", "FTC"]["clip"] == pytest.approx(max(100 * cosine.mean(), 0), abs=1e-3)
    text = (out / "quality.csv").read_text().splitlines()[0]
    assert all(name in text for name in ("clip,", "clip_floor", "clip_real", "cmmd", "gradient_floor", "dual_encoder"))
    assert encoder["weights_sha256"][:16] in (out / "report.html").read_text()


def test_with_too_few_pairs_the_page_says_so(ws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_encoder, "LEAST_PAIRS", 31)
    found = compare(ws, replace(SMALL, methods=("none", "pg-gan"), seeds=1, curve=("none",)), tmp_path / "out")
    (encoder,) = found["dual_encoders"]
    assert "there are 30 image-prompt pairs" in encoder["left_out"]
    assert encoder["left_out"] in (tmp_path / "out" / "report.html").read_text()
    assert all(q["clip"] is q["cmmd"] is None and q["gradient"] is not None for q in found["quality"])
    assert not (tmp_path / "out" / "fold-1" / "dual-encoder").exists()


# What a process of the next test does: wait for the other one, then log every stage that it does and compare.
PROCESS = """
import json, sys, time
from pathlib import Path
from tests.tigergen.evaluation import test_compare as t
from tigerdata.workspace import Workspace
from tigergen.evaluation.compare.comparison import Comparison
t.dual_encoder.LEAST_PAIRS = t.LEAST_PAIRS
place, out, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def logged(work):
    def run(self, path, *given):
        with open(place / "log", "a") as log:
            log.write(f"{name} {path.relative_to(out)}\\n")
        work(self, path, *given)
    return run
for work in ("_train", "_draw", "_classify", "_encode", "_measure"):
    setattr(Comparison, work, logged(getattr(Comparison, work)))
(place / name).touch()
while len(list(place.glob("process-*"))) < 2:
    time.sleep(0.01)
found = t.compare(Workspace.open(sys.argv[4]), t.SMALL, out)
(place / f"{name}.json").write_text(json.dumps({key: found[key] for key in t.TOLD}))
"""


def test_two_processes_on_one_folder_make_each_stage_once_and_the_same_table(ws, done, tmp_path: Path) -> None:
    out, names = tmp_path / "out", ("process-0", "process-1")
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), str(out), name, str(ws.path)],
            cwd=root, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    log = [line.split(" ", 1) for line in (tmp_path / "log").read_text().splitlines()]
    made = [path for _, path in log]
    assert sorted(made) == sorted(set(made)), "each stage is made once"
    alone = {str(p.relative_to(done[0])) for p in done[0].glob("fold-1/**/*") if p.is_file()}
    wanted = {
        p for p in alone if re.search(r"seed-\d+/generator.json|block-.*npz|classifiers/|quality/|dual_encoder.json", p)
    }
    assert set(made) == wanted, "and no other stage than one process makes"
    assert {name for name, _ in log} == set(names), "both had a share"
    whole = json.loads(json.dumps({key: done[1][key] for key in TOLD}))
    for name in names:
        assert json.loads((tmp_path / f"{name}.json").read_text()) == whole
    assert (out / "table.csv").read_bytes() == (done[0] / "table.csv").read_bytes()


def test_settings_that_another_process_is_writing_are_no_foreign_files(tmp_path: Path) -> None:
    (tmp_path / ".partial-x.json").touch()
    open_folder(tmp_path, SMALL)
    open_folder(tmp_path, SMALL)
    with pytest.raises(UserError, match="target"):
        open_folder(tmp_path, replace(SMALL, target="PTC"))


class Killed(Exception):
    pass


def test_a_killed_run_continues_to_the_same_table(ws, done, tmp_path: Path) -> None:
    out, kills = (
        tmp_path / "out",
        ["train pg-gan", "draw tiger-f", "classify dit-generated@1, fold 1, seed 1", "measure dit"],
    )

    def stop(event: Mapping[str, Any]) -> None:
        if kills and str(event.get("what", "")).startswith(kills[0]):
            kills.pop(0)
            raise Killed
        if event["stage"] == "pg-gan" and event["step"] == 3 and not (out / "step").exists():
            (out / "step").touch()
            raise Killed

    for _ in range(5):
        with pytest.raises(Killed):
            compare(ws, SMALL, out, progress=stop)
    found = compare(ws, SMALL, out, progress=stop)
    assert not kills
    assert {k: found[k] for k in TOLD} == {k: done[1][k] for k in TOLD}


def test_more_seeds_add_to_what_is_there_and_another_target_is_refused(ws, done) -> None:
    out, found = done
    before = {p: p.stat().st_mtime_ns for p in out.glob("fold-1/*/*/seed-*/*.*") if p.suffix in (".npz", ".json")}
    again = compare(ws, SMALL, out)
    assert {k: again[k] for k in TOLD} == {k: found[k] for k in TOLD}
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for changed, word in (({"target": "PTC"}, "target"), ({"steps": 7}, "steps"), ({"seed": 1}, "seed")):
        with pytest.raises(UserError, match=f"holds a comparison with {word}"):
            compare(ws, replace(SMALL, **changed), out)
    figures = json.loads((out / "fold-1" / "quality" / "dit.json").read_text())
    (out / "fold-1" / "quality" / "dit.json").write_text(json.dumps({"extractor": "", "rows": []}))
    assert compare(ws, SMALL, out)["quality"] == found["quality"], "figures of an earlier version are measured again"
    assert json.loads((out / "fold-1" / "quality" / "dit.json").read_text()) == figures
    (out / "fold-1" / "quality" / "dit.json").rename(out / "gone.json")
    with pytest.raises(UserError, match="is missing; run the comparison again"):
        from tigergen.evaluation.compare.summary import summarise

        summarise(Comparison(ws, SMALL, out))
    (out / "gone.json").rename(out / "fold-1" / "quality" / "dit.json")


def test_images_that_show_the_class_are_worth_more_than_noise(
    ws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real images show two of four corners; a planted generator draws all of them, another one noise."""

    def fake(model: str, folder: Path) -> Any:
        def draw(asked: Any, sampling: Mapping[str, Any]) -> np.ndarray:
            rng = np.random.default_rng(asked.seeds)
            images = rng.integers(0, 255 if model == "pg-gan" else 90, (len(asked.labels), 16, 16), dtype=np.uint8)
            for n, label in enumerate(asked.labels):
                if model != "pg-gan" and label == "FTC":
                    y, x = rng.integers(0, 2, 2) * 10
                    images[n, y : y + 6, x : x + 6] = 210
            return images

        return draw

    def none(model: str, work: Any) -> dict[str, Any]:
        from tigergen.baselines.work import finish

        return finish(work, {"steps": work.steps, "seconds": 1.0, "parameters": 1})

    monkeypatch.setattr(train, "open_generator", fake)
    monkeypatch.setattr(train, "train_generator", none)
    settings = replace(
        SMALL, methods=("pg-gan", "tiger-f"), seeds=1, iterations=50, amount=8.0, curve=("none",), rare={"FTC": 2}
    )
    found = compare(ws, settings, tmp_path / "out")
    auroc = {row["method"]: row["auroc"]["mean"] for row in found["table"]}
    assert auroc["tiger-f"] > auroc["pg-gan"] + 0.05, auroc
    quality = {(q["method"], q["label"]): q for q in found["quality"]}
    assert quality["tiger-f", "FTC"]["kernel"] < quality["pg-gan", "FTC"]["kernel"]
    assert quality["pg-gan", "FTC"]["told_apart"] > 0.9


def test_more_than_two_classes(ws, tmp_path: Path) -> None:
    settings = replace(SMALL, methods=("none", "pg-gan"), multiclass=True, seeds=1, curve=("none",))
    found = compare(ws, settings, tmp_path / "out")
    assert found["classes"] == ["FTC", "PTC", "benign"] and found["n_test"] == 26
    assert {q["label"] for q in found["quality"]} == set(found["classes"])
    assert all(0 <= row[f]["mean"] <= 1 for row in found["table"] for f in ("auroc", "accuracy", "brier"))


PRICES = Prices({m.training: 0.05 for m in METHODS.values() if m.generates}, dict.fromkeys(METHODS, 0.02), 0.05)
SIZES = Sizes(real=1030, classes=2, scored=1600)


@pytest.mark.parametrize("minutes", [20, 60, 600, 1e5])
def test_a_budget_is_kept_and_what_it_costs_is_said(minutes: float) -> None:
    whole = Settings("FTC", ablations=("all",))
    fitted, said = scale(whole, minutes, PRICES, SIZES, True)
    assert total(fitted, PRICES, SIZES, True) <= 60 * minutes
    changed = {k for k, v in fitted.record().items() if v != whole.record()[k]}
    assert {sentence.split(":")[0] for sentence in said} == changed, "everything that changed is said, nothing else"
    assert fitted.rows() == whole.rows(), "methods are never left out"
    assert not said if minutes == 1e5 else said
    if minutes < 60:
        assert fitted.steps < whole.steps and fitted.iterations < whole.iterations


def test_a_budget_too_small_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"a budget of 1 minutes is too small: .* takes about \d+; give more"):
        scale(Settings("FTC"), 1, PRICES, SIZES, True)


def test_a_dry_run_measures_and_leaves_nothing(ws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, settings = tmp_path / "out", replace(SMALL, methods=("none", "pg-gan"))
    found = compare(ws, settings, out, dry_run=True)
    assert not out.exists()
    stages = {row["stage"]: row for row in found["stages"]}
    assert set(stages) == {"train pg-gan", "draw pg-gan", "classifiers", "dual encoder"}
    assert stages["draw pg-gan"]["images"] == 24 and stages["classifiers"]["runs"] == 4
    assert all(row["seconds"] > 0 for row in stages.values())
    monkeypatch.setattr(compare_run, "measure", lambda *_: Prices({"pg-gan": 0.01}, {"pg-gan": 0.001}, 0.01))
    compare(ws, settings, out, budget=10.0)
    monkeypatch.setattr(compare_run, "measure", lambda *_: pytest.fail("measured twice"))
    compare(ws, settings, out, budget=10.0)
    with pytest.raises(UserError, match="another budget"):
        compare(ws, settings, out, budget=20.0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"methods": ("best",)}, "no method 'best'; choose all or some of none, basic"),
        ({"ablations": ("fold",)}, "no ablation 'fold'; choose all or some of weighting"),
        ({"curve": ("gan",)}, "no method 'gan'"),
        ({"architecture": "vgg"}, "no architecture 'vgg'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"amount": 0.0}, "shares of the real ones"),
        ({"coarse_share": 1.0}, "coarse share is 1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changed: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(SMALL, **changed)


def test_what_a_workspace_lacks_is_one_sentence(ws, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test split needs images of MTC"):
        compare(ws, replace(SMALL, target="MTC"), tmp_path / "a")
    with pytest.raises(UserError, match="no image of MTC"):
        compare(ws, replace(SMALL, target="MTC", multiclass=True), tmp_path / "b")
    with pytest.raises(UserError, match="99 folds are not possible"):
        compare(ws, replace(SMALL, folds=99), tmp_path / "c")
    with pytest.raises(UserError, match="no power of two"):
        wide = tuple("model.image_size=24" if text.startswith("model.image_size") else text for text in MICRO)
        compare(ws, replace(SMALL, methods=("pg-gan",), overrides=wide), tmp_path / "d")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "other.txt").touch()
    with pytest.raises(UserError, match="is not empty and holds no comparison"):
        compare(ws, SMALL, tmp_path / "e")
    assert load_data(open_folds(ws, SMALL)[0], SMALL, SIZE).sizes == Sizes(24, 2, 40, 30)


def test_rows_of_the_paper_are_all_there() -> None:
    numbers = [m.number for m in select(["all"]) if m.number]
    assert numbers == [str(n) for n in range(1, 13)]
    assert [m.name for m in select(["tiger-n"], ["fusion"])] == ["tiger-n", "tiger-f", "tiger-f/sum"]
