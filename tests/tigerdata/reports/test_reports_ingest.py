"""Reports and pathology through the library into the tables of a workspace."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kb.errors import UserError
from tigerdata.reports import commit, parser, rows, statistics
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
    """Ids are kept here, so that tests can name them; test_reports_identity.py tests the keyed ones."""
    return Workspace.create(tmp_path / "ws", settings={"privacy": {"ids": "kept"}})


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
    assert "王小明" not in everything and "患者███，左叶" in everything


def test_rejects_name_the_line_and_not_the_text(ws: Workspace, tmp_path: Path) -> None:
    file = write(tmp_path, "csv-bom")
    found = ingest_reports(ws, file)
    table = "kind,file,line,reason,count\n"
    assert (ws.path / "rejects.csv").read_text(encoding="utf-8") == table + "reports,export.csv,4,no text,1\n"
    assert found["rejected_by_reason"] == {"no text": 1} and "rejects.csv" in found["next"]
    other = tmp_path / "other.csv"
    other.write_text("report_id,patient_id,text\nr1,p9,Normal thyroid.\nx,p1,\ny,p1,\nz,p1,\n", encoding="utf-8")
    counts = ingest_reports(ws, other)
    assert (counts["rows"], counts["rejected"]) == (4, 4)
    listed = (ws.path / "rejects.csv").read_text(encoding="utf-8")
    first = "reports,export.csv,4,no text,1\n"  # of the file before, which nobody has corrected yet
    assert listed == table + first + (
        "reports,other.csv,2,its report id belongs to a report of another patient,1\nreports,other.csv,3-5,no text,3\n"
    )
    assert "Normal" not in listed
    assert query(ws, "SELECT text FROM reports WHERE report_id = 'r1'")[0][0].startswith("超声所见")
    # What is right again is no longer listed.
    other.write_text("report_id,text\nx,Normal thyroid.\n", encoding="utf-8")
    ingest_reports(ws, other)
    assert (ws.path / "rejects.csv").read_text(encoding="utf-8") == table + first
    lines = file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    file.write_text("".join(lines[:3] + lines[4:]), encoding="utf-8-sig")
    ingest_reports(ws, file)
    assert not (ws.path / "rejects.csv").exists()


def test_a_corrected_report_replaces_its_facts_and_keeps_its_history(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    head = "report_id,patient_id,text\n"
    first = head + "a,p1,左叶见一低回声结节，大小约12×8mm。\nb,p2,甲状腺未见异常。\n"
    file.write_text(first, encoding="utf-8")
    ingest_reports(ws, file)
    old = query(ws, "SELECT finding_id, value FROM findings WHERE report_id = 'a' ORDER BY 1")
    file.write_text(head + "a,p1,右叶见一高回声结节。\nb,p2,甲状腺未见异常。\n", encoding="utf-8")
    counts = ingest_reports(ws, file)
    assert (counts["rows"], counts["reports"], counts["corrected"], counts["already_known"]) == (2, 1, 1, 1)
    assert "tigerdata prompts" in counts["next"]
    values = {row[0] for row in query(ws, "SELECT value FROM findings WHERE report_id = 'a'")}
    assert {"right", "hyperechoic"} <= values and not {"left", "hypoechoic"} & values
    ((version, text, kept),) = query(ws, "SELECT version, text, findings FROM report_versions")
    assert (version, text) == (1, "左叶见一低回声结节，大小约12×8mm。")
    assert [(f["finding_id"], f["value"]) for f in json.loads(kept)] == old
    # The older file again is no correction of the correction.
    file.write_text(first, encoding="utf-8")
    again = ingest_reports(ws, file)
    assert (again["reports"], again["already_known"]) == (0, 2) and "Nothing new" in again["next"]
    file.write_text(head + "a,p1,峡部见一结节。\n", encoding="utf-8")
    assert ingest_reports(ws, file)["corrected"] == 1
    assert query(ws, "SELECT version FROM report_versions ORDER BY 1") == [(1,), (2,)]
    assert query(ws, "SELECT count(*) FROM nodules WHERE report_id = 'a'") == [(1,)]


def test_without_report_ids_the_examination_is_the_report(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("检查号,患者ID,检查所见\ne1,p1,左叶结节。\ne1,p2,右叶结节。\n", encoding="utf-8")
    assert ingest_reports(ws, file)["reports"] == 2
    file.write_text("检查号,患者ID,检查所见\ne1,p1,左叶囊肿。\n", encoding="utf-8")
    assert ingest_reports(ws, file)["corrected"] == 1
    assert query(ws, "SELECT text FROM reports ORDER BY 1") == [("超声所见：右叶结节。",), ("超声所见：左叶囊肿。",)]


def test_an_id_twice_in_a_file_is_stored_once_and_the_other_row_listed(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,text\na,Left nodule.\na,Left nodule.\na,Right nodule.\n,Cyst.\n,Cyst.\n", encoding="utf-8")
    counts = ingest_reports(ws, file)
    assert (counts["rows"], counts["reports"], counts["already_known"], counts["rejected"]) == (5, 2, 2, 1)
    assert "its id is that of line 2 too" in (ws.path / "rejects.csv").read_text(encoding="utf-8")


def test_what_each_file_brought_is_noted_once(ws: Workspace, tmp_path: Path) -> None:
    file = write(tmp_path, "csv-gbk")
    ingest_reports(ws, file)
    ingest_reports(ws, file)
    columns = "kind, file, encoding, phi, rows_read, stored, corrected, already_known, rejected, removed"
    assert query(ws, f"SELECT {columns} FROM ingests") == [
        ("reports", "export.csv", "GB18030", "standard", 3, 2, 0, 0, 1, '{"name": 1}')
    ]


def test_rows_that_do_not_add_up_are_not_stored(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = commit.store_reports

    def loses_one(*arguments: Any) -> commit.Stored:
        found = original(*arguments)
        found.counts["reports"] -= 1
        return found

    monkeypatch.setattr(commit, "store_reports", loses_one)
    with pytest.raises(commit.Miscount, match="3 rows read, but 1 stored"):
        ingest_reports(ws, write(tmp_path, "csv-bom"))
    assert query(ws, "SELECT count(*) FROM reports") == [(0,)]
    assert not list(ws.path.glob(".ingest-*"))


def test_a_text_that_trips_the_parser_is_refused_and_no_other(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trips(text: str, domain: str) -> dict[str, Any]:
        return parser.parse(text, domain) if "odd" not in text else {}["odd"]

    monkeypatch.setattr(rows, "parse", trips)
    (tmp_path / "a.csv").write_text("id,text\na,Left nodule 8 mm.\nb,odd\nc,Cyst.\n", encoding="utf-8")
    counts = ingest_reports(ws, tmp_path / "a.csv")
    assert (counts["rows"], counts["reports"], counts["rejected"], counts["nodules"]) == (3, 2, 1, 2)
    assert "a.csv,3,the parser fails on its text" in (ws.path / "rejects.csv").read_text(encoding="utf-8")


def test_columns_are_mapped_by_hand(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("卡片,备注栏,findings\np7,左叶结节。,右叶结节。\n", encoding="utf-8")
    ingest_reports(ws, file, mapping={"findings": "备注栏", "patient_id": "卡片"})
    assert query(ws, "SELECT patient_id, text FROM reports") == [("p7", "超声所见：左叶结节。")]
    with pytest.raises(UserError, match="no column '所见'.*its columns are 卡片, 备注栏, findings"):
        ingest_reports(ws, file, mapping={"findings": "所见"})
    with pytest.raises(UserError, match="--map colour=…"):
        ingest_reports(ws, file, mapping={"colour": "卡片"})


def test_two_sexes_of_a_patient_are_counted_and_the_first_stays(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,patient_id,sex,age,text\na,p,女,96岁,x\nb,p,男,,y\n", encoding="utf-8")
    assert ingest_reports(ws, file)["patients_with_two_sexes"] == 1
    assert query(ws, "SELECT sex, age FROM patients") == [("female", 90.0)]


def test_a_folder_of_texts(ws: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.txt").write_text("Left lobe nodule, 8 mm.", encoding="utf-8")
    (folder / "two.txt").write_bytes("右叶见一结节，大小6mm。".encode("gbk"))
    assert ingest_reports(ws, folder)["nodules"] == 2
    assert query(ws, "SELECT report_id, language FROM reports ORDER BY 1") == [("one", "en"), ("two", "zh")]


def test_pathology_labels_patients(ws: Workspace, tmp_path: Path) -> None:
    ingest_reports(ws, write(tmp_path, "csv-bom"))
    file = tmp_path / "pathology.csv"
    file.write_text(
        "patient_id,exam_id,text\np1,e1,甲状腺滤泡癌\np2,,髓样癌及乳头状癌\n,e9,乳头状癌\n", encoding="utf-8"
    )
    counts = ingest_pathology(ws, file)
    assert counts["subtypes"] == {"FTC": 1}
    assert (counts["rows"], counts["pathology"], counts["conflicts"], counts["rejected"]) == (3, 2, 1, 1)
    assert ingest_pathology(ws, file)["already_known"] == 2
    assert query(ws, "SELECT subtype, surface, conflict FROM pathology ORDER BY 1") == [
        ("FTC", "甲状腺滤泡癌", None),
        ("MTC", "髓样癌", "MTC; PTC"),
    ]
    counted = statistics.attribute_counts(ws)
    assert counted["attributes"]["echogenicity"] == {"hypoechoic": {"FTC": 1}}
    assert counted["attributes"]["nodule_location"]["upper"] == {"FTC": 1}


CONTRADICTION = ["p1,,1,乳头状癌", "p1,,1,结节性甲状腺肿", "p1,,2,腺瘤", "p2,e1,,髓样癌", "p2,e1,,不能明确性质"]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (1, 0, 4, 3, 2)])
def test_contradicting_rows_are_left_out_whatever_their_order(
    ws: Workspace, tmp_path: Path, order: tuple[int, ...]
) -> None:
    head = "patient_id,exam_id,nodule_ordinal,text\n"
    for number in order:  # in one file a row, so that also later files contradict earlier ones
        (tmp_path / f"f{number}.csv").write_text(head + CONTRADICTION[number] + "\n", encoding="utf-8")
        counts = ingest_pathology(ws, tmp_path / f"f{number}.csv")
    assert query(
        ws, "SELECT nodule_ordinal, subtype, conflict FROM pathology WHERE patient_id = 'p1' ORDER BY 1, 2"
    ) == [
        (1, "PTC", "PTC; benign"),
        (1, "benign", "PTC; benign"),
        (2, "benign", None),
    ]
    assert query(ws, "SELECT conflict FROM pathology WHERE patient_id = 'p2'") == [(None,), (None,)]
    assert counts["conflicts"] == 1
    listed = (ws.path / "conflicts.csv").read_text(encoding="utf-8")
    assert listed.splitlines()[1] == "pathology,p1,,1,PTC; benign,f0.csv:2; f1.csv:2"


def test_a_corrected_pathology_number_settles_a_conflict(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("病理号,患者ID,病理诊断\n1,p1,乳头状癌\n2,p1,结节性甲状腺肿\n", encoding="utf-8")
    assert ingest_pathology(ws, file)["conflicts"] == 1
    file.write_text("病理号,患者ID,病理诊断\n2,p1,乳头状癌\n", encoding="utf-8")
    counts = ingest_pathology(ws, file)
    assert (counts["corrected"], counts["conflicts"], counts["subtypes"]) == (1, 0, {"PTC": 2})
    assert not (ws.path / "conflicts.csv").exists()
    assert query(ws, "SELECT conflict FROM pathology") == [(None,), (None,)]


def test_a_pathology_number_with_two_texts_in_one_file_is_refused_each_time(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("病理号,患者ID,病理诊断\n1,p1,乳头状癌\n1,p1,滤泡癌\n", encoding="utf-8")
    first, second = ingest_pathology(ws, file), ingest_pathology(ws, file)
    assert (first["pathology"], first["rejected"]) == (1, 1)
    assert (second["pathology"], second["corrected"], second["already_known"], second["rejected"]) == (0, 0, 1, 1)
    assert query(ws, "SELECT subtype FROM pathology") == [("PTC",)]


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
