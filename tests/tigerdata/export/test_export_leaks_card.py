"""Export and leaks: what is written equals the manifest, others can read it, and planted leaks are refused by name."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kb.errors import UserError
from tests.proof_corpus import enter_model
from tigerdata import card, leaks
from tigerdata.export import export as refusing
from tigerdata.export.export import _manifest

export = partial(refusing, draft=True)


@pytest.fixture
def manifest(made) -> pd.DataFrame:
    ws, _, table = made
    real = ws.cases()
    return _manifest(real[real["split"] != "pool"], table)


def test_imagefolder_has_the_counts_of_the_manifest(made, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    ws, run, _ = made
    result = export(ws, tmp_path / "set", run)
    assert result["counts"]["train"] == {"benign": 30, "FTC": 16} and result["synthetic"] == 20
    for split, classes in result["counts"].items():
        data = ImageFolder(str(tmp_path / "set" / split))
        got = {name: data.targets.count(number) for name, number in data.class_to_idx.items()}
        assert got == classes
        assert all(image.size == (64, 64) for image, _ in data)
    rows = list(csv.DictReader((tmp_path / "set" / "images.csv").read_text(encoding="utf-8").splitlines()))
    assert {r["path"] for r in rows} == {
        str(p.relative_to(tmp_path / "set")) for p in (tmp_path / "set").rglob("*.png")
    }
    assert all(r["split"] == "train" for r in rows if r["synthetic"] == "1")
    patients = set(ws.cases()["patient_id"])
    assert not patients & {r["group"] for r in rows}, "patient ids do not leave the workspace"


def test_hf_imagefolder_loads(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    ws, run, _ = made
    export(ws, tmp_path / "set", run, format="hf", size=32)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 46, "validation": 10, "test": 10}
    first = loaded["train"][0]
    assert first["image"].size == (32, 32) and first["label"] in {"benign", "FTC"} and first["fg"]
    assert sum(loaded["train"]["synthetic"]) == 20 and sum(loaded["test"]["synthetic"]) == 0


def test_generated_files_keep_their_provenance_also_when_resized(made, tmp_path: Path) -> None:
    ws, run, _ = made
    export(ws, tmp_path / "set", run, size=32)
    for path in sorted((tmp_path / "set" / "train" / "FTC").glob("*.png")):
        with Image.open(path) as image:
            assert ("TigerSynthetic" in image.text) == path.name.startswith("synthetic-")


def test_real_pixels_without_a_run_stay_as_they_are(made, tmp_path: Path) -> None:
    ws, _, _ = made
    export(ws, tmp_path / "set")
    for case in ws.cases("test").itertuples():
        got = np.asarray(Image.open(tmp_path / "set" / "test" / case.label / f"{case.image_id}.png"))
        np.testing.assert_array_equal(got, np.asarray(Image.open(case.image_path)))


def test_an_equal_export_is_not_redone_and_other_content_is_refused(made, tmp_path: Path) -> None:
    ws, run, _ = made
    first = export(ws, tmp_path / "set", run)
    (tmp_path / "set" / "classes.txt").unlink()
    assert export(ws, tmp_path / "set", run) == first and not (tmp_path / "set" / "classes.txt").exists()
    with pytest.raises(UserError, match="something else"):
        export(ws, tmp_path / "set")
    with pytest.raises(UserError, match="no export format 'coco9'"):
        export(ws, tmp_path / "other", format="coco9")
    with pytest.raises(UserError, match="no finished run"):
        export(ws, tmp_path / "other", tmp_path)


def test_a_changed_file_of_the_run_is_noticed(made, tmp_path: Path) -> None:
    import shutil

    ws, run, table = made
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / table["file"][0]).write_bytes(b"x")
    with pytest.raises(UserError, match="changed after its manifest"):
        export(ws, tmp_path / "set", tmp_path / "run")
    assert not (tmp_path / "set").exists()


def test_a_clean_manifest_passes_every_check(made, manifest: pd.DataFrame, tmp_path: Path) -> None:
    ws, _, _ = made
    assert len(leaks.check(ws, manifest)) == len(leaks.QUERIES)
    manifest.to_parquet(tmp_path / "m.parquet")
    assert len(leaks.check(ws, tmp_path / "m.parquet")) == len(leaks.QUERIES)


def test_each_planted_leak_is_refused_with_its_pair(made, manifest: pd.DataFrame) -> None:
    ws, _, _ = made
    real, fake = manifest.index[~manifest["synthetic"]], manifest.index[manifest["synthetic"]]
    test = manifest.index[manifest["split"] == "test"]
    train = manifest.index[(manifest["split"] == "train") & ~manifest["synthetic"]]
    assert len(real) and len(fake)

    def refused(kind: str, change, names: tuple) -> None:
        planted = manifest.copy()
        change(planted)
        with pytest.raises(leaks.LeakError) as error:
            leaks.check(ws, planted)
        assert error.value.kind == kind
        assert any(set(names) <= set(pair) for pair in error.value.pairs), error.value.pairs
        assert str(names[0]) in str(error.value)

    a, b = train[0], test[0]
    ids = manifest["image_id"]

    def same_patient(m: pd.DataFrame) -> None:
        m.loc[b, "patient_id"] = m.loc[a, "patient_id"]

    def same_pixels(m: pd.DataFrame) -> None:
        m.loc[b, "sha256"] = m.loc[a, "sha256"]

    def in_test(m: pd.DataFrame) -> None:
        m.loc[fake[0], "split"] = "test"

    def test_donor(m: pd.DataFrame) -> None:
        m.loc[fake[1], "donor_image_id"] = ids[b]

    def test_mask(m: pd.DataFrame) -> None:
        m.loc[fake[2], "mask_image_id"] = ids[b]

    def no_generator(m: pd.DataFrame) -> None:
        m.loc[fake[3], "model_id"] = "unheard-of"

    refused("a patient is in two splits", same_patient, (ids[a], ids[b]))
    refused("the same image is in two splits", same_pixels, (ids[a], ids[b]))
    refused("a generated image is outside train", in_test, (manifest.loc[fake[0], "file"], "test"))
    refused("a donor is not in train", test_donor, (manifest.loc[fake[1], "file"], ids[b]))
    refused("a donor is not in train", test_mask, (manifest.loc[fake[2], "file"], ids[b]))
    refused("the generator's training set is not known", no_generator, ("unheard-of", "models"))


def test_a_generator_that_saw_the_test_split_is_refused(made, manifest: pd.DataFrame, tmp_path: Path) -> None:
    ws, run, _ = made
    model = manifest["model_id"].dropna().iloc[0]
    tested = set(manifest[manifest["split"] == "test"]["image_id"])
    enter_model(ws, model, *tested)
    try:
        with pytest.raises(leaks.LeakError) as error:
            leaks.check(ws, manifest)
        assert error.value.kind == "the generator has seen an image outside train"
        assert {image for _, image in error.value.pairs} == tested
        with pytest.raises(leaks.LeakError):
            export(ws, tmp_path / "set", run)
        assert not (tmp_path / "set").exists()
    finally:
        enter_model(ws, model)


def test_a_generator_that_does_not_say_what_it_saw_is_refused(made, manifest: pd.DataFrame) -> None:
    ws, _, _ = made
    model = manifest["model_id"].dropna().iloc[0]
    try:
        for record in (None, "[]", "default:train", '{"split": "train"}'):
            with ws.connect() as con:
                con.execute("UPDATE models SET trained_on = ? WHERE model_id = ?", [record, model])
            with pytest.raises(leaks.LeakError, match="the generator's training set is not known") as error:
                leaks.check(ws, manifest)
            assert error.value.pairs == [(model, "models")]
    finally:
        enter_model(ws, model)


def test_a_generator_that_saw_an_image_the_workspace_has_lost_is_refused(made, manifest: pd.DataFrame) -> None:
    """Whose image it was cannot be told any more, so nobody can say that this patient is not in the test split."""
    ws, _, _ = made
    model = manifest["model_id"].dropna().iloc[0]
    enter_model(ws, model, "gone")
    try:
        with pytest.raises(leaks.LeakError) as error:
            leaks.check(ws, manifest)
        assert error.value.pairs == [(model, "gone")]
    finally:
        enter_model(ws, model)


def test_a_patient_of_the_generator_in_test_by_another_image_is_refused(made, manifest: pd.DataFrame) -> None:
    """The generator's own image stays in train but is not exported; a later image of its patient is in test."""
    ws, _, _ = made
    planted = manifest.copy()
    donors = planted["donor_image_id"].dropna()
    giving = set(planted[planted["image_id"].isin(donors)]["patient_id"])
    patient = next(p for p in planted[planted["split"] == "train"]["patient_id"].dropna() if p not in giving)
    planted = planted[planted["patient_id"] != patient]
    row = planted.index[planted["split"] == "test"][0]
    planted.loc[row, "patient_id"] = patient
    with pytest.raises(leaks.LeakError) as error:
        leaks.check(ws, planted)
    assert error.value.kind == "the generator has seen a patient outside train"
    assert error.value.pairs == [(manifest["model_id"].dropna().iloc[0], planted.loc[row, "image_id"])]


