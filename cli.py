"""The two commands, `tigerdata` (data in, data out) and `tigergen` (train, generate, evaluate).

Thin on purpose: a command parses its arguments, calls one library function and prints the result. Heavy libraries are
imported inside the commands, so that `--help` answers at once.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import tigerdata as _tigerdata
from kb.errors import UserError
from tigerdata.progress import reporter

EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 130

_settings: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
data_app = typer.Typer(help="Reports and images in, balanced and documented data sets out.", **_settings)
gen_app = typer.Typer(
    help="Train the Tiger Model, generate images of the rare class, and prove what they are worth.", **_settings
)
ingest_app = typer.Typer(help="Read reports, pathology or images into the workspace.", **_settings)
kb_app = typer.Typer(help="Look into the knowledge base.", **_settings)
train_app = typer.Typer(help="Train a part: segmenter, judge, coarse stage, fine stage.", **_settings)
data_app.add_typer(ingest_app, name="ingest")
data_app.add_typer(kb_app, name="kb")
gen_app.add_typer(train_app, name="train")

WorkspaceOption = Annotated[
    Path | None, typer.Option("-w", "--workspace", help="Workspace folder; default: this folder or the nearest parent.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def tigerdata() -> None:
    """Entry point of the `tigerdata` command."""
    _run(data_app)


def tigergen() -> None:
    """Entry point of the `tigergen` command."""
    _run(gen_app)


def _run(app: typer.Typer) -> None:
    if os.environ.get("TIGER_PARENT_PIPE"):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command again continues", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _end_with_parent() -> None:
    """Leave when the process that started this one is gone: its end of the pipe on stdin closes."""
    sys.stdin.read()
    os._exit(EXIT_INTERRUPTED)


def _show(result: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, default=str))
    elif isinstance(result, dict):
        for key, value in result.items():
            typer.echo(
                f"{key}: {json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else value}"
            )
    else:
        typer.echo(result)


def _open(workspace: Path | None) -> Any:
    return _tigerdata.open_workspace(workspace)
