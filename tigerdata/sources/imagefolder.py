"""Class folders (torchvision ImageFolder, Hugging Face imagefolder), with an optional metadata table beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import ImageRecord, SourceSet
from tigerdata.sources.table import rows

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")
# Pictures that cannot be read are listed too, so that the ingest refuses them with a code instead of passing over them.
OTHERS = (".gif", ".svg", ".eps", ".heic", ".jp2", ".jfif", ".avif")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
METADATA = ("metadata.csv", "metadata.jsonl")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read `[train|val|test/]<class>/<image>`: the class is the image's folder, the cohort a split folder above it.

    `metadata.csv` or `metadata.jsonl` at the top or in a split folder may add, by `file_name` relative to itself,
    label, patient_id, exam_id, report_id, plane, cohort, mask_file_name and gland_file_name; images with a mask name
    are cases, files that are named as masks are no images. Raises UserError for a folder without images.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give the folder that holds the class folders.")
    table = _metadata(path)
    masks = {name for row in table.values() for kind in ("mask", "gland") if (name := row.get(f"{kind}_file_name"))}
    records = []
    left_out = 0
    for file in sorted(p for p in path.rglob("*") if not p.is_dir()):
        if file.suffix.lower() not in (*SUFFIXES, *OTHERS):
            left_out += file.name not in METADATA
            continue
        name = file.relative_to(path).as_posix()
        if name in masks:
            continue
        folders = name.split("/")[:-1]
        cohort = SPLITS.get(folders[0].lower()) if folders else None
        row = table.get(name, {})
        classes = folders[1:] if cohort else folders
        records.append(
            ImageRecord(
                file=name,
                where=name,
                patient_id=row.get("patient_id") or None,
                exam_id=row.get("exam_id") or None,
                report_id=row.get("report_id") or None,
                plane=row.get("plane") or None,
                cohort=row.get("cohort") or cohort,
                label=row.get("label") or (classes[-1] if classes else None),
                masks={k: row[f"{c}_file_name"] for c, k in _KINDS.items() if row.get(f"{c}_file_name")},
            )
        )
    if not records:
        raise UserError(f"{path} holds no image ({', '.join(SUFFIXES)}); give the folder that holds the class folders.")
    return SourceSet("imagefolder", path, records, {"not_an_image_by_name": left_out})


_KINDS = {"mask": "nodule", "gland": "gland"}


def _metadata(path: Path) -> dict[str, dict[str, str]]:
    """Rows of all metadata tables by the image's name below `path`; file names in them become relative to `path`."""
    found: dict[str, dict[str, str]] = {}
    for table in sorted(p for name in METADATA for p in (*path.glob(name), *path.glob(f"*/{name}"))):
        folder = table.parent.relative_to(path).as_posix()
        prefix = "" if folder == "." else f"{folder}/"
        for line, row in _lines(table):
            if not row.get("file_name"):
                raise UserError(f"{table.name}:{line} has no file_name; name the image the row is about.")
            for column in [c for c in row if c == "file_name" or c.endswith("_file_name")]:
                row[column] = prefix + row[column] if row[column] else ""
            found[row["file_name"]] = row
    return found


def _lines(table: Path) -> list[tuple[int, dict[str, str]]]:
    if table.suffix == ".csv":
        return list(rows(table))
    out = []
    for line, text in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError as error:
            raise UserError(f"{table.name}:{line} is not valid JSON; mend the line.") from error
        if row:
            out.append((line, {k: "" if v is None else str(v) for k, v in row.items()}))
    return out
