"""From parsed reports to rows of the tables `reports` (with sex and age of the patient), `nodules` and `findings`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

import kb
from tigerdata.reports import person
from tigerdata.reports.parser import parse

STRING, INT = pa.string(), pa.int32()
SCHEMAS = {
    "reports": pa.schema(
        [
            *((name, STRING) for name in (
                "report_id", "patient_id", "exam_id", "exam_date", "language", "text", "sha256", "ingested_from",
                "source_key", "phi", "sex",
            )),
            ("phi_rules", INT), ("age", pa.float64()), ("line", pa.int64()),
        ]
    ),
    "nodules": pa.schema(
        [
            *((name, STRING) for name in ("nodule_id", "report_id", "patient_id", "exam_id", "source")),
            ("ordinal", INT), ("multiple", pa.bool_()),
        ]
    ),
    "findings": pa.schema(
        [
            *((name, STRING) for name in (
                "finding_id", "nodule_id", "report_id", "attribute", "value", "certainty", "surface", "cue", "rule",
            )),
            ("number", pa.float64()), ("start_char", INT), ("end_char", INT),
        ]
    ),
}  # fmt: skip
FAULTS = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
PATH = re.compile(r"^(?:nodules\[(\d+)\]\.)?([\w.]+)")


def report_rows(
    base: kb.KnowledgeBase, domain: str, reports: Iterable[Mapping[str, Any]], failed: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Rows by table for reports given as the columns of `SCHEMAS["reports"]` without the language.

    `sex` and `age` of a report are cells as they came. A report that trips the parser gives no rows and its id goes to
    `failed`: one odd text must not cost the others of a million.
    """
    tables: dict[str, list[dict[str, Any]]] = {"reports": [], "nodules": [], "findings": []}
    owners = {
        value: name
        for name, model in base.attributes.items()
        for value in model.values
        if value not in ("absent", "present")
    }
    for report in reports:
        try:
            parsed = parse(report["text"], domain)
        except FAULTS:
            failed.append(report["report_id"])
            continue
        patient, exam = report.get("patient_id"), report.get("exam_id")
        sex, age = person.sex(report.get("sex", "")), person.age(report.get("age", ""))
        who = {"language": parsed["language"], "sex": sex, "age": age}
        tables["reports"].append({**report, **who})
        for index, nodule in enumerate(parsed["nodules"]):
            tables["nodules"].append(
                {
                    "nodule_id": f"{report['report_id']}#{index + 1}",
                    "report_id": report["report_id"],
                    "patient_id": patient,
                    "exam_id": exam,
                    "ordinal": index + 1,
                    "multiple": bool(nodule.get("multiple")),
                    "source": "report",
                }
            )
        rows = [_finding(row, owners, base) for row in parsed["evidence"]]
        rows += _size_classes(parsed, base)
        for number, finding in enumerate(rows):
            index = finding.pop("index")
            tables["findings"].append(
                {
                    "finding_id": f"{report['report_id']}:{number}",
                    "nodule_id": None if index is None else f"{report['report_id']}#{index + 1}",
                    "report_id": report["report_id"],
                    **finding,
                }
            )
    return tables


def _finding(row: Mapping[str, Any], owners: Mapping[str, str], base: kb.KnowledgeBase) -> dict[str, Any]:
    """One evidence row as a finding; locations are one attribute, a denied value belongs to its own attribute."""
    match = PATH.match(row["path"])
    assert match is not None
    attribute = match[2]
    if attribute.startswith("location."):
        attribute = "nodule_location"
    elif attribute == "negated":
        attribute = owners.get(row["value"], "halo" if row["value"] == "present" else "negated")
    value = row["value"]
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return {
        "index": int(match[1]) if match[1] else None,
        "attribute": attribute,
        "value": None
        if number is not None or isinstance(value, list)
        else str(value).lower()
        if isinstance(value, bool)
        else value,
        "number": number,
        "certainty": row["certainty"],
        "surface": row["surface"],
        "start_char": row["start"],
        "end_char": row["end"],
        "cue": row["cue"],
        "rule": row["rule"],
    }


def _size_classes(parsed: Mapping[str, Any], base: kb.KnowledgeBase) -> list[dict[str, Any]]:
    """The size class of each measured nodule (`diameter`), derived from its largest diameter by the KB's bounds."""
    rows = []
    for index, nodule in enumerate(parsed["nodules"]):
        if not nodule["diameter_mm"] or "diameter" not in base.attributes:
            continue
        largest = max(nodule["diameter_mm"])
        source = next(e for e in parsed["evidence"] if e["path"].startswith(f"nodules[{index}].diameter_mm"))
        row = _finding({**source, "value": base.size_class(largest), "rule": "size class"}, {}, base)
        rows.append({**row, "attribute": "diameter", "number": float(largest)})
    return rows
