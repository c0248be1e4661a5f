"""Write docs/commands.md from the commands and docs/schema.md from the schema; a test fails when one is stale."""

import inspect
from pathlib import Path
from typing import Any

import duckdb
import typer.main

from kb import schema
from kb.schema_notes import NOTES
from tigerdata.commands import data_app
from tigergen.commands import gen_app

PAGE = Path(__file__).with_name("commands.md")
SCHEMA_PAGE = Path(__file__).with_name("schema.md")


def page() -> str:
    """The whole page: what every command says of itself, its example, its arguments and options."""
    parts = ["# Commands", "Made from the code by `make docs`."]
    for name, app in (("tigerdata", data_app), ("tigergen", gen_app)):
        parts.append(f"## {name}")
        for path, command in _commands(typer.main.get_command(app), (name,)):
            about, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
            parts += [f"### {' '.join(path)}", about.strip(), f"```\n{' '.join(example.split())}\n```"]
            rows = [_row(parameter) for parameter in command.params if parameter.name not in ("help", "as_json")]
            parts.append("\n".join(rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        return [(path, command)]
    return [found for name, child in children.items() for found in _commands(child, (*path, name))]


def _row(parameter: Any) -> str:
    option = parameter.opts[0].startswith("-")
    name = ", ".join(parameter.opts) if option else parameter.name
    default = parameter.default
    fixed = (
        "" if default is None or default is False or not isinstance(default, (str, int, float, Path)) else str(default)
    )
    note = " Required." if parameter.required else f" Default: {fixed}." if fixed else ""
    return f"* `{name}`: {parameter.help}{note}"


def schema_page() -> str:
    """Every table and column of a new database, with type, key and note."""
    with duckdb.connect() as con:
        schema.migrate(con)
        columns = con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() ORDER BY table_name, column_index"
        ).fetchall()
        keyed = (
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        )
        keys = dict(con.execute(keyed).fetchall())
    parts = [
        "# Tables of `tiger.duckdb`",
        f"Made from the schema (version {schema.VERSION}) by `make docs`. Open the file with any DuckDB client. An "
        "older file is migrated when it is opened; a newer one is refused. Columns in bold are the primary key.",
    ]
    for table, (about, notes) in NOTES.items():
        rows = [
            f"| {f'**{name}**' if name in keys.get(table, []) else name} | {kind} | {notes[name]} |"
            for owner, name, kind in columns
            if owner == table
        ]
        parts += [f"## {table}", about, "\n".join(["| column | type | what |", "|---|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    SCHEMA_PAGE.write_text(schema_page(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
