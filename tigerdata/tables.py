"""Rows for people: an aligned table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def show_table(title: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows on stdout; words of the data are never read as mark-up. Lists are joined, None is empty."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", header_style="bold")
    rows = list(rows)
    for column in columns:
        numbers = bool(rows) and all(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(Text(column.replace("_", " ")), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    show_renderables([table])


def show_renderables(renderables: Iterable[Any]) -> None:
    """Print Rich renderables on stdout; a file or a pipe gets 120 columns and no colours."""
    import sys

    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 120, highlight=False, markup=False, emoji=False)
    for renderable in renderables:
        console.print(renderable)


def _cell(value: Any) -> str:
    from tigerdata.reports.explain import visible

    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(part) for part in value)
    return visible(str(value))
