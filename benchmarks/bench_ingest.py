"""Ingest as many reports as the paper's cohort has (68,386) and again: seconds, memory, rows. See `main` for options.

With TIGER_REAL_DATA, the texts are the real Chinese thyroid texts of that folder, repeated with other sizes each time;
without it, simulated reports. The second run has to add nothing.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from inputs import measured, real_texts, simulated_texts

from tigerdata.processes import cores

REPORTS = 68_386
MUST_FIRST_S, MUST_AGAIN_S, MUST_GB = 60.0, 15.0, 1.0


def rows(texts: list[str], count: int) -> Iterator[dict[str, str]]:
    """`count` reports, no two alike: other sizes each time, a name and a telephone in some."""
    rng = np.random.default_rng(0)
    for number in range(count):
        text = texts[number % len(texts)]
        for mark, form in (("_2DS_", "{}×{}mm"), ("_3DS_", "{}×{}×{}mm"), ("_SCM_", "{}.{}cm"), ("_SMM_", "{}mm")):
            while mark in text:
                text = text.replace(mark, form.format(*rng.integers(2, 40, size=form.count("{}"))), 1)
        if number % 50 == 0:
            text = f"姓名：王小明 电话：1380013{number % 10000:04d}。{text}"
        yield {
            "report_id": f"R{number:06d}", "patient_id": f"P{number % 40_571:05d}", "exam_id": f"E{number:06d}",
            "exam_date": "2023-05-12", "findings": f"{text} {number}",
        }  # fmt: skip


CODE = """
import json, resource, sys, time
from tigerdata.reports.ingest import ingest_reports
from tigerdata.workspace import Workspace
if __name__ == '__main__':
    begin = time.monotonic()
    found = ingest_reports(Workspace.open(sys.argv[1]), sys.argv[2], workers=int(sys.argv[3]))
    seconds = time.monotonic() - begin
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {k: found[k] for k in ('rows', 'reports', 'already_known', 'rejected', 'findings')}
    print(json.dumps({'seconds': seconds, 'cpu_s': sum(u.ru_utime + u.ru_stime for u in usage), **found}))
"""


def ingest(workspace: Path, file: Path, workers: int) -> dict[str, float]:
    """One ingest in a process of its own: seconds, peak memory of it and its workers together in GB, counts."""
    found = measured(CODE, workspace, file, workers)
    return {"gb": found.pop("peak") / 1e9, **found}


def main() -> None:
    """Run; exit code 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=REPORTS)
    parser.add_argument("--workers", type=int, default=cores())
    options = parser.parse_args()
    from tigerdata.workspace import Workspace

    folder = os.environ.get("TIGER_REAL_DATA")
    texts = sorted(set(real_texts(Path(folder)))) if folder else simulated_texts(300, seed=1)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "reports.jsonl"
        characters = 0
        with file.open("w", encoding="utf-8") as out:
            for row in rows(texts, options.reports):
                characters += len(row["findings"])
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        workspace = Workspace.create(Path(name) / "ws").path
        load = os.getloadavg()[0]
        first, again = (ingest(workspace, file, options.workers) for _ in range(2))
        size = (workspace / "tiger.duckdb").stat().st_size / 2**20
    source = "real texts with changed sizes" if folder else "simulated"
    size_of = f"{options.reports} reports ({source}), {characters / 1e6:.1f} M characters"
    print(f"{size_of}, {options.workers} workers, load of the machine before {load:.1f}")
    for title, run in (("first run", first), ("second run", again)):
        print(
            f"{title}: {run['seconds']:.1f} s wall, {run['cpu_s']:.1f} s CPU, at most {run['gb']:.2f} GB in all, "
            f"{run['reports']} stored, {run['already_known']} known, {run['rejected']} refused, "
            f"{run['findings']} findings"
        )
    print(f"database {size:.0f} MB; {characters / 1e6 / first['seconds']:.2f} M characters a second")
    assert first["reports"] == options.reports and again["reports"] == 0 and again["already_known"] == options.reports
    if options.reports == REPORTS:
        missed = [
            f"{name} {value:.2f} > {bound:.0f}"
            for name, value, bound in (
                ("first run, s", first["seconds"], MUST_FIRST_S), ("second run, s", again["seconds"], MUST_AGAIN_S),
                ("memory, GB", first["gb"], MUST_GB),
            )
            if value > bound
        ]  # fmt: skip
        if missed:
            raise SystemExit("; ".join(missed))


if __name__ == "__main__":
    main()
