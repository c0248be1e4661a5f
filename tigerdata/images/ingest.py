"""Ingest of an image set: refuse what is no frame, write clean grey frames, link them to patients and descriptions.

Originals are only read. The call can be repeated: the same files give the same rows, changed columns are taken over.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import sha256_file
from tigerdata.identity import pseudonyms
from tigerdata.images.frames import Refused, crop, inside, read_gray, write_gray
from tigerdata.progress import Progress
from tigerdata.regions import masks
from tigerdata.regions.drawn import draw
from tigerdata.sources import reader
from tigerdata.sources.records import ImageRecord

if TYPE_CHECKING:
    import duckdb

    from tigerdata.workspace import Workspace

IMAGE_COLUMNS = (
    "image_id", "sha256", "path", "width", "height", "patient_id", "exam_id", "plane", "label", "cohort", "source",
    "rejected", "file_width", "file_height", "frame_left", "frame_top",
)  # fmt: skip
MAPPED = ("csv", "imagefolder")
SIZES = ("width", "height", "file_width", "file_height", "frame_left", "frame_top")


@dataclass
class _Batch:
    """Rows to write, collected before the database is opened."""

    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    regions: list[dict[str, Any]] = field(default_factory=list)
    nodules: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    patients: dict[str, dict[str, Any]] = field(default_factory=dict)
    pathology: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)

    def reject(self, where: str, code: str) -> None:
        self.rejected.append({"where": where, "code": code})


def ingest_images(
    ws: Workspace,
    path: str | os.PathLike[str],
    source: str = "csv",
    progress: Progress | None = None,
    *,
    mapping: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Take a set of images into the workspace and return what happened.

    `source` is one of `sources.SOURCES`: "csv" (a table, or a folder with images.csv), "imagefolder", or a public set;
    `mapping` (canonical name -> column) says which columns a table of one's own has. The result holds `files` (listed),
    `images` (frames in the workspace after this call, from this set), `new` (of these), counts of masks, descriptors
    and conflicts, `unknown_values` (words that the vocabulary lacks), `rejected_by_code`, and `rejected`: where and
    code of each refused file, row or cell. A refused mask or cell leaves its image in, without it. Raises UserError for
    a set that cannot be read at all.
    """
    from kb import store
    from tigerdata.reports.pathology_ingest import source_pathology

    read = reader(source)
    if mapping and source not in MAPPED:
        raise UserError(f"--map is for {' and '.join(MAPPED)}; the columns of '{source}' are known, leave it out.")
    given = read(Path(path).resolve(), ws.kb, {**ws.settings.get(source, {}), "map": mapping or {}})
    batch = _Batch(counts=Counter({k: v for k, v in given.counts.items() if v}), rejected=given.rejected)
    known = pseudonyms(ws)  # the same as those of the reports, or image and report would not link
    for number, record in enumerate(given.records, 1):
        record = replace(
            record, patient_id=known.of("patient", record.patient_id), exam_id=known.of("exam", record.exam_id)
        )
        if _take(ws, given.root, given.name, record, batch) and record.pathology and record.patient_id:
            batch.pathology.append(source_pathology(ws.domain, known, given.name, record))
        if progress:
            progress({"stage": "ingest images", "step": number, "steps": len(given.records)})
    with ws.connect() as con, store.transaction(con):
        new = _write(con, batch)
    accepted = [row for row in batch.images.values() if row["rejected"] is None]
    by_code = Counter(r["code"] for r in batch.rejected)
    return {
        "files": len(given.records),
        "images": len(accepted),
        "new": new,
        "nodule_masks": sum(r["kind"] == "nodule" for r in batch.regions),
        "gland_masks": sum(r["kind"] == "gland" for r in batch.regions),
        "descriptors": len(batch.findings),
        **({"pathology": len(batch.pathology)} if batch.pathology else {}),
        **dict(sorted(batch.counts.items())),
        **({"unknown_values": dict(sorted(given.unknown.items()))} if given.unknown else {}),
        "rejected_by_code": dict(sorted(by_code.items())),
        "rejected": batch.rejected,
    }


