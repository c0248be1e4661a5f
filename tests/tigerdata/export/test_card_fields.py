"""The card has every field that its standards ask for: filled from what is recorded, or said not to be stated."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from kb.files import sha256_file, write_json
from tigerdata import card
from tigerdata.export import export, facts
from tigerdata.export.table import LINEAGE

STATED = {name: f"our own words on {name}" for name in card.STATEMENTS}
# What stands in the card whatever a user states: the field as the standards name it -> how the card says it.
ALWAYS = {
    "counts by class, split, real, synthetic, patients": "| class | split | real | generated | patients (real) |",
    "ratio synthetic to real a class": "| FTC | train | 6 | 10 | 3 | 62 % | 1.67 |",
    "participants: sex": "| sex |",
    "participants: age": "| age, years |",
    "sources": "| read by |",
    "missing data": "| attributes not stated |",
    "exclusions": "| images refused at ingest |",
    "reference standard in dispute": "| pathology in dispute, not used |",
    "de-identification of texts": "| report texts |",
    "de-identification of ids": "| ids |",
    "de-identification of pixels": "| frames |",
    "de-identification of headers": "| headers |",
    "date of de-identification": "| date of removal | not recorded |",
    "knowledge base version": "| vocabulary | thyroid, SHA-256 ",
    "hash of the prompts": "| prompts | 66, SHA-256 ",
    "who drew the masks": "| nodule masks | imported ",
    "level of disjointness": "| partitions | disjoint by patient",
    "model and its weights' hash": "SHA-256 over weights and settings",
    "sampler": "| sampler |",
    "Sobel source policy": "| donor policy | real training images of",
    "Sobel source count": "| donors |",
    "where prompts come from": "| prompts | ",
    "seeds": "| seeds of the images | 20 different ones",
    "rejected": "Rejected by the gates and made again",
    "memorisation test by layer": "| 3. correlation, shifts, sizes and mirrors, with any real training image | 0.",
    "layers that were not run": "| 5. overfitting and membership | – | not measured |",
    "leakage checks": "- not so: a patient is in two splits",
    "software": "| numpy |",
    "never in validation or test": "**Generated images must never enter a validation or a test set.**",
    "not for": "Not for diagnosis",
    "no proof of anonymity": "no proof of anonymity",
    "marks in each file": "IPTC digital source type",
}  # fmt: skip


@pytest.fixture(scope="module")
def stated(made, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("card") / "set"
    export(made[0], folder, made[1], statements=STATED)
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", ALWAYS)
def test_a_field_that_nobody_needs_to_state(stated: str, field: str) -> None:
    assert ALWAYS[field] in stated


def test_every_statement_is_in_the_card_or_said_to_be_missing(made, stated: str, tmp_path: Path) -> None:
    for name, words in STATED.items():
        assert words in stated, name
    assert card.UNSTATED not in stated
    export(made[0], tmp_path / "set", made[1], draft=True)
    silent = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert silent.count(card.UNSTATED) == len(card.STATEMENTS)


def test_what_was_measured_is_in_the_card_with_extractor_n_and_floor(made, tmp_path: Path) -> None:
    ws, run, _ = made
    export(ws, tmp_path / "without", run, draft=True)
    assert "not measured; `tigergen evaluate --run` does it" in (tmp_path / "without" / "README.md").read_text()
    shutil.copytree(run, tmp_path / "run")
    figures = {"kernel": 1.25, "frechet": None, "density": 0.5, "coverage": 0.75}
    measured = {
        "extractor": "texture-52/1",
        "distances": [{"label": "FTC", "n": 8, "generated": figures, "floor": {**figures, "kernel": 0.01}}],
        "telling_apart": [{"label": "FTC", "n": 8, "generated": 0.9, "floor": 0.48}, {"label": "benign", "n": 4}],
        "attributes": {"rows": [{"attribute": "shape", "generated": 0.5, "generated_ci": [0.4, 0.6], "real": 0.8,
                                 "n_generated": 20}]},
    }  # fmt: skip
    write_json(tmp_path / "run" / "evaluation.json", measured)
    export(ws, tmp_path / "with", tmp_path / "run", draft=True)
    text = (tmp_path / "with" / "README.md").read_text(encoding="utf-8")
    for line in (
        "| kernel, FTC | texture-52/1 | 8 | 1.25 | 0.01 (real against real) |",
        "| frechet, FTC | texture-52/1 | 8 | – | – (real against real) |",
        "| AUROC of generated against real, FTC | logistic on texture-52/1 | 8 | 0.9 | 0.48 (real against real) |",
        "| agreement of shape (real 0.8) | judge of attributes | 20 | 0.5 | 0.4 to 0.6 |",
    ):
        assert line in text
    assert "against real, benign" not in text, "a class that was too small is not made to look measured"


def test_groups_of_few_patients_are_not_counted_out() -> None:
    assert facts._counts(["F"] * 7 + ["M"] * 2 + [None] * 5) == "F 7, M fewer than 5, not stated 5"
    assert facts._quartiles([40.0] * 19) == "stated for 19 patients: too few to say more"
    assert facts._quartiles([]) == "not stated"
    assert facts._quartiles([float(n) for n in range(21)]) == "median 10, quartiles 5 and 15; stated for 21 patients"


def test_every_image_has_a_row_of_lineage(made, tmp_path: Path) -> None:
    ws, run, table = made
    for format in ("imagefolder", "hf-parquet"):
        export(ws, tmp_path / format, run, format, 64, draft=True)
    rows = pq.read_table(tmp_path / "imagefolder" / "lineage.parquet").to_pandas()
    assert list(rows.columns) == list(LINEAGE) and rows["is_synthetic"].sum() == 20
    images = pd.read_csv(tmp_path / "imagefolder" / "images.csv")
    assert list(rows["image_id"]) == list(images["image_id"]) and list(rows["sha256"]) == list(images["sha256"])
    assert all(sha256_file(tmp_path / "imagefolder" / r.path) == r.sha256 for r in rows.itertuples())
    made_rows = rows[rows["is_synthetic"]].set_index("image_id")
    for case in table.itertuples():
        one = made_rows.loc[f"synthetic-{case.index:06d}"]
        assert (one["generator_id"], one["seed"]) == (case.model_id, case.seed)
        assert (one["fg_source_id"], one["bg_source_id"]) == (case.mask_image_id, case.donor_image_id)
        assert one["copy_check"] == "passed" and one["copy_score"] == json.loads(case.scores)["nearest"]
        assert (one["prompt_fg"], one["prompt_bg"], one["split"]) == (case.fg, case.bg, "train")
    real = rows[~rows["is_synthetic"]]
    assert real[["generator_id", "seed", "copy_check", "fg_source_id"]].isna().all(axis=None)
    assert set(made_rows["bg_source_id"]) <= set(real[real["split"] == "train"]["image_id"]), "sources can be looked up"
    inside = pq.read_table(tmp_path / "hf-parquet" / "lineage.parquet").to_pandas()
    assert (inside["sha256"] == "").all() and inside["path"].str.endswith(".parquet").all()
