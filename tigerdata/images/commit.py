"""Parquet parts of an image ingest into the database: one transaction a set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tigerdata.processes import part_files
from tigerdata.reports.person import fill_patients

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_TEXT, _INT, _REAL, _BOOL = "string", "int64", "float64", "bool"
_IDS = dict.fromkeys(("image_id", "patient_id", "exam_id"), _TEXT)
# Columns of the parts, by table. A column of nothing but gaps would have no type of its own.
COLUMNS: dict[str, dict[str, str]] = {
    "images": {
        **_IDS, "sha256": _TEXT, "path": _TEXT, "width": _INT, "height": _INT, "plane": _TEXT, "label": _TEXT,
        "cohort": _TEXT, "source": _TEXT, "rejected": _TEXT, "report_id": _TEXT, "frame": _INT, "read_as": _TEXT,
        "burned_in": _BOOL, "mm_per_pixel": _REAL, "file_width": _INT, "file_height": _INT,
    },
    "cleaning": {
        "image_id": _TEXT, "crop_left": _INT, "crop_top": _INT, "crop_right": _INT, "crop_bottom": _INT,
        "masked": _TEXT, "lost": _REAL,
    },
    "regions": {
        "region_id": _TEXT, "image_id": _TEXT, "kind": _TEXT, "path": _TEXT, "origin": _TEXT, "area": _REAL,
        "score": _REAL, "flags": _TEXT,
    },
    "nodules": {**_IDS, "nodule_id": _TEXT, "ordinal": _INT, "multiple": _BOOL, "source": _TEXT},
    "findings": {
        "finding_id": _TEXT, "nodule_id": _TEXT, "attribute": _TEXT, "value": _TEXT, "number": _REAL,
        "certainty": _TEXT, "surface": _TEXT, "rule": _TEXT,
    },
    "fingerprints": {
        "image_id": _TEXT, "pixel_hash": _TEXT, "perceptual_hash": "uint64", "thumbnail": "binary",
    },
    "pathology": {
        "pathology_id": _TEXT, "patient_id": _TEXT, "exam_id": _TEXT, "nodule_ordinal": _INT, "subtype": _TEXT,
        "surface": _TEXT, "rule": _TEXT, "conflict": _TEXT, "own_conflict": _TEXT, "source_key": _TEXT,
        "ingested_from": _TEXT,
    },
    "patients": {"patient_id": _TEXT, "sex": _TEXT, "age": _REAL, "source": _TEXT, "place": _INT},
}  # fmt: skip


def schema(table: str) -> pa.Schema:
    """Columns and types of the parts of a table."""
    import pyarrow as pa

    return pa.schema(
        [(name, getattr(pa, "bool_" if kind == _BOOL else kind)()) for name, kind in COLUMNS[table].items()]
    )


def store_images(con: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """Put the parts in `folder` into the tables, in the caller's transaction.

    What an earlier ingest said of the same files is replaced; views and frames that it made and this one does not are
    taken away. What another source said about a patient stays, only gaps are filled. Returns counts: `new` frames,
    `known` files, patients with two sexes, and images whose report is another patient's.
    """
    from tigerdata.reports.pathology_ingest import mark_conflicts

    parts = {name: part_files(folder, name) for name in COLUMNS}
    con.execute("CREATE OR REPLACE TEMP TABLE _images AS SELECT * FROM read_parquet(?)", [parts["images"]])
    con.execute(
        """CREATE OR REPLACE TEMP TABLE _gone AS SELECT image_id FROM images WHERE image_id NOT IN
           (SELECT image_id FROM _images) AND (sha256, path) IN (SELECT (sha256, path) FROM _images)"""
    )
    new, known = con.execute(
        """SELECT count(*) FILTER (WHERE i.image_id IS NULL),
                  count(DISTINCT n.sha256) FILTER (WHERE i.image_id IS NOT NULL)
           FROM _images n LEFT JOIN (SELECT image_id FROM images WHERE rejected IS NULL) i USING (image_id)
           WHERE n.rejected IS NULL"""
    ).fetchall()[0]
    own = "SELECT image_id FROM _images UNION ALL SELECT image_id FROM _gone"
    for table in ("findings", "nodules"):
        con.execute(
            f"""DELETE FROM {table} WHERE nodule_id IN (SELECT nodule_id FROM nodules
                WHERE source LIKE 'source:%' AND image_id IN ({own}))"""
        )
    for table in ("cleaning", "fingerprints", "checks"):
        con.execute(f"DELETE FROM {table} WHERE image_id IN ({own})")
    for table in ("regions", "prompts", "splits", "images"):
        con.execute(f"DELETE FROM {table} WHERE image_id IN (SELECT image_id FROM _gone)")
    con.execute("DELETE FROM regions WHERE region_id IN (SELECT region_id FROM read_parquet(?))", [parts["regions"]])
    con.execute("INSERT OR REPLACE INTO images BY NAME SELECT * FROM _images ORDER BY image_id")
    for table in ("cleaning", "regions", "nodules", "findings", "fingerprints"):
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [parts[table]])
    con.execute("INSERT OR REPLACE INTO pathology BY NAME SELECT * FROM read_parquet(?)", [parts["pathology"]])
    mark_conflicts(con)
    two_sexes = _patients(con, parts["patients"])
    # A report names its patient and examination; what the image's own row says of them stays.
    other = con.execute(
        """SELECT count(*) FROM images i JOIN reports r USING (report_id)
           WHERE i.image_id IN (SELECT image_id FROM _images) AND i.patient_id <> r.patient_id"""
    ).fetchall()[0][0]
    con.execute(
        """UPDATE images SET patient_id = coalesce(images.patient_id, r.patient_id),
                             exam_id = coalesce(images.exam_id, r.exam_id)
           FROM reports r WHERE r.report_id = images.report_id
                            AND images.image_id IN (SELECT image_id FROM _images)"""
    )
    con.execute("DROP TABLE _images")
    con.execute("DROP TABLE _gone")
    return {
        "new": new, "known": known, "conflicting_patient_sex": two_sexes, "report_of_another_patient": other,
    }  # fmt: skip


def _patients(con: duckdb.DuckDBPyConnection, files: list[str]) -> int:
    """Add patients, first statement first. Returns how many come with two different sexes."""
    con.execute(
        """CREATE OR REPLACE TEMP TABLE _patients AS
           SELECT patient_id, arg_min(sex, place) AS sex, arg_min(age, place) AS age, arg_min(source, place) AS source,
                  count(DISTINCT upper(left(sex, 1))) > 1 AS differs
           FROM read_parquet(?) GROUP BY patient_id ORDER BY patient_id""",
        [files],
    )
    return fill_patients(con)


def owners(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, str | None]]:
    """File hash -> (path, patient) of every image in use."""
    rows = con.execute(
        "SELECT sha256, any_value(path), any_value(patient_id) FROM images WHERE rejected IS NULL GROUP BY sha256"
    ).fetchall()
    return {sha256: (path, patient) for sha256, path, patient in rows}
