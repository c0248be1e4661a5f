"""Opening the DuckDB file of a workspace, writing tables in bulk, filling in the vocabulary."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from kb import schema
from kb.errors import UserError
from kb.schema import transaction

if TYPE_CHECKING:
    import pandas as pd

    from kb.vocabulary import KnowledgeBase

LOCK_WAIT_S = 30.0
LOCK_POLL_S = 0.1
COMPUTED = "SELECT target, attribute, value FROM term_roles WHERE statistics IS NOT NULL"


def connect(path: str | Path, read_only: bool = False, wait_s: float = LOCK_WAIT_S) -> duckdb.DuckDBPyConnection:
    """Open a workspace's database; a missing file is created and an older one migrated.

    DuckDB lets one process write at a time: a locked file is tried again for up to `wait_s` seconds. Raises UserError
    if it stays locked, is not a database of ours, or is newer than this program.
    """
    path = Path(path)
    if read_only and not path.exists():
        raise UserError(f"there is no database {path}; make a workspace with `tigerdata init` first.")
    con = _open(path, read_only, wait_s)
    try:
        if not read_only:
            schema.migrate(con)
            return con
        version = schema.stored_version(con)
        if version > schema.VERSION:
            raise UserError(f"{path} has schema version {version}, newer than this program's; update tigerdata.")
    except BaseException:
        con.close()
        raise
    if version < schema.VERSION:
        con.close()
        connect(path, wait_s=wait_s).close()
        return _open(path, True, wait_s)
    return con


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: "pd.DataFrame", replace: bool = False) -> int:
    """Insert a DataFrame by column name and return the number of rows; columns left out become NULL.

    `replace=True` overwrites rows with the same primary key. A DataFrame goes in some hundred times faster than
    single statements. Raises UserError if a column or the table does not exist.
    """
    known = {
        row[0]
        for row in con.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [table]).fetchall()
    }
    unknown = [str(name) for name in rows.columns if name not in known]
    if unknown or not known:
        raise UserError(f"table '{table}' has no column {unknown or 'at all'}; its columns are {sorted(known)}.")
    if len(rows) == 0:
        return 0
    names = ", ".join(f'"{name}"' for name in rows.columns)
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    con.register("_rows", rows)
    try:
        con.execute(f'{verb} INTO "{table}" ({names}) SELECT {names} FROM _rows')
    finally:
        con.unregister("_rows")
    return len(rows)


def fill_vocabulary(con: duckdb.DuckDBPyConnection, base: "KnowledgeBase") -> None:
    """Write the vocabulary into `terms`, `term_roles` and `sources`, replacing what the YAML files said before.

    Roles that were computed from a corpus (their `statistics` is not empty) stay, the only row of their term.
    """
    import pandas as pd

    terms: list[tuple[str | None, ...]] = [
        (attribute, value, entry.phrase, model.scope, language, surface)
        for attribute, model in base.attributes.items()
        for value, entry in model.values.items()
        for language in ("en", "zh")
        for surface in (entry.surfaces(language) or (None,))
    ]
    terms += [("subtype", name, s.phrase, "fg", None, None) for name, s in base.subtypes.items()]
    terms += [(name, phrase, phrase, "bg", None, None) for name, row in base.quality.items() for phrase in row]
    computed = {tuple(row) for row in con.execute(COMPUTED).fetchall()}
    roles = [
        (target, attribute, value, base.role(target, attribute, value), "; ".join(sources))
        for target in (*base.subtypes, *(name for name in base.overrides if name not in base.subtypes))
        for attribute, model in base.attributes.items()
        if model.scope == "fg"
        for value in model.values
        if (target, attribute, value) not in computed and (sources := base.role_sources(target, attribute, value))
    ]
    with transaction(con):
        con.execute("DELETE FROM terms")
        con.execute("DELETE FROM term_roles WHERE statistics IS NULL")
        insert(
            con, "terms", pd.DataFrame(terms, columns=["attribute", "value", "phrase", "scope", "language", "surface"])
        )
        insert(con, "term_roles", pd.DataFrame(roles, columns=["target", "attribute", "value", "role", "source"]))
        insert(
            con, "sources", pd.DataFrame(list(base.sources.items()), columns=["source_id", "citation"]), replace=True
        )


def _open(path: Path, read_only: bool, wait_s: float) -> duckdb.DuckDBPyConnection:
    end = time.monotonic() + wait_s
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only)
        except duckdb.ConnectionException as error:
            # The same process holds the file in the other mode.
            if time.monotonic() >= end:
                raise UserError(f"{path} is open in this process in another mode ({error}); close it first.") from None
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise UserError(
                    f"{path} cannot be opened as a DuckDB file; restore it or make a new workspace."
                ) from None
            if time.monotonic() >= end:
                raise UserError(
                    f"{path} is in use by another program (waited {wait_s:.0f} s); close it, e.g. an open duckdb shell."
                ) from None
        time.sleep(LOCK_POLL_S)
