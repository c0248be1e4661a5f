"""Reading exports: CSV, TSV, XLSX, JSONL, Parquet or folders of text files; columns by Chinese or English names."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kb.errors import UserError
from tigerdata.rejects import Reject
from tigerdata.reports.encodings import damaged, decode
from tigerdata.reports.tables import WRONG_BYTES, open_table

# First the names that hospitals and public sets use; compared without case, spaces, underscores and hyphens.
COLUMNS: dict[str, tuple[str, ...]] = {
    "report_id": (
        "report_id", "报告号", "报告编号", "报告ID", "检查报告号", "报告单号", "uid", "id", "accession",
        "accession_number", "accession_no",
    ),
    "patient_id": (
        "patient_id", "患者ID", "患者编号", "病人ID", "病人编号", "患者号", "患者标识", "subject_id", "pid", "patient",
        "mrn", "病案号", "病历号", "登记号",
    ),
    "exam_id": (
        "exam_id", "检查号", "检查编号", "检查ID", "检查流水号", "超声号", "影像号", "study_id", "exam", "study",
        "examination_id",
    ),
    "pathology_id": ("pathology_id", "病理号", "病理编号", "病理检查号", "specimen_id", "case_no"),
    "exam_date": (
        "exam_date", "检查日期", "检查时间", "报告日期", "报告时间", "日期", "date", "study_date", "report_date",
    ),
    "sex": ("sex", "性别", "患者性别", "gender"),
    "age": ("age", "年龄", "患者年龄"),
    "findings": (
        "findings", "超声所见", "检查所见", "影像所见", "诊断所见", "镜下所见", "所见", "描述", "超声描述", "检查描述",
        "影像表现", "finding", "description", "report_findings",
    ),
    "impression": (
        "impression", "超声提示", "检查提示", "超声诊断", "诊断意见", "诊断结论", "检查结论", "诊断印象", "提示",
        "诊断", "结论", "印象", "conclusion", "diagnosis", "impressions", "report_impression",
    ),
    "text": (
        "text", "报告", "报告内容", "报告全文", "报告文本", "内容", "病理诊断", "病理", "病理结果", "report",
        "report_text", "note", "pathology",
    ),
    "nodule_ordinal": ("nodule_ordinal", "结节序号", "结节编号", "nodule", "nodule_no"),
}  # fmt: skip
# Columns that say who somebody is. They are never stored; what they hold is removed from the text of their row.
PERSONAL: dict[str, tuple[str, ...]] = {
    "name": (
        "name", "姓名", "患者姓名", "病人姓名", "受检者", "patient_name", "full_name", "检查医师", "检查医生",
        "报告医师", "报告医生", "审核医师", "审核医生", "诊断医师", "诊断医生", "申请医师", "申请医生", "送检医师",
        "送检医生", "记录者", "记录员", "录入员", "联系人", "physician", "doctor", "radiologist", "sonographer",
        "referring_physician", "reported_by",
    ),
    "id_card": ("身份证", "身份证号", "身份证号码", "证件号", "证件号码", "id_card", "national_id", "ssn"),
    "phone": ("电话", "手机", "手机号", "手机号码", "联系电话", "联系方式", "phone", "mobile", "telephone", "tel"),
    "email": ("邮箱", "电子邮箱", "email"),
    "address": ("地址", "住址", "家庭住址", "现住址", "家庭地址", "联系地址", "工作单位", "address"),
    "number": (
        "住院号", "门诊号", "就诊号", "就诊卡号", "卡号", "医保号", "医保卡号", "床号", "申请单号", "hospital_no",
    ),
}  # fmt: skip
TEXTS = ("text", "findings", "impression")
TABLES = (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson", ".parquet")
MAX_TEXT = 100_000


@dataclass(frozen=True)
class Row:
    """One row of an export: its line, its values by canonical column name, and who it names, as (kind, value)."""

    file: str
    line: int
    values: dict[str, str]
    personal: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        """File and line, as messages name a row."""
        return f"{self.file}:{self.line}"


@dataclass
class Source:
    """A file, or a folder of text files, to read in one go; `encodings` counts what its text files are in."""

    path: Path
    name: str
    texts: list[Path] = field(default_factory=list)
    mapping: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    encodings: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """Names that its refused rows can bear."""
        return {self.name, *(path.name for path in self.texts)}

    def rows(self) -> Iterator[Row | Reject]:
        """Every row once, in order. Raises UserError for a file that cannot be read or has no column of texts."""
        return self._folder() if self.texts else self._table()

    def _folder(self) -> Iterator[Row | Reject]:
        for number, path in enumerate(self.texts, start=1):
            data = path.read_bytes()
            try:
                text, title = decode(data, path.name, self.encoding)
            except UserError:
                yield Reject(path.name, 1, WRONG_BYTES)
                continue
            self.encodings[title] = self.encodings.get(title, 0) + 1
            # File names are often names of patients: what is stored names the folder and the place in it.
            yield _checked(Row(self.name, number, {"report_id": path.stem, "text": text.strip()}), path.name)

    def _table(self) -> Iterator[Row | Reject]:
        table = open_table(self.path, self.encoding)
        if table.encoding:
            self.encodings[table.encoding] = 1
        columns, personal = find_columns(table.columns, self.name, self.mapping)
        for line, record in table.records:
            if isinstance(record, str):
                yield Reject(self.name, line, record)
                continue
            values = {name: cell_text(record.get(column)) for name, column in columns.items()}
            who = ((kind, cell_text(record.get(column))) for kind, column in personal)
            row = Row(
                self.name, line, {k: v for k, v in values.items() if v}, tuple((k, v) for k, v in who if len(v) > 1)
            )
            yield _checked(row, self.name)


def _checked(row: Row, file: str) -> Row | Reject:
    line = row.line if file == row.file else 1
    if any("\x00" in value for value in row.values.values()):
        return Reject(file, line, "zero bytes (NUL) in it")
    if any(map(damaged, row.values.values())):
        return Reject(file, line, WRONG_BYTES)
    if not any(row.values.get(name) for name in TEXTS):
        return Reject(file, line, "no text")
    if sum(len(row.values.get(name, "")) for name in TEXTS) > MAX_TEXT:
        return Reject(file, line, f"a text of more than {MAX_TEXT:,} characters")
    return row


def find_sources(
    files: Iterable[str | Path] | str | Path, mapping: Mapping[str, str] | None = None, encoding: str | None = None
) -> list[Source]:
    """The files to read: a folder gives its tables one by one, and its .txt files together.

    Raises UserError for a missing file, an empty folder or a column name that is not known in `mapping`.
    """
    for name in mapping or {}:
        if name not in COLUMNS and name not in PERSONAL:
            raise UserError(f"--map {name}=… names no column of ours; known are {', '.join([*COLUMNS, *PERSONAL])}.")
    found: list[Source] = []
    for item in [files] if isinstance(files, (str, Path)) else files:
        path = Path(item)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith((".", "~$")))
            tables = [p for p in inside if p.suffix.lower() in TABLES]
            texts = [p for p in inside if p.suffix.lower() == ".txt"]
            if not tables and not texts:
                raise UserError(f"{path} holds no .txt file and no table; name the folder or file of the reports.")
            found += [Source(p, p.name, mapping=mapping or {}, encoding=encoding) for p in tables]
            if texts:
                found.append(Source(path, path.resolve().name, texts, mapping or {}, encoding))
        elif path.is_file():
            texts = [path] if path.suffix.lower() == ".txt" else []
            found.append(Source(path, "one text" if texts else path.name, texts, mapping or {}, encoding))
        else:
            raise UserError(f"there is no file or folder {path}; check the name.")
    return found


def column_key(name: object) -> str:
    """A column's name without case, spaces, underscores and hyphens."""
    return str(name).lower().strip().replace("_", "").replace(" ", "").replace("-", "")


