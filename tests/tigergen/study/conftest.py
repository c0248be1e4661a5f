"""A small study: a workspace made of arithmetic, two generated classes, and one junior and one senior reader."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.proof_corpus import SIZE, attributes, frame, make_workspace
from tigerdata.workspace import Workspace
from tigergen.augment import files
from tigergen.study.folder import Study, read
from tigergen.study.new import new

COUNTS = {"train": {"benign": 2, "FTC": 2}, "test": {"benign": 16, "FTC": 14}}
ASKED = {"source": 12, "match": 4, "mark": 8}


def make_run(folder: Path, n: int = 20, model: str = "m1", copy_of: int | None = None) -> Path:
    """A finished run of `n` generated images a class; image 1 can be a copy of another one of its class."""
    rng = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    for label in ("benign", "FTC"):
        (folder / label).mkdir(parents=True)
        for k in range(n):
            index = len(rows)
            pixels, _ = frame(9000 + (index if k != 1 or copy_of is None else index - 1 + copy_of), 700 + index)
            said = attributes(label, rng)
            if k == 1 and copy_of is not None:
                pixels = files.read_pixels(folder / label / f"{copy_of}.png")[:, ::-1]
            name = f"{label}/{k}.png"
            files.write_bytes(folder / name, files.png_bytes(np.ascontiguousarray(pixels), {"Prompt": label}))
            row = dict.fromkeys(files.SCHEMA.names) | {"index": index, "file": name, "label": label, "accepted": True}
            rows.append(row | {"attributes": json.dumps(said), "mask_image_id": f"d{index}", "model_id": model})
    rejected = dict.fromkeys(files.SCHEMA.names) | {"index": len(rows), "label": "FTC", "accepted": False}
    files.write_manifest(folder / "manifest.parquet", [[*rows, rejected]])
    return folder


@pytest.fixture(scope="session")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("study") / "ws", COUNTS)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "augmented")


@pytest.fixture
def study(ws: Workspace, run: Path, tmp_path: Path) -> Iterator[Study]:
    new(ws, tmp_path / "reading", [run], counts=ASKED, repeats=0.25)
    yield read(tmp_path / "reading")


def right_answer(study: Study, trial: Any) -> Any:
    """What the key says to a trial, in the form in which the page sends it; features that no text states: no."""
    question = study.questions[trial.question]
    item = study.items[question.items[question.right]]
    if question.task == "source":
        return "real" if item.source == "real" else "generated"
    if question.task == "match":
        return next(address for address, shown in trial.pictures.items() if shown == item.item)
    return [int(feature.value in item.attributes.get(feature.attribute, ())) for feature in study.features]


assert SIZE == 64
