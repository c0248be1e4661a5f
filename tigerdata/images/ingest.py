"""Ingest of an image set: refuse what is no frame, write clean grey frames, link them to patients and descriptions.

Originals are only read. The call can be repeated: the same files give the same rows, changed columns are taken over.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import sha256_file
from tigerdata.identity import pseudonyms
from tigerdata.images.clean import View, clean
from tigerdata.images.frames import Refused, inside, read_frame, read_mask, write_gray
from tigerdata.progress import Progress
from tigerdata.regions import masks
from tigerdata.sources.records import ImageRecord, Reader

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from tigerdata.workspace import Workspace

SOURCES = {
    "csv": "tigerdata.sources.table",
    "ddti": "tigerdata.sources.ddti",
    "imagefolder": "tigerdata.sources.imagefolder",
}
IMAGE_COLUMNS = (
    "image_id", "sha256", "path", "width", "height", "patient_id", "exam_id", "plane", "label", "cohort", "source",
    "rejected", "mm_per_pixel",
)  # fmt: skip


@dataclass
class _Batch:
    """Rows to write, collected before the database is opened."""

    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    cleaning: list[dict[str, Any]] = field(default_factory=list)
    regions: list[dict[str, Any]] = field(default_factory=list)
    nodules: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    patients: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)

    def reject(self, where: str, code: str) -> None:
        self.rejected.append({"where": where, "code": code})


def ingest_images(
    ws: Workspace,
    path: str | os.PathLike[str],
    source: str = "csv",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Take a set of images into the workspace and return what happened.

    `source` is "csv" (a table, or a folder with images.csv), "ddti" or "imagefolder". The result holds `files`
    (listed), `images` (frames in the workspace after this call, from this set), `new` (of these), counts of masks,
    descriptors and conflicts, `rejected_by_code`, and `rejected`: where and code of each refused file. A refused mask
    leaves its image in, without that mask. Raises UserError for a set that cannot be read at all.
    """
    from kb import store

    if source not in SOURCES:
        raise UserError(f"Unknown image source '{source}'; known: {', '.join(SOURCES)}.")
    read: Reader = importlib.import_module(SOURCES[source]).read
    given = read(Path(path).resolve(), ws.kb, ws.settings.get(source, {}))
    batch = _Batch(counts=Counter({k: v for k, v in given.counts.items() if v}))
    known = pseudonyms(ws)  # the same as those of the reports, or image and report would not link
    for number, record in enumerate(given.records, 1):
        record = replace(
            record, patient_id=known.of("patient", record.patient_id), exam_id=known.of("exam", record.exam_id)
        )
        _take(ws, given.root, given.name, record, batch)
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
        **dict(sorted((+batch.counts).items())),
        "rejected_by_code": dict(sorted(by_code.items())),
        "rejected": batch.rejected,
    }


def _take(ws: Workspace, root: Path, source: str, record: ImageRecord, batch: _Batch) -> None:
    limit, least = ws.settings["images"]["max_megapixels"], ws.settings["images"]["min_side"]
    try:
        file = inside(root, record.file)
        if not file.is_file():
            raise Refused("NOT_A_FILE" if file.exists() else "MISSING_FILE")
        sha256 = sha256_file(file)
    except (Refused, PermissionError) as error:
        batch.reject(record.where, error.code if isinstance(error, Refused) else "UNREADABLE")
        return
    row = {"sha256": sha256, "path": str(file), "source": source, "rejected": None} | {
        name: getattr(record, name) for name in ("patient_id", "exam_id", "plane", "label", "cohort", "mm_per_pixel")
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
        return
    try:
        given = read_frame(file, limit, least)
    except Refused as error:
        batch.reject(record.where, error.code)
        batch.images[sha256[:16]] = row | {"image_id": sha256[:16], "rejected": error.code}
        return
    drawn = _read_masks(root, record, given.levels.shape, limit, batch)
    views = clean(given.levels, given.rgb, ws.settings["images"], record.panel_aspect)
    _count(views, drawn, batch.counts)
    for index, view in enumerate(views):
        cut = {kind: view.crop(mask) for kind, mask in drawn.items()}
        if len(views) > 1 and "nodule" in cut and not cut["nodule"].any():
            # Nobody outlined a nodule in this view: whether there is one is not known.
            batch.counts["view_without_mask"] += 1
            continue
        image_id = sha256[:16] if index == 0 else hashlib.sha256(f"{sha256}/{index}".encode()).hexdigest()[:16]
        height, width = view.levels.shape
        write_gray(ws.frame_path(image_id), view.levels)
        batch.images[image_id] = row | {"image_id": image_id, "width": width, "height": height}
        batch.cleaning.append(view.row(image_id))
        batch.regions += [masks.save(ws, image_id, k, m, origin=f"import:{source}") for k, m in cut.items() if m.any()]
        _describe(image_id, source, record, batch)
    if record.patient_id:
        _patient(source, record, batch)


def _read_masks(
    root: Path, record: ImageRecord, shape: tuple[int, ...], limit: float, batch: _Batch
) -> dict[str, NDArray[np.bool_]]:
    found = {}
    for kind, name in record.masks.items():
        try:
            found[kind] = read_mask(inside(root, name), (shape[0], shape[1]), record.mask_channel, limit)
        except Refused as error:
            batch.reject(record.where, f"{kind.upper()}_MASK:{error.code}")
    return found


def _count(views: Sequence[View], drawn: Mapping[str, NDArray[np.bool_]], counts: Counter[str]) -> None:
    """Count what cleaning did to a file, and what it took from the masks that came with it."""
    counts["panels_split"] += len(views) > 1
    counts["frames_with_signs"] += any(view.masked for view in views)
    for kind, mask in drawn.items():
        kept = sum(int(view.crop(mask).sum()) for view in views)
        counts[f"{kind}_mask_cut"] += kept < mask.sum()


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
                "certainty": "positive",
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
    store.insert(con, "images", _nullable(images, width="Int64", height="Int64", mm_per_pixel="float64"), replace=True)
    store.insert(con, "cleaning", pd.DataFrame(batch.cleaning), replace=True)
    masks.insert(con, batch.regions)
    store.insert(con, "nodules", pd.DataFrame(batch.nodules))
    store.insert(con, "findings", pd.DataFrame(batch.findings))
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
