"""What the commands of both rooms share: options, opening the workspace, printing a result."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

# Options of every Typer application of this distribution.
APP: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}

WorkspaceOption = Annotated[
    Path | None, typer.Option("-w", "--workspace", help="Workspace folder; default: this folder or the nearest parent.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show(result: Any, as_json: bool) -> None:
    """Print a result on stdout: JSON for a machine, `name: value` lines for a person."""
    if as_json or not isinstance(result, dict):
        typer.echo(json.dumps(result, ensure_ascii=False, default=str))
        return
    for key, value in result.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        typer.echo(f"{key}: {text}")


def open_workspace(workspace: Path | None) -> "Workspace":
    """Open the workspace that `-w` names, else this folder or its nearest parent that is one."""
    from tigerdata.workspace import Workspace

    return Workspace.open(workspace) if workspace else Workspace.find()
