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

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import Descriptor, ImageRecord, SourceSet
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

# Measured on the set's 476 files, all 500 x 315: one view spans at most 1.22 heights, two views span more than 1.3.
PANEL_ASPECT = 1.3


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
                panel_aspect=PANEL_ASPECT,
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
