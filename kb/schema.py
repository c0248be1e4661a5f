"""The DuckDB schema of a workspace, as numbered steps: a new file runs all of them, an older one the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kb.errors import UserError

if TYPE_CHECKING:
    import duckdb

# Each entry takes a file from version k to k + 1. A released entry is never edited: later changes are appended.
STEPS: tuple[str, ...] = (
    """
    CREATE TABLE patients (patient_id VARCHAR PRIMARY KEY, sex VARCHAR, age DOUBLE, source VARCHAR);
    CREATE TABLE reports (
        report_id VARCHAR PRIMARY KEY, patient_id VARCHAR, exam_id VARCHAR, exam_date VARCHAR, language VARCHAR,
        text VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, ingested_from VARCHAR);
    CREATE TABLE nodules (
        nodule_id VARCHAR PRIMARY KEY, report_id VARCHAR, image_id VARCHAR, patient_id VARCHAR, exam_id VARCHAR,
        ordinal INTEGER, multiple BOOLEAN, source VARCHAR);
    CREATE TABLE findings (
        finding_id VARCHAR PRIMARY KEY, nodule_id VARCHAR, report_id VARCHAR, attribute VARCHAR NOT NULL,
        value VARCHAR, number DOUBLE, certainty VARCHAR, surface VARCHAR, start_char INTEGER, end_char INTEGER,
        cue VARCHAR, rule VARCHAR);
    CREATE TABLE pathology (
        pathology_id VARCHAR PRIMARY KEY, patient_id VARCHAR, exam_id VARCHAR, nodule_ordinal INTEGER,
        subtype VARCHAR, surface VARCHAR, rule VARCHAR, conflict VARCHAR);
    CREATE TABLE images (
        image_id VARCHAR PRIMARY KEY, sha256 VARCHAR NOT NULL, path VARCHAR, width INTEGER, height INTEGER,
        patient_id VARCHAR, exam_id VARCHAR, plane VARCHAR, label VARCHAR, cohort VARCHAR, source VARCHAR,
        rejected VARCHAR);
    CREATE TABLE regions (
        region_id VARCHAR PRIMARY KEY, image_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, path VARCHAR,
        origin VARCHAR, area DOUBLE, score DOUBLE, flags VARCHAR, UNIQUE (image_id, kind));
    CREATE TABLE prompts (
        image_id VARCHAR PRIMARY KEY, nodule_id VARCHAR, label VARCHAR, fg VARCHAR, bg VARCHAR, attributes JSON);
    CREATE TABLE terms (
        attribute VARCHAR, value VARCHAR, phrase VARCHAR, scope VARCHAR, language VARCHAR, surface VARCHAR);
    CREATE TABLE term_roles (
        target VARCHAR, attribute VARCHAR, value VARCHAR, role VARCHAR, source VARCHAR, statistics VARCHAR);
    CREATE TABLE sources (source_id VARCHAR PRIMARY KEY, citation VARCHAR);
    CREATE TABLE splits (name VARCHAR, image_id VARCHAR, patient_id VARCHAR, split VARCHAR);
    CREATE TABLE models (
        model_id VARCHAR PRIMARY KEY, kind VARCHAR, path VARCHAR, sha256 VARCHAR, trained_on VARCHAR, settings VARCHAR);
    CREATE TABLE runs (run_id VARCHAR PRIMARY KEY, command VARCHAR, settings VARCHAR, status VARCHAR);
    CREATE TABLE samples (
        run_id VARCHAR, sample_index BIGINT, label VARCHAR, path VARCHAR, sha256 VARCHAR, fg VARCHAR, bg VARCHAR,
        donor_image_id VARCHAR, mask_image_id VARCHAR, seed BIGINT, model_id VARCHAR, accepted BOOLEAN,
        reason VARCHAR, scores JSON, PRIMARY KEY (run_id, sample_index));
    """,
    # Fingerprints, so that a file can come again; history of corrected reports; what each file brought; whether ids are
    # pseudonyms. Files of version 1 hold ids as they were given, and stay so.
    """
    ALTER TABLE reports ADD COLUMN source_key VARCHAR;
    ALTER TABLE reports ADD COLUMN phi VARCHAR;
    ALTER TABLE reports ADD COLUMN phi_rules INTEGER;
    ALTER TABLE pathology ADD COLUMN source_key VARCHAR;
    ALTER TABLE pathology ADD COLUMN ingested_from VARCHAR;
    ALTER TABLE pathology ADD COLUMN own_conflict VARCHAR;
    UPDATE pathology SET own_conflict = conflict;
    CREATE TABLE report_versions (
        report_id VARCHAR, version INTEGER, patient_id VARCHAR, exam_id VARCHAR, exam_date VARCHAR, language VARCHAR,
        text VARCHAR, sha256 VARCHAR, ingested_from VARCHAR, source_key VARCHAR, phi VARCHAR, phi_rules INTEGER,
        findings JSON, PRIMARY KEY (report_id, version));
    CREATE TABLE ingests (
        ingest_id INTEGER PRIMARY KEY, kind VARCHAR, file VARCHAR, encoding VARCHAR, phi VARCHAR, phi_rules INTEGER,
        rows_read BIGINT, stored BIGINT, corrected BIGINT, already_known BIGINT, rejected BIGINT, removed JSON);
    CREATE TABLE pseudonyms (policy VARCHAR, key_check VARCHAR);
    INSERT INTO pseudonyms SELECT 'kept', NULL
        WHERE EXISTS (SELECT 1 FROM reports) OR EXISTS (SELECT 1 FROM patients) OR EXISTS (SELECT 1 FROM images)
           OR EXISTS (SELECT 1 FROM pathology);
    """,
    # Images: link to a report, frames of one file, its size, what was done to the pixels, the side of a pixel; what
    # cleaning cut and masked (images of older files have no row: nothing was cleaned); what duplicates are found by;
    # what `tigerdata check` found.
    """
    ALTER TABLE images ADD COLUMN mm_per_pixel DOUBLE;
    ALTER TABLE images ADD COLUMN report_id VARCHAR;
    ALTER TABLE images ADD COLUMN frame INTEGER;
    ALTER TABLE images ADD COLUMN read_as VARCHAR;
    ALTER TABLE images ADD COLUMN burned_in BOOLEAN;
    ALTER TABLE images ADD COLUMN file_width INTEGER;
    ALTER TABLE images ADD COLUMN file_height INTEGER;
    CREATE TABLE cleaning (
        image_id VARCHAR PRIMARY KEY, crop_left INTEGER, crop_top INTEGER, crop_right INTEGER, crop_bottom INTEGER,
        masked JSON, lost DOUBLE);
    CREATE TABLE fingerprints (
        image_id VARCHAR PRIMARY KEY, pixel_hash VARCHAR, perceptual_hash UBIGINT, thumbnail BLOB);
    CREATE TABLE duplicates (
        image_id VARCHAR PRIMARY KEY, duplicate_group VARCHAR, nearest_id VARCHAR, kind VARCHAR, correlation DOUBLE,
        mirrored BOOLEAN);
    CREATE TABLE checks (
        image_id VARCHAR PRIMARY KEY,
        blur_score DOUBLE, is_blur BOOLEAN, dark_score DOUBLE, is_dark BOOLEAN,
        low_information_score DOUBLE, is_low_information BOOLEAN, text_score DOUBLE, is_text BOOLEAN,
        odd_size_score DOUBLE, is_odd_size BOOLEAN, truncated_score DOUBLE, is_truncated BOOLEAN,
        duplicate_score DOUBLE, is_duplicate BOOLEAN, mask_score DOUBLE, is_mask BOOLEAN,
        disagreement_score DOUBLE, is_disagreement BOOLEAN, few_patients_score DOUBLE, is_few_patients BOOLEAN,
        mask_flags VARCHAR, disagrees_on VARCHAR);
    """,
)
VERSION = len(STEPS)


@contextmanager
def transaction(con: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    """Make what the block writes appear as a whole when it ends, or not at all when it fails."""
    con.begin()
    try:
        yield
        con.commit()
    except BaseException:
        con.rollback()
        raise


def stored_version(con: "duckdb.DuckDBPyConnection") -> int:
    """Schema version of an open database; 0 for an empty one.

    Raises UserError if the database has tables but is not one of ours.
    """
    tables = {row[0] for row in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    if "schema_version" in tables:
        row = con.execute("SELECT max(version) FROM schema_version").fetchone()
        return int(row[0]) if row and row[0] is not None else 0
    if tables:
        raise UserError(
            "the database has tables but no schema version, so TigerData did not make it; name another workspace."
        )
    return 0


def migrate(con: "duckdb.DuckDBPyConnection", steps: tuple[str, ...] = STEPS) -> None:
    """Bring an open, writable database to the newest version; all steps in one transaction.

    Raises UserError if the file is newer than this program or is not ours.
    """
    version = stored_version(con)
    if version > len(steps):
        raise UserError(
            f"the database has schema version {version}, newer than this program's {len(steps)}; update tigerdata."
        )
    if version == len(steps):
        return
    with transaction(con):
        con.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)")
        for number, step in enumerate(steps[version:], start=version + 1):
            con.execute(step)
            con.execute("INSERT INTO schema_version VALUES (?)", [number])
