"""The part of the ingest that runs in several processes: clean a batch of reports, parse it, leave it as Parquet.

What a batch becomes depends on the batch alone, so the number of processes changes nothing. Workers never see the key
and never open the database; they get pseudonyms and the number of days by which dates move.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, starmap
from pathlib import Path

from tigerdata.processes import batches, in_order, write_part
from tigerdata.rejects import Reject

BATCH = 1000
AHEAD = 3
PARSER_FAULT = "the parser fails on its text: please report this fault of the program"


@dataclass(frozen=True)
class Task:
    """One accepted row: pseudonyms, cells as they came, and what to remove from them."""

    file: str
    line: int
    report_id: str
    patient_id: str | None
    exam_id: str | None
    source_key: str
    shift_days: int
    values: dict[str, str]
    personal: tuple[tuple[str, str], ...]


@dataclass
class Done:
    """What a batch became: counts, refused rows, and what kind of personal data was removed how often."""

    counts: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """What all batches of a file share."""

    domain: str
    level: str
    folder: Path


def do_batch(job: Job, number: int, tasks: list[Task]) -> Done:
    """Clean, parse and write one batch as `<table>-<number>.parquet` in the job's folder."""
    import kb
    from tigerdata.reports import personal
    from tigerdata.reports.dates import shift_iso
    from tigerdata.reports.joined import text_of
    from tigerdata.reports.rows import SCHEMAS, report_rows

    done = Done()
    reports = []
    for task in tasks:
        values = task.values
        text = text_of(values)
        clean = personal.redact(text, job.level, task.shift_days, _known(task))
        done.removed.update(clean.removed)
        date = values.get("exam_date")
        reports.append(
            {
                "report_id": task.report_id,
                "patient_id": task.patient_id,
                "exam_id": task.exam_id,
                "exam_date": shift_iso(date, task.shift_days) if date and job.level != "strict" else None,
                "text": clean.text,
                "sha256": hashlib.sha256(clean.text.encode()).hexdigest(),
                "ingested_from": f"{task.file}:{task.line}",
                "source_key": task.source_key,
                "phi": job.level,
                "phi_rules": personal.RULES,
                "sex": values.get("sex", ""),
                "age": values.get("age", ""),
                "line": task.line,
            }
        )
    failed: list[str] = []
    tables = report_rows(kb.load(job.domain), job.domain, reports, failed)
    done.rejects = [Reject(task.file, task.line, PARSER_FAULT) for task in tasks if task.report_id in set(failed)]
    for name, table in tables.items():
        done.counts[name] += len(table)
        write_part(job.folder, name, number, table, SCHEMAS[name])
    return done


def _known(task: Task) -> Iterator[tuple[str, str]]:
    yield from task.personal
    # An id in its own column is a record number wherever the text repeats it. Short ones could be sizes.
    for name in ("report_id", "patient_id", "exam_id"):
        value = task.values.get(name, "")
        if any(map(str.isdigit, value)):
            yield "number", value


def run(job: Job, tasks: Iterable[Task], workers: int, report: Callable[[Done], None], size: int | None = None) -> None:
    """Do all batches in order, in this process or in `workers` of them, and report each when it is done.

    Few batches never start processes.
    """
    numbered = enumerate(batches(tasks, size or BATCH))
    first = list(islice(numbered, 3))
    calls = ((job, number, batch) for number, batch in chain(first, numbered))
    alone = workers < 2 or len(first) < 3
    for done in starmap(do_batch, calls) if alone else in_order(do_batch, calls, workers, AHEAD * workers + 1):
        report(done)
