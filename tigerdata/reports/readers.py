"""Reading exports: CSV, TSV, XLSX, JSONL, Parquet or folders of text files; columns by Chinese or English names."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kb.errors import UserError

# First the names that hospitals and public sets use; compared without case, spaces, underscores and hyphens.
COLUMNS: dict[str, tuple[str, ...]] = {
    "report_id": (
        "report_id",
        "报告号",
        "报告编号",
        "报告ID",
        "检查报告号",
        "uid",
        "id",
        "accession",
        "accession_number",
    ),
    "patient_id": ("patient_id", "患者ID", "患者编号", "病人ID", "病人编号", "患者号", "subject_id", "pid", "patient"),
    "exam_id": ("exam_id", "检查号", "检查编号", "检查ID", "study_id", "exam", "study"),
    "exam_date": ("exam_date", "检查日期", "检查时间", "报告日期", "日期", "date", "study_date"),
    "sex": ("sex", "性别", "gender"),
    "age": ("age", "年龄"),
    "findings": ("findings", "超声所见", "检查所见", "影像所见", "所见", "描述", "finding", "description"),
    "impression": (
        "impression",
        "超声提示",
        "超声诊断",
        "诊断意见",
        "提示",
        "诊断",
        "结论",
        "印象",
        "conclusion",
        "diagnosis",
    ),
    "text": (
        "text",
        "报告",
        "报告内容",
        "报告全文",
        "内容",
        "病理诊断",
        "病理",
        "病理结果",
        "report",
        "report_text",
        "note",
        "pathology",
    ),
    "nodule_ordinal": ("nodule_ordinal", "结节序号", "nodule"),
}
TABLES = (".csv", ".tsv", ".xlsx", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row of an export: where it stands ("file:line") and its values by canonical column name."""

    place: str
    file: str
    values: dict[str, str]


def decode(data: bytes, name: str) -> str:
    """Text of a file in UTF-8 (with or without BOM), UTF-16 with BOM, or GB18030 (which holds GBK and GB2312).

    Raises UserError if the bytes are none of them.
    """
    encodings = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{name} is neither UTF-8 nor GBK text; save it as UTF-8.")


def read_rows(files: Iterable[str | Path] | str | Path) -> Iterator[Row]:
    """Rows of all files in order; a folder gives its tables, and each .txt file of it is one report.

    Raises UserError for a missing file, an unknown format or a table without a text column.
    """
    for item in [files] if isinstance(files, (str, Path)) else files:
        path = Path(item)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in (*TABLES, ".txt") and p.is_file())
            if not inside:
                raise UserError(f"{path} holds no .txt file and no table; name the folder or file of the reports.")
        elif path.is_file():
            inside = [path]
        else:
            raise UserError(f"there is no file or folder {path}; check the name.")
        for file in inside:
            yield from _text_file(file) if file.suffix.lower() == ".txt" else _table(file)


def _text_file(path: Path) -> Iterator[Row]:
    yield Row(path.name, path.name, {"report_id": path.stem, "text": decode(path.read_bytes(), path.name)})


def _table(path: Path) -> Iterator[Row]:
    kind = path.suffix.lower()
    if kind == ".jsonl":
        table, first = _jsonl(path), 1
    elif kind in (".csv", ".tsv"):
        text = decode(path.read_bytes(), path.name)
        try:
            table = pd.read_csv(
                io.StringIO(text), sep="\t" if kind == ".tsv" else _separator(text), dtype=str, keep_default_na=False
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path.name} cannot be read as a table ({reason}); check its quotes and columns."
            ) from None
        first = 2
    elif kind == ".xlsx":
        try:
            table, first = pd.read_excel(path, dtype=str, keep_default_na=False), 2
        except (ValueError, OSError, KeyError):
            raise UserError(f"{path.name} is no XLSX file; save it again from the spreadsheet program.") from None
    elif kind == ".parquet":
        try:
            table, first = pd.read_parquet(path), 1
        except (ValueError, OSError):
            raise UserError(f"{path.name} is no Parquet file; export it again.") from None
    else:
        raise UserError(f"{path.name} has an unknown format; use CSV, TSV, XLSX, JSONL, Parquet or folders of .txt.")
    names = _columns(table.columns, path.name)
    for offset, record in enumerate(table.to_dict("records")):
        values = {name: _text(record[column]) for name, column in names.items()}
        yield Row(f"{path.name}:{first + offset}", path.name, {k: v for k, v in values.items() if v})


def _separator(text: str) -> str:
    head = text.split("\n", 1)[0]
    return max(",;\t", key=head.count)


def _jsonl(path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(decode(path.read_bytes(), path.name).splitlines(), start=1):
        try:
            rows.append(json.loads(line) if line.strip() else {})
        except json.JSONDecodeError:
            raise UserError(f"{path.name}:{number} is not JSON; each line must be one object.") from None
    return pd.DataFrame([row if isinstance(row, dict) else {} for row in rows])


def _key(name: object) -> str:
    return str(name).lower().strip().replace("_", "").replace(" ", "").replace("-", "")


def _columns(columns: Iterable[object], file: str) -> dict[str, object]:
    """Canonical name -> column of the table; the first known name wins."""
    given = {_key(column): column for column in columns}
    found = {}
    for name, aliases in COLUMNS.items():
        for alias in aliases:
            if _key(alias) in given:
                found[name] = given[_key(alias)]
                break
    if "text" not in found and "findings" not in found and "impression" not in found:
        raise UserError(
            f"{file} has no column with the text of reports (columns: {', '.join(map(str, list(columns)[:12]))}); "
            "name one 'findings', 'text', '超声所见' or '报告'."
        )
    return found


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return str(value).strip()
