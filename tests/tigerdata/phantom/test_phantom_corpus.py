"""The corpus on disk: counts, cohorts, independence of the number of workers, settings, uniform frames."""

import csv
import hashlib
import json

import cv2
import numpy as np
import pytest

from kb.errors import UserError
from tigerdata.phantom.corpus import CorpusSettings, patients, read_settings, uniform_frames, write_corpus

SETTINGS = {
    "counts": {
        "train": {"benign": 16, "FTC": 9},
        "val": {"benign": 6},
        "test": {"PTC": 7, "FTC": 4},
        "pool": {"FTC": 3},
    },
    "annotated_fraction": 0.6,
    "size": 128,
    "seed": 3,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    return out, write_corpus(out, SETTINGS)


def rows(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_counts_are_exact_and_every_file_exists(corpus):
    out, counts = corpus
    images = rows(out / "images.csv")
    truth = [json.loads(line) for line in (out / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    assert counts["images"] == len(images) == len(truth) == 45
    for cohort, classes in SETTINGS["counts"].items():
        for label, number in classes.items():
            assert sum(t["cohort"] == cohort and t["label"] == label for t in truth) == number
    for row, true in zip(images, truth, strict=True):
        assert row["file"] == true["file"] and row["plane"] == true["attributes"]["sonogram_direction"][0]
        image = cv2.imread(str(out / row["file"]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (128, 128) and image.dtype == np.uint8
        mask = cv2.imread(str(out / true["mask_file"]), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) == {0, 255}
        assert (out / row["gland_file"]).is_file()
    assert 0 < sum(not row["mask_file"] for row in images) < len(images)


def test_cohorts_share_no_patient_and_every_image_has_a_report(corpus):
    out, _ = corpus
    cohorts: dict[str, set] = {}
    for row in rows(out / "images.csv"):
        cohorts.setdefault(row["patient_id"], set()).add(row["cohort"])
    assert all(len(value) == 1 for value in cohorts.values())
    exams = {row["exam_id"] for row in rows(out / "reports.csv")}
    assert {row["exam_id"] for row in rows(out / "images.csv")} == exams
    assert {row["patient_id"] for row in rows(out / "pathology.csv")} == set(cohorts)


def test_labels_stand_in_no_table_but_pathology_and_truth(corpus):
    out, _ = corpus
    for name in ("images.csv", "reports.csv"):
        assert "FTC" not in (out / name).read_text(encoding="utf-8")


def test_two_workers_write_the_same_bytes(corpus, tmp_path):
    out, _ = corpus
    events = []
    write_corpus(tmp_path, SETTINGS, workers=2, progress=events.append)
    assert digest(tmp_path) == digest(out)
    assert events[-1]["step"] == events[-1]["steps"] == 45


def test_another_seed_gives_another_corpus(corpus, tmp_path):
    out, _ = corpus
    write_corpus(tmp_path, {**SETTINGS, "counts": {"train": {"benign": 2}}, "seed": 4})
    name = "images/000000.png"
    assert (tmp_path / name).read_bytes() != (out / name).read_bytes()


def test_settings_come_back_from_the_folder(corpus):
    out, _ = corpus
    kept = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
    assert read_settings(kept) == read_settings(SETTINGS)


def test_default_settings_hold_the_comparison_of_the_demo():
    counts = CorpusSettings().counts
    assert counts["train"] == {"benign": 1000, "PTC": 1000, "FTC": 30} and counts["pool"] == {"FTC": 970}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"colour": 1}, "colour"),
        ({"counts": {"holdout": {"FTC": 1}}}, "holdout"),
        ({"counts": {"train": {"XYZ": 1}}}, "XYZ"),
        ({"annotated_fraction": 1.5}, "annotated_fraction"),
        ({"languages": ["fr"]}, "languages"),
        ({"size": 16}, "size"),
    ],
)
def test_wrong_settings_are_named(settings, word):
    with pytest.raises(UserError, match=word):
        read_settings(settings)


def test_frames_of_an_examination_share_the_nodule():
    for patient, frames in patients(CorpusSettings(counts={"train": {"FTC": 30}})):
        assert frames and {visit.exam_id for visit, _ in frames} <= {visit.exam_id for visit in patient.visits}


def test_uniform_frames_depend_on_seed_and_index_alone():
    images, masks, labels = uniform_frames(6, 64, seed=1)
    again, _, _ = uniform_frames(3, 64, seed=1)
    other, _, _ = uniform_frames(3, 64, seed=2)
    assert images.shape == (6, 64, 64) and images.dtype == np.uint8 and set(np.unique(masks)) == {0, 1}
    assert np.array_equal(images[:3], again) and not np.array_equal(again, other)
    assert len(labels) == 6 and all("diameter" in row and len(row["diameter"]) == 1 for row in labels)
