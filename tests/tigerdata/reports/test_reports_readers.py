"""Readers of exports: encodings, formats, broken rows, broken files. Nothing crashes, and every row is counted."""

import zipfile
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kb.errors import UserError
from tigerdata.reports.encodings import Lines
from tigerdata.reports.readers import COLUMNS, MAX_TEXT, PERSONAL, Reject, Row, find_columns, find_sources

ZH = "检查号,姓名,检查所见\ne1,王小明,左叶见一低回声结节，大小约12×8mm。\ne2,李四,甲状腺上极未见异常。\n"


def read(path: Path, **options: object) -> list[Row | Reject]:
    return [row for source in find_sources(path, **options) for row in source.rows()]  # type: ignore[arg-type]


def texts(rows: list[Row | Reject]) -> list[str]:
    return [r.values.get("findings", r.values.get("text", "")) if isinstance(r, Row) else f"! {r.reason}" for r in rows]


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8 with BOM"), ("gbk", "GB18030"), ("gb18030", "GB18030"),
        ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_every_encoding_reads_the_same_and_says_which(tmp_path: Path, codec: str, said: str, ends: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(ZH.replace("\n", ends).encode(codec))
    (source,) = find_sources(file)
    rows = list(source.rows())
    assert texts(rows) == ["左叶见一低回声结节，大小约12×8mm。", "甲状腺上极未见异常。"]
    assert [row.line for row in rows] == [2, 3]
    assert source.encodings == {said: 1}
    assert rows[0].values["exam_id"] == "e1" and rows[0].personal == (("name", "王小明"),)  # type: ignore[union-attr]


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text\n甲狀腺結節\n".encode("big5"))
    assert texts(read(tmp_path / "a.csv", encoding="big5")) == ["甲狀腺結節"]
    with pytest.raises(UserError, match="no encoding 'klingon'"):
        read(tmp_path / "a.csv", encoding="klingon")


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_wrong_bytes_spoil_their_row_only(tmp_path: Path, codec: str) -> None:
    lines = [f"左叶结节{k}号，边界清。".encode(codec) for k in range(9)]
    lines[4] = lines[4][:5] + b"\xff\xff" + lines[4][5:]
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"\n".join(lines) + b"\n")
    found = texts(read(tmp_path / "a.csv"))
    assert found[4].startswith("! bytes that are no text")
    assert [f for k, f in enumerate(found) if k != 4] == [f"左叶结节{k}号，边界清。" for k in range(9) if k != 4]


