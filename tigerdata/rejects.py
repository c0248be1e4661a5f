"""The lists that a person works through after an ingest: `rejects.csv` and `conflicts.csv` in the workspace."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kb.files import atomic_write

REJECTS, CONFLICTS = "rejects.csv", "conflicts.csv"
REJECT_COLUMNS = ["kind", "file", "line", "reason", "count"]
CONFLICT_COLUMNS = ["kind", "patient_id", "exam_id", "nodule_ordinal", "says", "places"]
# Spreadsheet programs run a cell that begins with one of these.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Reject:
    """A row that cannot be read, and why; never anything of its content. Line 0 is the file as a whole."""

    file: str
    line: int
    reason: str


class Rejects:
    """Refused rows by file, line and reason; neighbours with the same reason are one entry with a count."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int, int, str, int]] = []
        self.reasons: Counter[str] = Counter()

    def add(self, reject: Reject) -> None:
        """Note one refused row."""
        self.reasons[reject.reason] += 1
        if self.runs:
            file, first, last, reason, count = self.runs[-1]
            if (file, reason) == (reject.file, reject.reason) and reject.line == last + 1 > 1:
                self.runs[-1] = (file, first, reject.line, reason, count + 1)
                return
        self.runs.append((reject.file, reject.line, reject.line, reject.reason, 1))

    @property
    def total(self) -> int:
        """Number of refused rows."""
        return sum(self.reasons.values())

    def rows(self, kind: str) -> list[list[str]]:
        """Rows of `rejects.csv`."""
        return [
            [kind, file, str(first or "") if first == last else f"{first}-{last}", reason, str(count)]
            for file, first, last, reason, count in self.runs
        ]


def write_list(
    path: Path,
    columns: Sequence[str],
    kind: str,
    rows: Iterable[Sequence[str]],
    read: Collection[str] | None = None,
) -> bool:
    """Put the rows of one kind into a CSV file in place of those that stood there; whether the file is there then.

    `read` names the files that this call has read, or folders of them: the rows about other files stay until their
    file is read again, or they would be lost before anybody has worked through them. Without `read`, all rows of the
    kind are replaced. Rows of other kinds stay; a list without rows is removed.
    """
    kept: list[Sequence[str]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            old = [row for row in csv.reader(file) if row]
        if old and old[0] == list(columns):
            kept = [row for row in old[1:] if row[0] != kind or not _among(row[1], read)]
    new = [[_safe(cell) for cell in row] for row in rows]
    if not kept and not new:
        path.unlink(missing_ok=True)
        return False
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([*kept, *new])
    with atomic_write(path) as temporary:
        temporary.write_text(out.getvalue(), encoding="utf-8")
    return True


def _among(file: str, read: Collection[str] | None) -> bool:
    return read is None or any(file in (_safe(name), name) or file.startswith(f"{_safe(name)}/") for name in read)


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell
