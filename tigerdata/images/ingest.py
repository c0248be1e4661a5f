"""Ingest of an image set: refuse what is no frame, write clean grey frames, link them to patients and descriptions.

Originals are only read. The call can be repeated: the same files give the same rows, changed columns are taken over.
A set is one transaction: the files are decoded, in several processes if asked, their rows wait as Parquet parts in a
hidden folder of the workspace, then one writer puts all of them into the database, or none. Of an image, only its row
of the listing (about 1 KB) and its hash stay in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import sha256_file
from tigerdata.images.commit import COLUMNS, owners, schema, store_images
from tigerdata.images.frames import Refused, inside, read_clean
from tigerdata.images.links import NamePattern, compile_pattern
from tigerdata.images.take import Item, Job, Taken, take_part
from tigerdata.processes import batches, in_order, parts_folder, write_part
from tigerdata.progress import Progress
from tigerdata.rejects import CONFLICT_COLUMNS, CONFLICTS, REJECT_COLUMNS, REJECTS, Reject, Rejects, write_list
from tigerdata.reports.pathology_ingest import source_pathology
from tigerdata.reports.person import MAX_AGE
from tigerdata.sources import reader
from tigerdata.sources.records import ImageRecord, SourceSet

if TYPE_CHECKING:
    from tigerdata.identity import Pseudonyms
    from tigerdata.workspace import Workspace

MAPPED = ("csv", "imagefolder")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
# Files a process takes at a time, and parts that are under way for each process.
BATCH, AHEAD = 32, 3


def ingest_images(
    ws: Workspace,
    path: str | os.PathLike[str],
    source: str = "csv",
    progress: Progress | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
    pattern: str | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Take a set of images into the workspace and return what happened.

    `source` is one of `sources.SOURCES`: "csv" (a table, or a folder with images.csv), "imagefolder", "dicom", or a
    public set. `mapping` (canonical name -> column) names the columns of a table of one's own; `pattern` links by file
    names (`tigerdata.images.links`). `workers` processes decode and clean; the result does not depend on their number
    (with more than one, the caller's main module needs the usual `if __name__ == "__main__"`).

    The result holds `files` (listed), `taken` (of these), `images` (frames in the workspace from this set), `new` (of
    these), counts of masks, descriptors and duplicates, `unknown_values` (words that the vocabulary lacks),
    `rejected_by_code`, and `rejected`: where and code of each refused file, row or cell, which `rejects.csv` in the
    workspace lists too. Every file is taken or refused. A refused mask or cell leaves its image in, without it. Raises
    UserError for a set that cannot be read at all.
    """
    from kb import store
    from tigerdata.identity import pseudonyms
    from tigerdata.images import duplicates
    from tigerdata.reports.commit import note_ingest

    read = reader(source)
    if mapping and source not in MAPPED:
        raise UserError(f"--map is for {' and '.join(MAPPED)}; the columns of '{source}' are known, leave it out.")
    given_path = Path(path).resolve()
    if given_path.suffix.lower() in ARCHIVES and given_path.is_file():
        raise UserError(f"{given_path} is an archive; unpack it and give the folder.")
    names = compile_pattern(pattern) if pattern else None
    given = read(given_path, ws.kb, {**ws.settings.get(source, {}), "map": mapping or {}})
    known = pseudonyms(ws)  # the same as those of the reports, or image and report would not link
    with ws.connect(read_only=True) as con:
        before = owners(con)
    with parts_folder(ws.path) as folder:
        intake = _Intake(ws, given, known, names, before, folder, progress)
        intake.run(workers)
        with ws.connect() as con, store.transaction(con):
            stored = store_images(con, folder)
            intake.counts.update({n: stored[n] for n in ("conflicting_patient_sex", "report_of_another_patient")})
            intake.counts.update(duplicates.update(con, lambda image_id: read_clean(ws, image_id), workers))
            shared = duplicates.conflicts(con)
            refused = len(given.records) - intake.taken
            counts = {
                "rows": len(given.records),
                "reports": intake.taken - stored["known"],
                "already_known": stored["known"],
                "rejected": refused,
            }
            note_ingest(con, "images", given.root.name, {}, (None, None), counts, {})
    write_list(ws.path / CONFLICTS, CONFLICT_COLUMNS, "images", [["images", *row] for row in shared])
    result = intake.result(stored["new"])
    return result | ({"conflict_list": str(ws.path / CONFLICTS)} if shared else {})


@dataclass
class _Intake:
    """One set on its way into the database."""

    ws: Workspace
    given: SourceSet
    known: Pseudonyms
    names: NamePattern | None
    before: dict[str, tuple[str, str | None]]
    folder: Path
    progress: Progress | None
    counts: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[int, str, str]] = field(default_factory=list)
    taken: int = 0
    seen: dict[str, str | None] = field(default_factory=dict)
    waiting: deque[list[Item]] = field(default_factory=deque)
    loose: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0

    def run(self, workers: int) -> None:
        """Take every file; few of them never start processes."""
        self.counts.update({k: v for k, v in self.given.counts.items() if v})
        self.rejected = [(-1, entry["where"], entry["code"]) for entry in self.given.rejected]
        job = Job(self.ws, self.given.root, self.given.name)
        calls = ((job, part) for part in self._parts())
        alone = workers < 2 or len(self.given.records) <= 2 * BATCH
        results = starmap(take_part, calls) if alone else in_order(take_part, calls, workers, AHEAD * workers + 1)
        number = 0
        for number, result in enumerate(results, 1):
            self._collect(number, self.waiting.popleft(), result)
        self._write(number + 1, {"images": self.loose})

    def _parts(self) -> Iterator[list[Item]]:
        for part in batches(self._items(), BATCH):
            self.waiting.append(part)
            yield part

    def _items(self) -> Iterator[Item]:
        """Files that are there and not there twice; the others are refused here, in the order of the listing."""
        for number, record in enumerate(self.given.records):
            try:
                item = self._item(number, record)
            except Refused as error:
                self._reject(number, record, error.code)
                self._tell()
                continue
            yield item

    def _item(self, number: int, record: ImageRecord) -> Item:
        if self.names:
            record = self.names.apply(record, self.ws.kb)
        known = self.known
        record = replace(
            record,
            patient_id=known.of("patient", record.patient_id),
            exam_id=known.of("exam", record.exam_id),
            report_id=known.of("report", record.report_id),
        )
        file = inside(self.given.root, record.file)
        sha256 = _hash(file)
        item = Item(number, record, file, sha256)
        patient = record.patient_id
        if sha256 in self.seen:
            # The first row stands. Two patients cannot both own the image: a person has to say whose it is. Until then
            # the refused row stays in the table, and a split keeps the two patients together.
            self._refuse_copy(item, self.seen[sha256] != patient)
        path, owner = self.before.get(sha256, (None, None))
        if path != str(file) and patient and owner and owner != patient and os.path.exists(str(path)):
            self._refuse_copy(item, True)  # an earlier set has it, under another patient
        self.seen[sha256] = patient
        return item

    def _refuse_copy(self, item: Item, conflict: bool) -> None:
        code = "DUPLICATE_OF_ANOTHER_PATIENT" if conflict else "DUPLICATE_FILE"
        if conflict:
            name = f"{item.sha256}#{item.record.patient_id}"
            self.loose.append(self._row(item, hashlib.sha256(name.encode()).hexdigest()[:16], rejected=code))
        raise Refused(code)

    def _collect(self, number: int, items: list[Item], results: list[Taken]) -> None:
        """Turn what a part became into rows and write them."""
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
        for item, taken in zip(items, results, strict=True):
            self.counts.update(taken.counts)
            for code in taken.codes:
                self._reject(item.number, item.record, code)
            if taken.refused:
                self._reject(item.number, item.record, taken.refused)
                tables["images"].append(self._row(item, item.sha256[:16], rejected=taken.refused))
            else:
                self.taken += 1
                self._rows(item, self._linked(item.record, taken), taken, tables)
            self._tell()
        self.totals.update({name: len(rows) for name, rows in tables.items()})
        self.totals["refused"] += sum(row["rejected"] is not None for row in tables["images"])
        self.totals.update(Counter(f"{row['kind']}_masks" for row in tables["regions"]))
        self._write(number, tables)

    def _linked(self, record: ImageRecord, taken: Taken) -> ImageRecord:
        """Fill the gaps of a row with what the file's own header says."""
        if not taken.who:
            return record
        own = dict(taken.who)
        own["patient_id"] = self.known.of("patient", own["patient_id"])
        own["exam_id"] = self.known.of("exam", own["exam_id"])
        return replace(record, **{k: v for k, v in own.items() if getattr(record, k) is None})

    def _rows(self, item: Item, record: ImageRecord, taken: Taken, tables: dict[str, list[dict[str, Any]]]) -> None:
        item = replace(item, record=record)
        tables["cleaning"] += taken.cleaning
        tables["regions"] += taken.regions
        tables["fingerprints"] += taken.prints
        for frame in taken.frames:
            tables["images"].append(self._row(item, frame["image_id"], rejected=None) | frame)
            _describe(frame["image_id"], self.given.name, record, tables)
        if record.patient_id:
            age = None if record.age is None else min(record.age, MAX_AGE)
            source = f"images:{self.given.name}"
            row = {"patient_id": record.patient_id, "sex": record.sex, "age": age, "source": source}
            tables["patients"].append(row | {"place": item.number})
            if record.pathology:
                tables["pathology"].append(source_pathology(self.ws.domain, self.known, self.given.name, record))

    def _row(self, item: Item, image_id: str, rejected: str | None) -> dict[str, Any]:
        row = {"image_id": image_id, "sha256": item.sha256, "path": str(item.file), "source": self.given.name}
        names = ("patient_id", "exam_id", "report_id", "plane", "label", "cohort")
        return row | {name: getattr(item.record, name) for name in names} | {"rejected": rejected}

    def _write(self, number: int, tables: dict[str, list[dict[str, Any]]]) -> None:
        for name in COLUMNS:
            if tables.get(name) or number == 1:  # an empty part stands for a table without rows
                write_part(self.folder, name, number, tables.get(name, []), schema(name))

    def _reject(self, number: int, record: ImageRecord, code: str) -> None:
        self.rejected.append((number, record.where, code))

    def _tell(self) -> None:
        self.done += 1
        if self.progress:
            self.progress({"stage": "ingest images", "step": self.done, "steps": len(self.given.records)})

    def result(self, new: int) -> dict[str, Any]:
        """Counts, and the list of what was refused, in the order of the listing."""
        self.rejected.sort(key=lambda r: r[0])
        top = self.given.root.name
        rejects = Rejects()
        for _, where, code in self.rejected:
            file, _, line = where.rpartition(":")
            at = (f"{top}/{file}", int(line)) if file and line.isdigit() else (f"{top}/{where}", 0)
            rejects.add(Reject(*at, code))
        listed = write_list(self.ws.path / REJECTS, REJECT_COLUMNS, "images", rejects.rows("images"), [top])
        out = {
            "files": len(self.given.records),
            "taken": self.taken,
            "images": self.totals["images"] - self.totals["refused"],
            "new": new,
            "nodule_masks": self.totals["nodule_masks"],
            "gland_masks": self.totals["gland_masks"],
            "descriptors": self.totals["findings"],
            **({"pathology": self.totals["pathology"]} if self.totals["pathology"] else {}),
            **{name: n for name, n in sorted(self.counts.items()) if n},
            **({"unknown_values": dict(sorted(self.given.unknown.items()))} if self.given.unknown else {}),
            "rejected_by_code": dict(sorted(Counter(code for _, _, code in self.rejected).items())),
            "rejected": [{"where": where, "code": code} for _, where, code in self.rejected],
        }
        return out | ({"rejects": str(self.ws.path / REJECTS)} if listed and self.rejected else {})


