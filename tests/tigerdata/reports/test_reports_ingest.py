"""Reports and pathology through the library into the tables of a workspace."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kb.errors import UserError
from tigerdata.reports import statistics
from tigerdata.reports.ingest import ingest_pathology, ingest_reports
from tigerdata.reports.stream import parse_stream
from tigerdata.workspace import Workspace

ROWS: list[dict[str, Any]] = [
    {"报告编号": "r1", "患者ID": "p1", "检查号": "e1", "性别": "女", "年龄": "45岁",
     "超声所见": "患者王小明，左叶上极见一低回声实性结节，大小约12×8mm，未见钙化。",
     "超声提示": "左叶结节，C-TIRADS 4A类"},
    {"报告编号": "r2", "患者ID": "p2", "检查号": "e2", "性别": "男", "年龄": "50",
     "超声所见": "甲状腺未见明显异常。", "超声提示": ""},
    {"报告编号": "r3", "患者ID": "p2", "检查号": "e3", "性别": "男", "年龄": "51", "超声所见": "", "超声提示": ""},
]  # fmt: skip


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws")


def write(path: Path, kind: str) -> Path:
    frame = pd.DataFrame(ROWS)
    file = path / f"export.{kind.split('-')[0]}"
    if kind == "csv-gbk":
        file.write_bytes(frame.to_csv(index=False).encode("gb18030"))
    elif kind == "csv-bom":
        file.write_bytes(frame.to_csv(index=False).encode("utf-8-sig"))
    elif kind == "tsv":
        frame.to_csv(file, index=False, sep="\t")
    elif kind == "xlsx":
        frame.to_excel(file, index=False)
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")
    else:
        frame.to_parquet(file)
    return file


def query(ws: Workspace, sql: str) -> list[tuple[Any, ...]]:
    with ws.connect(read_only=True) as con:
        return con.execute(sql).fetchall()


@pytest.mark.parametrize("kind", ["csv-gbk", "csv-bom", "tsv", "xlsx", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows_once(ws: Workspace, tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    first = ingest_reports(ws, file)
    assert (first["reports"], first["nodules"], first["rejected"], first["personal_data_removed"]) == (2, 1, 1, 1)
    again = ingest_reports(ws, [file])
    assert (again["reports"], again["already_known"]) == (0, 2)
    assert query(ws, "SELECT patient_id, sex, age FROM patients ORDER BY 1") == [
        ("p1", "female", 45),
        ("p2", "male", 50),
    ]
    found = query(ws, "SELECT attribute, value, number FROM findings WHERE nodule_id = 'r1#1' ORDER BY ALL")
    assert ("calcification", "absent", None) in found
    assert ("diameter", "middle", 12.0) in found
    assert ("diameter_mm", None, 8.0) in found
    assert ("nodule_location", "upper", None) in found
    assert ("tirads", "C-TIRADS 4A", None) in found


def test_offsets_lead_into_the_stored_text_and_nothing_personal_is_stored(ws: Workspace, tmp_path: Path) -> None:
    ingest_reports(ws, write(tmp_path, "csv-gbk"))
    rows = query(
        ws, "SELECT r.text, f.surface, f.start_char, f.end_char FROM findings f JOIN reports r USING (report_id)"
    )
    assert len(rows) > 8
    assert all(text[start:end] == surface for text, surface, start, end in rows)
    everything = "".join(str(query(ws, f"SELECT * FROM {t}")) for t in ("reports", "patients", "findings", "nodules"))
    assert "王小明" not in everything and "[NAME]" in everything


def test_rejects_name_the_line_and_not_the_text(ws: Workspace, tmp_path: Path) -> None:
    file = write(tmp_path, "csv-bom")
    ingest_reports(ws, file)
    assert (ws.path / "rejects.csv").read_text(encoding="utf-8") == "kind,place,reason\nreports,export.csv:4,no text\n"
    other = tmp_path / "other.csv"
    other.write_text("report_id,text\nr1,Normal thyroid.\n", encoding="utf-8")
    counts = ingest_reports(ws, other)
    assert counts["rejected"] == 1
    assert "belongs to another text" in (ws.path / "rejects.csv").read_text(encoding="utf-8")
    assert "Normal" not in (ws.path / "rejects.csv").read_text(encoding="utf-8")


def test_a_folder_of_texts(ws: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.txt").write_text("Left lobe nodule, 8 mm.", encoding="utf-8")
    (folder / "two.txt").write_bytes("右叶见一结节，大小6mm。".encode("gbk"))
    assert ingest_reports(ws, folder)["nodules"] == 2
    assert query(ws, "SELECT report_id, language FROM reports ORDER BY 1") == [("one", "en"), ("two", "zh")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"colour,shape\nred,round\n", "no column with the text"),
        ("a.jsonl", b'{"text": "x"}\n{broken\n', "a.jsonl:2 is not JSON"),
        ("a.pdf", b"%PDF", "unknown format"),
        ("a.parquet", b"nothing", "no Parquet file"),
        ("a.xlsx", b"nothing", "no XLSX file"),
        ("a.csv", b"", "cannot be read as a table"),
        ("a.csv", b"text\n\xff\xff\xff\xff\n", "neither UTF-8 nor GBK"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    ws: Workspace, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        ingest_reports(ws, tmp_path / name)
    with pytest.raises(UserError, match="no file or folder"):
        ingest_reports(ws, tmp_path / "missing.csv")


def test_pathology_labels_patients(ws: Workspace, tmp_path: Path) -> None:
    ingest_reports(ws, write(tmp_path, "csv-bom"))
    file = tmp_path / "pathology.csv"
    file.write_text(
        "patient_id,exam_id,text\np1,e1,甲状腺滤泡癌\np2,,髓样癌及乳头状癌\n,e9,乳头状癌\n", encoding="utf-8"
    )
    counts = ingest_pathology(ws, file)
    assert counts["subtypes"] == {"FTC": 1, "MTC": 1}
    assert (counts["conflicts"], counts["rejected"]) == (1, 1)
    assert ingest_pathology(ws, file)["already_known"] == 2
    assert query(ws, "SELECT subtype, surface, conflict FROM pathology ORDER BY 1") == [
        ("FTC", "甲状腺滤泡癌", None),
        ("MTC", "髓样癌", "MTC; PTC"),
    ]
    counted = statistics.attribute_counts(ws)
    assert counted["attributes"]["echogenicity"] == {"hypoechoic": {"FTC": 1}}
    assert counted["attributes"]["nodule_location"]["upper"] == {"FTC": 1}


def test_terms_of_a_class_carry_role_share_and_weight(ws: Workspace, tmp_path: Path) -> None:
    ingest_reports(ws, write(tmp_path, "csv-bom"))
    table = {row["phrase"]: row for row in statistics.term_table(ws, "FTC")}
    assert table["unevenly thick halo"]["role"] == "particular"
    assert table["unevenly thick halo"]["weight"] == pytest.approx(3.1)
    # solid, hypoechoic, no calcification, middle nodule: one phrase of four each
    assert table["solid"]["tau"] == pytest.approx(0.25)
    assert table["solid"]["weight"] == pytest.approx(1.7135, abs=1e-4), "0.6 + 5 / (1 + e^1.25)"
    with pytest.raises(UserError, match="XYZ"):
        statistics.term_table(ws, "XYZ")


def test_coverage_counts_what_the_vocabulary_explains(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n左叶低回声\n", encoding="utf-8")
    ingest_reports(ws, tmp_path / "a.csv")
    assert statistics.coverage(ws)["explained"] == 1.0
    (tmp_path / "b.csv").write_text("text\n左叶猫狗鱼鸟虫\n", encoding="utf-8")
    ingest_reports(ws, tmp_path / "b.csv")
    found = statistics.coverage(ws)
    assert found["explained"] == pytest.approx(7 / 12, abs=1e-4)
    assert found["unexplained"] == {}


def test_the_stream_reads_text_and_jsonl(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("左叶结节，大小8mm。", encoding="utf-8")
    assert [(r["id"], len(r["nodules"])) for r in parse_stream(str(tmp_path / "one.txt"))] == [("one", 1)]
    (tmp_path / "p.jsonl").write_text('{"id": 7, "text": "髓样癌"}\n\n{"text": "NIFTP"}\n', encoding="utf-8")
    found = list(parse_stream(str(tmp_path / "p.jsonl"), pathology=True))
    assert [(r["id"], r["subtype"]) for r in found] == [(7, "MTC"), ("p.jsonl:3", "indeterminate")]
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": 2}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"bad\.jsonl:2 has no text"):
        list(parse_stream(str(tmp_path / "bad.jsonl")))
    with pytest.raises(UserError, match="no file"):
        list(parse_stream(str(tmp_path / "none.txt")))
