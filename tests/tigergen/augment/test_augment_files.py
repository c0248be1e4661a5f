"""Generated files say what they are, in their metadata and nowhere else, and exports keep it."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kb.errors import UserError
from tests.proof_corpus import FakePipe, enter_model, frame, make_workspace, model_stub
from tigerdata.export import export
from tigerdata.images.duplicates import pixel_hash
from tigergen.augment import files
from tigergen.augment.copies import duplicates
from tigergen.augment.one import remake
from tigergen.augment.plan import make_plan
from tigergen.augment.prints import Prints
from tigergen.augment.run import augment, summary

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
FIELDS = ["Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2"]


def read_back(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """PNG texts and XMP properties by their names without namespace."""
    with Image.open(path) as image:
        text = dict(image.text)
    (described,) = ElementTree.fromstring(text["XML:com.adobe.xmp"]).iter(f"{{{RDF}}}Description")
    return text, {name.partition("}")[2]: value for name, value in described.attrib.items()}


@pytest.mark.parametrize(("composite", "kind"), [(False, "trainedAlgorithmicMedia"),
                                                 (True, "compositeWithTrainedAlgorithmicMedia")])  # fmt: skip
def test_provenance_is_read_back(tmp_path: Path, composite: bool, kind: str) -> None:
    image = frame(3)[0]
    files.write_bytes(tmp_path / "a.png", files.png_bytes(image, {"TigerSeed": "7"}, composite, '医院 "A" <&>'))
    text, xmp = read_back(tmp_path / "a.png")
    assert xmp["DigitalSourceType"] == IPTC + kind
    label = json.loads(xmp["AIGC"])
    assert list(label) == FIELDS and label["Label"] == "1" and label["ContentProducer"] == '医院 "A" <&>'
    assert label["ProduceID"] == pixel_hash(image)[:32]
    assert (text["AIGC"], text["TigerSynthetic"], text["TigerSeed"]) == (xmp["AIGC"], "1", "7")
    assert np.array_equal(files.read_pixels(tmp_path / "a.png"), image), "no pixel is marked"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("files")
    ws = make_workspace(folder / "ws", {"train": {"benign": 20, "FTC": 6}, "val": {"benign": 6, "FTC": 4}})
    ws.settings["statements"]["creator"] = "Hospital A"
    run = folder / "run"
    augment(ws, make_plan(ws, "FTC", 6, seed=1, rare_below=10), model_stub(folder), run, pipe=FakePipe())
    enter_model(ws, pd.read_parquet(run / "manifest.parquet")["model_id"][0])
    return ws, run


def test_a_run_names_its_maker_and_the_place_of_each_image(made) -> None:
    _, run = made
    for row in pd.read_parquet(run / "manifest.parquet").query("accepted").to_dict("records"):
        text, xmp = read_back(run / row["file"])
        assert xmp["DigitalSourceType"] == IPTC + "trainedAlgorithmicMedia"
        assert json.loads(text["AIGC"])["ContentProducer"] == "Hospital A"
        assert (text["TigerPlan"], text["TigerIndex"]) == (row["plan_id"], str(row["index"]))
        assert text["TigerModel"] == row["model_id"]


@pytest.mark.parametrize(("format", "options"), [
    ("imagefolder", {}), ("imagefolder", {"rgb": True}), ("imagefolder", {"size": 32}), ("coco", {}), ("yolo", {}),
    ("nnunet", {}),
])  # fmt: skip
def test_exports_keep_the_provenance(made, tmp_path: Path, format: str, options: dict) -> None:
    ws, run = made
    export(ws, tmp_path / "d", run, format, draft=True, **options)
    found = [p for p in (tmp_path / "d").rglob("*.png") if "synthetic" in p.name and "labels" not in p.parent.name]
    assert len(found) == len(list(run.rglob("*.png")))
    for path in found:
        text, xmp = read_back(path)
        assert xmp["DigitalSourceType"] == IPTC + "trainedAlgorithmicMedia" and json.loads(xmp["AIGC"])["Label"] == "1"
        assert text["TigerSynthetic"] == "1"


def test_an_image_of_a_run_is_made_again_with_its_bytes(made, tmp_path: Path) -> None:
    ws, run = made
    row = pd.read_parquet(run / "manifest.parquet").query("accepted").iloc[-1]
    told = remake(ws.path, run, int(row["index"]), None, tmp_path / "again.png", pipe=FakePipe())
    assert (told["difference"], told["attempt"], told["seed"]) == (0, row["attempt"], row["seed"])
    assert (tmp_path / "again.png").read_bytes() == (run / row["file"]).read_bytes()


def test_what_is_no_finished_run_is_refused(made, tmp_path: Path) -> None:
    ws, run = made
    with pytest.raises(UserError, match="holds no run"):
        remake(ws.path, tmp_path, 0, None, tmp_path / "a.png", pipe=FakePipe())
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    (tmp_path / "plan.json").write_bytes((run / "plan.json").read_bytes())
    with pytest.raises(UserError, match="not finished"):
        remake(ws.path, tmp_path, 0, None, tmp_path / "a.png", pipe=FakePipe())


def test_fingerprints_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {int(k): rng.normal(size=5).astype(np.float16) for k in rng.permutation(40)[:25]}
    stored = Prints(tmp_path / "p" / "x.f16", 40)
    for index, one in rows.items():
        stored[index] = one
    for index in sorted(rows)[3:20:4]:
        del rows[index], stored[index]
    order = sorted(rows)
    assert stored.order.tolist() == order and len(stored) == len(order)
    held = np.stack([rows[k] for k in order])
    for chunk in (1, 7, 100):
        parts = [stored[start : start + chunk] for start in range(0, len(stored), chunk)]
        assert np.array_equal(np.concatenate(parts), held)
    assert len(stored[100:200]) == 0
    assert duplicates(stored, 0.5, chunk=4) == duplicates(held, 0.5, chunk=100) != []


def test_tables_are_written_and_counted_in_flat_memory(tmp_path: Path) -> None:
    """Eight times the rows, the same peak: blocks are not gathered."""

    def blocks(count: int) -> Iterator[list[dict]]:
        row = dict.fromkeys(files.SCHEMA.names) | {"attempt": 0, "label": "FTC", "accepted": True, "seed": 1}
        for number in range(count):
            own = [row | {"index": 64 * number + k, "scores": f"{number} {k} " * 40} for k in range(64)]
            yield own

    def peak(count: int) -> int:
        tracemalloc.start()
        files.write_manifest(tmp_path / "manifest.parquet", blocks(count))
        files.write_metadata(tmp_path / "metadata.jsonl", blocks(count))
        assert summary(tmp_path)["accepted"] == 64 * count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)  # the libraries' own
    assert peak(128) < 1.3 * peak(16)