def _hash(file: Path) -> str:
    """SHA-256 of a file that is one; Refused otherwise, before anything is read from a pipe or a device."""
    try:
        if not file.is_file():
            raise Refused("NOT_A_FILE" if file.exists() else "MISSING_FILE")
        if file.stat().st_size == 0:
            raise Refused("EMPTY_FILE")
        return sha256_file(file)
    except PermissionError as error:
        raise Refused("UNREADABLE") from error
    except OSError as error:  # a name that is longer than the file system knows
        raise Refused("MISSING_FILE") from error


def _describe(image_id: str, source: str, record: ImageRecord, tables: dict[str, list[dict[str, Any]]]) -> None:
    """One nodule an image for the set's own descriptors; the rule says that no text was parsed."""
    if not record.descriptors:
        return
    nodule_id = f"{image_id}.n1"
    tables["nodules"].append(
        {
            "nodule_id": nodule_id,
            "image_id": image_id,
            "patient_id": record.patient_id,
            "exam_id": record.exam_id,
            "ordinal": 1,
            "multiple": False,
            "source": f"source:{source}",
        }
    )
    for number, told in enumerate(record.descriptors):
        tables["findings"].append(
            {
                "finding_id": f"{nodule_id}.{number:02d}",
                "nodule_id": nodule_id,
                "attribute": told.attribute,
                "value": told.value,
                "number": told.number,
                "certainty": told.certainty,
                "surface": told.surface,
                "rule": f"source:{source}",
            }
        )
