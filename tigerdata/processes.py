"""Work over several processes or threads, and the hidden folder in which results wait for the one writer."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kb.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
R = TypeVar("R")
_FOLDER = re.compile(r"^\.ingest-(\d+)-")


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


@contextmanager
def parts_folder(workspace: Path) -> Iterator[Path]:
    """A folder for parts, removed at the end; what a killed run of this machine left is removed at the beginning."""
    for path in workspace.glob(".ingest-*"):
        match = _FOLDER.match(path.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".ingest-{os.getpid()}-", dir=workspace))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_part(folder: Path, table: str, number: int, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Leave rows of a table as a part in the folder of parts; columns left out become NULL."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{table}-{number:06d}.parquet")


def part_files(folder: Path, table: str) -> list[str]:
    """The parts of a table, in order."""
    return [str(path) for path in sorted(folder.glob(f"{table}-*.parquet"))]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads in the block (0: as it is): sums, hence the last bits, depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _begin() -> None:
    """Start of a worker: let it end with its parent."""
    # A worker whose parent was killed would wait for work for ever.
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
