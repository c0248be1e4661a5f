"""Ratio, channels, statements, formats of others, and what a kill leaves behind."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kb.errors import UserError
from tigerdata.export import export, formats
from tigerdata.export.choice import capped
from tigerdata.export.rows import collect

ROOT = Path(__file__).resolve().parents[3]


def labels(folder: Path, synthetic: int = 1) -> Counter:
    table = pd.read_csv(folder / "images.csv")
    return Counter(table[table["synthetic"] == synthetic]["label"])


def test_ratio_caps_the_generated_images_of_each_class(made, tmp_path: Path) -> None:
    ws, run, _ = made
    result = export(ws, tmp_path / "a", run, ratio=0.5, draft=True)
    assert labels(tmp_path / "a") == {"benign": 10, "FTC": 3} and result["over_ratio"] == 7
    assert labels(tmp_path / "a", 0) == {"benign": 32, "FTC": 14}, "no real image is left out"
    assert export(ws, tmp_path / "b", run, ratio=1, draft=True)["synthetic"] == 16
    smaller, larger = (set(pd.read_csv(tmp_path / d / "images.csv")["image_id"]) for d in "ab")
    assert smaller < larger, "what a small ratio takes a larger one takes too"
    assert export(ws, tmp_path / "c", run, ratio=0, draft=True)["synthetic"] == 0
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "At most 0.5 generated images a real training image of a class." in card


def test_ratio_takes_images_from_all_over_the_plan() -> None:
    made = pd.DataFrame({"index": range(100), "label": "a"})
    real = pd.DataFrame({"split": "train", "label": ["a"] * 10})
    for ratio, most in ((1, 10), (2.5, 25), (20, 100)):
        taken = capped(made, real, ratio)["index"].tolist()
        assert len(taken) == most and taken == sorted(taken)
        gaps = np.diff([0, *taken, 100])
        assert gaps.max() <= 2.2 * 100 / most
    assert capped(made.assign(label="b"), real, 9.0).empty, "a class without real images gets none"
    assert len(capped(made, pd.concat([real] * 3), 0.1)) == 3


def test_three_channels_are_equal_and_keep_the_provenance(made, tmp_path: Path) -> None:
    ws, run, _ = made
    export(ws, tmp_path / "gray", run, size=32, draft=True)
    assert export(ws, tmp_path / "rgb", run, size=32, rgb=True, draft=True)["channels"] == 3
    for path in sorted((tmp_path / "gray").rglob("*.png")):
        with Image.open(path) as one, Image.open(tmp_path / "rgb" / path.relative_to(tmp_path / "gray")) as three:
            assert (one.mode, three.mode) == ("L", "RGB") and one.text == three.text
            np.testing.assert_array_equal(np.asarray(three), np.repeat(np.asarray(one)[..., None], 3, axis=2))
    export(ws, tmp_path / "npz", run, "medmnist", 28, rgb=True, draft=True)
    with np.load(tmp_path / "npz" / "tiger.npz") as arrays:
        assert arrays["val_images"].shape == (10, 28, 28, 3)
    export(ws, tmp_path / "nn", run, "nnunet", 32, rgb=True, draft=True)
    settings = json.loads((tmp_path / "nn" / "Dataset001_Tiger" / "dataset.json").read_text())
    assert settings["channel_names"] == {"0": "red", "1": "green", "2": "blue"}


def test_licence_and_consent_are_asked_for(made, tmp_path: Path) -> None:
    ws, run, _ = made
    with pytest.raises(UserError, match="no licence and no consent statement; give --licence and --consent"):
        export(ws, tmp_path / "set", run)
    with pytest.raises(UserError, match="no consent statement; give --consent"):
        export(ws, tmp_path / "set", run, statements={"licence": "MIT", "consent": " "})
    with pytest.raises(UserError, match="no statement 'license'; it has licence, consent"):
        export(ws, tmp_path / "set", run, statements={"license": "MIT"})
    assert not list(tmp_path.iterdir())
    export(ws, tmp_path / "draft", draft=True)
    assert "**A draft: not to be passed on.** Not stated: licence" in (tmp_path / "draft" / "README.md").read_text()
    export(ws, tmp_path / "set", statements={"licence": "MIT", "consent": "waived"})
    text = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "Licence: MIT" in text and "Consent and ethics: waived" in text and "A draft" not in text


def test_statements_of_the_settings_hold_and_those_given_come_first(made, tmp_path: Path, monkeypatch) -> None:
    ws, _, _ = made
    stated = {**ws.settings["statements"], "licence": "MIT", "consent": "waived", "creator": "A hospital"}
    monkeypatch.setitem(ws.settings, "statements", stated)
    export(ws, tmp_path / "set", statements={"licence": "CC0-1.0"})
    about = json.loads((tmp_path / "set" / "croissant.json").read_text(encoding="utf-8"))
    assert about["license"] == "CC0-1.0" and about["creator"]["name"] == "A hospital"
    assert "waived" in about["rai:personalSensitiveInformation"]


def test_a_changed_label_or_mask_makes_another_export(made, tmp_path: Path) -> None:
    ws, _, _ = made
    first = export(ws, tmp_path / "set", draft=True)
    mask = Path(ws.cases("train")["mask_path"].iloc[0])
    kept = mask.read_bytes()
    try:
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
        with pytest.raises(UserError, match="something else"):
            export(ws, tmp_path / "set", draft=True)
    finally:
        mask.write_bytes(kept)
    assert export(ws, tmp_path / "set", draft=True) == first


def test_frames_of_several_sizes_need_a_size_for_arrays(made, tmp_path: Path) -> None:
    ws, _, _ = made
    frame = Path(ws.cases("train")["image_path"].iloc[0])
    kept = frame.read_bytes()
    try:
        Image.fromarray(np.zeros((64, 80), np.uint8)).save(frame)
        with pytest.raises(UserError, match="medmnist needs images of one size; give --size"):
            export(ws, tmp_path / "set", format="medmnist", draft=True)
    finally:
        frame.write_bytes(kept)
    assert not list(tmp_path.iterdir()), "a failed export leaves nothing behind"


def test_a_mask_that_the_workspace_has_lost_is_named(made, tmp_path: Path) -> None:
    ws, run, table = made
    case = table.iloc[0]
    rows = ws.cases()
    mask = Path(rows[rows["image_id"] == case["mask_image_id"]]["mask_path"].iloc[0])
    kept = mask.rename(mask.with_suffix(".away"))
    try:
        with pytest.raises(UserError, match=f"image {case['mask_image_id']} has lost its frame or mask"):
            export(ws, tmp_path / "set", run, "coco", draft=True)
    finally:
        kept.rename(mask)
    (row,) = collect(ws, rows[:0], table[:1].assign(mask_image_id="gone"), run, None, False)
    with pytest.raises(UserError, match="made for the nodule mask of image gone"):
        row.mask()
    assert row.png() and not list(tmp_path.iterdir())


def test_a_class_that_a_split_lacks_is_remarked() -> None:
    from tigerdata.export.formats.imagefolder import absent

    def row(split: str, label: str) -> formats.Row:
        return formats.Row("", {"split": split, "label": label}, bytes, lambda: np.zeros((1, 1), bool))

    (said,) = absent([row("train", "a"), row("train", "b"), row("val", "b"), row("test", "a"), row("test", "b")])
    assert said.startswith("val has no image of a:")


def list_only(rows, folder: Path) -> list[str]:
    """A format of another package, as simple as can be."""
    (folder / "names.txt").write_text("\n".join(row.name for row in rows))
    for row in rows:
        formats.put(folder / row.file, row.png())
    return ["mask"]


def test_another_package_adds_a_format_by_an_entry_point(made, tmp_path: Path, monkeypatch) -> None:
    from importlib import metadata

    found = [metadata.EntryPoint("list", f"{__name__}:list_only", formats.GROUP)]
    found += [metadata.EntryPoint("coco", "nowhere:nothing", formats.GROUP)]
    found += [metadata.EntryPoint("broken", "nowhere:nothing", formats.GROUP)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: found if group == formats.GROUP else [])
    assert export(made[0], tmp_path / "set", format="list", draft=True)["lost_fields"] == ["mask"]
    assert len((tmp_path / "set" / "names.txt").read_text().split()) == 46
    export(made[0], tmp_path / "coco", format="coco", draft=True)  # ours cannot be replaced
    with pytest.raises(UserError, match="'broken' .* cannot be loaded"):
        export(made[0], tmp_path / "b", format="broken", draft=True)
    with pytest.raises(UserError, match="choose one of imagefolder, .*nnunet, broken, list"):
        export(made[0], tmp_path / "b", format="tfrecord", draft=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from tigerdata.export import export, formats
from tigerdata.workspace import Workspace
put, left = formats.put, [5]
def dying(path, content):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    put(path, content)
formats.put = dying
export(Workspace.open(sys.argv[1]), sys.argv[2], sys.argv[3], draft=True)
"""


def test_a_kill_half_way_leaves_no_folder_and_the_same_command_succeeds(made, tmp_path: Path) -> None:
    ws, run, _ = made
    words = [sys.executable, "-c", KILLED, str(ws.path), str(tmp_path / "set"), str(run)]
    assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == -9
    assert [p.name for p in tmp_path.iterdir()] == [".partial-set"]
    assert len(list(tmp_path.rglob("*.png"))) == 5
    assert export(ws, tmp_path / "set", run, draft=True)["images"] == 66
    assert [p.name for p in tmp_path.iterdir()] == ["set"] and len(list(tmp_path.rglob("*.png"))) == 66
