"""The records of a table file, one after the other: CSV, TSV, JSONL, XLSX and Parquet, streamed.

Each reader yields (line, record) pairs; a record is a mapping from column to value, or a sentence that says why the row
cannot be read. Nothing of a row's content is in such a sentence.
"""

from __future__ import annotations

import csv
import json
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from kb.errors import UserError
from tigerdata.reports.encodings import Lines, damaged

Record = tuple[int, Mapping[str, Any] | str]
MAX_RECORD_LINES = 1000
MAX_FIELD = 16 << 20
MAX_UNPACKED = 2 << 30
MAX_RATIO = 300
WRONG_BYTES = "bytes that are no text in the file's encoding"


class Table:
    """An opened table: `columns` as the file names them, `encoding` for text files, and its records."""

    def __init__(self, columns: list[str], records: Iterator[Record], encoding: str = "") -> None:
        self.columns, self.records, self.encoding = columns, records, encoding


def open_table(path: Path, encoding: str | None = None) -> Table:
    """Open a table by its suffix. Raises UserError if the file is not what its name says, or has no row of names."""
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _csv(path, "\t" if kind == ".tsv" else "", encoding)
    if kind in (".jsonl", ".ndjson"):
        return _jsonl(path, encoding)
    if kind == ".xlsx":
        return _xlsx(path)
    if kind == ".parquet":
        return _parquet(path)
    raise UserError(f"{path.name} has an unknown format; use CSV, TSV, XLSX, JSONL, Parquet or folders of .txt.")


