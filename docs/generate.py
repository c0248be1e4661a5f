"""Write docs/commands.md from the commands themselves; a test fails when the file is stale."""

import inspect
from pathlib import Path
from typing import Any

import typer.main

from tigerdata.commands import data_app
from tigergen.commands import gen_app

PAGE = Path(__file__).with_name("commands.md")


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


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
