"""Class folders (torchvision ImageFolder, Hugging Face imagefolder), with an optional metadata table beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import ImageRecord, SourceSet
from tigerdata.sources.table import Reading, rows

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
# Pictures that cannot be read are listed too, so that the ingest refuses them with a code instead of passing over them.
OTHERS = (".gif", ".svg", ".eps", ".heic", ".jp2", ".jfif", ".avif")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# A folder of that name holds drawings, not a class of images.
DRAWINGS = ("mask", "masks", "gt", "ground_truth", "groundtruth", "annotations", "segmentations")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read `[train|val|test/]<class>/<image>`: the class is the image's folder, the cohort a split folder above it.

    A metadata table at the top or in a split folder may add, by `file_name` relative to itself, what a row of
    `sources.table` may hold: label, patient_id, mask_file_name, attributes. Files that are named as masks, and files in
    a folder called masks, are no images; the latter are counted. Raises UserError for a folder without images.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give the folder that holds the class folders.")
    given = SourceSet("imagefolder", path)
    described = _metadata(path, base, given, settings.get("map", {}))
    drawings = {name for row in described.values() for names in row.masks.values() for name in names}
    for file in sorted(p for p in path.rglob("*") if not p.is_dir()):
        if file.suffix.lower() not in (*SUFFIXES, *OTHERS):
            given.counts["not_an_image_by_name"] += file.name not in METADATA
            continue
        name = file.relative_to(path).as_posix()
        folders = name.split("/")[:-1]
        if name in drawings:
            continue
        row = described.pop(name, None)
        if row is None and any(folder.lower() in DRAWINGS for folder in folders):
            given.counts["mask_without_row"] += 1  # `tigerdata ingest masks` attaches them by name
            continue
        cohort = SPLITS.get(folders[0].lower()) if folders else None
        classes = folders[1:] if cohort else folders
        row = row or ImageRecord(name, name)
        given.records.append(
            replace(row, cohort=row.cohort or cohort, label=row.label or (classes[-1] if classes else None))
        )
    if not given.records:
        raise UserError(f"{path} holds no image ({', '.join(SUFFIXES)}); give the folder that holds the class folders.")
    given.counts["row_without_file"] = len(described)
    return given


def _metadata(path: Path, base: KnowledgeBase, given: SourceSet, mapping: Mapping[str, str]) -> dict[str, ImageRecord]:
    """Records of all metadata tables by the image's name below `path`; file names in them become relative to `path`."""
    found: dict[str, ImageRecord] = {}
    for table in sorted(p for name in METADATA for p in (*path.glob(name), *path.glob(f"*/{name}"))):
        folder = table.parent.relative_to(path).as_posix()
        prefix = "" if folder == "." else f"{folder}/"
        names, listed = rows(table, given)
        reading = Reading(base, given, names, table.name, mapping)
        for where, row in listed:
            record = reading.record(row, where, prefix)
            if record.file == prefix:
                given.reject(where, "NO_FILE_NAME")
                continue
            found[record.file] = record
    return found
