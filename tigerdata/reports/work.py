"""The part of the ingest that runs in several processes: clean a batch of reports, parse it, leave it as Parquet.

What a batch becomes depends on the batch alone, so the number of processes changes nothing. Workers never see the key
and never open the database; they get pseudonyms and the number of days by which dates move.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain, islice, starmap
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from kb.errors import UserError
from tigerdata.reports.readers import Reject

BATCH = 1000
AHEAD = 3
PARSER_FAULT = "the parser fails on its text: please report this fault of the program"
T = TypeVar("T")
R = TypeVar("R")


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
    import pyarrow as pa
    import pyarrow.parquet as pq

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
        pq.write_table(pa.Table.from_pylist(table, schema=SCHEMAS[name]), job.folder / f"{name}-{number:06d}.parquet")
    return done


def _known(task: Task) -> Iterator[tuple[str, str]]:
    yield from task.personal
    # An id in its own column is a record number wherever the text repeats it. Short ones could be sizes.
    for name in ("report_id", "patient_id", "exam_id"):
        value = task.values.get(name, "")
        if any(map(str.isdigit, value)):
            yield "number", value


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def in_order(work: Callable[..., R], calls: Iterable[tuple[Any, ...]], workers: int, most: int) -> Iterator[R]:
    """Results of `work(*call)` in the order of the calls, from `workers` processes.

    At most `most` calls are taken at a time, the last of them while the others wait or run, so that memory does not
    grow with their number. Raises what `work` raises, and UserError when a process is ended from outside; what waits is
    then given up.
    """
    # "spawn": a forked child of a process with DuckDB's and Arrow's threads can hang.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    waiting: deque[Future[R]] = deque()
    try:
        for call in calls:
            if len(waiting) == most - 1:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, *call))
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError("a worker process was ended from outside; run the command again with fewer workers.") from None
    finally:
        pool.shutdown(cancel_futures=True)


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


def _begin() -> None:
    """Start of a worker: let it end with its parent."""
    # A worker whose parent was killed would wait for work for ever.
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
