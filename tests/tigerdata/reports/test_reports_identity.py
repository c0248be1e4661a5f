"""Keyed pseudonyms: linked without ids, the key outside the database, and one policy for a workspace's whole life."""

import stat
from pathlib import Path

import cv2
import numpy as np
import pytest

from kb import schema, store
from kb.errors import UserError
from tigerdata.identity import KEY_FILE, Pseudonyms, pseudonyms
from tigerdata.images.ingest import ingest_images
from tigerdata.reports.ingest import ingest_pathology, ingest_reports
from tigerdata.workspace import Workspace

SECRETS = ("张伟", "P-77123", "EX-4711", "RP-2024-9", "13912345678", "2023-05-12")


@pytest.fixture
def study(tmp_path: Path) -> Workspace:
    """A patient with a report, a pathology text and an image, all by the hospital's own ids."""
    ws = Workspace.create(tmp_path / "ws")
    (tmp_path / "张伟").mkdir()
    (tmp_path / "reports.csv").write_text(
        "报告号,患者ID,检查号,姓名,检查日期,检查所见\n"
        "RP-2024-9,P-77123,EX-4711,张伟,2023-05-12,张伟左叶见一结节，大小约12×8mm，检查号EX-4711，电话13912345678，对比2023-05-02。\n",
        encoding="utf-8",
    )
    (tmp_path / "pathology.csv").write_text("patient_id,exam_id,text\nP-77123,EX-4711,髓样癌\n", encoding="utf-8")
    (tmp_path / "images.csv").write_text("file,patient_id,exam_id\na.png,P-77123,EX-4711\n", encoding="utf-8")
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    ingest_reports(ws, tmp_path / "reports.csv")
    ingest_pathology(ws, tmp_path / "pathology.csv")
    ingest_images(ws, tmp_path / "images.csv")
    return ws


def test_everything_links_and_nothing_personal_is_in_the_database(study: Workspace) -> None:
    with study.connect(read_only=True) as con:
        linked = con.execute(
            """SELECT p.subtype, i.exam_id = r.exam_id, n.report_id = r.report_id FROM reports r
               JOIN pathology p USING (patient_id, exam_id) JOIN images i USING (patient_id, exam_id)
               JOIN nodules n ON n.report_id = r.report_id JOIN patients USING (patient_id)"""
        ).fetchall()
        tables = [row[0] for row in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        everything = "".join(str(con.execute(f'FROM "{table}"').fetchall()) for table in tables)
        text, exam_date = con.execute("SELECT text, exam_date FROM reports").fetchone() or ("", "")
    assert linked == [("MTC", True, True)]
    raw = (study.path / "tiger.duckdb").read_bytes()
    for secret in SECRETS:
        assert secret not in everything and secret.encode() not in raw
    assert text.startswith("超声所见：██左叶见一结节，大小约12×8mm，检查号███████，电话███████████，对比202")
    # Dates moved, the ten days between them did not.
    assert abs(np.datetime64(exam_date) - np.datetime64(text[-11:-1])) == np.timedelta64(10, "D")
    assert 1 <= (np.datetime64("2023-05-12") - np.datetime64(exam_date)).astype(int) <= 365


def test_the_key_is_its_owners_alone_and_not_in_the_database(study: Workspace) -> None:
    file = study.path / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text().strip()
    raw = (study.path / "tiger.duckdb").read_bytes()
    assert len(key) == 64 and key.encode() not in raw and bytes.fromhex(key) not in raw


def test_another_key_or_none_is_refused(study: Workspace, tmp_path: Path) -> None:
    file = study.path / KEY_FILE
    key = file.read_text()
    file.write_text("ab" * 32)
    with pytest.raises(UserError, match="not the key that the ids of this workspace were made with"):
        ingest_reports(study, tmp_path / "reports.csv")
    file.write_text("short")
    with pytest.raises(UserError, match="does not hold a key"):
        pseudonyms(study)
    file.unlink()
    with pytest.raises(UserError, match=r"tiger\.key is missing"):
        ingest_reports(study, tmp_path / "reports.csv")
    assert not file.exists()
    file.write_text(key)
    assert ingest_reports(study, tmp_path / "reports.csv")["already_known"] == 1


def test_pseudonyms_depend_on_key_kind_and_id_alone() -> None:
    one, two = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
    assert one.of("patient", "12") == one.of("patient", " １２ ") != one.of("exam", "12")
    assert one.of("patient", "12") != two.of("patient", "12") != one.of("patient", "012")
    assert one.of("patient", "") is None and one.of("patient", None) is None
    assert Pseudonyms(b"a" * 32, "kept").of("patient", " 12 ") == "12"
    shifts = {one.shift_days(f"p{k}") for k in range(2000)}
    assert min(shifts) >= -365 and max(shifts) == -1 and len(shifts) > 300


def test_a_setting_that_is_none_is_refused(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws", settings={"privacy": {"ids": "hidden"}})
    with pytest.raises(UserError, match="privacy.ids in tiger.toml is 'hidden'"):
        pseudonyms(ws)


def test_a_workspace_of_version_1_keeps_its_ids(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")
    (ws.path / "tiger.duckdb").unlink()
    import duckdb

    with duckdb.connect(str(ws.path / "tiger.duckdb")) as con:
        schema.migrate(con, schema.STEPS[:1])
        con.execute("INSERT INTO reports VALUES ('r1', 'p1', NULL, NULL, 'zh', '左叶结节。', 'digest', 'a.csv:2')")
        con.execute("INSERT INTO reports VALUES ('r2', 'p2', NULL, NULL, 'zh', '囊肿。', 'digest', 'a.csv:3')")
    (tmp_path / "a.csv").write_text("report_id,patient_id,text\nr1,p1,左叶结节。\nr2,p2,两个囊肿。\n", "utf-8")
    counts = ingest_reports(ws, tmp_path / "a.csv")
    assert (counts["reports"], counts["corrected"], counts["already_known"]) == (1, 1, 1)
    with store.connect(ws.path / "tiger.duckdb", read_only=True) as con:
        assert con.execute("SELECT report_id, patient_id FROM reports ORDER BY 1").fetchall() == [
            ("r1", "p1"),
            ("r2", "p2"),
        ]


def test_strict_cleans_what_was_stored_and_standard_does_not_undo_it(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")
    file = tmp_path / "a.csv"
    file.write_text("id,text\na,左叶囊肿，编码 12345678。\nb,右叶结节。\n", encoding="utf-8")
    ingest_reports(ws, file)
    file.write_text("id,text\na,左叶结节，编码 12345678，2023-05-12。\nb,右叶结节。\n", encoding="utf-8")
    assert ingest_reports(ws, file)["corrected"] == 1
    strict = ingest_reports(ws, file, phi="strict")
    assert (strict["corrected"], strict["cleaned_again"], strict["already_known"]) == (0, 1, 1)
    for _ in range(2):
        with ws.connect(read_only=True) as con:
            found = con.execute("SELECT text, phi FROM reports ORDER BY text").fetchall()
            history = con.execute("SELECT text, findings FROM report_versions").fetchall()
        assert found == [("右叶结节。", "strict"), ("左叶结节，编码 ████████，██████████。", "strict")]
        assert history == [(None, None)]
        assert ingest_reports(ws, file)["reports"] == 0  # the milder level again changes nothing
    with pytest.raises(UserError, match="--phi none"):
        ingest_reports(ws, file, phi="none")
