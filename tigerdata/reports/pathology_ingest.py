"""Pathology texts into the workspace: one subtype a text; contradictions are listed and left out of every label.

A target is what a row speaks of: a patient, an examination of the patient, or one nodule of it. Two rows that name two
different entities for the same target are a conflict, whatever their order; "indeterminate" and "none" contradict
nothing. A row of a conflict stays in the table, with `conflict` naming what was said; no label comes from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tigerdata.progress import Progress
from tigerdata.rejects import CONFLICT_COLUMNS, CONFLICTS, REJECT_COLUMNS, REJECTS, Reject, Rejects, write_list
from tigerdata.reports import personal
from tigerdata.reports.readers import Row, Source, find_sources

if TYPE_CHECKING:
    import duckdb

    from tigerdata.identity import Pseudonyms
    from tigerdata.sources.records import ImageRecord
    from tigerdata.workspace import Workspace

# What two rows of one target say, where they contradict each other. A text that contradicts itself says so in `said`.
_CONFLICTS = """
    SELECT patient_id, exam_id, nodule_ordinal,
           array_to_string(list_sort(list_distinct(flatten(list(said)))), '; ') AS says,
           array_to_string(list(DISTINCT ingested_from ORDER BY ingested_from), '; ') AS places
    FROM (SELECT *, CASE WHEN own_conflict IS NOT NULL THEN string_split(own_conflict, '; ')
                         WHEN subtype IN ('none', 'indeterminate') THEN [] ELSE [subtype] END AS said FROM pathology)
    GROUP BY ALL HAVING len(list_distinct(flatten(list(said)))) > 1"""


def ingest_pathology(
    ws: Workspace,
    files: str | Path | Iterable[str | Path],
    progress: Progress | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Read pathology texts into `pathology`: one subtype a text, with the entity's words; return counts.

    A row needs a patient id, else it goes to `rejects.csv`. The same file again adds nothing; another text under a
    known pathology number replaces the older row. Conflicts are in `conflicts.csv`, `subtypes` counts rows without one.
    The texts themselves are not stored. Raises UserError for a file that cannot be read.
    """
    from kb.store import transaction
    from tigerdata.identity import pseudonyms

    sources = find_sources(files, mapping, encoding)
    known = pseudonyms(ws)
    counts: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    rejects = Rejects()
    with ws.connect() as con:
        for source in sources:
            with transaction(con):
                took = _ingest_file(con, ws, source, known, removed, rejects)
            counts.update(took)
            if progress:
                progress({"stage": f"pathology {source.name}", "step": took["rows"], "steps": took["rows"]})
        conflicts = con.execute(_CONFLICTS + " ORDER BY ALL").fetchall()
        subtypes = dict(
            con.execute(
                "SELECT subtype, count(*) FROM pathology WHERE conflict IS NULL GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        )
    read = set().union(*(source.files for source in sources))
    write_list(ws.path / REJECTS, REJECT_COLUMNS, "pathology", rejects.rows("pathology"), read)
    rows = [["pathology", *("" if cell is None else str(cell) for cell in row)] for row in conflicts]
    write_list(ws.path / CONFLICTS, CONFLICT_COLUMNS, "pathology", rows)
    names = ("rows", "pathology", "corrected", "already_known", "rejected")
    result: dict[str, Any] = {name: counts[name] for name in names}
    result |= {"conflicts": len(conflicts), "subtypes": subtypes, "personal_data_removed": sum(removed.values())}
    if rejects.total:
        result |= {"rejected_by_reason": dict(rejects.reasons.most_common()), "rejects": str(ws.path / REJECTS)}
    if conflicts:
        result["conflict_list"] = str(ws.path / CONFLICTS)
        following = (
            f"Conflicts are left out of every label: settle the {len(conflicts)} in {CONFLICTS} and ingest the "
            "corrected rows under the same pathology number."
        )
    elif rejects.total:
        following = f"Correct the lines that {REJECTS} names and run the same command again."
    elif subtypes.get("none", 0) > sum(subtypes.values()) / 2:
        following = (
            "Most texts name no subtype: check that the column holds pathology, else name it with --map text=COLUMN."
        )
    else:
        following = "Read the images next, with `tigerdata ingest images FOLDER`."
    return result | {"next": following}


def _ingest_file(
    con: duckdb.DuckDBPyConnection,
    ws: Workspace,
    source: Source,
    known: Pseudonyms,
    removed: Counter[str],
    rejects: Rejects,
) -> Counter[str]:
    """Put one file into `pathology`, in the caller's transaction."""
    import pandas as pd

    from kb import store
    from tigerdata.reports.commit import note_ingest
    from tigerdata.reports.joined import text_of
    from tigerdata.reports.pathology import (
        parse_pathology,
    )  # brings spaCy, which the reports' main process does without

    counts: Counter[str] = Counter()
    here: Counter[str] = Counter()
    stored = dict(con.execute("SELECT pathology_id, source_key FROM pathology").fetchall())
    before = set(stored)
    rows: list[dict[str, Any]] = []
    replaced: list[str] = []
    for row in _accepted(source, counts, rejects):
        values = row.values
        key = known.digest("pathology", json.dumps(sorted(values.items()), ensure_ascii=False))[:32]
        given, ordinal = values.get("pathology_id"), _ordinal(values.get("nodule_ordinal", ""))
        name = "p-" + (known.digest("pathology id", given, str(ordinal)) if given else key)[:16]
        if stored.get(name) == key:
            counts["already_known"] += 1
            before.discard(name)  # a later line under its number is a second text here, as when the file was new
            continue
        if name in stored:
            if name not in before:
                counts["rejected"] += 1
                rejects.add(
                    Reject(row.file, row.line, "its pathology number stands in an earlier line with another text")
                )
                continue
            replaced.append(name)
            before.discard(name)
            counts["corrected"] += 1
        stored[name] = key
        text = text_of(values)
        # Cleaned before it is read: the words that name an entity are stored.
        clean = personal.redact(text, known=row.personal)
        here.update(clean.removed)
        who = (known.of("patient", values["patient_id"]), known.of("exam", values.get("exam_id")))
        rows.append(pathology_row(name, key, who, ordinal, parse_pathology(clean.text, ws.domain), row.place))
    counts["reports"] = counts["pathology"] = len(rows)
    if replaced:
        con.execute("DELETE FROM pathology WHERE pathology_id IN (SELECT unnest(?))", [replaced])
    if rows:
        store.insert(con, "pathology", pd.DataFrame(rows, dtype=object))
    mark_conflicts(con)
    level = ("standard", personal.RULES)
    note_ingest(con, "pathology", source.name, source.encodings, level, counts, here)
    removed.update(here)
    return counts


def mark_conflicts(con: duckdb.DuckDBPyConnection) -> None:
    """Write into `conflict` what the rows of one target say, wherever they disagree, in the caller's transaction."""
    con.execute("UPDATE pathology SET conflict = own_conflict")
    con.execute(
        f"""UPDATE pathology SET conflict = c.says FROM ({_CONFLICTS}) c
            WHERE pathology.patient_id IS NOT DISTINCT FROM c.patient_id
              AND pathology.exam_id IS NOT DISTINCT FROM c.exam_id
              AND pathology.nodule_ordinal IS NOT DISTINCT FROM c.nodule_ordinal"""
    )


def _accepted(source: Source, counts: Counter[str], rejects: Rejects) -> Iterator[Row]:
    for row in source.rows():
        counts["rows"] += 1
        if isinstance(row, Row) and not row.values.get("patient_id"):
            row = Reject(row.file, row.line, "no patient id")
        if isinstance(row, Reject):
            counts["rejected"] += 1
            rejects.add(row)
        else:
            yield row


def _ordinal(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None


def source_pathology(domain: str, known: Pseudonyms, source: str, record: ImageRecord) -> dict[str, Any]:
    """The row of `pathology` for what an image set says of a patient's histology; the record has pseudonyms already."""
    from tigerdata.reports.pathology import parse_pathology

    key = known.digest("pathology", f"source:{source}", record.file)[:32]
    parsed = parse_pathology(record.pathology or "", domain)
    who = (record.patient_id, record.exam_id)
    return pathology_row(f"p-{key[:16]}", key, who, None, parsed, record.where) | {"rule": f"source:{source}"}


def pathology_row(
    name: str,
    key: str,
    who: tuple[str | None, str | None],
    ordinal: int | None,
    parsed: Mapping[str, Any],
    place: str,
) -> dict[str, Any]:
    """The row of `pathology` for a parsed text; `who` are the pseudonyms of patient and examination."""
    named = [e for e in parsed["evidence"] if e["value"] == parsed["subtype"]] or parsed["evidence"]
    return {
        "pathology_id": name,
        "patient_id": who[0],
        "exam_id": who[1],
        "nodule_ordinal": ordinal,
        "subtype": parsed["subtype"],
        "surface": named[0]["surface"] if named else None,
        "rule": named[0]["rule"] if named else "no entity named",
        "conflict": parsed["conflict"],
        "own_conflict": parsed["conflict"],
        "source_key": key,
        "ingested_from": place,
    }
