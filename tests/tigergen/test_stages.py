"""The stage runner: each stage once, side by side, continued after a kill, re-run when a setting changes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kb.errors import UserError
from tigergen.stages import Journey, Stage


def python(stage: Stage) -> list[str]:
    """Launch a stage whose command is a piece of Python."""
    return [sys.executable, "-c", *stage.command]


def mark(folder: Path, name: str, after: tuple[str, ...] = (), value: int = 0, sleep: float = 0.0) -> Stage:
    code = f"import time; time.sleep({sleep}); open({str(folder / 'ran')!r}, 'a').write('{name} '); print({value})"
    return Stage(name, "", (code,), after)


def ran(folder: Path) -> list[str]:
    return (folder / "ran").read_text().split()


def test_order_follows_the_graph_and_results_are_read(tmp_path: Path) -> None:
    stages = [
        mark(tmp_path, "a", value=1),
        mark(tmp_path, "b", ("a",), value=2),
        mark(tmp_path, "c", ("a", "b"), value=3),
    ]
    assert Journey(stages, tmp_path, launch=python).run() == {"a": 1, "b": 2, "c": 3}
    assert ran(tmp_path) == ["a", "b", "c"]


def test_second_run_does_nothing_and_a_changed_stage_reruns_what_follows(tmp_path: Path) -> None:
    def stages(value: int) -> list[Stage]:
        return [mark(tmp_path, "a"), mark(tmp_path, "b", ("a",), value), mark(tmp_path, "c", ("b",))]

    Journey(stages(1), tmp_path, launch=python).run()
    Journey(stages(1), tmp_path, launch=python).run()
    assert ran(tmp_path) == ["a", "b", "c"]
    Journey(stages(2), tmp_path, launch=python).run()
    assert ran(tmp_path) == ["a", "b", "c", "b", "c"]


def test_two_independent_stages_overlap(tmp_path: Path) -> None:
    waiting = textwrap.dedent("""
        import pathlib, time
        folder = pathlib.Path({folder!r}); (folder / {own!r}).touch()
        for _ in range(300):
            if (folder / {other!r}).exists(): print(1); break
            time.sleep(0.05)
        else: raise SystemExit("the other stage never started")
    """)
    stages = [
        Stage(own, "", (waiting.format(folder=str(tmp_path), own=own, other=other),)) for own, other in ("xy", "yx")
    ]
    assert Journey(stages, tmp_path, launch=python).run() == {"x": 1, "y": 1}


def test_failure_names_the_stage_and_its_last_words(tmp_path: Path) -> None:
    bad = Stage("bad", "", ("import sys; sys.exit('the disk is full')",))
    with pytest.raises(UserError, match=r"stage 'bad' failed.*the disk is full.*continues here"):
        Journey([bad], tmp_path, launch=python).run()


def test_events_reach_the_display_and_other_lines_reach_the_log(tmp_path: Path) -> None:
    code = "import sys, time; print('{\"step\": 3}', file=sys.stderr); print('words', file=sys.stderr)"
    code += "; time.sleep(1); print(0)"
    seen = []
    watch = lambda journey: seen.extend(run.event.get("step") for run in journey.running.values())  # noqa: E731
    Journey([Stage("s", "", (code,))], tmp_path, watch=watch, launch=python).run()
    assert 3 in seen
    assert (tmp_path / "logs" / "s.log").read_text() == "words\n"


def test_unknown_predecessor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'b' comes after 'a'"):
        Journey([Stage("b", "", ("pass",), ("a",))], tmp_path)


def test_killed_journey_ends_its_children_and_continues(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to clean up: the closed pipe must end the child, and the next run continue."""
    program = textwrap.dedent(f"""
        import pathlib, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from tigergen.stages import Journey, Stage
        folder = pathlib.Path({str(tmp_path)!r})
        def launch(stage): return [sys.executable, "-c", *stage.command]
        first = Stage("first", "", ("print(1)",))
        child = "import cli, os, threading, time;" \\
                "threading.Thread(target=cli._end_with_parent, daemon=True).start();" \\
                f"open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        Journey([first, Stage("long", "", (child,), ("first",))], folder, launch=launch).run()
    """)
    parent = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child outlived its killed parent")
    stages = [Stage("first", "", ("print(1)",)), mark(tmp_path, "long", ("first",), value=2)]
    assert Journey(stages, tmp_path, launch=python).run() == {"first": 1, "long": 2}
