"""Readers of image sets: DDTI panels and words, class folders; the real DDTI set where it is there."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import kb
from kb.errors import UserError
from tigerdata import sources
from tigerdata.images.ingest import ingest_images
from tigerdata.prompts import build_prompts
from tigerdata.regions import masks
from tigerdata.sources import ddti, imagefolder
from tigerdata.splits import split
from tigerdata.workspace import DEFAULT_SETTINGS, Workspace

BASE = kb.load("thyroid")


def panel(left: tuple[int, int], right: tuple[int, int] | None, seed: int = 0) -> np.ndarray:
    """Noise views at the given columns on black, 315 x 500 like the set's files."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((315, 500), np.uint8)
    for start, stop in filter(None, (left, right)):
        texture = cv2.GaussianBlur(rng.normal(0, 60, (301, stop - start)), (0, 0), 3) * 4
        frame[7:308, start:stop] = np.clip(90 + texture, 20, 255)
    return frame


def write_ddti(folder: Path, margin: str = "ill-defined") -> Path:
    folder.mkdir()
    for name, spans, ellipses in (
        ("7_1", ((57, 442), None), [200]),
        ("7_2", ((5, 250), (250, 496)), [120, 380]),
        ("8_1", ((7, 285), (285, 499)), [400]),
    ):
        cv2.imwrite(str(folder / f"{name}.a.jpg"), panel(*spans, seed=int(name[0])))
        mask = np.zeros((315, 500, 3), np.uint8)
        for x in ellipses:
            cv2.ellipse(mask, (x, 150), (40, 25), 0, 0, 360, (0, 255, 0), -1)
        mask[250:300, 60:100, 2] = 255  # another structure, in red
        cv2.imwrite(str(folder / f"{name}.b.jpg"), mask)
    (folder / "labels.csv").write_text(
        "image_id,folder,composition,echogenicity,margins,calcifications,tirads,sex,age\n"
        f"7_1,na,solid,marked-hypoechogenicity,{margin},microcalcification,4c,F,58\n"
        "7_2,na,solid,,,non,,F,58\n9_1,na,,,,,2,,\n"
    )
    return folder


def test_a_ddti_folder_becomes_frames_findings_and_classes(ws: Workspace, tmp_path: Path) -> None:
    result = ingest_images(ws, write_ddti(tmp_path / "d"), "ddti")
    assert (result["files"], result["images"], result["panels_split"], result["view_without_mask"]) == (3, 4, 2, 1)
    assert result["row_without_file"] == 1 and result["file_without_row"] == 1
    with ws.connect(read_only=True) as con:
        found = con.execute(
            """SELECT attribute, value, surface, rule, certainty FROM findings JOIN nodules n USING (nodule_id)
               JOIN images i USING (image_id) WHERE i.width = 385 ORDER BY finding_id"""
        ).fetchall()
        rows = con.execute(
            "SELECT path, image_id, width, label, patient_id FROM images ORDER BY path, image_id"
        ).fetchall()
        sex = con.execute("SELECT patient_id, sex, age FROM patients ORDER BY 1").fetchall()
        regions = dict(con.execute("SELECT image_id, path FROM regions").fetchall())
    assert found == [
        ("composition", "solid", "solid", "source:ddti", "positive"),
        ("echogenicity", "markedly_hypoechoic", "marked-hypoechogenicity", "source:ddti", "positive"),
        ("margin", "unclear", "ill-defined", "source:ddti", "positive"),
        ("calcification", "microcalcification", "microcalcification", "source:ddti", "positive"),
        ("tirads", "4C", "4c", "source:ddti", "positive"),
    ]
    assert [(Path(r[0]).name, r[2], r[3], r[4]) for r in rows if r[2] != 245 and r[2] != 246] == [
        ("7_1.a.jpg", 385, "tr_high", "ddti-7"), ("8_1.a.jpg", 214, None, "ddti-8"),
    ]  # fmt: skip
    assert sorted(r[2] for r in rows if Path(r[0]).name == "7_2.a.jpg") == [245, 246]
    assert sex == [("ddti-7", "female", 58.0), ("ddti-8", None, None)]
    for _, image_id, width, _, _ in rows:
        mask = masks.load(ws, regions[image_id])
        assert mask.shape == (301, width) and mask.sum() == pytest.approx(np.pi * 40 * 25, rel=0.05)  # green only


def test_the_classes_of_ddti_are_a_setting(tmp_path: Path) -> None:
    folder = write_ddti(tmp_path / "d")
    labels = {**DEFAULT_SETTINGS["ddti"]["labels"], "4c": "suspicious"}
    found = ddti.read(folder, BASE, {"labels": labels})
    assert [r.label for r in found.records] == ["suspicious", None, None]


def test_an_unknown_word_of_ddti_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = ddti.read(write_ddti(tmp_path / "d", margin="wobbly"), BASE, DEFAULT_SETTINGS["ddti"])
    assert found.unknown == {"margins=wobbly": 1}
    assert found.rejected == [{"where": "labels.csv:2", "code": "UNKNOWN_VALUE:margins"}]
    assert [d.attribute for d in found.records[0].descriptors] == [
        "composition", "echogenicity", "calcification", "tirads",
    ]  # fmt: skip
    with pytest.raises(UserError, match="neither labels.csv nor .xml"):
        ddti.read(tmp_path, BASE, DEFAULT_SETTINGS["ddti"])


