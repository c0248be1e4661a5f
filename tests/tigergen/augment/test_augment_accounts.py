"""What a run says of its gates, what it keeps of rejected images, and which cells it could not fill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.proof_corpus import FakePipe, make_workspace, model_stub
from tigergen.augment import accounts, files, quarantine
from tigergen.augment import run as runs
from tigergen.augment.plan import make_plan

COUNTS = {"train": {"benign": 40, "FTC": 8}, "val": {"benign": 12, "FTC": 6}}


class Poor(FakePipe):
    """Draws black where a prompt says irregular, one frame for every fifth seed, real frames for every third."""

    def __init__(self, real: np.ndarray, word: str = "irregular shape") -> None:
        super().__init__()
        self.real, self.word = real, word

    def __call__(
        self, fg: list[str], bg: list[str], masks: Any, sobels: Any, roles: Any, seeds: list[int], **named: Any
    ):
        images = super().__call__(fg, bg, masks, sobels, roles, [77 if s % 5 == 0 else s for s in seeds], **named)
        for k, (text, seed) in enumerate(zip(fg, seeds, strict=True)):
            if self.word in text:
                images[k] = 0
            elif seed % 3 == 0:
                images[k] = self.real[seed % len(self.real)]
        return images


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    from tigergen.data import load_cases

    folder = tmp_path_factory.mktemp("accounts")
    ws = make_workspace(folder / "ws", COUNTS)
    plan = make_plan(ws, "FTC", 16, seed=1, rare_below=20)
    pipe = Poor(load_cases(ws, "train", 64).images)
    result = runs.augment(ws, plan, model_stub(folder), folder / "out", pipe=pipe, attempts=3, keep_rejected=True)
    return folder / "out", plan, result


def test_cells_that_were_not_filled_are_listed(ran) -> None:
    folder, plan, result = ran
    rows = {c["row"]: c for c in result["not_filled"]}
    asked = {n for n, row in enumerate(plan["rows"], 1) if "irregular shape" in row["fg"]}
    assert asked and asked <= set(rows) and result["unfilled"] == sum(c["missing"] for c in rows.values())
    for number in asked:
        row = plan["rows"][number - 1]
        assert rows[number]["missing"] == rows[number]["of"] == row["count"]
        assert rows[number]["label"] == row["label"] and rows[number]["attributes"] == row["attributes"]
        assert rows[number]["reasons"] == {"technical: constant or without contrast": 3 * row["count"]}


def test_each_gate_says_threshold_rule_and_count(ran) -> None:
    folder, _, result = ran
    table = pd.read_parquet(folder / "manifest.parquet")
    rows = {row["score"]: row for row in result["gates"]}
    reasons = table[~table["accepted"]]["reason"].str.split(" of image").str[0]
    assert sum(row["rejected"] for row in rows.values()) == len(reasons)
    assert rows["technical"]["rejected"] == reasons.str.startswith("technical").sum() > 0
    assert rows["exact"]["rejected"] == (reasons == "copy: the pixels of a real image").sum() > 0
    assert rows["duplicate"]["rejected"] == reasons.eq("duplicate").sum() > 0
    assert rows["nearest"]["scored"] == len(table) and "real images of other patients" in rows["nearest"]["rule"]
    scores = [json.loads(s)["nearest"] for s in table["scores"]]
    assert rows["nearest"]["median"] == pytest.approx(np.median(scores), abs=1e-4)
    assert rows["mask"]["threshold"] is None and rows["mask"]["rule"] == "not measured: no segmenter"
    assert rows["texture"]["rejects"] == "below" and rows["realism"]["rejects"] == "above"
    # The thresholds travel with the manifest.
    kept = json.loads(pq.read_schema(folder / "manifest.parquet").metadata[b"gates"])
    assert kept == json.loads((folder / "gates.json").read_text()) and kept["measured"]["nearest"]["n"] > 40


def test_a_generator_that_repeats_real_images_is_named(ran) -> None:
    _, _, result = ran
    copies = result["copies"]
    assert copies["verdict"] == "the generator repeats its training images" and copies["share"] > 0.15
    used = {"copy_quantile": 0.98, "hash_quantile": 0.995, "texture_quantile": 0.995}
    for found, says in ((9, "no more"), (30, "repeats")):
        assert says in accounts._copies(used, {"copy: too near to a real image": found}, 300)["verdict"]  # type: ignore[arg-type]


def test_rejected_images_lie_in_quarantine_and_in_no_class_folder(ran) -> None:
    folder, _, result = ran
    table = pd.read_parquet(folder / "manifest.parquet")
    aside = quarantine.folder_of(folder)
    assert {p.name for p in folder.iterdir() if p.is_dir()} <= {"FTC", "benign"}
    rejected = table[~table["accepted"]]
    expected = {quarantine.place(aside, r.index, r.attempt, r.reason) for r in rejected.itertuples(index=False)}
    assert set(aside.rglob("*.png")) == expected and len(expected) == len(rejected)
    assert {p.name for p in aside.iterdir()} >= {"duplicate", "copy-the-pixels-of-a-real-image"}
    kept = {(folder / f).read_bytes() for f in table[table["accepted"]]["file"]}
    assert not kept & {p.read_bytes() for p in expected}
    with Image.open(sorted((aside / "copy-the-pixels-of-a-real-image").iterdir())[0]) as image:
        assert image.text["TigerSynthetic"] == "1" and image.text["TigerReason"].startswith("copy: the pixels")
        assert json.loads(image.text["TigerScores"])["exact"]
    duplicate = sorted((aside / "duplicate").iterdir())[0]
    assert files.read_pixels(duplicate).std() > 0


def test_without_the_option_nothing_is_kept(ran, tmp_path: Path) -> None:
    folder, plan, _ = ran
    from tigerdata.workspace import Workspace

    ws = Workspace.open(folder.parent / "ws")
    runs.augment(ws, plan, folder.parent / "model", tmp_path / "out", pipe=FakePipe(), attempts=2)
    assert not quarantine.folder_of(tmp_path / "out").exists()