def test_a_damaged_utf8_row_is_not_taken_for_gbk(tmp_path: Path) -> None:
    """GB18030 reads nearly every pair of bytes: one wrong byte must not turn a UTF-8 file into nonsense characters."""
    (tmp_path / "a.csv").write_bytes("text\n左叶结节，边界清\n右叶".encode() + b"\xe7\n")
    (source,) = find_sources(tmp_path / "a.csv")
    assert texts(list(source.rows())) == ["左叶结节，边界清", "! bytes that are no text in the file's encoding"]
    assert source.encodings == {"UTF-8": 1}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("a\x00b,x", "! zero bytes (NUL) in it"),
        ("ab\ufffdcd,x", "! bytes that are no text in the file's encoding"),
        (",x", "! no text"),
        ("left,x,", "left"),
        ("left,x,y", "! 3 columns where the header has 2: a separator or quote inside a text?"),
        ("left", "! 1 columns where the header has 2: a line break inside a text?"),
        ('"left, ""upper""\npole",x', 'left, "upper"\npole'),
        ('5" probe,x', '5" probe'),
        ("  left  ,x", "left"),
    ],
)
def test_single_rows_of_a_table(tmp_path: Path, row: str, found: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,note1\nfirst,1\n{row}\nlast,2\n", encoding="utf-8")
    assert texts(read(tmp_path / "a.csv")) == ["first", found, "last"]


def test_a_quote_that_is_not_closed_costs_one_line(tmp_path: Path) -> None:
    body = "".join(f"row {k},x\n" for k in range(2500))
    (tmp_path / "a.csv").write_text(f'text,c\n"open,x\n{body}', encoding="utf-8")
    rows = read(tmp_path / "a.csv")
    assert texts(rows[:2]) == ["! a quote that is not closed", "row 0"] and len(rows) == 2501
    assert [row.line for row in (rows[0], rows[1], rows[-1])] == [2, 3, 2502]
    (tmp_path / "b.csv").write_text('text,c\nfirst,1\n"open at the end,x', encoding="utf-8")
    assert texts(read(tmp_path / "b.csv")) == ["first", "! a quote that is not closed"]


def test_very_long_lines(tmp_path: Path) -> None:
    long = "结" * 1_000_000
    (tmp_path / "a.csv").write_text(f'text,c\n{"x" * MAX_TEXT},1\n"{long}",1\nlast,2\n', encoding="utf-8")
    found = texts(read(tmp_path / "a.csv"))
    assert len(found[0]) == MAX_TEXT and found[1:] == ["! a text of more than 100,000 characters", "last"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(tmp_path: Path, separator: str) -> None:
    (tmp_path / "a.csv").write_text(separator.join(["检查号", "所见"]) + "\n" + separator.join(["e1", "结节"]), "utf-8")
    (row,) = read(tmp_path / "a.csv")
    assert isinstance(row, Row) and row.values == {"exam_id": "e1", "findings": "结节"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"colour,shape\nred,round\n", "no column with the text of reports; its columns are colour, shape."),
        ("a.csv", f"张三,女,{'左叶见低回声结节，边界清' * 9}\n".encode(), "its first row looks like data"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"\n\n  \n", "a.csv is empty"),
        ("a.csv", b"text\n\xff\xff\xff\xff\n", "neither UTF-8 nor GBK"),
        ("a.csv", b'"text\nx\n', "a.csv:1 has a quote that is not closed in the names"),
        ("a.csv", b"text,text\na,b\n", "two columns 'text'"),
        ("a.csv", b"PK\x03\x04....", "is no text file, whatever its name says"),
        ("a.jsonl", b'{"colour": 1}\n', "no column with the text"),
        ("a.jsonl", b"", "no column with the text of reports; its columns are none"),
        ("a.pdf", b"%PDF", "unknown format"),
        ("a.json", b"[]", "unknown format"),
        ("a.parquet", b"nothing", "no Parquet file"),
        ("a.xlsx", b"nothing", "no XLSX file"),
        ("a.xlsx", b"text\nx\n", "no XLSX file"),
        ("a.xlsx", b"", "no XLSX file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path / name)
    said = str(caught.value)
    assert words in said and "\n" not in said and "张三" not in said and "结节，" not in said


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder"):
        find_sources(tmp_path / "missing.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.txt file and no table"):
        find_sources(tmp_path / "empty")


def test_a_header_alone_is_an_export_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n", encoding="utf-8")
    assert read(tmp_path / "a.csv") == []


def test_a_spreadsheet_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * (80 << 20))
    with pytest.raises(UserError, match="unpacks to 80 MB"):
        read(tmp_path / "a.xlsx")


def test_cells_of_a_spreadsheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["检查号", "检查日期", "年龄", "超声所见"])
    sheet.append(["00012", pd.Timestamp("2023-05-12").to_pydatetime(), 45.0, "结节"])
    sheet.append([])
    sheet.append([110101199003077731.0, None, 45, "结节"])
    sheet.append(["e2", None, None, None])
    book.save(tmp_path / "a.xlsx")
    rows = read(tmp_path / "a.xlsx")
    assert rows[0] == Row("a.xlsx", 3, {"exam_id": "00012", "exam_date": "2023-05-12", "age": "45", "findings": "结节"})
    assert [(row.line, row.reason.split(":")[0]) for row in rows[1:] if isinstance(row, Reject)] == [
        (5, "a number of more than 15 digits, of which the spreadsheet lost the last"),
        (6, "no text"),
    ]


def test_json_lines_one_by_one(tmp_path: Path) -> None:
    lines = [
        '{"id": 1}',
        '{"id": 2, "text": "x\\u2028y"}',
        "{broken",
        "[1]",
        "",
        '{"text": "\\ud800"}',
        '{"text": null}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = read(tmp_path / "a.jsonl")
    assert texts(rows) == [
        "! no text", "x\u2028y", "! not a JSON object", "! not a JSON object",
        "! bytes that are no text in the file's encoding", "! no text",
    ]  # fmt: skip
    assert [row.line for row in rows] == [1, 2, 3, 4, 6, 7]


def test_a_folder_gives_its_tables_and_its_texts(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.txt").write_text("Left nodule.", encoding="utf-8")
    (tmp_path / "in" / "two.txt").write_bytes("右叶结节".encode("gbk"))
    (tmp_path / "in" / "bad.txt").write_bytes(b"\xff\xff\xff")
    (tmp_path / "in" / "none.txt").write_bytes(b"")
    (tmp_path / "in" / ".hidden.txt").write_text("x", encoding="utf-8")
    (tmp_path / "in" / "a.csv").write_text("text\ncyst\n", encoding="utf-8")
    rows = read(tmp_path)
    assert sorted(texts(rows)) == [
        "! bytes that are no text in the file's encoding", "! no text", "Left nodule.", "cyst", "右叶结节",
    ]  # fmt: skip
    assert {row.file for row in rows if isinstance(row, Reject)} == {"bad.txt", "none.txt"}


def test_names_of_columns_are_one_to_one() -> None:
    """No alias is given twice, else the first entry silently wins; case, spaces and hyphens do not count."""
    aliases = [alias.lower().replace("_", "") for names in (COLUMNS, PERSONAL) for v in names.values() for alias in v]
    assert len(aliases) == len(set(aliases))
    found, personal = find_columns(["Patient ID", "STUDY-ID", "检查 所见", "姓名", "other"], "f", {})
    assert found == {"patient_id": "Patient ID", "exam_id": "STUDY-ID", "findings": "检查 所见"}
    assert personal == [("name", "姓名")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.sampled_from(["csv", "tsv", "jsonl", "xlsx", "parquet", "txt"]), st.booleans())
def test_arbitrary_bytes_never_crash(tmp_path: Path, data: bytes, suffix: str, headed: bool) -> None:
    file = tmp_path / f"fuzz.{suffix}"
    file.write_bytes((b"id,text\n" if headed and suffix in ("csv", "tsv") else b"") + data)
    try:
        rows = read(file)
    except UserError as error:
        assert "\n" not in str(error)
        return
    for row in rows:
        assert isinstance(row, Reject) or (any(row.values.values()) and "\x00" not in "".join(row.values.values()))
        for value in row.values.values() if isinstance(row, Row) else ():
            value.encode("utf-8")


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufffd\r"), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELL, CELL), max_size=12), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]))
def test_every_row_of_a_table_is_counted_once(tmp_path: Path, cells: list[tuple[str, str]], codec: str) -> None:
    """What pandas writes is read row for row, whatever quotes, separators, line breaks and characters are in it."""
    frame = pd.DataFrame(cells, columns=["age", "text"])
    file = tmp_path / "a.csv"
    # A first line of plain Chinese: without one, few odd bytes cannot tell what encoding they are in.
    head = "年龄,text\n1,左叶见一低回声结节，边界清，形态规则，大小约十二毫米\n"
    file.write_bytes((head + frame.to_csv(index=False, header=False, lineterminator="\n")).encode(codec))
    rows = read(file)[1:]
    assert len(rows) == len(cells)
    for row, (_, text) in zip(rows, cells, strict=True):
        assert (row.values["text"] if isinstance(row, Row) else "") == text.strip()


def test_lines_end_where_files_end_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small chunks too: a CR and its LF in two chunks are one end of line; U+2028 and form feeds are none."""
    from tigerdata.reports import encodings

    text = "a\r\nb\rc\u2028d\x0ce\n\nf"
    (tmp_path / "a.txt").write_bytes(text.encode())
    for size in range(1, 8):
        monkeypatch.setattr(encodings, "CHUNK", size)
        assert list(Lines(tmp_path / "a.txt")) == ["a\n", "b\n", "c\u2028d\x0ce\n", "\n", "f"]
