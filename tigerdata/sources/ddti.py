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

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.reports import person
from tigerdata.sources.records import Descriptor, ImageRecord, Outline, SourceSet, Words, require
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

# Measured on the set's 476 files, all 500 x 315: one view spans at most 1.22 heights, two views span more than 1.3.
PANEL_ASPECT = 1.3


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
        panel_aspect=PANEL_ASPECT,
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
