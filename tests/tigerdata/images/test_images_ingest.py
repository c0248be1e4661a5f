"""Ingest of a set: what goes in, what is counted, and that doing it twice changes nothing."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from kb.errors import UserError
from tigerdata.identity import pseudonyms
from tigerdata.images import duplicates
from tigerdata.images.ingest import ingest_images
from tigerdata.prompts import build_prompts
from tigerdata.regions import masks
from tigerdata.reports.ingest import ingest_reports
from tigerdata.workspace import Workspace

TABLES = ("images", "regions", "nodules", "findings", "patients")


def dump(ws: Workspace) -> dict[str, list]:
    with ws.connect(read_only=True) as con:
        return {t: con.execute(f"SELECT * FROM {t} ORDER BY ALL").fetchall() for t in TABLES}


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def test_rows_frames_and_masks(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed(
        [
            {
                "patient_id": "P1",
                "exam_id": "E1",
                "plane": "transverse",
                "cohort": "train",
                "label": "PTC",
                "sex": "F",
                "age": "41",
            }
        ]
    )
    result = ingest_images(ws, root)
    assert (result["files"], result["images"], result["new"], result["nodule_masks"]) == (1, 1, 1, 1)
    original = root / "000.png"
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    found = dump(ws)
    (row,) = found["images"]
    assert row[:12] == (
        sha256[:16], sha256, str(original), 80, 64, "P1", "E1", "transverse", "PTC", "train", "csv", None,
    )  # fmt: skip
    # No scale, no report; the only frame, as it was; no header; the size of the file.
    assert row[12:] == (None, None, 0, None, None, 80, 64)
    assert found["patients"] == [("P1", "female", 41.0, "images:csv")]
    np.testing.assert_array_equal(cv2.imread(str(ws.frame_path(sha256[:16])), 0), cv2.imread(str(original), 0))
    (region,) = found["regions"]
    mask = cv2.imread(str(root / "masks" / "000.png"), 0) > 127
    np.testing.assert_array_equal(masks.load(ws, region[3]), mask)
    assert region[4] == "import:csv" and region[5] == pytest.approx(mask.mean())


def test_twice_is_once_and_originals_stay_untouched(small_ws: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows, derived, originals = dump(small_ws), tree(small_ws.path / "images"), tree(root)
    again = ingest_images(small_ws, root / "images.csv")
    assert again["new"] == 0 and again["images"] == 24
    assert dump(small_ws) == rows
    assert tree(small_ws.path / "images") == derived and tree(root) == originals


def test_a_read_only_folder_works(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": "P1"}])
    os.chmod(root, 0o555)
    try:
        assert ingest_images(ws, root)["images"] == 1
    finally:
        os.chmod(root, 0o755)


def test_changed_columns_are_taken_over(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": "", "label": ""}])
    ingest_images(ws, root)
    table = root / "images.csv"
    table.write_text("file,mask_file,patient_id,label,margin\n000.png,masks/000.png,P9,FTC,clear;smooth\n")
    assert ingest_images(ws, root)["new"] == 0
    found = dump(ws)
    assert found["images"][0][5] == "P9" and found["images"][0][8] == "FTC"
    assert [(f[3], f[4], f[11]) for f in found["findings"]] == [
        ("margin", "clear", "source:csv"),
        ("margin", "smooth", "source:csv"),
    ]


def test_bad_files_are_counted_and_the_good_ones_go_in(
    ws: Workspace, listed: Callable[..., Path], tmp_path: Path
) -> None:
    root = listed([{"patient_id": f"P{k}"} for k in range(3)])
    (root / "html.png").write_text("<html>")
    (root / "empty.png").write_bytes(b"")
    (root / "small.png").write_bytes((root / "masks" / "000.png").read_bytes())
    cv2.imwrite(str(root / "masks" / "001.png"), np.full((10, 10), 255, np.uint8))
    with open(root / "images.csv", "a") as table:
        table.write("html.png,,P8\nempty.png,,P8\n../set/../secret.png,,P8\ngone.png,,P8\n000.png,,P0\n001.png,,P7\n")
        table.write("002.png,../../outside.png,P2\n")
    result = ingest_images(ws, root)
    assert result["images"] == 3 and result["nodule_masks"] == 2
    assert result["rejected_by_code"] == {
        "DUPLICATE_FILE": 2,
        "DUPLICATE_OF_ANOTHER_PATIENT": 1,
        "EMPTY_FILE": 1,
        "MISSING_FILE": 1,
        "NODULE_MASK:MASK_SIZE": 1,
        "PATH_OUTSIDE_ROOT": 1,
        "UNSUPPORTED_FORMAT": 1,
    }
    assert {"where": "images.csv:5", "code": "UNSUPPORTED_FORMAT"} in result["rejected"]
    codes = {row[11] for row in dump(ws)["images"]}
    assert codes == {None, "UNSUPPORTED_FORMAT", "DUPLICATE_OF_ANOTHER_PATIENT"}
    assert result["files"] == result["taken"] + 7


def test_rejected_images_make_no_prompt(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": "P0", "label": "PTC"}])
    (root / "empty.png").write_bytes(b"")
    with open(root / "images.csv", "a") as table:
        table.write("empty.png,,P0,PTC\n")
    ingest_images(ws, root)
    assert build_prompts(ws)["prompts"] == 1


def test_patients_keep_what_another_source_said(ws: Workspace, listed: Callable[..., Path]) -> None:
    with ws.connect() as con:
        con.execute("INSERT INTO patients VALUES ('P0', 'M', NULL, 'reports')")
    ingest_images(ws, listed([{"patient_id": "P0", "sex": "F", "age": "50"}]))
    assert dump(ws)["patients"] == [("P0", "M", 50.0, "reports")]


@pytest.mark.parametrize(
    "content, code",
    [
        ("file,plane\n000.png,axial\n", "UNKNOWN_VALUE:sonogram_direction"),
        ("file,age\n000.png,many\n", "UNKNOWN_VALUE:age"),
        ("file,age\n000.png,131\n", "UNKNOWN_VALUE:age"),
        ("file,sex\n000.png,?\n", "UNKNOWN_VALUE:sex"),
        ("file,margin\n000.png,张三丰\n", "UNKNOWN_VALUE:margin"),
    ],
)
def test_a_cell_that_cannot_be_read_is_counted_and_not_repeated(
    ws: Workspace, listed: Callable[..., Path], content: str, code: str
) -> None:
    root = listed([{}])
    (root / "images.csv").write_text(content, encoding="utf-8")
    result = ingest_images(ws, root)
    assert result["images"] == 1 and result["rejected"] == [{"where": "images.csv:2", "code": code}]
    assert result["unknown_values"] == {code.partition(":")[2]: 1}
    assert "张" not in repr(result)


def test_a_damaged_row_costs_itself_and_a_table_without_files_is_refused(
    ws: Workspace, listed: Callable[..., Path], tmp_path: Path
) -> None:
    root = listed([{}, {}])
    (root / "images.csv").write_text("file\n000.png,y\n001.png\n")
    result = ingest_images(ws, root)
    assert result["images"] == 1 and result["rejected"] == [{"where": "images.csv:2", "code": "UNREADABLE_ROW"}]
    (tmp_path / "images.csv").write_text("name\nx.png\n")
    with pytest.raises(UserError, match="no column 'file'"):
        ingest_images(ws, tmp_path)


def test_tables_of_a_chinese_spreadsheet_are_read(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": "患者甲"}])
    table = root / "images.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("gb18030"))
    ingest_images(ws, root)
    assert dump(ws)["images"][0][5] == "患者甲"


def test_unknown_source_and_missing_table(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imagefolder"):
        ingest_images(ws, tmp_path, source="tapes")
    with pytest.raises(UserError, match="does not exist"):
        ingest_images(ws, tmp_path / "nothing.csv")


def test_progress_reaches_the_total(ws: Workspace, listed: Callable[..., Path]) -> None:
    events: list[dict] = []
    ingest_images(ws, listed([{}, {}]), progress=events.append)
    assert [(e["step"], e["steps"]) for e in events] == [(1, 2), (2, 2)]


def test_an_image_is_linked_by_its_report_alone(tmp_path: Path, listed: Callable[..., Path]) -> None:
    """Two reports of one examination: the report id says which one describes the image, and whose it is."""
    ws = Workspace.create(tmp_path / "keyed")
    (tmp_path / "reports.csv").write_text(
        "report_id,patient_id,exam_id,findings\n"
        "R1,P1,E1,左叶中部见一低回声结节，大小约12×8mm，实性。\nR2,P1,E1,右叶下极见一等回声结节，大小约7×5mm，囊性。\n",
        encoding="utf-8",
    )
    ingest_reports(ws, tmp_path / "reports.csv")
    rows = [
        {"report_id": "R1", "label": "PTC"},
        {"report_id": "R2", "label": "PTC"},
        {"report_id": "R2", "label": "PTC", "patient_id": "P9"},
    ]
    assert ingest_images(ws, listed(rows))["report_of_another_patient"] == 1
    known = pseudonyms(ws)
    with ws.connect(read_only=True) as con:
        found = con.execute("SELECT patient_id, exam_id, report_id FROM images ORDER BY path").fetchall()
    patient, exam = known.of("patient", "P1"), known.of("exam", "E1")
    assert found == [
        (patient, exam, known.of("report", "R1")),
        (patient, exam, known.of("report", "R2")),
        (known.of("patient", "P9"), exam, known.of("report", "R2")),
    ]
    build_prompts(ws)
    with ws.connect(read_only=True) as con:
        said = con.execute(
            "SELECT p.fg || ' ' || p.bg FROM prompts p JOIN images i USING (image_id) ORDER BY i.path"
        ).fetchall()
    assert "hypoechoic" in said[0][0] and "left" in said[0][0] and "right" in said[1][0]


def test_a_set_is_stored_as_a_whole_or_not_at_all(
    ws: Workspace, listed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault at the last moment leaves no row and no part; the same command again stores everything."""
    root = listed([{"patient_id": f"P{k}"} for k in range(5)])

    def fails(*_: object) -> dict[str, int]:
        raise OSError("disk full")

    monkeypatch.setattr(duplicates, "update", fails)
    with pytest.raises(OSError, match="disk full"):
        ingest_images(ws, root)
    assert not any(dump(ws).values()) and not list(ws.path.glob(".ingest-*"))
    monkeypatch.undo()
    assert ingest_images(ws, root)["new"] == 5


