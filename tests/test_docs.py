"""The documents say what is true: the command page is made from the code, links lead somewhere, names exist."""

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import duckdb
import pytest

from kb import schema
from kb.schema_notes import NOTES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_command_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == generator().page(), "run `make docs`"


def test_schema_page_is_what_the_schema_says() -> None:
    assert (ROOT / "docs" / "schema.md").read_text(encoding="utf-8") == generator().schema_page(), "run `make docs`"


def test_every_column_of_the_schema_has_a_note_and_every_note_a_column() -> None:
    with duckdb.connect() as con:
        schema.migrate(con)
        columns = set(con.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall())
    assert {(table, column) for table, (_, notes) in NOTES.items() for column in notes} == columns


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_paper_page_names_functions_and_tests_that_exist() -> None:
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:kb|tigergen|tigerdata)\.[\w.]+)`", text):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), f"docs/paper.md names {name}"
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, f"docs/paper.md names {name}"
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"docs/paper.md names {path}"


def test_commands_in_the_docs_exist() -> None:
    """Every `tigerdata …` and `tigergen …` line of a code block starts with a command that exists."""
    known = {
        line[4:]
        for line in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("### ")
    }
    for page in PAGES:
        blocks = re.findall(r"```(?:\w*)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in "\n".join(blocks).splitlines():
            words = line.split()
            if words and words[0] in ("tigerdata", "tigergen"):
                names = {" ".join(words[:2]), " ".join(words[:3])}
                assert names & known, f"{page.name}: no command `{line}`"
