"""The Croissant file: what it says of every file is true, and MLCommons' own reader accepts it."""

import fnmatch
import json
from pathlib import Path

import pandas as pd
import pytest

from kb.files import sha256_file
from tigerdata.export import export
from tigerdata.export.formats import FORMATS

SAID = {"licence": "CC-BY-4.0", "consent": "waived", "creator": "A hospital", "published": "2026-01-31", "url": "a:b"}


@pytest.fixture(scope="module", params=FORMATS)
def folder(made, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("croissant") / "set"
    export(made[0], out, made[1], request.param, 32, SAID)
    return out


def test_every_file_is_there_with_its_hash(folder: Path) -> None:
    about = json.loads((folder / "croissant.json").read_text(encoding="utf-8"))
    assert about["conformsTo"][0].endswith("croissant/1.1") and about["license"] == "CC-BY-4.0"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"croissant.json", "export.json"}
    for one in about["distribution"]:
        if one["@type"] == "cr:FileObject":
            assert sha256_file(folder / one["contentUrl"]) == one["sha256"]
            files.remove(one["contentUrl"])
        else:
            found = {f for f in files for pattern in one["includes"] if fnmatch.fnmatch(f, pattern)}
            assert found and not any(name == "images.csv" for name in found)
            files -= found
    assert not files
    table = pd.read_csv(folder / "images.csv")
    for row in table[table["member"].isna()].itertuples():
        assert sha256_file(folder / row.path) == row.sha256


def test_mlcroissant_accepts_it_and_reads_the_records(folder: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    data = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not data.metadata.ctx.issues.errors and not data.metadata.ctx.issues.warnings
    records = list(data.records("images"))
    table = pd.read_csv(folder / "images.csv")
    assert [r["images/image_id"].decode() for r in records] == table["image_id"].tolist()
    assert sum(r["images/synthetic"] for r in records) == 20
    assert [r["splits/name"] for r in data.records("splits")] == ["train", "val", "test"]
    assert [r["classes/name"] for r in data.records("classes")] == ["FTC", "benign"]


def test_every_statement_that_rai_has_a_place_for_is_accepted(made, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    said = SAID | {name: f"words on {name}" for name in ("population", "annotation", "limits", "impact", "contact")}
    export(made[0], tmp_path / "set", made[1], statements=said)
    data = mlcroissant.Dataset(str(tmp_path / "set" / "croissant.json"))
    assert not data.metadata.ctx.issues.errors and not data.metadata.ctx.issues.warnings
    about = json.loads((tmp_path / "set" / "croissant.json").read_text(encoding="utf-8"))
    assert about["rai:dataBiases"] == ["words on population", "words on limits"]
    assert (about["rai:annotatorDemographics"], about["rai:dataSocialImpact"]) == (
        "words on annotation", "words on impact",
    )  # fmt: skip
