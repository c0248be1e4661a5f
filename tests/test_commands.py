"""Every command has help with an example, every example runs, and a user error is one sentence."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from kb.errors import UserError
from tigerdata.commands import data_app
from tigerdata.workspace import Workspace
from tigergen.commands import gen_app

APPS = {"tigerdata": data_app, "tigergen": gen_app}
REPORT = (
    "右叶中部见一低回声结节，大小约12×8×7mm，实性，边界不清，形态不规则，内见点状强回声。"
    "超声提示：右叶结节，C-TIRADS 4C类。"
)
# The examples of the help texts, run in this order, are a whole journey at the smallest size.
ORDER = [
    "tigerdata init", "tigerdata simulate", "tigerdata parse", "tigerdata explain", "tigerdata kb show",
    "tigerdata ingest reports", "tigerdata ingest pathology", "tigerdata ingest images", "tigerdata ingest masks",
    "tigerdata prompts", "tigerdata locate", "tigerdata split", "tigergen train segmenter", "tigerdata segment",
    "tigerdata check", "tigerdata view", "tigerdata stats", "tigerdata terms",
    "tigerdata kb query", "tigerdata kb diff", "tigerdata kb update", "tigerdata kb export", "tigergen presets",
    "tigergen train judge", "tigergen train vae", "tigergen train coarse", "tigergen train fine", "tigergen plan",
    "tigergen augment", "tigergen sample", "tigergen grid",
    "tigergen arms", "tigergen compare", "tigergen evaluate", "tigerdata export", "tigergen report",
    "tigergen study new",
]  # fmt: skip
# The demo runs these very commands again (tests/tigergen/test_demo.py); a study is served until it is stopped, and
# scored once people have answered (tests/tigergen/study).
ELSEWHERE = {"tigergen demo", "tigergen study serve", "tigergen study score"}


def commands() -> dict[str, str]:
    """Full name of every command and its help text."""
    found: dict[str, str] = {}

    def walk(name: str, command: object) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found[name] = getattr(command, "help", None) or ""
        else:
            for child_name, child in children.items():
                walk(f"{name} {child_name}", child)

    for name, app in APPS.items():
        walk(name, typer.main.get_command(app))
    return found


def example(help_text: str) -> list[str]:
    """The words of the command that the help's `Example:` line shows."""
    match = re.search(r"Example: (.+?)(?:\n\n|\Z)", help_text, re.DOTALL)
    return shlex.split(" ".join(match.group(1).split())) if match else []


def test_every_command_has_an_example_that_calls_it() -> None:
    for name, text in commands().items():
        words = example(text)
        assert " ".join(words[: len(name.split())]) == name, f"`{name} --help` needs an example of itself"


def test_every_command_is_part_of_the_journey() -> None:
    assert set(commands()) == {*ORDER, *ELSEWHERE}


def test_examples_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as printed, one after the other in an empty folder; each result is JSON for a machine."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    results = {}
    for name in ORDER:
        program, *words = example(commands()[name])
        extra = [] if name == "tigerdata parse" else ["--json"]
        done = CliRunner().invoke(APPS[program], [*words, *extra], catch_exceptions=False)
        assert done.exit_code == 0, f"{name}: {done.output}"
        results[name] = json.loads(done.stdout.strip().splitlines()[-1])
    nodule = results["tigerdata parse"]["nodules"][0]
    assert (nodule["location"]["side"], nodule["diameter_mm"]) == ("right", [12, 8, 7])
    accepted = sorted((tmp_path / "augmented").rglob("[0-9]*.png"))
    assert accepted and results["tigergen augment"]["accepted"] == len(accepted)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    names = {path.parent.name for path in (tmp_path / "dataset" / "train").rglob("*.png")}
    assert {"FTC", "PTC", "benign"} <= names


USAGE = (
    "class=number",
    "not of the form name=column",
    "--ids none",
    "either --target CLASS or --unknown",
    "--phi lax",
    "no encoding 'x'",
    "no export format 'coco9'",
)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["terms", "-w", "ws"], "either --target CLASS or --unknown"),
        (["init", "x", "--ids", "none"], "--ids none"),
        (["parse", "missing.txt"], "there is no file missing.txt"),
        (["ingest", "images", "nowhere", "-w", "."], "is no workspace"),
        (["init", "x", "--domain", "knee"], "knee"),
        (["simulate", "c", "--train", "benign"], "class=number"),
        (["ingest", "reports", "x.csv", "-w", "."], "is no workspace"),
        (["ingest", "reports", "missing.csv", "-w", "ws"], "no file or folder missing.csv"),
        (["ingest", "reports", "a.csv", "-w", "ws"], "its columns are colour, shape"),
        (["ingest", "reports", "a.csv", "--map", "findings", "-w", "ws"], "not of the form name=column"),
        (["ingest", "reports", "a.csv", "--phi", "lax", "-w", "ws"], "--phi lax"),
        (["ingest", "images", ".", "--pattern", "{a}.png", "-w", "ws"], "--pattern '{a}.png' links by nothing"),
        (["ingest", "pathology", "a.csv", "--encoding", "x", "-w", "ws"], "no encoding 'x'"),
        (["check", "-w", "ws"], "holds no images"),
        (["view", "--out", "g.html", "-w", "ws"], "holds no images"),
        (["view", "--out", "g.html", "--flag", "ugly", "-w", "ws"], "no check 'ugly'"),
        (["split", "--folds", "5", "-w", "ws"], "holds no images"),
        (["export", "--out", "o", "--format", "coco9", "--draft", "-w", "ws"], "no export format 'coco9'"),
        (["export", "--out", "o", "--licence", "MIT", "-w", "ws"], "has no consent statement; give --consent"),
        (["export", "--out", "o", "--draft", "-w", "ws"], "no image with a split to export"),
    ],
)
def test_user_errors_are_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    if "ws" in words:
        Workspace.create(tmp_path / "ws")
        (tmp_path / "a.csv").write_text("colour,shape\nred,round\n", encoding="utf-8")
    code = f"import sys, cli; sys.argv = ['tigerdata', *{words!r}]; cli.tigerdata()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == (2 if sentence in USAGE else 1)
    assert done.stderr.startswith("error: ") and sentence in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_counts_are_read_or_refused() -> None:
    from tigerdata.commands import _counts

    assert _counts("benign=6,FTC=2", "--train") == {"benign": 6, "FTC": 2}
    with pytest.raises(UserError, match="--train 'FTC'"):
        _counts("FTC", "--train")
