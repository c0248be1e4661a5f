"""Looking into a workspace's database: one read-only statement, exports that can be read back, differences."""

import doctest
import json
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import kb
from kb import diff, store
from kb.diff import difference, facts
from kb.errors import UserError
from kb.export import export
from kb.locate import DOMAINS
from kb.query import query
from kb.show import describe, role_rows, value_rows


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "tiger.duckdb"
    with store.connect(path) as con:
        store.fill_vocabulary(con, kb.load("thyroid"))
        rows = pd.DataFrame(
            {"report_id": ["r1", "r2"], "text": ["王小明 结节", 'other, "quoted"'], "sha256": ["a", "b"]}
        )
        store.insert(con, "reports", rows)
    return path


def test_a_query_gives_names_and_rows(database: Path) -> None:
    assert query(database, "SELECT report_id AS id, 1 AS one FROM reports ORDER BY 1") == (
        ["id", "one"],
        [("r1", 1), ("r2", 1)],
    )
    assert query(database, "WITH t AS (FROM terms) SELECT scope FROM t LIMIT 1 ;")[1] == [("fg",)]
    assert len(query(database, "FROM reports", limit=1)[1]) == 1


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DROP TABLE reports", "one SELECT statement"),
        ("SELECT 1; DROP TABLE reports", "one SELECT statement"),
        ("INSERT INTO reports VALUES (1)", "one SELECT statement"),
        ("COPY reports TO 'stolen.csv'", "one SELECT statement"),
        ("ATTACH 'other.duckdb'", "one SELECT statement"),
        ("SET enable_external_access = true", "one SELECT statement"),
        ("EXPLAIN ANALYZE DROP TABLE reports", "cannot be run|failed"),
        ("", "one SELECT statement"),
        ("SELEC 1", "no|not SQL"),
        ("SELECT nix FROM reports", "nix"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT * FROM read_csv('/etc/hostname')", "cannot be run"),
        ("SELECT text::INTEGER FROM reports", "failed on the data"),
        ("SELECT error(text) FROM reports", "failed on the data"),
    ],
)
def test_everything_else_is_one_sentence_without_data(database: Path, sql: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        query(database, sql)
    message = str(raised.value)
    assert "\n" not in message and "王小明" not in message and "quoted" not in message
    assert query(database, "SELECT count(*) FROM reports")[1] == [(2,)]


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_an_export_can_be_read_back(database: Path, tmp_path: Path, kind: str) -> None:
    counts = export(database, tmp_path / "out", kind)
    assert set(counts) == {f"{table}.{kind}" for table in ("terms", "term_roles", "sources", "findings")}
    path = tmp_path / "out" / f"sources.{kind}"
    if kind == "json":
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = {row["source_id"]: row["citation"] for row in rows}
    else:
        frame = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
        found = dict(zip(frame["source_id"], frame["citation"], strict=True))
    assert found == kb.load("thyroid").sources
    assert counts[f"sources.{kind}"] == len(found)
    if kind != "parquet":
        before = path.read_bytes()
        export(database, tmp_path / "out", kind)
        assert path.read_bytes() == before


def test_an_export_of_what_is_not_there_is_refused(database: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no format 'xml'"):
        export(database, tmp_path, "xml")
    with pytest.raises(UserError, match="no table 'nowhere'"):
        export(database, tmp_path, tables=["nowhere"])
    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM reports").fetchall() == [(2,)]


EDITS = {
    "": [
        ("phrase: irregular margin", "phrase: ragged margin"),
        ("below_mm: 10,", "below_mm: 11,"),
        ('delineated)", circumscribed,', 'delineated)", circumscribed, crisp,'),
    ],
    "_subtypes": [("particular: {calcification: [macrocalcification]}", "particular: {}")],
}


def test_a_difference_is_found_in_every_part(tmp_path: Path) -> None:
    for part, edits in EDITS.items():
        text = (DOMAINS / f"thyroid{part}.yaml").read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) >= 1
            text = text.replace(old, new, 1)
        (tmp_path / f"thyroid{part}.yaml").write_text(text, encoding="utf-8")
    rows = difference(facts(kb.load("thyroid")), facts(kb.load("thyroid", tmp_path)))
    found = {(row["change"], row["kind"], row["name"]) for row in rows}
    assert ("changed", "phrase", "margin.irregular_margin") in found
    assert ("changed", "bound", "diameter.small") in found
    assert ("added", "word", "margin.clear en crisp") in found
    assert ("changed", "role", "MTC: calcification.macrocalcification") in found
    assert len(found) == 4
    assert difference(facts(kb.load("thyroid")), facts(kb.load("thyroid"))) == []
    assert doctest.testmod(diff).failed == 0


def test_a_domain_is_shown_in_full() -> None:
    base = kb.load("thyroid")
    data = describe(base)
    assert json.loads(json.dumps(data)) == data
    assert data["attributes"]["halo"]["values"]["interrupted"]["phrase"] == "interrupted halo"
    assert data["subtypes"]["MTC"]["roles"]["calcification.macrocalcification"] == "particular"
    assert len(value_rows(base)) == sum(len(model.values) for model in base.attributes.values())
    assert value_rows(base, "shape")[0]["en"].startswith("regular, … ")
    assert "…" not in value_rows(base, "shape", words=None)[0]["en"]
    roles = {row["value"]: row["role"] for row in role_rows(base, "FTC")}
    assert roles["halo.interrupted"] == "particular" and "nodule_location.left" not in roles
    for call, words in [(lambda: value_rows(base, "colour"), "colour"), (lambda: role_rows(base, "XYZ"), "XYZ")]:
        with pytest.raises(UserError, match=words):
            call()
