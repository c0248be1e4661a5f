"""Where answers are kept: one SQLite file, each answer committed to disk before the reader is told so."""

from __future__ import annotations

import json
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kb.errors import UserError

# The default rollback journal with synchronous=EXTRA: an answer that was acknowledged survives a killed process and a
# power cut, and at rest the study is one file (no -wal beside it) that can be copied and kept on a network drive.
_SETUP = """
PRAGMA synchronous = EXTRA;
CREATE TABLE IF NOT EXISTS answers (
    reader TEXT NOT NULL, trial TEXT NOT NULL, answer TEXT NOT NULL, ms INTEGER NOT NULL, hidden_ms INTEGER NOT NULL,
    answered_at TEXT NOT NULL, PRIMARY KEY (reader, trial));
CREATE TABLE IF NOT EXISTS shown (reader TEXT NOT NULL, trial TEXT NOT NULL, shown_at TEXT NOT NULL);
"""


class Answers:
    """The answers of a study; one connection behind a lock, so that the threads of a server can share it."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; UserError when it cannot be read as one of ours."""
        self._lock = threading.Lock()
        try:
            self._con = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            self._con.executescript(_SETUP)
        except sqlite3.DatabaseError as error:
            raise UserError(f"the answers in {path} cannot be opened ({error}); restore the file.") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._con.close()

    def given(self, reader: str) -> set[str]:
        """Trials that a reader has answered."""
        with self._lock:
            return {row[0] for row in self._con.execute("SELECT trial FROM answers WHERE reader = ?", [reader])}

    def shown(self, reader: str, trial: str) -> None:
        """Note that a trial was put before a reader: who loads the page again looks longer than `ms` says."""
        with self._lock, self._con:
            self._con.execute("INSERT INTO shown VALUES (?, ?, ?)", [reader, trial, _now()])

    def add(self, reader: str, trial: str, answer: Any, ms: int, hidden_ms: int) -> None:
        """Store an answer durably. The first one counts: a page that sends again after a lost reply changes nothing.

        `answer` is what JSON can hold; `ms` milliseconds from the picture's display to the answer, without `hidden_ms`
        in which the page was not visible.
        """
        row = [reader, trial, json.dumps(answer), ms, hidden_ms, _now()]
        with self._lock, self._con:
            self._con.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    def rows(self) -> list[dict[str, Any]]:
        """All answers in the order in which they came: reader, trial, answer, ms, hidden_ms, answered_at, views."""
        query = """SELECT a.*, (SELECT count(*) FROM shown s WHERE s.reader = a.reader AND s.trial = a.trial)
                   FROM answers a ORDER BY a.rowid"""
        with self._lock:
            found = self._con.execute(query).fetchall()
        names = ("reader", "trial", "answer", "ms", "hidden_ms", "answered_at", "views")
        rows = [dict(zip(names, row, strict=True)) for row in found]
        return [row | {"answer": json.loads(row["answer"])} for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