def test_the_donors_patient_outside_train_is_refused(made, manifest: pd.DataFrame) -> None:
    """The donor itself is in train, but another image of its patient was moved to test by hand."""
    ws, _, _ = made
    planted = manifest.copy()
    donor = planted["donor_image_id"].dropna().iloc[0]
    patient = planted.loc[planted["image_id"] == donor, "patient_id"].iloc[0]
    planted = planted[(planted["patient_id"] != patient) | planted["synthetic"]]
    row = planted.index[planted["split"] == "test"][0]
    planted.loc[row, "patient_id"] = patient
    with pytest.raises(leaks.LeakError) as error:
        leaks.check(ws, planted)
    assert error.value.kind in {
        "the patient of a donor or of an edited image is outside train",
        "the generator has seen a patient outside train",
    }
    assert planted.loc[row, "image_id"] in {image for _, image in error.value.pairs}


def test_a_manifest_without_its_columns_is_refused(made, manifest: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="no column 'sha256'"):
        leaks.check(made[0], manifest.drop(columns="sha256"))


def test_the_card_has_the_datasheet_headings_and_true_counts(made, tmp_path: Path) -> None:
    ws, run, _ = made
    export(ws, tmp_path / "set", run, statements={"licence": "CC BY 4.0 | own words", "contact": "a@b"})
    text = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    for heading in (
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing",
        "Uses",
        "Distribution",
        "Mainten",
    ):
        assert f"## {heading}" in text
    assert "| FTC | train | 6 | 10 | 3 | 62 % |" in text
    assert "| seed | 1 |" in text and '"copy_quantile": 0.98' in text and "Written as imagefolder" in text
    assert "never enter a validation" in text and "CC BY 4.0" in text and card.UNSTATED in text
    assert json.loads((tmp_path / "set" / "export.json").read_text())["lost_fields"]


def test_a_card_of_real_images_does_not_speak_of_generated_ones() -> None:
    text = card.render(card.Card("Real", [card.Counts("a|b", "train", 3, 0, 2)]))
    assert "never enter" not in text and "a\\|b" in text and "synthetic" not in text
