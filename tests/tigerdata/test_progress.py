"""Progress lines: JSON for a parent, a last line for a log, nothing on stdout."""

import doctest
import json

import pytest

from tigerdata import progress
from tigergen import display


def test_examples_in_the_docstrings() -> None:
    for module in (progress, display):
        assert doctest.testmod(module).failed == 0


def test_a_parent_gets_every_event_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("TIGER_PROGRESS", "json")
    report = progress.reporter()
    for step in (1, 2, 3):
        report({"stage": "coarse", "step": step, "steps": 3})
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["step"] for line in err.splitlines()] == [1, 2, 3]


def test_a_log_gets_few_lines_but_always_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("TIGER_PROGRESS", raising=False)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    report = progress.reporter()
    for step in range(1, 101):
        report({"stage": "fine", "step": step, "steps": 100})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["fine 1/100", "fine 100/100"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture) -> None:
    progress.reporter(quiet=True)({"stage": "x", "step": 1, "steps": 1})
    assert capsys.readouterr() == ("", "")
