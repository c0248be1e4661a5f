"""One progress line per process: for a person on a terminal, for a log file, or as JSON for a parent process."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[Mapping[str, Any]], None]

LOG_EVERY_S = 15.0
TERMINAL_EVERY_S = 0.2


def describe(event: Mapping[str, Any]) -> str:
    """Write an event as one short line: the stage, `done/total`, and the remaining figures as `name value`.

    >>> describe({"stage": "coarse", "step": 20, "steps": 80, "loss": 0.125})
    'coarse 20/80  loss 0.125'
    """
    hidden = {"stage", "step", "steps"}
    figures = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in event.items() if k not in hidden]
    count = f" {event['step']}/{event['steps']}" if event.get("steps") else ""
    return "  ".join([f"{event.get('stage', '')}{count}", *figures]).strip()


def reporter(quiet: bool = False) -> Progress:
    """Return the callback that library functions report to; it writes on stderr only.

    A parent process that sets `TIGER_PROGRESS=json` gets every event as one JSON line; a terminal gets a line that is
    overwritten; a log file gets a line now and then and always the last one of a stage. An event with a "warning" is
    always told, on a line that stays.
    """
    if quiet:
        return lambda event: None
    if os.environ.get("TIGER_PROGRESS") == "json":
        return lambda event: _line(json.dumps(dict(event), ensure_ascii=False, default=float) + "\n")
    terminal = sys.stderr.isatty()
    every = TERMINAL_EVERY_S if terminal else LOG_EVERY_S
    last = {"time": 0.0}

    def report(event: Mapping[str, Any]) -> None:
        finished = "warning" in event or (bool(event.get("steps")) and event.get("step") == event.get("steps"))
        now = time.monotonic()
        if not finished and now - last["time"] < every:
            return
        last["time"] = now
        if terminal:
            _line("\r\x1b[K" + describe(event) + ("\n" if finished else ""))
        else:
            _line(describe(event) + "\n")

    return report


def _line(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
