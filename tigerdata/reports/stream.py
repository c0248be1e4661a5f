"""Parse reports from a file or standard input without a workspace: one result a line (contract 2 of the design)."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kb.errors import UserError
from tigerdata.reports.parser import parse_many

STDIN = "-"


def parse_stream(source: str, domain: str = "thyroid", pathology: bool = False) -> Iterator[dict[str, Any]]:
    """Parse `source`: plain text (one report), JSONL with `id` and `text` a line, or "-" for the same on stdin.

    JSONL is what starts with "{". Raises UserError for a file that cannot be read or a line that is not such an
    object; the sentence names file and line, never the text.
    """
    text, name = _read(source)
    return parse_many(list(_rows(text, name)), domain, pathology)


def _read(source: str) -> tuple[str, str]:
    if source == STDIN:
        return sys.stdin.buffer.read().decode("utf-8", errors="replace"), "stdin"
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8-sig"), path.name
    except FileNotFoundError:
        raise UserError(f"There is no file '{source}'; name a text or JSONL file, or - for standard input.") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(
            f"'{source}' is no UTF-8 text file; `tigerdata ingest reports` reads other encodings."
        ) from None


def _rows(text: str, name: str) -> Iterator[dict[str, str]]:
    if not text.lstrip().startswith("{"):
        yield {"id": Path(name).stem, "text": text}
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield {"id": str(row["id"]), "text": str(row["text"])}
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(f'{name}:{number} is no JSON object with "id" and "text"; correct the line.') from None
