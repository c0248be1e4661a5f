"""The DuckDB store: schema, versions, locks and bulk inserts."""

import multiprocessing
import time
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import kb
from kb import schema, store
from kb.errors import UserError

TABLES = {
    "patients", "reports", "nodules", "findings", "pathology", "images", "regions", "prompts", "terms", "term_roles",
    "sources", "splits", "models", "runs", "samples", "report_versions", "ingests", "pseudonyms",
}  # fmt: skip


def names(con: duckdb.DuckDBPyConnection) -> set[str]:
    return {row[0] for row in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}


def test_a_new_file_has_all_tables_and_a_version(tmp_path: Path) -> None:
    with store.connect(tmp_path / "a.duckdb") as con:
        assert names(con) >= TABLES
        assert schema.stored_version(con) == schema.VERSION


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    with store.connect(tmp_path / "a.duckdb") as con:
        con.execute("INSERT INTO patients (patient_id) VALUES ('p')")
    with store.connect(tmp_path / "a.duckdb") as con:
        assert con.execute("SELECT patient_id FROM patients").fetchall() == [("p",)]
        assert con.execute("SELECT count(*) FROM schema_version").fetchall() == [(schema.VERSION,)]


def test_a_file_of_version_1_is_migrated_with_what_it_holds(tmp_path: Path) -> None:
    """Reading it is enough. Its ids stay as they are, and ids that come later are kept in the same way."""
    with duckdb.connect(str(tmp_path / "a.duckdb")) as con:
        schema.migrate(con, schema.STEPS[:1])
        con.execute("INSERT INTO reports VALUES ('r1', 'p1', 'e1', NULL, 'zh', '左叶结节。', 'digest', 'a.csv:2')")
        con.execute("INSERT INTO pathology VALUES ('g', 'p1', NULL, NULL, 'MTC', NULL, NULL, 'MTC; PTC')")
    with store.connect(tmp_path / "a.duckdb", read_only=True) as con:
        assert schema.stored_version(con) == schema.VERSION
        assert con.execute("SELECT report_id, text, source_key FROM reports").fetchall() == [("r1", "左叶结节。", None)]
        assert con.execute("SELECT own_conflict FROM pathology").fetchall() == [("MTC; PTC",)]
        assert con.execute("SELECT policy, key_check FROM pseudonyms").fetchall() == [("kept", None)]
    with store.connect(tmp_path / "b.duckdb") as con:
        assert con.execute("SELECT count(*) FROM pseudonyms").fetchall() == [(0,)]


def test_an_older_file_gets_the_steps_it_lacks(tmp_path: Path) -> None:
    with store.connect(tmp_path / "a.duckdb") as con:
        con.execute("INSERT INTO patients (patient_id) VALUES ('p')")
        schema.migrate(con, (*schema.STEPS, "ALTER TABLE patients ADD COLUMN country VARCHAR"))
        assert con.execute("SELECT patient_id, country FROM patients").fetchall() == [("p", None)]


def test_a_failing_step_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with store.connect(tmp_path / "a.duckdb") as con:
        with pytest.raises(duckdb.Error):
            schema.migrate(con, (*schema.STEPS, "CREATE TABLE extra (x INTEGER)", "CREATE TABLE extra (y INTEGER)"))
        assert schema.stored_version(con) == schema.VERSION
        assert "extra" not in names(con)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_file_is_refused(tmp_path: Path, read_only: bool) -> None:
    with store.connect(tmp_path / "a.duckdb") as con:
        con.execute("INSERT INTO schema_version VALUES (999)")
    with pytest.raises(UserError, match="999"):
        store.connect(tmp_path / "a.duckdb", read_only=read_only)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "other.duckdb")) as con:
        con.execute("CREATE TABLE mine (x INTEGER)")
    with pytest.raises(UserError, match="did not make it"):
        store.connect(tmp_path / "other.duckdb")
    (tmp_path / "text.duckdb").write_text("this is no database")
    with pytest.raises(UserError, match="cannot be opened"):
        store.connect(tmp_path / "text.duckdb")
    with pytest.raises(UserError, match="no database"):
        store.connect(tmp_path / "missing.duckdb", read_only=True)


def _hold(path: str, seconds: float, ready: "multiprocessing.synchronize.Event") -> None:
    with duckdb.connect(path):
        ready.set()
        time.sleep(seconds)


def test_a_locked_file_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    store.connect(path).close()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(path), 3.0, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="in use by another program"):
        store.connect(path, wait_s=0.2)
    store.connect(path, wait_s=60).close()
    holder.join()


def test_insert_goes_by_column_name(tmp_path: Path) -> None:
    with store.connect(tmp_path / "a.duckdb") as con:
        frame = pd.DataFrame({"age": [40.0, 50.0], "patient_id": ["a", "b"]})
        assert store.insert(con, "patients", frame) == 2
        assert con.execute("SELECT patient_id, age, sex FROM patients ORDER BY 1").fetchall() == [
            ("a", 40.0, None),
            ("b", 50.0, None),
        ]
        store.insert(con, "patients", pd.DataFrame({"patient_id": ["a"], "age": [41.0]}), replace=True)
        assert con.execute("SELECT age FROM patients WHERE patient_id = 'a'").fetchall() == [(41.0,)]
        with pytest.raises(UserError, match="colour"):
            store.insert(con, "patients", pd.DataFrame({"colour": ["red"]}))
        with pytest.raises(UserError, match="nowhere"):
            store.insert(con, "nowhere", pd.DataFrame({"x": [1]}))


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    con = store.connect(tmp_path / "tiger.duckdb")
    with store.transaction(con):
        con.execute("INSERT INTO sources VALUES ('a', 'A')")
    with pytest.raises(KeyboardInterrupt), store.transaction(con):
        con.execute("INSERT INTO sources VALUES ('b', 'B')")
        raise KeyboardInterrupt
    assert con.execute("SELECT source_id FROM sources").fetchall() == [("a",)]
    con.close()


def test_the_vocabulary_is_stored_once_and_computed_roles_stay(tmp_path: Path) -> None:
    base = kb.load("thyroid")
    with store.connect(tmp_path / "a.duckdb") as con:
        store.fill_vocabulary(con, base)
        first = con.execute("SELECT count(*) FROM terms").fetchall()
        con.execute("INSERT INTO term_roles VALUES ('FTC', 'halo', 'present', 'joint', 'corpus', 'n=12')")
        store.fill_vocabulary(con, base)
        assert con.execute("SELECT count(*) FROM terms").fetchall() == first
        assert con.execute("SELECT count(*) FROM term_roles WHERE statistics IS NOT NULL").fetchall() == [(1,)]
        assert con.execute("SELECT count(*) FROM term_roles WHERE source IS NULL").fetchall() == [(0,)]
        phrases = {row[0] for row in con.execute("SELECT DISTINCT phrase FROM terms").fetchall()}
        assert phrases == set(base.phrases())
