"""Parsing without a workspace: a file or standard input in, one result after the other out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kb.errors import UserError
from tigerdata.reports.encodings import decode
from tigerdata.reports.parser import parse_many

# Read as plain text, a table would be one long report of many patients.
TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".parquet")


def parse_stream(
    file: str, domain: str = "thyroid", pathology: bool = False, computed: bool = False, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Parse plain text (one report) or JSONL (`{"id", "text"}` a line) from a path or from "-", standard input.

    `computed` and `workers` as in `tigerdata.reports.parser.parse_many`. Raises UserError for a missing file or a line
    that is not such an object.
    """
    if file == "-":
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        path = Path(file)
        if not path.is_file():
            raise UserError(f"there is no file {path}; give a text or JSONL file, or - for standard input.")
        if path.suffix.lower() in TABLES:
            raise UserError(
                f"{path.name} is a table, not a report; read it with `tigerdata ingest reports {path.name}`."
            )
        name, data = path.name, path.read_bytes()
    text, _ = decode(data, name)
    rows = _lines(text, name) if text.lstrip().startswith("{") else [{"id": Path(name).stem, "text": text}]
    yield from parse_many(rows, domain, pathology, computed, workers)


def _lines(text: str, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            raise UserError(f"{name}:{number} is not JSON; each line must be an object with id and text.") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{name}:{number} has no text; each line must be an object with id and text.")
        yield {"id": row.get("id", f"{name}:{number}"), "text": row["text"]}
