"""Real Chinese ultrasound findings into a knowledge base, with statistics. See README.md beside this file."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from kb.errors import UserError
from tigerdata.reports.ingest import ingest_reports
from tigerdata.reports.statistics import attribute_counts, coverage
from tigerdata.workspace import Workspace


def collect(folder: Path, out: Path) -> dict[str, int]:
    """Write the distinct findings of `thyroid.json` as JSONL; many texts of the set repeat word for word."""
    source = folder / "reports_zh" / "thyroid.json"
    if not source.is_file():
        raise UserError(f"there is no {source}; TIGER_REAL_DATA must name the folder that holds reports_zh.")
    rows = [row for part in json.loads(source.read_text(encoding="utf-8")).values() for row in part]
    distinct = {row["finding"]: row for row in rows}
    with out.open("w", encoding="utf-8") as file:
        for text, row in sorted(distinct.items()):
            file.write(json.dumps({"report_id": f"zh-{row['uid']}", "findings": text}, ensure_ascii=False) + "\n")
    return {"texts": len(rows), "distinct": len(distinct)}


def statistics(workspace: Workspace) -> dict[str, Any]:
    """Reports, nodules a report, findings by attribute and value, and the share of the words that is explained."""
    with workspace.connect(read_only=True) as con:
        per_report = con.execute(
            "SELECT n, count(*) FROM (SELECT r.report_id, count(n.nodule_id) AS n FROM reports r "
            "LEFT JOIN nodules n USING (report_id) GROUP BY ALL) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        wrong = con.execute(
            "SELECT count(*) FROM findings f JOIN reports r USING (report_id) "
            "WHERE substr(r.text, f.start_char + 1, f.end_char - f.start_char) <> f.surface"
        ).fetchall()
    counts = attribute_counts(workspace)
    values = {
        attribute: {value: sum(by_class.values()) for value, by_class in found.items()}
        for attribute, found in counts["attributes"].items()
    }
    totals = {name: counts[name] for name in ("reports", "nodules", "findings")}
    return {
        **totals,
        "nodules_per_report": {str(n): reports for n, reports in per_report},
        "findings_whose_offsets_are_wrong": wrong[0][0],
        "values": values,
        "coverage": coverage(workspace),
    }


def main() -> None:
    """Make the workspace, ingest, write `statistics.json` and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the new workspace")
    out = parser.parse_args().out
    data = os.environ.get("TIGER_REAL_DATA")
    if not data:
        raise UserError("TIGER_REAL_DATA names no folder; set it to the folder that holds reports_zh.")
    workspace = Workspace.create(out)
    corpus = collect(Path(data), workspace.path / "reports.jsonl")
    begin = time.perf_counter()
    counts = ingest_reports(workspace, workspace.path / "reports.jsonl")
    result = {**corpus, "ingest": counts, "seconds": round(time.perf_counter() - begin, 1), **statistics(workspace)}
    text = json.dumps(result, ensure_ascii=False, indent=1)
    (workspace.path / "statistics.json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