def write_classes(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("train/PTC/a.png", "train/benign/b.jpg", "val/PTC/c.png", "test/benign/d.png", "train/masks/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), rng.integers(0, 256, (40, 40), dtype=np.uint8))
    (root / "train" / "metadata.jsonl").write_text(
        '{"file_name": "PTC/a.png", "patient_id": "P1", "mask_file_name": "masks/a.png"}\n\n'
        '{"file_name": "benign/b.jpg", "patient_id": "P2", "label": "PTC"}\n'
    )
    return root


def test_class_folders_give_class_and_cohort(tmp_path: Path) -> None:
    found = {r.file: r for r in imagefolder.read(write_classes(tmp_path / "s"), BASE, {}).records}
    assert {k: (r.label, r.cohort, r.patient_id) for k, r in found.items()} == {
        "train/PTC/a.png": ("PTC", "train", "P1"),
        "train/benign/b.jpg": ("PTC", "train", "P2"),
        "val/PTC/c.png": ("PTC", "val", None),
        "test/benign/d.png": ("benign", "test", None),
    }
    assert found["train/PTC/a.png"].masks == {"nodule": ("train/masks/a.png",)}


def test_a_folder_without_images_and_broken_metadata(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        imagefolder.read(tmp_path, BASE, {})
    root = write_classes(tmp_path / "s")
    (root / "train" / "metadata.jsonl").write_text('{"file_name": "PTC/a.png"}\n{oops\n{"file_name": "PTC/gone.png"}\n')
    found = imagefolder.read(root, BASE, {})
    assert found.rejected == [{"where": "metadata.jsonl:2", "code": "UNREADABLE_ROW"}]
    # The mask that no row names any more is no image of a class "masks".
    assert len(found.records) == 4 and found.counts["mask_without_row"] == 1 and found.counts["row_without_file"] == 1


def test_metadata_of_class_folders_brings_attributes(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "s")
    (root / "train" / "metadata.jsonl").write_text(
        '{"file_name": "PTC/a.png", "margin": ["clear", "smooth margin"], "sex": "女", "age": 41, "note": "x"}\n'
        '{"file_name": "benign/b.jpg", "margin": "fuzzy"}\n'
    )
    found = imagefolder.read(root, BASE, {})
    one = next(r for r in found.records if r.file == "train/PTC/a.png")
    assert [(d.value, d.surface) for d in one.descriptors] == [("clear", "clear"), ("smooth", "smooth margin")]
    assert (one.sex, one.age) == ("female", 41.0)
    assert found.unknown == {"margin": 1} and found.counts["ignored_column:note"] == 1


@pytest.mark.realdata
def test_the_real_ddti_set(ws: Workspace, real_data: Path) -> None:
    """All 476 files are accounted for; every descriptor of labels.csv arrives, once a view."""
    folder = real_data / "ddti"
    result = ingest_images(ws, folder, "ddti")
    copies = result["rejected_by_code"]
    assert result["files"] == 476 and set(copies) == {"DUPLICATE_FILE", "DUPLICATE_OF_ANOTHER_PATIENT"}
    with ws.connect(read_only=True) as con:
        files = con.execute("SELECT count(DISTINCT path) FROM images WHERE rejected IS NULL").fetchone()[0]
        told = con.execute(
            """SELECT attribute, surface, count(DISTINCT i.path) FROM findings JOIN nodules USING (nodule_id)
               JOIN images i USING (image_id) GROUP BY ALL"""
        ).fetchall()
        unmasked = con.execute(
            "SELECT count(*) FROM images WHERE rejected IS NULL AND image_id NOT IN (SELECT image_id FROM regions)"
        ).fetchone()[0]
        paths = {Path(row[0]).name for row in con.execute("SELECT path FROM images WHERE rejected IS NULL").fetchall()}
    assert files + sum(copies.values()) == 476 and unmasked == 0
    assert result["images"] - files == result["panels_split"] - result["view_without_mask"] > 100
    # An independent count of the table, with the set's own words.
    lines = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    expected: Counter[str] = Counter(
        word for cells in lines if f"{cells[0]}.a.jpg" in paths for word in cells[2:7] if word
    )
    counted: Counter[str] = Counter()
    for _, surface, n in told:
        counted[surface] += n
    assert counted == expected and sum(expected.values()) > 1500
    # Frames that were saved again under another patient number: looked at in pairs, they are the same frames.
    assert 85 <= result["duplicate_groups_across_patients"] <= 95
    with ws.connect(read_only=True) as con:
        alike = con.execute("SELECT min(correlation), count(*) FROM duplicates").fetchone()
    # The least alike, of .978, differ in a corner that cleaning filled; what is no copy reaches .85 (duplicates.py).
    assert alike[0] > 0.97 and alike[1] == result["duplicate_images"]
    made = build_prompts(ws)
    assert made["prompts"] + made["no_label"] == result["images"]
    counts = split(ws)
    assert all({"tr_low", "tr_high"} <= set(row) for row in counts.values())


def test_a_reader_of_another_distribution(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    cv2.imwrite(str(tmp_path / "1.png"), panel((57, 442), None))
    (tmp_path / "hospital_reader.py").write_text(
        "from tigerdata.sources.records import ImageRecord, SourceSet\n"
        "def read(path, base, settings):\n"
        "    return SourceSet('hospital', path, [ImageRecord('1.png', '1.png', label='benign')])\n"
    )
    points = [
        EntryPoint("hospital", "hospital_reader", sources.GROUP), EntryPoint("gone", "no_such_module", sources.GROUP),
        EntryPoint("ddti", "hospital_reader", sources.GROUP),
    ]  # fmt: skip
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ingest_images(ws, tmp_path, "hospital")["images"] == 1
    assert sources.reader("ddti") is ddti.read
    with pytest.raises(UserError, match="cannot be loaded"):
        sources.reader("gone")
    with pytest.raises(UserError, match="hospital"):
        sources.reader("nothing")
