"""YOLO trained from its YAML in a process whose sockets are blocked: offline, repeatable, better than nothing."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tigerdata.images.ingest import ingest_images
from tigerdata.regions import yolo
from tigerdata.splits import split
from tigerdata.workspace import Workspace

TRAIN = textwrap.dedent(
    """
    import json, random, socket, sys
    def blocked(*args, **kwargs):
        raise RuntimeError("a socket was opened")
    socket.socket.connect = socket.socket.connect_ex = blocked
    socket.create_connection = socket.getaddrinfo = blocked
    import numpy, torch
    from tigerdata import regions
    from tigerdata.workspace import Workspace
    ws = Workspace.open(sys.argv[1])
    random.seed(5); numpy.random.seed(5); torch.manual_seed(5)
    def state():
        generators = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        return *generators, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    before = state()
    result = regions.train_segmenter(ws, out=sys.argv[2], model="yolo", width=0.5, imgsz=64, epochs=int(sys.argv[3]))
    result["filled"] = regions.segment(ws, weights=result["weights"], min_score=0.0)
    result["untouched"] = [a == b for a, b in zip(before, state())]
    print(json.dumps(result))
    """
)


def run(ws: Workspace, out: Path, config: Path, epochs: int) -> dict:
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(config), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN, str(ws.path), str(out), str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=config)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # also: ultralytics wrote nothing on stdout


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """60 frames with dark ellipses, 12 of them without a mask, in 30 patients."""
    root = tmp_path_factory.mktemp("yolo")
    (root / "masks").mkdir()
    lines = ["file,mask_file,patient_id,label"]
    for number in range(60):
        rng = np.random.default_rng(number)
        mask = np.zeros((64, 80), np.uint8)
        centre = tuple(int(v) for v in rng.integers((25, 20), (55, 44)))
        cv2.ellipse(mask, centre, (int(rng.integers(10, 18)), int(rng.integers(8, 14))), 0, 0, 360, 1, -1)
        noise = cv2.GaussianBlur(rng.normal(130, 50, mask.shape).astype(np.float32), (0, 0), 1)
        image = np.clip(noise * np.where(mask > 0, 0.25, 1), 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / f"{number}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{number}.png"), mask * 255)
        lines.append(f"{number}.png,{'' if number % 5 == 0 else f'masks/{number}.png'},P{number // 2},benign")
    (root / "images.csv").write_text("\n".join(lines))
    ws = Workspace.create(root / "ws")
    ingest_images(ws, root)
    split(ws)
    return ws


def test_training_is_offline_contained_and_learns(drawn: Workspace, tmp_path: Path) -> None:
    result = run(drawn, tmp_path / "model", tmp_path, epochs=20)
    assert all(result["untouched"]) and result["held_out"] == "val"
    assert result["dice"] > 0.5, result  # a mask of chance size and place has about .2
    assert result["filled"]["without_mask"] == 12 and result["filled"]["predicted"] > 6
    saved = json.loads((tmp_path / "model" / "segmenter.json").read_text())
    assert saved["settings"]["imgsz"] == 64 and saved["result"]["dice"] == result["dice"]
    with drawn.connect(read_only=True) as con:
        kind, trained_on = con.execute("SELECT kind, trained_on FROM models").fetchone()
        held_out = {r[0] for r in con.execute("SELECT image_id FROM splits WHERE split <> 'train'").fetchall()}
        origins = {r[0].split(":")[0] for r in con.execute("SELECT origin FROM regions").fetchall()}
    assert kind == "segmenter" and len(json.loads(trained_on)) == result["frames"]
    assert not held_out & set(json.loads(trained_on)) and origins == {"import", "yolo"}
    assert not list(tmp_path.rglob("*.ttf")) and not list(drawn.path.rglob("runs/*"))


def test_the_same_seed_gives_the_same_weights_whatever_ran_before(tmp_path: Path) -> None:
    frames = []
    for number in range(8):
        mask = np.zeros((64, 80), bool)
        mask[20:40, 20 + number : 50] = True
        frames.append((np.where(mask, 40, 140).astype(np.uint8), mask))
    digests = []
    for name in ("a", "b"):
        yolo.train(frames, tmp_path / f"{name}.pt", "gland", yolo.Recipe(imgsz=64, epochs=1, width=0.125), seed=3)
        np.random.default_rng().random()
        torch.rand(7)
        segmenter = yolo.YoloSegmenter(tmp_path / f"{name}.pt")
        weights = segmenter._model.model.state_dict().values()
        digests.append(hashlib.sha256(b"".join(v.numpy().tobytes() for v in weights)).hexdigest())
    assert digests[0] == digests[1]
    assert segmenter.kind == "gland"
    found, scores = segmenter.predict(np.stack([frames[0][0]] * 2))
    assert found.shape == (2, 64, 80) and found.dtype == bool and scores.shape == (2,)
    np.testing.assert_array_equal(found[0], found[1])


def test_outlines_close_on_the_mask_they_came_from() -> None:
    mask = np.zeros((60, 100), bool)
    mask[20:41, 30:71] = True
    (line,) = yolo.outlines(mask)
    points = np.array(line.split()[1:], float).reshape(-1, 2) * 100 - 0.5
    redrawn = np.zeros((60, 100), np.uint8)
    cv2.fillPoly(redrawn, [np.rint(points).astype(np.int32)], 1)
    np.testing.assert_array_equal(redrawn.astype(bool), mask)
    assert yolo.outlines(np.zeros((60, 100), bool)) == []


def test_only_one_module_imports_ultralytics() -> None:
    root = Path(__file__).resolve().parents[3]
    users = [
        path.relative_to(root).as_posix()
        for room in ("kb", "tigerdata", "tigergen")
        for path in (root / room).rglob("*.py")
        if 'import_module("ultralytics' in (text := path.read_text()) or "import ultralytics" in text
    ]
    assert users == ["tigerdata/regions/yolo.py"]


def test_the_import_leaves_other_libraries_as_they_were() -> None:
    """In a fresh process: ultralytics patches PIL and torch for everybody unless it is contained."""
    code = (
        "import PIL.Image, torch; before = (PIL.Image.open, torch.save);"
        "from tigerdata.regions.yolo import _ultralytics; _ultralytics();"
        "assert (PIL.Image.open, torch.save) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