def find_columns(
    columns: list[str], file: str, mapping: Mapping[str, str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Column of the table for each canonical name, and (kind, column) for those that hold personal data.

    What `mapping` says goes first, then the first known name wins. Raises UserError if no column holds texts, if a
    mapped column is missing, or if two columns have the name that is asked for.
    """
    given = {column_key(column): column for column in reversed(columns)}
    found: dict[str, str] = {}
    personal: list[tuple[str, str]] = []
    for name, column in mapping.items():
        if column_key(column) not in given:
            raise UserError(
                f"{file} has no column '{column}', which --map {name}={column} asks for; its columns are "
                f"{_listed(columns)}."
            )
        if name in PERSONAL:
            personal.append((name, given[column_key(column)]))
        else:
            found[name] = given[column_key(column)]
    taken = set(found.values()) | {column for _, column in personal}
    for name, aliases in COLUMNS.items():
        hit = next((given[k] for k in map(column_key, aliases) if k in given and given[k] not in taken), None)
        if name not in found and hit is not None:
            found[name] = hit
            taken.add(hit)
    for kind, aliases in PERSONAL.items():
        hits = [given[k] for k in map(column_key, aliases) if k in given]
        personal += [(kind, column) for column in hits if column not in taken]
    if not any(name in found for name in TEXTS):
        raise UserError(
            f"{file} has no column with the text of reports; its columns are {_listed(columns)}. Name the one that has "
            "it, e.g. --map findings=COLUMN."
        )
    for column in [*found.values(), *(column for _, column in personal)]:
        if columns.count(column) > 1:
            raise UserError(f"{file} has two columns '{column}'; rename the one that does not count.")
    return found, personal


def _listed(columns: list[str]) -> str:
    """Column names for a message; a first row that is data must not be printed, it may be a patient's."""
    if any(len(column) > 40 or sum(map(str.isdigit, column)) > 4 for column in columns):
        return "not to be seen, for its first row looks like data: put a row of column names before it"
    shown = ", ".join(column[:40] or "(no name)" for column in columns[:12])
    return (shown or "none") + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def cell_text(value: object) -> str:
    """A cell as text: ids keep leading zeros where the file has them, dates become ISO, whole numbers lose the ".0"."""
    if isinstance(value, str):
        return value.strip()
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()
