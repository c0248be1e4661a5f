"""Reports and pathology into the workspace: cleaned of personal data, parsed, stored once by their content."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.files import atomic_write

if TYPE_CHECKING:
    import duckdb

    from tigerdata.reports.readers import Row
    from tigerdata.workspace import Workspace

Files = str | Path | Iterable[str | Path]
Progress = Callable[[Mapping[str, Any]], None]
BATCH = 1000
REJECTS = "rejects.csv"


def ingest_reports(ws: Workspace, files: Files, progress: Progress | None = None) -> dict[str, Any]:
    """Read report exports into `patients`, `reports`, `nodules` and `findings`.

    Personal data is removed before a text is parsed or stored; offsets refer to the stored text. A report is known by
    the SHA-256 of patient, examination and text: the same file again adds nothing. Rows without text, and rows whose
    report id already belongs to another text, go to `rejects.csv` in the workspace. Returns counts. Raises UserError
    for a file that cannot be read.
    """
    from tigerdata.reports.readers import read_rows
    from tigerdata.reports.rows import report_rows

    counts: Counter[str] = Counter()
    rejects: list[tuple[str, str]] = []
    done = 0
    for rows in _batches(read_rows(files)):
        accepted = _new_reports(ws, rows, counts, rejects)
        tables = report_rows(ws.kb, ws.domain, accepted)
        for name in ("reports", "nodules", "findings"):
            counts[name] += len(tables[name])
        with ws.connect() as con:
            _write(con, tables)
        done += len(rows)
        if progress:
            progress({"stage": "reports", "step": done, "nodules": counts["nodules"]})
    _write_rejects(ws, "reports", rejects)
    names = ("reports", "nodules", "findings", "already_known", "rejected", "personal_data_removed")
    return {name: counts[name] for name in names} | ({"rejects": str(ws.path / REJECTS)} if rejects else {})


def ingest_pathology(ws: Workspace, files: Files, progress: Progress | None = None) -> dict[str, Any]:
    """Read pathology texts into `pathology`: one subtype a text, with the entity's words and conflicts noted.

    A row needs a patient id, else it goes to `rejects.csv`. The same file again adds nothing. Returns counts by
    subtype. Raises UserError for a file that cannot be read.
    """
    from tigerdata.reports.joined import join_columns
    from tigerdata.reports.pathology import parse_pathology
    from tigerdata.reports.personal import redact
    from tigerdata.reports.readers import read_rows

    counts: Counter[str] = Counter()
    subtypes: Counter[str] = Counter()
    rejects: list[tuple[str, str]] = []
    with ws.connect(read_only=True) as con:
        known = {row[0] for row in con.execute("SELECT pathology_id FROM pathology").fetchall()}
    rows: list[dict[str, Any]] = []
    for row in read_rows(files):
        values = row.values
        text = values.get("text") or join_columns(values.get("findings", ""), values.get("impression", ""))
        if not text or not values.get("patient_id"):
            rejects.append((row.place, "no text" if not text else "no patient id"))
            continue
        text, removed = redact(text)
        counts["personal_data_removed"] += removed
        key = "p-" + _digest(values["patient_id"], values.get("exam_id", ""), text)[:16]
        if key in known:
            counts["already_known"] += 1
            continue
        known.add(key)
        parsed = parse_pathology(text, ws.domain)
        subtypes[parsed["subtype"]] += 1
        counts["conflicts"] += parsed["conflict"] is not None
        ordinal = values.get("nodule_ordinal", "")
        named = [e for e in parsed["evidence"] if e["value"] == parsed["subtype"]] or parsed["evidence"]
        rows.append(
            {
                "pathology_id": key,
                "patient_id": values["patient_id"],
                "exam_id": values.get("exam_id"),
                "nodule_ordinal": int(ordinal) if ordinal.isdigit() else None,
                "subtype": parsed["subtype"],
                "surface": named[0]["surface"] if named else None,
                "rule": named[0]["rule"] if named else "no entity named",
                "conflict": parsed["conflict"],
            }
        )
    counts["rejected"] = len(rejects)
    with ws.connect() as con:
        _write(con, {"pathology": rows})
    if progress:
        progress({"stage": "pathology", "step": len(rows)})
    _write_rejects(ws, "pathology", rejects)
    named_counts = {name: counts[name] for name in ("already_known", "rejected", "conflicts", "personal_data_removed")}
    return {"pathology": len(rows)} | named_counts | {"subtypes": dict(sorted(subtypes.items()))}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _new_reports(
    ws: Workspace, rows: Sequence[Row], counts: Counter[str], rejects: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Rows that are not stored yet, as values of `reports` and `patients`; what is wrong goes to `rejects`."""
    from tigerdata.reports.joined import join_columns
    from tigerdata.reports.personal import redact

    with ws.connect(read_only=True) as con:
        stored = dict(con.execute("SELECT report_id, sha256 FROM reports").fetchall())
    known = set(stored.values())
    accepted = []
    for row in rows:
        values = row.values
        text = values.get("text") or join_columns(values.get("findings", ""), values.get("impression", ""))
        if not text:
            rejects.append((row.place, "no text"))
            counts["rejected"] += 1
            continue
        text, removed = redact(text.replace("\x00", " "))
        digest = _digest(values.get("patient_id", ""), values.get("exam_id", ""), text)
        name = values.get("report_id") or f"r-{digest[:16]}"
        if digest in known:
            counts["already_known"] += 1
            continue
        if name in stored:
            rejects.append((row.place, "its report id belongs to another text"))
            counts["rejected"] += 1
            continue
        counts["personal_data_removed"] += removed
        known.add(digest)
        stored[name] = digest
        accepted.append({**values, "report_id": name, "text": text, "sha256": digest, "ingested_from": row.place})
    return accepted


def _write(con: duckdb.DuckDBPyConnection, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Insert all tables in one transaction; patients who are known keep what is known of them."""
    import pandas as pd

    from kb import store

    con.begin()
    try:
        for name, rows in tables.items():
            # `object` keeps a missing text NULL; pandas would make it NaN, and DuckDB that a number.
            frame = pd.DataFrame(list(rows), dtype=object)
            if name == "patients" and len(frame):
                known = {row[0] for row in con.execute("SELECT patient_id FROM patients").fetchall()}
                frame = frame[~frame["patient_id"].isin(known)].drop_duplicates("patient_id")
            if len(frame):
                store.insert(con, name, frame)
        con.commit()
    except BaseException:
        con.rollback()
        raise


def _write_rejects(ws: Workspace, kind: str, rejects: Sequence[tuple[str, str]]) -> None:
    """Put this call's rejects of one kind into `rejects.csv`, in place of those of the call before."""
    path = ws.path / REJECTS
    old: list[list[str]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            old = [row for row in csv.reader(file) if row and row[0] not in ("kind", kind)]
    if not old and not rejects:
        path.unlink(missing_ok=True)
        return
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "place", "reason"])
    writer.writerows([*old, *([kind, *reject] for reject in rejects)])
    with atomic_write(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8")
