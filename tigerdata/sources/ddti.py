"""The DDTI set of thyroid nodules (Pedraza et al. 2015, SPIE 9287): images, masks and TI-RADS descriptors.

Layout: `<patient>_<n>.a.jpg` images, `<patient>_<n>.b.jpg` masks (drawn in the green channel), `labels.csv` with
composition, echogenicity, margins, calcifications, tirads, sex, age. About a third of the files are panels of two
views, with the nodule outlined in both: each view becomes a frame of its own, because one condition map describes one
frame. The set has no pathology; which TI-RADS categories make a class is a setting (`[ddti.labels]`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import Box, Descriptor, ImageRecord, SourceSet
from tigerdata.sources.table import age, rows

IMAGE_NAME = re.compile(r"(?P<id>(?P<patient>\d+)_\d+)\.a\.jpg")
GREEN = 1

# The set's words -> (attribute, canonical value). ACR TI-RADS counts micro- and macrolobulation as one margin.
VOCABULARY: dict[str, dict[str, tuple[str, str]]] = {
    "composition": {
        "solid": ("composition", "solid"),
        "predominantly-solid": ("composition", "predominantly_solid"),
        "predominantly-cystic": ("composition", "predominantly_cystic"),
        "cystic": ("composition", "cystic"),
        "spongiform": ("composition", "spongiform"),
    },
    "echogenicity": {
        "hyperechogenicity": ("echogenicity", "hyperechoic"),
        "isoechogenicity": ("echogenicity", "isoechoic"),
        "hypoechogenicity": ("echogenicity", "hypoechoic"),
        "marked-hypoechogenicity": ("echogenicity", "markedly_hypoechoic"),
    },
    "margins": {
        "well-defined": ("margin", "clear"),
        "ill-defined": ("margin", "unclear"),
        "microlobulated": ("margin", "lobulated"),
        "macrolobulated": ("margin", "lobulated"),
        "spiculated": ("margin", "spiculated"),
    },
    "calcifications": {
        "non": ("calcification", "absent"),
        "microcalcification": ("calcification", "microcalcification"),
        "macrocalcification": ("calcification", "macrocalcification"),
    },
}

# Measured on the set's 476 files, all 500 x 315: a view is at least half a frame high wide, two of them span more than
# 1.3 heights, and the black surround's columns stay below level 14 at their 90th percentile.
DARK_LEVEL = 14
PANEL_ASPECT = 1.3
MIN_VIEW = 0.4
# A seam is a column where the median jump to its neighbour exceeds the surrounding jumps this many times.
SEAM_CONTRAST = 2.2
SEAM_WINDOW = 12


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read a DDTI folder. UserError when it has no labels.csv, or a word that `VOCABULARY` does not know (file:line).

    A file without a row, and a row without a file, are counted; the file still becomes a record, without descriptors.
    """
    table = path / "labels.csv"
    described: dict[str, tuple[str, dict[str, str]]] = {}
    for line, row in rows(table):
        if not {"image_id", *VOCABULARY, "tirads"} <= set(row):
            raise UserError(
                f"{table} lacks a column of image_id, {', '.join(VOCABULARY)}, tirads; it is no DDTI table."
            )
        described[row["image_id"]] = (f"{table.name}:{line}", row)
    counts: Counter[str] = Counter()
    records = []
    # By patient number and image number, as a person would list them; the order of the folder means nothing.
    files = sorted((m for p in path.iterdir() if (m := IMAGE_NAME.fullmatch(p.name))), key=lambda m: m["id"].zfill(12))
    for match in files:
        where, row = described.pop(match["id"], (match[0], {}))
        counts["file_without_row"] += not row
        tirads = row.get("tirads", "").lower()
        mask = f"{match['id']}.b.jpg"
        patient = f"ddti-{match['patient']}"
        records.append(
            ImageRecord(
                file=match[0],
                where=where,
                patient_id=patient,
                exam_id=patient,
                label=settings["labels"].get(tirads) or None,
                sex=row.get("sex") or None,
                age=age(row.get("age", ""), where),
                masks={"nodule": mask} if (path / mask).exists() else {},
                mask_channel=GREEN,
                descriptors=tuple(_descriptors(row, where)),
                views=views,
            )
        )
    counts["row_without_file"] = len(described)
    return SourceSet("ddti", path, records, dict(counts))


def _descriptors(row: Mapping[str, str], where: str) -> list[Descriptor]:
    found = []
    for column, words in VOCABULARY.items():
        word = row.get(column, "")
        if not word:
            continue
        if word not in words:
            raise UserError(f"{where}: unknown word in column '{column}'; known: {', '.join(words)}.")
        found.append(Descriptor(*words[word], word))
    if tirads := row.get("tirads", ""):
        found.append(Descriptor("tirads", tirads.upper(), tirads))
    return found


def views(levels: NDArray[np.uint8]) -> list[Box]:
    """Return the boxes of the scanned views in a DDTI file, left to right; the black surround is left out.

    A single view is narrower than 1.3 heights. A wider content is a panel of two: it is cut at a black gap, else at
    the column of its middle fifth where nearly all rows jump at once, else (two views so alike that no column jumps)
    in the middle.
    """
    height, width = levels.shape
    lit = np.percentile(levels, 90, axis=0) >= DARK_LEVEL
    columns = np.flatnonzero(lit)
    if columns.size < MIN_VIEW * height:
        return [(0, 0, width, height)]
    left, right = int(columns[0]), int(columns[-1]) + 1
    cuts = [(left, right)]
    if right - left > PANEL_ASPECT * height:
        seam = _seam(levels[:, left:right]) + left
        dark = np.flatnonzero(~lit[left:right]) + left
        near = dark[np.abs(dark - seam) <= SEAM_WINDOW]
        first, last = (int(near[0]), int(near[-1]) + 1) if near.size else (seam, seam)
        cuts = [(left, first), (last, right)]
    boxes = []
    for start, stop in cuts:
        rows_lit = np.flatnonzero(np.percentile(levels[:, start:stop], 90, axis=1) >= DARK_LEVEL)
        top, bottom = (int(rows_lit[0]), int(rows_lit[-1]) + 1) if rows_lit.size else (0, height)
        boxes.append((start, top, stop, bottom))
    return boxes


def _seam(levels: NDArray[np.uint8]) -> int:
    """Return the first column of the right view."""
    jumps = np.median(np.abs(np.diff(levels.astype(np.float32), axis=1)), axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(jumps, SEAM_WINDOW, mode="edge"), 2 * SEAM_WINDOW + 1)
    contrast = jumps / (np.median(windows, axis=1) + 1)
    width = levels.shape[1]
    low, high = round(0.4 * width), round(0.6 * width)
    best = low + int(np.argmax(contrast[low:high]))
    return best + 1 if contrast[best] >= SEAM_CONTRAST else width // 2