def _take(ws: Workspace, root: Path, source: str, record: ImageRecord, batch: _Batch) -> bool:
    """Add an image, or the reason why not, to the batch; whether it was taken."""
    limit, least = ws.settings["images"]["max_megapixels"], ws.settings["images"]["min_side"]
    try:
        file = inside(root, record.file)
        if not file.is_file():
            raise Refused("NOT_A_FILE" if file.exists() else "MISSING_FILE")
        sha256 = sha256_file(file)
    except (Refused, PermissionError) as error:
        batch.reject(record.where, error.code if isinstance(error, Refused) else "UNREADABLE")
        return False
    row = {"sha256": sha256, "path": str(file), "source": source, "rejected": None} | {
        name: getattr(record, name) for name in ("patient_id", "exam_id", "plane", "label", "cohort")
    }
    earlier = batch.images.get(sha256[:16])
    if earlier is not None and earlier["sha256"] == sha256:
        # The first row stands. Two patients cannot both own the image: a person has to say whose it is. Until then
        # the refused row stays in the table, and a split keeps the two patients together.
        conflict = earlier["patient_id"] != record.patient_id
        code = "DUPLICATE_OF_ANOTHER_PATIENT" if conflict else "DUPLICATE_FILE"
        batch.reject(record.where, code)
        if conflict:
            copy_id = hashlib.sha256(f"{sha256}#{record.patient_id}".encode()).hexdigest()[:16]
            batch.images[copy_id] = row | {"image_id": copy_id, "rejected": code}
        return False
    try:
        levels = read_gray(file, limit, least)
    except Refused as error:
        batch.reject(record.where, error.code)
        batch.images[sha256[:16]] = row | {"image_id": sha256[:16], "rejected": error.code}
        return False
    height, width = levels.shape
    drawn, codes = draw(root, record, (height, width), limit)
    for code in codes:
        batch.reject(record.where, code)
    row |= {"file_width": width, "file_height": height}
    boxes = record.views(levels) if record.views else [(0, 0, width, height)]
    if len(boxes) > 1:
        batch.counts["panels_split"] += 1
    for index, box in enumerate(boxes):
        cut = {kind: crop(mask, box) for kind, mask in drawn.items()}
        if len(boxes) > 1 and "nodule" in cut and not cut["nodule"].any():
            # Nobody outlined a nodule in this view: whether there is one is not known.
            batch.counts["view_without_mask"] += 1
            continue
        image_id = sha256[:16] if index == 0 else hashlib.sha256(f"{sha256}/{index}".encode()).hexdigest()[:16]
        frame = crop(levels, box)
        write_gray(ws.frame_path(image_id), frame)
        batch.images[image_id] = row | {
            "image_id": image_id, "width": frame.shape[1], "height": frame.shape[0], "frame_left": box[0],
            "frame_top": box[1],
        }  # fmt: skip
        batch.regions += [masks.save(ws, image_id, k, m, origin=f"import:{source}") for k, m in cut.items() if m.any()]
        _describe(image_id, source, record, batch)
    if record.patient_id:
        _patient(source, record, batch)
    return True


def _describe(image_id: str, source: str, record: ImageRecord, batch: _Batch) -> None:
    """One nodule an image for the set's own descriptors; the rule says that no text was parsed."""
    if not record.descriptors:
        return
    nodule_id = f"{image_id}.n1"
    batch.nodules.append(
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
        batch.findings.append(
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


def _patient(source: str, record: ImageRecord, batch: _Batch) -> None:
    known = batch.patients.setdefault(
        str(record.patient_id),
        {"patient_id": record.patient_id, "sex": None, "age": None, "source": f"images:{source}"},
    )
    for name in ("sex", "age"):
        value = getattr(record, name)
        if known[name] is None:
            known[name] = value
        elif value is not None and value != known[name] and name == "sex":  # the age rises between examinations
            batch.counts["conflicting_patient_sex"] += 1


def _write(con: duckdb.DuckDBPyConnection, batch: _Batch) -> int:
    """Write the batch in the caller's transaction and return the number of frames that were not there before."""
    import pandas as pd

    from kb import store
    from tigerdata.reports.pathology_ingest import mark_conflicts

    ids = pd.DataFrame({"image_id": list(batch.images)}, dtype="object")
    con.register("_ids", ids)
    row = con.execute(
        "SELECT count(*) FROM images WHERE rejected IS NULL AND image_id IN (SELECT image_id FROM _ids)"
    ).fetchone()
    known = row[0] if row else 0
    for table in ("findings", "nodules"):
        con.execute(
            f"""DELETE FROM {table} WHERE nodule_id IN (SELECT nodule_id FROM nodules
                WHERE source LIKE 'source:%' AND image_id IN (SELECT image_id FROM _ids))"""
        )
    con.unregister("_ids")
    images = pd.DataFrame(list(batch.images.values()), columns=list(IMAGE_COLUMNS))
    store.insert(con, "images", _nullable(images, **dict.fromkeys(SIZES, "Int64")), replace=True)
    masks.insert(con, batch.regions)
    store.insert(con, "nodules", pd.DataFrame(batch.nodules))
    if batch.findings:
        store.insert(con, "findings", pd.DataFrame(batch.findings).astype({"number": "float64"}))
    if batch.pathology:
        store.insert(con, "pathology", pd.DataFrame(batch.pathology, dtype=object), replace=True)
        mark_conflicts(con)
    _write_patients(con, batch.patients)
    return sum(r["rejected"] is None for r in batch.images.values()) - known


def _write_patients(con: duckdb.DuckDBPyConnection, patients: Mapping[str, Mapping[str, Any]]) -> None:
    """Add patients; what another source already said about one stays, only gaps are filled."""
    import pandas as pd

    if not patients:
        return
    frame = pd.DataFrame(list(patients.values()), columns=["patient_id", "sex", "age", "source"])
    con.register("_patients", _nullable(frame, age="float64"))
    con.execute(
        """INSERT INTO patients BY NAME SELECT * FROM _patients
           ON CONFLICT (patient_id) DO UPDATE SET sex = coalesce(patients.sex, excluded.sex),
                                                  age = coalesce(patients.age, excluded.age)"""
    )
    con.unregister("_patients")


def _nullable(frame: Any, **types: str) -> Any:
    """Give every column a type, also an empty one: text by default, or a column of None would become numbers."""
    return frame.astype({name: types.get(name, "string") for name in frame.columns})
