"""Classifier arms: what is drawn, that they resume, and that the figures and the verdict are right."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kb.errors import UserError
from tests.proof_corpus import SIZE, FakePipe, frame, make_workspace, model_stub
from tigergen.augment.plan import make_plan
from tigergen.augment.run import augment
from tigergen.data import load_cases
from tigergen.evaluation import arms, classifier
from tigergen.evaluation.arm_stats import summarise, verdict
from tigergen.evaluation.classical import Classical
from tigergen.evaluation.metrics import auroc


def part(n_real: int, n_made: int = 0, size: int = 32) -> classifier.Part:
    """Class 1 is brighter in its left half; every fourth real image and every second made one is class 1."""
    n = n_real + n_made
    y = np.array([k % 4 == 0 for k in range(n_real)] + [k % 2 == 0 for k in range(n_made)], np.int64)
    images = np.random.default_rng(n).integers(60, 160, (n, size, size))
    images[y == 1, :, : size // 2] += 50
    return classifier.Part(images.astype(np.uint8), y, [f"p{k // 2}" for k in range(n)], np.arange(n) >= n_real)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (classifier.Variant(True, False), {(0, False): 0.75, (1, False): 0.25}),
        (classifier.Variant(True, True), {(0, False): 0.5, (1, False): 0.5}),
        (classifier.Variant(True, True, 0.5), {(c, g): 0.25 for c in (0, 1) for g in (False, True)}),
        (classifier.Variant(True, True, 0.5, target_only=True), {(0, False): 0.5, (1, False): 0.25, (1, True): 0.25}),
    ],
)
def test_shares_of_a_batch(variant: classifier.Variant, expected: dict) -> None:
    p = part(40, 20)
    w = classifier.case_weights(p, variant)
    got = {(c, g): w[(p.y == c) & (p.generated == g)].sum() for c in (0, 1) for g in (False, True)}
    assert {k: v for k, v in got.items() if v} == pytest.approx(expected)


def test_the_network_learns_what_there_is_to_learn_and_repeats_itself() -> None:
    state = torch.random.get_rng_state()
    variant = classifier.Variant(classical=False, balanced=True)
    p = [classifier.predict(classifier.train_classifier(part(120), variant, 3, 30), part(60).images) for _ in range(2)]
    np.testing.assert_array_equal(p[0], p[1])
    assert auroc(part(60).y, p[0])["auroc"] > 0.95
    assert torch.equal(state, torch.random.get_rng_state()), "no global seed is touched"
    assert 0.5e6 < sum(w.numel() for w in classifier.network(0, 64).parameters()) < 0.7e6


def test_classical_augmentation_is_seeded_and_keeps_shape() -> None:
    images = np.stack([frame(k)[0] for k in range(4)])
    a, b, c = Classical(1)(images), Classical(1)(images), Classical(2)(images)
    np.testing.assert_array_equal(a, b)
    assert a.shape == images.shape and a.dtype == np.uint8 and (a != c).any() and (a != images).any()


COUNTS = {
    "train": {"benign": 16, "FTC": 6},
    "val": {"benign": 8, "FTC": 6},
    "test": {"benign": 10, "FTC": 8},
    "pool": {"FTC": 6},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("arms")
    ws = make_workspace(folder / "ws", COUNTS)
    augment(ws, make_plan(ws, "FTC", 8, rare_below=10), model_stub(folder), folder / "run", pipe=FakePipe())
    return ws, folder / "run"


@pytest.fixture(scope="module")
def out(made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ws, run = made
    folder = tmp_path_factory.mktemp("out")
    for arm in arms.ARMS:
        arms.run_arm(ws, arm, "FTC", folder, seeds=2, iterations=3, run=run)
    return folder


def test_arms_keep_predictions_and_resume(made, out: Path) -> None:
    ws, run = made
    files = sorted(out.glob("*/seed-*.npz"))
    assert len(files) == 2 * sum(map(len, arms.ARMS.values()))
    stamps = [f.stat().st_mtime_ns for f in files]
    files[0].unlink()
    events: list = []
    for arm in arms.ARMS:
        arms.run_arm(ws, arm, "FTC", out, seeds=2, iterations=3, run=run, progress=events.append)
    assert [f.stat().st_mtime_ns for f in files][1:] == stamps[1:] and files[0].exists()
    assert len(events) == 1, "only the missing file was trained again"
    with np.load(out / "real" / "seed-0.npz") as stored:
        assert int(stored["n_train"]) == 28 and int(stored["n_target"]) == 12
        assert len(stored["p_test"]) == 18 and set(stored["patients_test"]) <= set(ws.cases("test")["patient_id"])


@pytest.fixture
def small(tmp_path: Path):
    """A workspace with one frame twice as wide as high in each split, so that its mask decides which half is seen."""
    counts = {split: {"benign": 3, "FTC": 3} for split in ("train", "val", "test")}
    ws = make_workspace(tmp_path / "ws", counts)
    for split in counts:
        case = ws.cases(split).iloc[0]
        wide = np.hstack([cv2.imread(p, cv2.IMREAD_GRAYSCALE) for p in (case["image_path"], case["image_path"])])
        wide[:, SIZE:] = wide[::-1, SIZE:]
        cv2.imwrite(case["image_path"], wide)
        look(case["mask_path"], left=True)
    return ws


def look(path: str, left: bool) -> None:
    """Put the nodule of a wide frame into its left or its right half."""
    mask = np.zeros((SIZE, 2 * SIZE), np.uint8)
    mask[20:40, 4:30] = 255
    cv2.imwrite(path, mask if left else mask[:, ::-1])


def trained_again(ws, out: Path) -> bool:
    events: list = []
    arms.run_arm(ws, "natural", "FTC", out, seeds=1, iterations=2, progress=events.append)
    return bool(events)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_changed_mask_in_any_split_trains_again(small, tmp_path: Path, split: str) -> None:
    assert [trained_again(small, tmp_path / "arms") for _ in range(2)] == [True, False]
    look(small.cases(split).iloc[0]["mask_path"], left=False)
    assert [trained_again(small, tmp_path / "arms") for _ in range(2)] == [True, False]


def test_a_changed_split_trains_again(small, tmp_path: Path) -> None:
    assert [trained_again(small, tmp_path / "arms") for _ in range(2)] == [True, False]
    moved = small.cases("val").iloc[0]["image_id"]
    with small.connect() as con:
        con.execute("UPDATE splits SET split = 'pool' WHERE image_id = ?", [moved])
    assert [trained_again(small, tmp_path / "arms") for _ in range(2)] == [True, False]


def test_a_split_is_read_once_for_an_arm(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws, _ = made
    asked: list[str] = []
    monkeypatch.setattr(arms, "load_cases", lambda ws, split, size: asked.append(split) or load_cases(ws, split, size))
    arms.run_arm(ws, "real", "FTC", tmp_path, seeds=2, iterations=2)
    assert sorted(asked) == ["pool", "test", "train", "val"]


def test_what_is_missing_is_told(made, tmp_path: Path) -> None:
    ws, _ = made
    with pytest.raises(UserError, match="needs a run"):
        arms.run_arm(ws, "generated", "FTC", tmp_path)
    with pytest.raises(UserError, match="no arm 'best'"):
        arms.run_arm(ws, "best", "FTC", tmp_path)
    with pytest.raises(UserError, match="test split needs images of MTC"):
        arms.run_arm(ws, "natural", "MTC", tmp_path)
    with pytest.raises(UserError, match="no predictions"):
        summarise(tmp_path)


def test_summary_has_every_arm_and_pairs(out: Path) -> None:
    found = summarise(out)
    assert [a["arm"] for a in found["arms"]] == list(arms.ARMS)
    assert all(a["ci"][0] <= a["test"] <= a["ci"][1] for a in found["arms"])
    assert found["n_test"] == 18 and found["n_test_target"] == 8 and found["seeds"] == 2
    assert found["verdict"]["kind"] in {"helps", "harms", "not told apart"}
    json.dumps(found)


def plant(folder: Path, quality: dict[str, float], n: int = 400, seeds: int = 4) -> Path:
    """Predictions whose quality is known: scores are the label times `quality` plus shared and own noise."""
    rng = np.random.default_rng(0)
    y, y_val = np.repeat([0, 1], n // 2), np.repeat([0, 1], 100)
    shared = rng.normal(size=n)
    for name, d in quality.items():
        (folder / name).mkdir(parents=True)
        for seed in range(seeds):
            noise = shared + 0.3 * np.random.default_rng([seed, 1]).normal(size=n)
            val = y_val * d + np.random.default_rng([seed, 2]).normal(size=200)
            groups = np.array([f"p{k // 2}" for k in range(n)])
            facts = {"y_val": y_val, "p_val": val, "patients_val": groups[:200], "n_train": 9, "n_target": 3}
            np.savez(folder / name / f"seed-{seed}.npz", y_test=y, p_test=y * d + noise, patients_test=groups, **facts)
    (folder / "arms.json").write_text('{"target": "FTC", "reference": ["benign"], "iterations": 1, "size": 64}')
    return folder


@pytest.mark.parametrize(("gain", "kind"), [(0.5, "helps"), (0.0, "not told apart"), (-0.5, "harms")])
def test_the_verdict_follows_the_interval(tmp_path: Path, gain: float, kind: str) -> None:
    plant(tmp_path, {"classical-natural": 1.0, "classical-balanced": 0.4, "generated-half": 1.0 + gain})
    found = summarise(tmp_path)
    assert found["verdict"]["kind"] == kind
    classical = next(a for a in found["arms"] if a["arm"] == "classical")
    assert classical["variant"] == "classical-natural", "the better one on validation"
    d = found["differences"][0]
    assert (d["ci"][0] > 0) == (kind == "helps") and (d["ci"][1] < 0) == (kind == "harms")
    assert d["difference"] == pytest.approx(np.mean(d["per_seed"]))
    p_below = d["delong_p"] < 0.05
    assert p_below == (kind != "not told apart")


def test_the_choice_is_made_on_validation_and_not_on_test(tmp_path: Path) -> None:
    plant(tmp_path, {"classical-natural": 1.0, "classical-balanced": 0.4})
    for path in (tmp_path / "classical-natural").glob("*.npz"):
        with np.load(path) as stored:
            content = dict(stored)
        content["p_test"] = -content["p_test"]
        np.savez(path, **content)
    found = summarise(tmp_path)
    assert found["arms"][0]["variant"] == "classical-natural" and found["arms"][0]["test"] < 0.5
    assert found["verdict"]["kind"] == "unknown"


def test_unlike_arms_are_not_compared(tmp_path: Path) -> None:
    plant(tmp_path, {"classical-natural": 1.0, "generated-half": 1.0})
    (tmp_path / "generated-half" / "seed-3.npz").unlink()
    with pytest.raises(UserError, match="other seeds"):
        summarise(tmp_path)


def test_verdict_sentence_states_figures_and_n() -> None:
    figures = {"target": "FTC", "seeds": 4, "n_test_patients": 55, "arms": [{"arm": "generated", "test": 0.857},
               {"arm": "classical", "test": 0.826}]}  # fmt: skip
    figures["differences"] = [{"a": "generated", "b": "classical", "difference": 0.031, "ci": [0.012, 0.05]}]
    text = verdict(figures)["text"]
    assert text.startswith("Generated images help")
    assert all(word in text for word in ("0.857", "0.826", "+0.031", "+0.012", "+0.050", "55"))


def test_two_halves_of_the_seeds_are_the_whole(made, tmp_path: Path) -> None:
    ws = made[0]
    arms.run_arm(ws, "natural", "FTC", tmp_path / "whole", seeds=3, iterations=2)
    arms.run_arm(ws, "natural", "FTC", tmp_path / "halves", seeds=3, iterations=2, shard=(0, 2))
    assert [p.name for p in sorted((tmp_path / "halves" / "natural").iterdir())] == ["seed-0.npz", "seed-2.npz"]
    arms.run_arm(ws, "natural", "FTC", tmp_path / "halves", seeds=3, iterations=2, shard=(1, 2))
    for n in range(3):
        whole, half = (np.load(tmp_path / name / "natural" / f"seed-{n}.npz") for name in ("whole", "halves"))
        assert np.array_equal(whole["p_test"], half["p_test"])
