"""The rules of the house that a machine can check: import direction, file length, no print, no machine paths."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"kb": set(), "tigerdata": {"kb"}, "tigergen": {"kb", "tigerdata"}, "cli": {"kb", "tigerdata", "tigergen"}}
HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "spacy",
    "ultralytics",
    "albumentations",
    "pandas",
    "cv2",
    "sklearn",
    "duckdb",
}
SOURCES = sorted(
    [*(p for room in ("kb", "tigerdata", "tigergen") for p in (ROOT / room).rglob("*.py")), ROOT / "cli.py"]
)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_source_file_keeps_the_house_rules(path: Path) -> None:
    room = room_of(path)
    wrong = (imported(path) & set(ROOMS)) - ROOMS[room] - {room}
    assert not wrong, f"{room} must not import {wrong}"
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400, "a file stays under 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: the library reports through callbacks, not print"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
            )
            reraises = any(isinstance(child, ast.Raise) for child in ast.walk(node))
            assert not broad or reraises, f"line {node.lineno}: name the errors that are expected"


@pytest.mark.parametrize("module", ["kb", "tigerdata", "tigergen", "cli"])
def test_start_up_imports_nothing_heavy(module: str) -> None:
    """`--help` answers in under 0.3 s only while no heavy library is imported at start-up."""
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_only_one_module_imports_each_library_that_calls_home() -> None:
    """ultralytics and albumentations call home by default: one module each switches that off."""
    for library in ("ultralytics", "albumentations"):
        users = [str(p.relative_to(ROOT)) for p in SOURCES if library in imported(p)]
        assert len(users) <= 1, f"{library} is imported in {users}"


def test_no_machine_paths_in_tracked_text() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split(
        "\n"
    )
    marks = ["/" + name + "/" for name in ("work", "root", "home")]
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".html"} and path.exists():
            text = path.read_text(encoding="utf-8")
            assert not [mark for mark in marks if mark in text], f"{name} holds a path of a machine"
