"""The two commands: `tigerdata` (data in, data out) and `tigergen` (train, generate, evaluate).

The commands themselves are beside their rooms (`tigerdata/commands.py`, `tigergen/commands.py`); here they become
programs: a user error is one sentence and exit code 1 (2: the command is written wrongly), an interruption is exit code
130.
"""

import os
import sys
import threading

import typer

from kb.errors import UsageError, UserError
from tigerdata.commands import data_app
from tigergen.commands import gen_app

EXIT_USER_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


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
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_USER_ERROR)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command again continues", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _end_with_parent() -> None:
    """Leave when the process that started this one is gone: its end of the pipe on stdin closes.

    Reads the descriptor, not `sys.stdin`: its lock would be held for ever in a process forked from this one.
    """
    os.read(0, 1)
    os._exit(EXIT_INTERRUPTED)
