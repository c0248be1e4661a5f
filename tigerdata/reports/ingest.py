"""Reports into the workspace: read, cleaned of personal data, parsed in several processes, stored once.

A file is one transaction: its rows are read and parsed into Parquet parts in a hidden folder of the workspace, then one
writer puts all of them into the database, or none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UsageError
from tigerdata.processes import parts_folder
from tigerdata.progress import Progress
from tigerdata.rejects import REJECT_COLUMNS, REJECTS, Reject, Rejects, write_list
from tigerdata.reports import personal
from tigerdata.reports.pathology_ingest import ingest_pathology
from tigerdata.reports.readers import Row, Source, find_sources
from tigerdata.reports.work import Done, Job, Task, run

if TYPE_CHECKING:
    from tigerdata.identity import Pseudonyms
    from tigerdata.workspace import Workspace

__all__ = ["ingest_pathology", "ingest_reports"]

Files = str | Path | Iterable[str | Path]
REPORT_EVERY = 500


def ingest_reports(
    ws: Workspace,
    files: Files,
    progress: Progress | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    encoding: str | None = None,
    phi: str = "standard",
    workers: int = 1,
) -> dict[str, Any]:
    """Read report exports into `patients`, `reports`, `nodules` and `findings`; return counts.

    Every row is stored, known already, or refused and listed in `rejects.csv`: `rows` is their sum. Personal data is
    removed before a text is parsed or stored (`personal.redact` at level `phi`), ids become keyed pseudonyms, offsets
    refer to the stored text. A row is known by a keyed fingerprint of what it says: the same file again adds nothing.
    Another text under a known report id, or under a known examination of the same patient where there are no report
    ids, replaces the older one, which goes to `report_versions`. `mapping` names columns (`{"findings": "所见"}`),
    `encoding` overrules what is detected. `workers` processes parse; the result does not depend on their number (with
    more than one, the caller's main module needs the usual `if __name__ == "__main__"`).

    Raises UserError for a file that cannot be read at all; files before it are stored then.
    """
    from tigerdata.identity import pseudonyms

    if phi not in personal.LEVELS:
        raise UsageError(f"there is no level --phi {phi}; write standard or strict.")
    sources = find_sources(files, mapping, encoding)
    known = pseudonyms(ws)
    counts: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    encodings: dict[str, dict[str, int]] = {}
    rejects = Rejects()
    read: set[str] = set()
    try:
        for source in sources:
            read |= source.files
            took = _File(ws, source, known, phi, progress)
            try:
                took.ingest(workers)
            finally:
                for reject in sorted(took.rejects, key=lambda r: (r.file, r.line)):
                    rejects.add(reject)
            counts.update(took.counts)
            removed.update(took.removed)
            encodings[source.name] = source.encodings
    finally:
        listed = write_list(ws.path / REJECTS, REJECT_COLUMNS, "reports", rejects.rows("reports"), read)
    names = ("rows", "reports", "corrected", "already_known", "rejected", "nodules", "findings")
    result: dict[str, Any] = {name: counts[name] for name in names}
    result["personal_data_removed"] = sum(removed.values())
    result["removed_by_kind"] = {kind: removed[kind] for kind in personal.KINDS if removed[kind]}
    result["encodings"] = {name: found for name, found in encodings.items() if found}
    if counts["cleaned_again"]:
        result["cleaned_again"] = counts["cleaned_again"]
    if counts["patients_with_two_sexes"]:
        result["patients_with_two_sexes"] = counts["patients_with_two_sexes"]
    if rejects.total and listed:
        result["rejected_by_reason"] = dict(rejects.reasons.most_common())
        result["rejects"] = str(ws.path / REJECTS)
    return result | {"next": _next(counts, ws)}


def _next(counts: Mapping[str, int], ws: Workspace) -> str:
    """The sentence that says what to do now."""
    if counts["rejected"]:
        return (
            f"{counts['rejected']} of {counts['rows']} rows were refused: correct the lines that {REJECTS} names and "
            "run the same command again; what is stored is not stored twice."
        )
    if not counts["reports"]:
        return "Nothing new: every row was known already."
    if counts["corrected"]:
        return "Corrected reports changed their nodules: run `tigerdata prompts` again before you train."
    return "Read pathology next, with `tigerdata ingest pathology FILES…`, or look at `tigerdata stats`."


@dataclass
class _File:
    """One file, or one folder of texts, on its way into the database."""

    ws: Workspace
    source: Source
    known: Pseudonyms
    phi: str
    progress: Progress | None
    counts: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def ingest(self, workers: int) -> None:
        from kb.store import transaction
        from tigerdata.reports.commit import note_ingest, store_reports

        with parts_folder(self.ws.path) as folder:
            run(Job(self.ws.domain, self.phi, folder), self._tasks(), workers, self._batch_done)
            self._tell("store")
            with self.ws.connect() as con, transaction(con):
                if self.counts["sent"]:
                    stored = store_reports(con, folder, self.phi)
                    self.counts.update(stored.counts)
                    for reject in stored.rejects:
                        self._refuse(reject)
                level = (self.phi, personal.RULES)
                note_ingest(con, "reports", self.source.name, self.source.encodings, level, self.counts, self.removed)
        self._tell("reports", final=True)

    def _refuse(self, reject: Reject) -> None:
        self.rejects.append(reject)
        self.counts["rejected"] += 1

    def _batch_done(self, done: Done) -> None:
        self.removed.update(done.removed)
        for reject in done.rejects:
            self._refuse(reject)
        self.counts["parsed"] += done.counts["reports"]
        self._tell("reports")

    def _tell(self, stage: str, final: bool = False) -> None:
        if self.progress is None:
            return
        rows = self.counts["rows"]
        event = {"stage": f"{stage} {self.source.name}", "rows": rows, "parsed": self.counts["parsed"]}
        self.progress(event | ({"step": rows, "steps": rows} if final else {}))

    def _stored(self) -> dict[str, int]:
        """Fingerprints of stored rows, with the level their personal data was removed at: 2 is strict, 0 outdated."""
        with self.ws.connect(read_only=True) as con:
            rows = con.execute(
                """SELECT source_key, CASE WHEN phi_rules <> ? THEN 0 WHEN phi = 'strict' THEN 2 ELSE 1 END FROM reports
                   WHERE source_key IS NOT NULL
                   UNION ALL SELECT source_key, 2 FROM report_versions WHERE source_key IS NOT NULL""",
                [personal.RULES],
            ).fetchall()
        return dict(rows)

    def _tasks(self) -> Iterator[Task]:
        """Rows that are not stored yet; the others are counted, known or refused."""
        stored = self._stored()
        wanted = 2 if self.phi == "strict" else 1
        seen: dict[str, tuple[int, str]] = {}
        for row in self.source.rows():
            self.counts["rows"] += 1
            if self.counts["rows"] % REPORT_EVERY == 0:
                self._tell("reports")
            if isinstance(row, Reject):
                self._refuse(row)
                continue
            task = self._task(row)
            if task.report_id in seen:
                line, key = seen[task.report_id]
                if key == task.source_key:
                    self.counts["already_known"] += 1
                else:
                    self._refuse(Reject(row.file, row.line, f"its id is that of line {line} too, with another content"))
                continue
            seen[task.report_id] = (row.line, task.source_key)
            if stored.get(task.source_key, -1) >= wanted:
                self.counts["already_known"] += 1
                continue
            self.counts["sent"] += 1
            yield task

    def _task(self, row: Row) -> Task:
        values, known = row.values, self.known
        patient, exam = known.of("patient", values.get("patient_id")), known.of("exam", values.get("exam_id"))
        key = known.digest("report", json.dumps([sorted(values.items()), row.personal], ensure_ascii=False))[:32]
        # In an export without report ids the examination is the report; without either, the content itself.
        given = values.get("report_id")
        if not given and exam:
            given = f"{values.get('patient_id', '')}/{values['exam_id']}"
        report = known.of("report", given) or f"R-{key[:16]}"
        return Task(
            row.file, row.line, report, patient, exam, key, known.shift_days(patient or report), values, row.personal
        )
