"""Run a journey of commands as a graph: each stage once, two side by side, continued after a kill.

A stage is a `tigerdata` or `tigergen` command. It is done when its record holds the command that is asked for now and
the records of the stages before it; so a killed journey continues, and a changed setting re-runs what depends on it.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kb.errors import UserError
from kb.files import read_json, write_json

POLL_S = 0.2
TAIL_LINES = 12


@dataclass(frozen=True)
class Stage:
    """One command of a journey; `story` is the sentence that a newcomer reads while it runs."""

    name: str
    story: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()


def command_line(stage: Stage) -> list[str]:
    """The argument list that runs a stage's command in a new process of this same installation."""
    program, *arguments = stage.command
    return [sys.executable, "-c", f"import cli; cli.{program}()", *arguments, "--json"]


@dataclass
class Running:
    """A stage in progress: its process, its latest event and the last lines that it wrote to stderr."""

    stage: Stage
    process: subprocess.Popen[str]
    started: float
    event: dict[str, Any] = field(default_factory=dict)
    tail: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)


class Journey:
    """Stages, where their records lie, and how many may run at once.

    `watch(journey)` is called a few times a second, so that a display can draw `done`, `running` and `seconds`.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        folder: Path,
        slots: int = 2,
        watch: Callable[["Journey"], None] | None = None,
        launch: Callable[[Stage], list[str]] = command_line,
    ) -> None:
        self.stages = list(stages)
        self.folder = folder
        self.slots = slots
        self.watch = watch or (lambda journey: None)
        self.launch = launch
        self.keys: dict[str, str] = {}
        for stage in self.stages:
            missing = [name for name in stage.after if name not in self.keys]
            if missing:
                raise ValueError(f"stage {stage.name!r} comes after {missing[0]!r}, which is not listed before it")
            chain = json.dumps([stage.command, [self.keys[name] for name in stage.after]])
            self.keys[stage.name] = hashlib.sha256(chain.encode()).hexdigest()[:16]
        self.results: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.running: dict[str, Running] = {}

    def run(self) -> dict[str, Any]:
        """Run what is not done yet and return the result of every stage by name.

        Raises UserError with the stage, its command and the last words of its log if a stage fails.
        """
        self._load_records()
        try:
            while len(self.results) < len(self.stages):
                self._start_ready()
                for name in [name for name, run in self.running.items() if run.process.poll() is not None]:
                    self._finish(self.running.pop(name))
                self.watch(self)
                time.sleep(POLL_S)
        finally:
            for run in self.running.values():
                run.process.terminate()
            for run in self.running.values():
                run.process.wait()
        self.watch(self)
        return self.results

    def _record(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def _load_records(self) -> None:
        for stage in self.stages:
            path = self._record(stage.name)
            if path.exists():
                record = read_json(path)
                if record["key"] == self.keys[stage.name]:
                    self.results[stage.name] = record["result"]
                    self.seconds[stage.name] = record["seconds"]

    def _start_ready(self) -> None:
        for stage in self.stages:
            if len(self.running) >= self.slots:
                return
            waiting = any(name not in self.results for name in stage.after)
            if stage.name not in self.results and stage.name not in self.running and not waiting:
                self.running[stage.name] = self._start(stage)

    def _start(self, stage: Stage) -> Running:
        # One thread a stage: two one-thread processes beat one two-thread process, and results do not depend on a
        # thread count. The pipe on stdin ends the child when this process dies, however it dies.
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "TIGER_PROGRESS": "json",
            "TIGER_PARENT_PIPE": "1",
            "HF_HUB_OFFLINE": "1",
        }
        process = subprocess.Popen(
            self.launch(stage),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        run = Running(stage, process, time.monotonic())
        run.threads = [
            threading.Thread(target=self._read_events, args=(run,), daemon=True),
            threading.Thread(target=lambda: run.output.extend(process.stdout or ()), daemon=True),
        ]
        for thread in run.threads:
            thread.start()
        return run

    def _read_events(self, run: Running) -> None:
        log = self.folder / "logs" / f"{run.stage.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            for line in run.process.stderr or ():
                if line.startswith("{"):
                    run.event = json.loads(line)
                else:
                    run.tail = [*run.tail, line.rstrip()][-TAIL_LINES:]
                    file.write(line)
                    file.flush()

    def _finish(self, run: Running) -> None:
        for thread in run.threads:
            thread.join()
        name = run.stage.name
        if run.process.returncode != 0:
            words = next((line for line in reversed(run.tail) if line.strip()), "it said nothing")
            raise UserError(
                f"stage '{name}' failed ({' '.join(run.stage.command)}): {words} "
                f"The log is {self.folder / 'logs' / (name + '.log')}; the same command again continues here."
            )
        seconds = round(time.monotonic() - run.started, 1)
        result = json.loads("".join(run.output) or "null")
        write_json(self._record(name), {"key": self.keys[name], "result": result, "seconds": seconds})
        self.results[name] = result
        self.seconds[name] = seconds
