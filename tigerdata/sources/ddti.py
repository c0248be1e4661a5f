"""The DDTI set of thyroid nodules (Pedraza et al. 2015, SPIE 9287): images, masks and TI-RADS descriptors.

Two layouts. The original: one `<case>.xml` with composition, echogenicity, margins, calcifications, tirads, sex, age,
and a `mark` for each image `<case>_<n>.jpg` whose `svg` holds the outlines of its nodules as JSON. The prepared one:
`<case>_<n>.a.jpg` images, `<case>_<n>.b.jpg` masks (drawn in the green channel), and the same columns in `labels.csv`.
About a third of the files are panels of two views, with the nodule outlined in both: each view becomes a frame of its
own, because one condition map describes one frame. The set has no pathology; which TI-RADS categories make a class is
a setting (`[ddti.labels]`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.reports import person
from tigerdata.sources.records import Box, Descriptor, ImageRecord, Outline, SourceSet, Words, require
from tigerdata.sources.table import rows

TABLE = "labels.csv"
PREPARED = re.compile(r"(?P<id>(?P<case>\d+)_\d+)\.a\.jpg")
ORIGINAL = re.compile(r"(?P<case>\d+)_(?P<number>\d+)\.jpg")
GREEN = 1
CATEGORIES = ("1", "2", "3", "4a", "4b", "4c", "5")
# An annotation is some kilobytes; a file that declares entities is none.
MAX_XML = 4 << 20

# The set's words, hyphens as spaces; the original files spell some of them in several ways. ACR TI-RADS counts micro-
# and macrolobulation as one margin. "dense" is a word of few cases that the lexicon does not have: left unread.
VOCABULARY: Words = {
    "composition": {
        "solid": (("composition", "solid"),),
        "predominantly solid": (("composition", "predominantly_solid"),),
        "predominantly cystic": (("composition", "predominantly_cystic"),),
        "cystic": (("composition", "cystic"),),
        "spongiform": (("composition", "spongiform"),),
        "spongiform appareance": (("composition", "spongiform"),),
    },
    "echogenicity": {
        "anechoic": (("echogenicity", "anechoic"),),
        "hyperechogenicity": (("echogenicity", "hyperechoic"),),
        "isoechogenicity": (("echogenicity", "isoechoic"),),
        "hypoechogenicity": (("echogenicity", "hypoechoic"),),
        "marked hypoechogenicity": (("echogenicity", "markedly_hypoechoic"),),
    },
    "margins": {
        "well defined": (("margin", "clear"),),
        "well defined smooth": (("margin", "clear"), ("margin", "smooth")),
        "ill defined": (("margin", "unclear"),),
        "microlobulated": (("margin", "lobulated"),),
        "macrolobulated": (("margin", "lobulated"),),
        "spiculated": (("margin", "spiculated"),),
    },
    "calcifications": {
        "non": (("calcification", "absent"),),
        "microcalcification": (("calcification", "microcalcification"),),
        "macrocalcification": (("calcification", "macrocalcification"),),
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
    """Read a DDTI folder of either layout; UserError when it is neither.

    A file without a description, and a description without a file, are counted; the file still becomes a record,
    without descriptors. Words that `VOCABULARY` does not know are counted and left out.
    """
    require(base, "ddti", VOCABULARY, "thyroid")
    given = SourceSet("ddti", path)
    if (path / TABLE).is_file():
        _prepared(path, given, settings["labels"])
    elif any(path.glob("*.xml")):
        _original(path, given, settings["labels"])
    else:
        raise UserError(f"{path} holds neither {TABLE} nor .xml files; give the folder of the DDTI images.")
    return given


def _prepared(path: Path, given: SourceSet, labels: Mapping[str, str]) -> None:
    table = path / TABLE
    names, listed = rows(table, given)
    if not {"image_id", *VOCABULARY, "tirads"} <= set(names):
        raise UserError(f"{table} lacks a column of image_id, {', '.join(VOCABULARY)}, tirads; it is no DDTI table.")
    described = {row["image_id"]: (where, row) for where, row in listed}
    for match in _files(path, PREPARED):
        where, row = described.pop(match["id"], (match[0], {}))
        given.counts["file_without_row"] += not row
        mask = f"{match['id']}.b.jpg"
        masks = {"nodule": (mask,)} if (path / mask).exists() else {}
        given.records.append(_record(given, match, where, row, labels, masks=masks, mask_channel=GREEN))
    given.counts["row_without_file"] = len(described)


def _original(path: Path, given: SourceSet, labels: Mapping[str, str]) -> None:
    cases = {file.stem: _case(file, given) for file in sorted(path.glob("*.xml"))}
    unseen = {(case, number) for case, (_, marks) in cases.items() for number in marks}
    for match in _files(path, ORIGINAL):
        case, number = match["case"], match["number"]
        row, marks = cases.get(case, ({}, {}))
        given.counts["file_without_row"] += case not in cases
        given.counts["file_without_outline"] += case in cases and not marks.get(number)
        unseen.discard((case, number))
        where = f"{case}.xml" if case in cases else match[0]
        outlines = {"nodule": marks[number]} if marks.get(number) else {}
        given.records.append(_record(given, match, where, row, labels, outlines=outlines))
    given.counts["outline_without_file"] = len(unseen)


def _files(path: Path, name: re.Pattern[str]) -> list[re.Match[str]]:
    """Images by case and image number, as a person would list them; the order of the folder means nothing."""
    found = [match for p in path.iterdir() if (match := name.fullmatch(p.name))]
    return sorted(found, key=lambda match: [int(n) for n in re.findall(r"\d+", match[0])[:2]])


def _record(
    given: SourceSet, match: re.Match[str], where: str, row: Mapping[str, str], labels: Mapping[str, str], **drawn: Any
) -> ImageRecord:
    category = row.get("tirads", "").lower()
    if category and category not in CATEGORIES:
        given.unknown[f"tirads={category}"] += 1
        given.reject(where, "UNKNOWN_VALUE:tirads")
        category = ""
    found = [d for column in VOCABULARY for d in _descriptors(given, column, row.get(column, ""), where)]
    if category:
        found.append(Descriptor("tirads", category.upper(), row["tirads"]))
    patient = f"ddti-{match['case']}"
    return ImageRecord(
        file=match[0],
        where=where,
        patient_id=patient,
        exam_id=patient,
        label=labels.get(category) or None,
        sex=person.sex(row.get("sex", "")),
        age=person.age(row.get("age", "")),
        descriptors=tuple(found),
        views=views,
        **drawn,
    )


def _descriptors(given: SourceSet, column: str, word: str, where: str) -> Iterator[Descriptor]:
    """What a cell says, `surface` as the set writes it: spelling, hyphens and plurals differ between its files."""
    plain = re.sub(r"[\s-]+", " ", word.lower()).strip().replace("genecity", "genicity")
    if column == "calcifications":
        plain = plain.removesuffix("s")
    if plain:
        for said in given.translate(VOCABULARY, column, plain, where):
            yield Descriptor(said.attribute, said.value, word)


def _case(file: Path, given: SourceSet) -> tuple[dict[str, str], dict[str, tuple[Outline, ...]]]:
    """Fields of a case, and the outlines of each of its images by number; what is broken is rejected by a code."""
    content = file.read_bytes()
    if len(content) > MAX_XML or b"<!ENTITY" in content or b"<!DOCTYPE" in content:
        given.reject(file.name, "REFUSED_XML")
        return {}, {}
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        given.reject(file.name, "BROKEN_XML")
        return {}, {}
    row = {name: (root.findtext(name) or "").strip() for name in (*VOCABULARY, "tirads", "sex", "age")}
    # The text of the fine-needle aspiration is no histology, and in Spanish where it is there.
    given.counts["biopsy_text_not_read"] += bool((root.findtext("reportbacaf") or "").strip())
    marks: dict[str, tuple[Outline, ...]] = {}
    for mark in root.iter("mark"):
        number = (mark.findtext("image") or "").strip()
        try:
            shapes = json.loads(mark.findtext("svg") or "[]")
            drawn = tuple(tuple((float(p["x"]), float(p["y"])) for p in shape["points"]) for shape in shapes)
        except (ValueError, TypeError, KeyError, RecursionError):
            given.reject(f"{file.name}, image {number}", "BROKEN_OUTLINE")
            continue
        marks[number] = (*marks.get(number, ()), *(outline for outline in drawn if len(outline) > 2))
    return row, marks


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
