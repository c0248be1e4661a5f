"""Tables that users bring: Chinese columns, wordings of the vocabulary, several masks, spreadsheets, a mapping."""

from pathlib import Path

import openpyxl
import pytest

import kb
from kb.errors import UserError
from tigerdata.images.ingest import ingest_images
from tigerdata.sources import table
from tigerdata.sources.records import ImageRecord, SourceSet
from tigerdata.workspace import Workspace

BASE = kb.load("thyroid")


def read(folder: Path, text: str, **settings: dict[str, str]) -> SourceSet:
    (folder / "images.csv").write_text(text, encoding="utf-8")
    return table.read(folder, BASE, settings)


def said(record: ImageRecord) -> list[tuple[str, str, str]]:
    return [(d.attribute, d.value, d.surface) for d in record.descriptors]


def test_a_chinese_table(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "文件名,病人编号,检查号,性别,年龄,切面,类别,边界,钙化,回声,姓名,最大径mm\n"
        "a/1.png,00012,E1,女,41岁,横切面,PTC,不清,无,低回声；等回声,王某,12.5\n",
    )
    (record,) = found.records
    assert (record.file, record.patient_id, record.exam_id) == ("a/1.png", "00012", "E1")
    assert (record.sex, record.age, record.plane, record.label) == ("female", 41.0, "transverse", "PTC")
    assert sorted(said(record)) == [
        ("calcification", "absent", "无"),
        ("diameter", "middle", "12.5"),
        ("echogenicity", "hypoechoic", "低回声"),
        ("echogenicity", "isoechoic", "等回声"),
        ("margin", "unclear", "不清"),
    ]
    assert next(d.number for d in record.descriptors if d.attribute == "diameter") == 12.5
    assert found.counts == {"ignored_column:姓名": 1} and not found.unknown


def test_a_value_may_be_its_name_its_phrase_or_any_wording_and_nothing_else(tmp_path: Path) -> None:
    found = read(tmp_path, "file,margin\n1.png,clear;Clear margin;well-defined;边界清晰;clearish\n")
    assert [v for _, v, _ in said(found.records[0])] == ["clear"] * 4
    assert found.unknown == {"margin": 1}


def test_a_wording_of_two_values_is_not_guessed(tmp_path: Path) -> None:
    reading = table.Reading(BASE, SourceSet("csv", tmp_path), ["file", "margin"], "t", {})
    reading._wordings["margin"] = {"soft": {"clear", "unclear"}}
    assert reading.record({"file": "a", "margin": "soft"}, "t:2").descriptors == ()
    assert reading.given.unknown == {"margin": 1}


def test_several_masks_of_a_nodule_are_united(ws: Workspace, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    root = tmp_path / "s"
    root.mkdir()
    cv2.imwrite(str(root / "1.png"), np.arange(40 * 50, dtype=np.uint8).reshape(40, 50))
    parts = []
    for number, columns in enumerate([(5, 15), (12, 20), (30, 35)]):
        mask = np.zeros((40, 50), np.uint8)
        mask[10:20, slice(*columns)] = 255
        cv2.imwrite(str(root / f"m{number}.png"), mask)
        parts.append(mask > 0)
    (root / "images.csv").write_text("file,mask_1,mask_2\n1.png,m0.png;m1.png,m2.png\n")
    assert ingest_images(ws, root)["nodule_masks"] == 1
    with ws.connect(read_only=True) as con:
        area, flags = con.execute("SELECT area, flags FROM regions").fetchone()
    assert area == pytest.approx(np.logical_or.reduce(parts).mean()) and flags == "several_parts"


def test_a_spreadsheet_and_a_mapping(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["扫描", "患者ID", "echo"], ["1.png", "007", "hypoechoic"]):
        book.active.append(row)
    book.save(tmp_path / "list.xlsx")
    mapping = {"file": "扫描", "echogenicity": "echo"}
    (record,) = table.read(tmp_path / "list.xlsx", BASE, {"map": mapping}).records
    assert (record.file, record.patient_id, said(record)) == (
        "1.png", "007", [("echogenicity", "hypoechoic", "hypoechoic")],
    )  # fmt: skip
    with pytest.raises(UserError, match="--map file=nowhere"):
        table.read(tmp_path / "list.xlsx", BASE, {"map": {"file": "nowhere"}})
    with pytest.raises(UserError, match="--map file=COLUMN"):
        table.read(tmp_path / "list.xlsx", BASE, {})


def test_a_plane_in_an_organ_without_planes_is_counted(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("file,plane\n1.png,transverse\n")
    found = table.read(tmp_path, kb.load("chest"), {})
    assert found.records[0].plane is None and found.unknown == {"sonogram_direction": 1}