def test_views_that_are_no_longer_made_go_with_their_masks(ws: Workspace, listed: Callable[..., Path]) -> None:
    ingest_images(ws, listed([{"patient_id": "P0"}]))
    with ws.connect() as con:
        con.execute("INSERT INTO images (image_id, sha256, path) SELECT 'old', sha256, path FROM images")
        con.execute("INSERT INTO regions (region_id, image_id, kind) VALUES ('old.nodule', 'old', 'nodule')")
    ingest_images(ws, ws.path.parent / "set")
    assert len(dump(ws)["images"]) == len(dump(ws)["regions"]) == 1


def test_the_same_file_of_a_later_set_does_not_change_its_patient(ws: Workspace, listed: Callable[..., Path]) -> None:
    ingest_images(ws, listed([{"patient_id": "P0"}], folder="one"))
    second = listed([{"patient_id": "P1"}], folder="two")
    assert ingest_images(ws, second)["rejected_by_code"] == {"DUPLICATE_OF_ANOTHER_PATIENT": 1}
    with ws.connect(read_only=True) as con:
        assert con.execute("SELECT patient_id FROM images WHERE rejected IS NULL").fetchall() == [("P0",)]
    # A set that was moved is the same set.
    (ws.path.parent / "one").rename(ws.path.parent / "gone")
    assert ingest_images(ws, second)["taken"] == 1


def test_an_archive_is_to_be_unpacked(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="unpack"):
        ingest_images(ws, tmp_path / "set.zip")
