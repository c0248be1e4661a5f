"""The knowledge base as files that any program reads: CSV, JSON or Parquet, one file a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kb import store
from kb.errors import UsageError, UserError
from kb.files import atomic_write

TABLES = ("terms", "term_roles", "sources", "findings")
FORMATS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}


def export(path: Path, out: Path, format: str = "csv", tables: Sequence[str] = TABLES) -> dict[str, int]:
    """Write tables of the database at `path` into the folder `out`, rows sorted; returns rows by file name.

    Equal content gives equal CSV and JSON files. Raises UserError for a format or table that does not exist.
    """
    if format not in FORMATS:
        raise UsageError(f"there is no format '{format}'; choose one of {', '.join(FORMATS)}.")
    written = {}
    con = store.connect(path, read_only=True)
    try:
        known = {row[0] for row in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        for table in tables:
            if table not in known:
                raise UserError(f"there is no table '{table}'; it has {', '.join(sorted(known))}.")
            name = f"{table}.{format}"
            with atomic_write(out / name) as temporary:
                target = str(temporary).replace("'", "''")
                con.execute(f"COPY (SELECT * FROM \"{table}\" ORDER BY ALL) TO '{target}' ({FORMATS[format]})")
            row = con.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            written[name] = int(row[0]) if row else 0
    finally:
        con.close()
    return written
