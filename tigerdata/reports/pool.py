"""Parsing many reports on several processes: the same results in the same order as on one.

Rows go to the processes in parts of fixed size and come back in order, a bounded number of parts ahead, so that a
million rows need no more memory than a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from tigerdata.processes import batches, in_order

Row = Mapping[str, Any]
PART = 256
AHEAD = 4


def parse_row(row: Row, domain: str, pathology: bool, computed: bool) -> dict[str, Any]:
    """Parse one `{"id", "text"}` row; the id comes first in the result."""
    from tigerdata.reports.parser import parse
    from tigerdata.reports.pathology import parse_pathology

    found = parse_pathology(row["text"], domain) if pathology else parse(row["text"], domain, computed)
    return {"id": row["id"], **found}


def parse_part(rows: list[Row], domain: str, pathology: bool, computed: bool) -> list[dict[str, Any]]:
    """Parse some rows; what a worker process does."""
    return [parse_row(row, domain, pathology, computed) for row in rows]


def parse_rows(
    rows: Iterable[Row], domain: str = "thyroid", pathology: bool = False, computed: bool = False, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Parse rows in order on `workers` processes; 1 starts none.

    With more than one, a script must guard its entry with `if __name__ == "__main__"`, as for every process pool.
    Raises UserError when a worker process is killed.
    """
    if workers <= 1:
        for row in rows:
            yield parse_row(row, domain, pathology, computed)
        return
    work = partial(parse_part, domain=domain, pathology=pathology, computed=computed)
    for part in in_order(work, ((part,) for part in batches(rows, PART)), workers, AHEAD * workers):
        yield from part
