"""Parsed batches into the database in one transaction: new reports, corrections with their history, patients.

Everything that decides what a row becomes is decided here, under the lock of the one writer, so that two programs that
ingest the same file at once store it once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tigerdata.processes import part_files
from tigerdata.rejects import Reject
from tigerdata.reports.person import fill_patients

if TYPE_CHECKING:
    import duckdb

REPORT_COLUMNS = (
    "report_id, patient_id, exam_id, exam_date, language, text, sha256, ingested_from, source_key, phi, phi_rules"
)
OTHER_PATIENT = "its report id belongs to a report of another patient"


@dataclass
class Stored:
    """What the transaction did."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)


class Miscount(RuntimeError):
    """Rows were lost or doubled: a fault of this program. Nothing of the file is stored."""


def store_reports(con: duckdb.DuckDBPyConnection, folder: Path, level: str) -> Stored:
    """Put the parts in `folder` into the tables, in the caller's transaction.

    A report whose id is known with another text replaces it: the older text and its findings go to `report_versions`.
    Reading a report again under stricter rules for personal data is no new version, and takes the texts of its older
    versions away. A report id that belongs to another patient is refused.
    """
    out = Stored()
    parts = {name: part_files(folder, name) for name in ("reports", "nodules", "findings")}
    con.execute("CREATE OR REPLACE TEMP TABLE _new AS SELECT * FROM read_parquet(?)", [parts["reports"]])
    con.execute("CREATE OR REPLACE TEMP TABLE _fate AS " + _FATE)
    fates = dict(con.execute("SELECT fate, count(*) FROM _fate GROUP BY fate").fetchall())
    out.counts["reports"] = fates.get("new", 0) + fates.get("corrected", 0) + fates.get("cleaned", 0)
    out.counts["corrected"] = fates.get("corrected", 0)
    out.counts["cleaned_again"] = fates.get("cleaned", 0)
    out.counts["already_known"] = fates.get("known", 0)
    rows = con.execute(
        "SELECT ingested_from, line FROM _new JOIN _fate USING (report_id) WHERE fate = 'refused' ORDER BY line"
    ).fetchall()
    out.rejects = [Reject(place.rpartition(":")[0], line, OTHER_PATIENT) for place, line in rows]
    con.execute(
        """UPDATE reports SET source_key = n.source_key, phi = n.phi, phi_rules = n.phi_rules
           FROM _new n JOIN _fate f USING (report_id) WHERE f.fate = 'known' AND reports.report_id = n.report_id"""
    )
    if fates.get("corrected") or fates.get("cleaned"):
        _supersede(con, level)
    con.execute(
        f"""INSERT INTO reports BY NAME SELECT {REPORT_COLUMNS} FROM _new n
            WHERE report_id IN (SELECT report_id FROM _fate WHERE fate IN ('new', 'corrected', 'cleaned'))
            ORDER BY line"""
    )
    # A plain scan keeps the order of the parts; a join does not, and the stored order must not depend on chance.
    source = "SELECT * FROM read_parquet(?)"
    if set(fates) != {"new"}:
        source = """SELECT * EXCLUDE (filename, file_row_number)
                    FROM read_parquet(?, filename = true, file_row_number = true)
                    WHERE report_id IN (SELECT report_id FROM _fate WHERE fate IN ('new', 'corrected', 'cleaned'))
                    ORDER BY filename, file_row_number"""
    for name in ("nodules", "findings"):
        row = con.execute(f"INSERT INTO {name} BY NAME {source}", [parts[name]]).fetchone()
        out.counts[name] = row[0] if row else 0
    out.counts["patients_with_two_sexes"] = _patients(con)
    con.execute("DROP TABLE _new")
    con.execute("DROP TABLE _fate")
    return out


# A row of version 1 has no fingerprint: it is known when text, patient, examination and date are the same.
_FATE = """
    SELECT n.report_id, CASE
        WHEN r.report_id IS NULL THEN 'new'
        WHEN r.patient_id IS NOT NULL AND n.patient_id IS NOT NULL AND r.patient_id <> n.patient_id THEN 'refused'
        WHEN r.text = n.text AND r.patient_id IS NOT DISTINCT FROM n.patient_id
             AND r.exam_id IS NOT DISTINCT FROM n.exam_id AND r.exam_date IS NOT DISTINCT FROM n.exam_date THEN 'known'
        WHEN r.source_key = n.source_key THEN 'cleaned'
        ELSE 'corrected' END AS fate
    FROM _new n LEFT JOIN reports r USING (report_id)"""


def _supersede(con: duckdb.DuckDBPyConnection, level: str) -> None:
    """Move what is replaced into the history, and its facts out of the tables."""
    con.execute(
        f"""INSERT INTO report_versions BY NAME
            SELECT {REPORT_COLUMNS}, 1 + (SELECT count(*) FROM report_versions v WHERE v.report_id = r.report_id)
                   AS version, (SELECT to_json(list(f ORDER BY f.finding_id)) FROM findings f
                                WHERE f.report_id = r.report_id) AS findings
            FROM reports r WHERE report_id IN (SELECT report_id FROM _fate WHERE fate = 'corrected')"""
    )
    if level == "strict":
        con.execute(
            """UPDATE report_versions SET text = NULL, findings = NULL WHERE phi IS DISTINCT FROM 'strict'
               AND report_id IN (SELECT report_id FROM _fate WHERE fate IN ('corrected', 'cleaned'))"""
        )
    for table in ("findings", "nodules", "reports"):
        con.execute(
            f"""DELETE FROM {table} WHERE report_id IN
                (SELECT report_id FROM _fate WHERE fate IN ('corrected', 'cleaned'))"""
        )


def _patients(con: duckdb.DuckDBPyConnection) -> int:
    """Add patients; what is known of one stays, gaps are filled. Returns how many come with two different sexes."""
    con.execute(
        """CREATE OR REPLACE TEMP TABLE _patients AS
           SELECT patient_id, arg_min(sex, line) AS sex, arg_min(age, line) AS age,
                  arg_min(ingested_from, line) AS source, count(DISTINCT sex) > 1 AS differs
           FROM _new JOIN _fate USING (report_id)
           WHERE patient_id IS NOT NULL AND fate <> 'refused' GROUP BY patient_id ORDER BY min(line)"""
    )
    return fill_patients(con)


def note_ingest(
    con: duckdb.DuckDBPyConnection,
    kind: str,
    file: str,
    encodings: Mapping[str, int],
    phi: tuple[str | None, int | None],
    counts: Mapping[str, int],
    removed: Mapping[str, int],
) -> None:
    """One row of `ingests` for a file that brought something; what it counted has to add up, else Miscount.

    Every row of the file is stored, known already, or refused.
    """
    new = counts["reports"]
    if counts["rows"] != new + counts["already_known"] + counts["rejected"]:
        raise Miscount(
            f"{file}: {counts['rows']} rows read, but {new} stored, {counts['already_known']} known and "
            f"{counts['rejected']} refused; nothing of it was stored, please report this fault."
        )
    if not new:
        return
    con.execute(
        """INSERT INTO ingests SELECT coalesce(max(ingest_id), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM ingests""",
        [
            kind, file, ", ".join(sorted(encodings)), *phi, counts["rows"], new, counts.get("corrected", 0),
            counts["already_known"], counts["rejected"], json.dumps(dict(sorted(removed.items()))),
        ],
    )  # fmt: skip