def _csv(path: Path, separator: str, encoding: str | None) -> Table:
    with path.open("rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"PAR1"):
            raise UserError(f"{path.name} is no text file, whatever its name says; give it the suffix of its format.")
    lines = Lines(path, encoding)
    first = next((line for line in lines if line.strip()), "")
    if separator not in first or not separator:  # also a comma file that is called .tsv
        separator = max(",;\t|", key=first.count)
    records = _csv_records(lines, separator)
    named = (
        found for found in records if isinstance(found[1], str) or any(map(str.strip, found[1])) or len(found[1]) > 1
    )
    line, header = next(named, (0, []))
    if not header:
        raise UserError(f"{path.name} is empty; export it again, with a first row of column names.")
    if not isinstance(header, str) and any(map(damaged, header)):
        raise UserError(f"{path.name}:{line} has {WRONG_BYTES} ({lines.encoding}); save the file as UTF-8.")
    if isinstance(header, str):
        raise UserError(f"{path.name}:{line} has {header} in the names of its columns; correct that line.")
    columns = [name.strip() for name in header]
    return Table(columns, _by_name(records, columns), lines.encoding)


def _by_name(records: Iterator[tuple[int, list[str] | str]], columns: list[str]) -> Iterator[Record]:
    for line, cells in records:
        if isinstance(cells, str):
            yield line, cells
        elif len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            yield line, f"{len(cells)} columns where the header has {len(columns)}: a separator or quote inside a text?"
        elif len(cells) < len(columns):
            yield line, f"{len(cells)} columns where the header has {len(columns)}: a line break inside a text?"
        elif any(map(damaged, cells)):
            yield line, WRONG_BYTES
        else:
            yield line, dict(zip(columns, cells, strict=False))


class _Feed:
    """The lines of one record, for the csv module; `ended` once it asks for more than there are."""

    def __init__(self, waiting: deque[str], source: Iterator[str]) -> None:
        self.waiting, self.source = waiting, source
        self.used: list[str] = []
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        while len(self.used) < MAX_RECORD_LINES:
            piece = self.waiting.popleft() if self.waiting else next(self.source, None)
            if piece is None:
                break
            self.used.append(piece)
            yield piece
        self.ended = True

    def read(self, separator: str) -> list[str] | None:
        """The cells of the record, or None for a quote that is not closed."""
        before = csv.field_size_limit(MAX_FIELD)  # a limit of the whole process
        try:
            cells = next(csv.reader(self, delimiter=separator), [])
        except csv.Error:
            return None
        finally:
            csv.field_size_limit(before)
        return None if self.ended and self.used else cells


def _csv_records(lines: Lines, separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """Records with the line each begins on. A quote that is never closed costs its own line, not the rest of the file.

    A record that reaches the end of the file, or 1,000 lines, inside a quote was not meant so: its first line is
    refused and reading goes on with the next one.
    """
    source = iter(lines)
    waiting: deque[str] = deque()
    line = 1
    while True:
        feed = _Feed(waiting, source)
        cells = feed.read(separator)
        if not feed.used:
            return
        if cells is None:
            waiting.extendleft(reversed(feed.used[1:]))
            yield line, "a quote that is not closed"
            line += 1
            continue
        if cells:
            yield line, cells
        line += len(feed.used)


def _jsonl(path: Path, encoding: str | None) -> Table:
    lines = Lines(path, encoding)
    columns: dict[str, None] = {}
    for number, (_, record) in enumerate(_json_records(lines)):
        if number == 1000:
            break
        if not isinstance(record, str):
            columns |= dict.fromkeys(record)
    return Table(list(columns), _json_records(lines), lines.encoding)


def _json_records(lines: Lines) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if damaged(line):
            yield number, WRONG_BYTES
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "not a JSON object"
            continue
        if not isinstance(value, dict):
            yield number, "not a JSON object"
        elif any(damaged(cell) for cell in value.values() if isinstance(cell, str)):
            yield number, WRONG_BYTES  # "\ud800" in JSON is half a character
        else:
            yield number, value


def _xlsx(path: Path) -> Table:
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    unreadable = UserError(f"{path.name} is no XLSX file; save it again from the spreadsheet program.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        packed = max(1, sum(entry.compress_size for entry in entries))
        if unpacked > MAX_UNPACKED or (unpacked > 64 << 20 and unpacked / packed > MAX_RATIO):
            raise UserError(
                f"{path.name} unpacks to {unpacked >> 20} MB, which no export does; export it as CSV instead."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and extensions, which nobody reads here
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write a wrong size, and rows beyond it would be lost
        rows = enumerate(sheet.iter_rows(values_only=True), start=1)
        header: tuple[Any, ...] = next((cells for _, cells in rows if any(c is not None for c in cells)), ())
    except (
        zipfile.BadZipFile, InvalidFileException, ParseError, zlib.error, OSError, EOFError, NotImplementedError,
        ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError,
    ):  # fmt: skip
        raise unreadable from None
    if not header:
        raise UserError(f"{path.name} is empty; export it again, with a first row of column names.")
    columns = ["" if cell is None else str(cell).strip() for cell in header]

    def records() -> Iterator[Record]:
        try:
            for line, cells in rows:
                if all(cell is None for cell in cells):
                    continue
                if any(cell is not None for cell in cells[len(columns) :]):
                    yield line, f"{len(cells)} columns where the header has {len(columns)}"
                    continue
                padded = [*cells, *[None] * (len(columns) - len(cells))]
                if any(isinstance(cell, (int, float)) and abs(cell) >= 1e15 for cell in padded):
                    yield (
                        line,
                        "a number of more than 15 digits, of which the spreadsheet lost the last: store ids as text",
                    )
                elif any(isinstance(cell, str) and damaged(cell) for cell in padded):
                    yield line, WRONG_BYTES
                else:
                    yield line, dict(zip(columns, padded, strict=False))
        except (ParseError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, IndexError):
            raise unreadable from None
        finally:
            book.close()

    return Table(columns, records())


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError):
        raise UserError(f"{path.name} is no Parquet file; export it again.") from None

    def records() -> Iterator[Record]:
        line = 0
        try:
            for batch in file.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    line += 1
                    bad = any(isinstance(cell, str) and damaged(cell) for cell in record.values())
                    yield line, WRONG_BYTES if bad else record
        except (pa.ArrowException, OSError, ValueError):
            raise UserError(f"{path.name} is damaged after row {line}; export it again.") from None

    return Table(columns, records())
