"""Asking a workspace's database a question: one read-only statement, and nothing outside of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from kb import store
from kb.errors import UserError

# DuckDB's message about these speaks of the query's own words; of any other error it may quote the data.
OF_THE_QUERY = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.PermissionException)


def query(path: Path, sql: str, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SELECT (also WITH, SHOW, DESCRIBE, EXPLAIN) on the database at `path`; returns column names and rows.

    The connection is read-only and cannot read or write files, load extensions or attach databases. `limit` cuts the
    rows. Raises UserError, one sentence without data, for anything else and for a query that fails.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise UserError(f"this is not SQL that DuckDB reads ({_first_line(error)}); correct the query.") from None
    kinds = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in kinds:
        raise UserError("a query is one SELECT statement; the knowledge base is only read here.")
    con = store.connect(path, read_only=True)
    try:
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        found = con.execute(sql)
        names = [column[0] for column in found.description or []]
        return names, found.fetchmany(limit) if limit is not None else found.fetchall()
    except OF_THE_QUERY as error:
        raise UserError(f"the query cannot be run ({_first_line(error)}); correct it.") from None
    except duckdb.Error as error:
        kind = type(error).__name__.removesuffix("Exception")
        raise UserError(f"the query failed on the data ({kind}); check its casts and functions.") from None
    finally:
        con.close()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".;")
