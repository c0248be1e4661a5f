"""Image sets listed in a CSV file: one row an image, columns by name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import Descriptor, ImageRecord, SourceSet

TABLE = "images.csv"
MASK_COLUMNS = {"mask_file": "nodule", "gland_file": "gland"}
COLUMNS = (
    "file", "patient_id", "exam_id", "report_id", "plane", "cohort", "label", "sex", "age", "mm_per_pixel",
    *MASK_COLUMNS,
)  # fmt: skip
MISSING = ("", "na", "n/a", "nan", "null", "none", "-")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read `images.csv` in a folder, or the CSV file given: column `file`, and any of `COLUMNS` and attribute names.

    File names are relative to the CSV's folder. A column named after an attribute holds canonical values, several
    joined by ';'. Raises UserError, with file and line, for a table without the column `file`, and for a plane,
    attribute value or age that cannot be read.
    """
    table = path / TABLE if path.is_dir() else path
    records, ignored = [], set()
    for line, row in rows(table):
        where = f"{table.name}:{line}"
        if "file" not in row:
            raise UserError(
                f"{table} has no column 'file'; name the image files in it, relative to the table's folder."
            )
        ignored |= set(row) - {*COLUMNS, *base.attributes}
        plane = row.get("plane") or None
        if plane is not None and plane not in base.attributes["sonogram_direction"].values:
            known = ", ".join(base.attributes["sonogram_direction"].values)
            raise UserError(f"{where}: unknown plane; use one of {known}, or leave the cell empty.")
        records.append(
            ImageRecord(
                file=row["file"],
                where=where,
                patient_id=row.get("patient_id") or None,
                exam_id=row.get("exam_id") or None,
                report_id=row.get("report_id") or None,
                plane=plane,
                cohort=row.get("cohort") or None,
                label=row.get("label") or None,
                sex=row.get("sex") or None,
                age=age(row.get("age", ""), where),
                mm_per_pixel=scale(row.get("mm_per_pixel", ""), where),
                masks={kind: row[column] for column, kind in MASK_COLUMNS.items() if row.get(column)},
                descriptors=tuple(_descriptors(row, base, where)),
            )
        )
    counts = {f"ignored_column:{name}": len(records) for name in sorted(ignored)}
    return SourceSet("csv", table.parent, records, counts)


def rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file; cells stripped, words for 'missing' emptied; UTF-8 or GB 18030.

    Raises UserError when the file is missing, is in neither encoding, or a row has more cells than the heading.
    """
    if not table.is_file():
        raise UserError(f"{table} does not exist; name a CSV file or a folder that holds {TABLE}.")
    content = table.read_bytes()
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise UserError(f"{table} is neither UTF-8 nor GB 18030; save it as UTF-8.")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if None in row:
                raise UserError(
                    f"{table.name}:{reader.line_num} has more cells than the heading; quote cells with commas."
                )
            cells = {(k or "").strip(): (v or "").strip() for k, v in row.items()}
            yield reader.line_num, {k: "" if v.lower() in MISSING else v for k, v in cells.items()}
    except csv.Error as error:
        raise UserError(f"{table.name}:{reader.line_num} is not valid CSV ({error}); mend the line.") from error


def age(text: str, where: str) -> float | None:
    """Return an age in years, None for an empty cell; UserError when it is no number between 0 and 130."""
    if not text:
        return None
    try:
        years = float(text)
    except ValueError:
        years = -1.0
    if not 0 <= years <= 130:
        raise UserError(
            f"{where}: the age is no number of years between 0 and 130; correct it or leave the cell empty."
        )
    return years


def scale(text: str, where: str) -> float | None:
    """Return the side of a pixel in mm, None for an empty cell; UserError when it is no number from 0.001 to 2."""
    if not text:
        return None
    try:
        side = float(text)
    except ValueError:
        side = -1.0
    if not 0.001 <= side <= 2:
        raise UserError(f"{where}: mm_per_pixel is no number between 0.001 and 2; correct it or leave the cell empty.")
    return side


def _descriptors(row: Mapping[str, str], base: KnowledgeBase, where: str) -> Iterator[Descriptor]:
    for attribute, model in base.attributes.items():
        for value in filter(None, (part.strip() for part in row.get(attribute, "").split(";"))):
            if value not in model.values:
                known = ", ".join(model.values)
                raise UserError(f"{where}: unknown value in column '{attribute}'; use one of {known}, joined by ';'.")
            yield Descriptor(attribute, value, value)
