"""The whole table of bad files in one ingest: every one is counted with its code, the good ones go in."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tigerdata.images.bad_files import FILES, ODD, SECRET, full_bomb, texture
from tigerdata.images.frames import read_clean
from tigerdata.images.ingest import ingest_images
from tigerdata.rejects import REJECTS
from tigerdata.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def bad_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.csv that lists every bad file between good ones."""
    root = tmp_path_factory.mktemp("bad") / "set"
    root.mkdir()
    Image.fromarray(texture(99)).save(root.parent / SECRET)
    names = []
    for number, (name, (_, make)) in enumerate(FILES.items()):
        make(root / name.replace("\0", "0"))
        Image.fromarray(texture(100 + number)).save(root / f"good{number}.png")
        names += [name, f"good{number}.png"]
    for name, (_, make) in ODD.items():
        make(root / name)
    with (root / "images.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file"])
        writer.writerows([[name] for name in [*names, *ODD]])
    return root


def test_every_bad_file_is_refused_with_its_code_and_the_rest_goes_on(ws: Workspace, bad_set: Path) -> None:
    ws.settings["images"]["clean"] = False  # the frames that go in are compared with what was written
    assert len(FILES) >= 40
    before = {p: p.lstat().st_mtime_ns for p in bad_set.iterdir()}
    result = ingest_images(ws, bad_set)
    lines = {f"images.csv:{2 + 2 * number}": code for number, (code, _) in enumerate(FILES.values())}
    assert {row["where"]: row["code"] for row in result["rejected"]} == lines
    assert result["rejected_by_code"] == dict(Counter(code for code, _ in FILES.values()))
    assert result["files"] == 2 * len(FILES) + len(ODD) == result["taken"] + len(result["rejected"])
    assert result["images"] == len(FILES) + len(ODD)
    with ws.connect(read_only=True) as con:
        rows = con.execute("SELECT path, image_id FROM images WHERE rejected IS NULL").fetchall()
    found = {Path(path).name: read_clean(ws, image_id) for path, image_id in rows}
    for name, (levels, _) in ODD.items():
        np.testing.assert_array_equal(found[name], levels, err_msg=name)
    # Nothing is written beside the originals, nothing outside is read, and what is written is named by us.
    assert {p: p.lstat().st_mtime_ns for p in bad_set.iterdir()} == before
    assert all(len(p.stem) == 16 and p.stem.isalnum() for p in (ws.path / "images").iterdir())
    assert not any((level == texture(99)).all() for level in found.values() if level.shape == (48, 64))


def test_the_list_of_rejects_is_in_the_workspace(ws: Workspace, bad_set: Path) -> None:
    result = ingest_images(ws, bad_set)
    with (ws.path / REJECTS).open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert {row["kind"] for row in listed} == {"images"} and {row["file"] for row in listed} == {"set/images.csv"}
    assert sum(int(row["count"]) for row in listed) == len(result["rejected"])
    assert {(int(r["line"]), r["reason"]) for r in listed} == {
        (int(r["where"].split(":")[1]), r["code"]) for r in result["rejected"]
    }
    again = ingest_images(ws, bad_set)
    assert again["rejected"] == result["rejected"] and again["new"] == 0
    with ws.connect(read_only=True) as con:
        told = con.execute("SELECT kind, rows_read, stored, already_known, rejected FROM ingests").fetchall()
    assert told == [("images", result["files"], result["taken"], 0, len(FILES))]


def test_a_class_folder_of_bad_files_loses_none(ws: Workspace, bad_set: Path) -> None:
    result = ingest_images(ws, bad_set, "imagefolder")
    assert result["files"] == result["taken"] + len(result["rejected"])
    codes = {row["where"]: row["code"] for row in result["rejected"]}
    there = {name: code for name, (code, _) in FILES.items() if name in codes}
    assert codes == there and {"film.gif", "drawing.svg", "pipe.png", "link.png"} <= set(there)
    assert result["not_an_image_by_name"] == 1  # images.csv


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_bomb_needs_little_memory(tmp_path: Path) -> None:
    """The 20000 x 20000 pixels that are really there would need 400 MB more than the program itself."""
    full_bomb(tmp_path / "bomb.png")
    code = (
        "import re, sys; from pathlib import Path; from tigerdata.images.frames import Refused, read_gray\n"
        "try: read_gray(Path(sys.argv[1]))\n"
        "except Refused as error: print(error.code)\n"
        # Not getrusage: its peak includes that of the process that started this one.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "bomb.png")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    said, megabytes = done.stdout.split()
    assert said == "TOO_LARGE" and int(megabytes) < 300
