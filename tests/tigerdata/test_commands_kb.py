"""What the knowledge-base commands print: tables for people, JSON and CSV for machines, one sentence for a mistake."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kb.errors import UsageError, UserError
from tigerdata.commands import data_app
from tigerdata.reports.ingest import ingest_pathology, ingest_reports
from tigerdata.workspace import Workspace

TEXT = "左叶上极见一低回声实性结节，大小约12×8mm，边界清，未见钙化，伴爆米花征。"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    ws = Workspace.create(tmp_path / "study")
    rows = [f"r{k},p{k},{TEXT}" for k in range(6)]
    (tmp_path / "reports.csv").write_text("report_id,patient_id,text\n" + "\n".join(rows), encoding="utf-8")
    rows = [f"p{k},{'甲状腺滤泡癌' if k < 3 else '结节性甲状腺肿'}" for k in range(6)]
    (tmp_path / "pathology.csv").write_text("patient_id,text\n" + "\n".join(rows), encoding="utf-8")
    ingest_reports(ws, tmp_path / "reports.csv")
    ingest_pathology(ws, tmp_path / "pathology.csv")
    monkeypatch.chdir(ws.path)
    return ws


def run(*words: str) -> str:
    done = CliRunner().invoke(data_app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_tables_for_people(study: Workspace) -> None:
    shown = run("terms", "--target", "FTC")
    assert "unevenly thick halo" in shown and "particular" in shown and "the corpus has no say yet" in shown
    assert "·爆米花征" in run("terms", "--unknown"), "the letter before the word is masked"
    shown = run("stats", "--least", "1")
    assert "3 (100%)" in shown and "composition.solid" in shown and "benign" in shown
    assert "clear margin" in run("kb", "show", "--attribute", "margin")
    assert "interrupted halo" in run("kb", "show", "--subtype", "FTC")
    assert "hypoechoic" in run("explain", "r0")


def test_a_difference_says_what_to_do_next(study: Workspace) -> None:
    assert run("kb", "diff") == "no difference\n"
    (study.path / "vocabulary.yaml").write_text(
        "extends: thyroid\nsurfaces: {margin: {clear: {zh: [边界锐利]}}}\n", encoding="utf-8"
    )
    shown = run("kb", "diff")
    assert "边界锐利" in shown and "tigerdata kb update" in shown
    run("kb", "update")
    assert run("kb", "diff") == "no difference\n"
    assert json.loads(run("kb", "diff", "thyroid", "vocabulary.yaml", "--json"))[0]["new"] == "边界锐利"
    assert len(json.loads(run("kb", "diff", "thyroid", "breast", "--json"))) > 100


def test_output_for_machines(study: Workspace, tmp_path: Path) -> None:
    query = "SELECT value, count(*) AS n, NULL AS nothing FROM findings WHERE attribute = 'margin' GROUP BY ALL"
    assert run("kb", "query", query, "--csv") == "value,n,nothing\nclear,6,\n"
    assert json.loads(run("kb", "query", query, "--json")) == [{"value": "clear", "n": 6, "nothing": None}]
    assert json.loads(run("kb", "query", "SELECT 1, 1", "--json")) == [{"1": 1, "1_2": 1}]
    counts = json.loads(run("kb", "export", str(tmp_path / "out"), "--format", "json", "--json"))
    assert counts["findings.json"] == len(json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8")))
    found = json.loads(run("stats", "--json"))
    assert found["classes"] == {"FTC": 3, "benign": 3} and found["co_occurrence"]
    table = json.loads(run("terms", "--target", "FTC", "--json"))
    assert {row["role"] for row in table} == {"particular", "joint", "common"}
    explained = json.loads(run("explain", "r0", "--target", "FTC", "--json"))
    assert explained["nodules"][0]["fg"][0] == ["solid", "joint"]
    page = tmp_path / "page.html"
    assert json.loads(run("explain", "r0", "--html", str(page), "--json"))["nodules"] == 1
    assert "爆米花征" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["terms"], "either --target CLASS or --unknown"),
        (["terms", "--target", "FTC", "--unknown"], "either --target CLASS or --unknown"),
        (["terms", "--target", "XYZ"], "no class 'XYZ'"),
        (["explain", "nobody"], "neither a file nor a report 'nobody'"),
        (["kb", "query", "DROP TABLE reports"], "one SELECT statement"),
        (["kb", "show", "--domain", "knee"], "there is no organ 'knee'; packaged are breast, chest, thyroid"),
        (["kb", "show", "--attribute", "colour"], "no attribute 'colour'"),
        (["kb", "export", "out", "--format", "xml"], "no format 'xml'"),
        (["kb", "diff", "thyroid", "nowhere.yaml"], "no file"),
    ],
)
def test_mistakes_are_one_sentence(study: Workspace, words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        CliRunner().invoke(data_app, words, catch_exceptions=False)
    assert "\n" not in str(raised.value) and TEXT[:6] not in str(raised.value)


def test_a_mistake_in_the_overlay_is_named_by_every_command(study: Workspace) -> None:
    (study.path / "vocabulary.yaml").write_text("extends: thyroid\nroles: {FTC: {joint: {}}}\n", encoding="utf-8")
    for words in (["terms", "--target", "FTC"], ["kb", "diff"], ["explain", "r0"], ["stats"]):
        with pytest.raises(UserError, match=r"vocabulary\.yaml:2: 'sources' is missing in roles\.FTC; add it\."):
            CliRunner().invoke(data_app, words, catch_exceptions=False)


@pytest.mark.parametrize(
    "command",
    [["ingest", "reports", "a.csv", "--phi", "lax"], ["kb", "export", "out", "--format", "xml"]],
    ids=["phi", "format"],
)
def test_a_value_that_an_option_does_not_take_is_a_usage_error(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n左叶见结节\n", encoding="utf-8")
    workspace = ["-w", str(Workspace.create(tmp_path / "ws").path)]
    done = CliRunner().invoke(
        data_app, [str(tmp_path / c) if c in ("a.csv", "out") else c for c in command] + workspace
    )
    assert isinstance(done.exception, UsageError)
