"""Image sets listed in a table: one row an image, columns by Chinese or English names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.reports import person
from tigerdata.reports.readers import COLUMNS as REPORT_COLUMNS
from tigerdata.reports.readers import TABLES, cell_text, column_key
from tigerdata.reports.tables import open_table
from tigerdata.sources.records import MM_PER_PIXEL, Descriptor, ImageRecord, SourceSet

NAME = "images"
MISSING = ("", "na", "n/a", "nan", "null", "none", "-")
PLANE = "sonogram_direction"
# Compared without case, spaces, underscores and hyphens; who and when are called as in reports.
COLUMNS: dict[str, tuple[str, ...]] = {
    "file": (
        "file", "file_name", "image", "image_file", "image_path", "image_name", "path", "文件名", "文件", "图像",
        "图像文件", "图像名", "图像路径", "图片", "图片名", "图片路径",
    ),
    "nodule_mask": (
        "mask_file", "mask_file_name", "mask", "mask_path", "nodule_mask", "掩膜", "掩膜文件", "掩码", "结节掩膜",
        "分割", "分割文件",
    ),
    "gland_mask": ("gland_file", "gland_file_name", "gland_mask", "腺体掩膜", "腺体掩码", "腺体分割"),
    **{name: REPORT_COLUMNS[name] for name in ("patient_id", "exam_id", "sex", "age")},
    # Not "id" alone, as in tables of reports: here it may be the image's.
    "report_id": tuple(name for name in REPORT_COLUMNS["report_id"] if column_key(name) not in ("id", "uid")),
    "mm_per_pixel": ("mm_per_pixel", "pixel_spacing", "像素间距"),
    "plane": ("plane", "切面", "扫查切面"),
    "cohort": ("cohort", "split", "数据集", "划分"),
    "label": ("label", "class", "category", "类别", "标签", "分类"),
}  # fmt: skip
# What Chinese tables call an attribute; only those that the workspace's organ has are looked for.
ATTRIBUTES = {
    "composition": ("成分", "结构成分"), "echogenicity": ("回声", "回声强度", "回声水平"), "margin": ("边缘", "边界"),
    "echotexture": ("内部回声", "回声均匀性"), "calcification": ("钙化",), "aspect": ("纵横比",),
    "shape": ("形态", "形状"), "halo": ("声晕", "晕环"), "extension": ("外侵", "包膜侵犯"),
    "nodule_location": ("位置", "部位"), "diameter": ("最大径", "大小mm", "最大径mm"), "posterior": ("后方回声",),
    "orientation": ("方位", "生长方向"), "finding": ("征象",),
}  # fmt: skip
MASKS = {"nodule_mask": "nodule", "gland_mask": "gland"}
NOT_THERE = ("无", "未见")
SEPARATOR = re.compile(r"[;；、]")
Row = tuple[str, dict[str, str]]


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read a table, or the table `images.*` of a folder: a column of files, and any that `COLUMNS` or attributes name.

    File names are relative to the table's folder. A column named after an attribute holds values of the vocabulary or
    their wordings, several joined by ';'; a mask column may name several files. A cell that cannot be understood is
    left out and counted, named by its line. Raises UserError for a table without a column of files.
    """
    table = _table(path)
    given = SourceSet("csv", table.parent)
    names, listed = rows(table, given)
    reading = Reading(base, given, names, table.name, settings.get("map", {}))
    given.records += [reading.record(row, where) for where, row in listed]
    return given


def _table(path: Path) -> Path:
    if path.is_dir():
        found = [path / f"{NAME}{suffix}" for suffix in TABLES if (path / f"{NAME}{suffix}").is_file()]
        if not found:
            raise UserError(f"{path / NAME}.csv does not exist; name a table or a folder that holds {NAME}.csv.")
        return found[0]
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a table or a folder that holds {NAME}.csv.")
    return path


def rows(table: Path, given: SourceSet) -> tuple[list[str], Iterator[Row]]:
    """Names of the columns, and (place, row) one by one; cells stripped, words for 'missing' emptied.

    A damaged row is rejected. Raises UserError when the file is missing or is no table.
    """
    if not table.is_file():
        raise UserError(f"{table} does not exist; check the name of the folder.")
    opened = open_table(table)

    def read_rows() -> Iterator[Row]:
        for line, record in opened.records:
            where = f"{table.name}:{line}"
            if isinstance(record, str):
                given.reject(where, "UNREADABLE_ROW")
                continue
            cells = {str(name).strip(): _cell(value) for name, value in record.items()}
            yield where, {name: "" if cell.lower() in MISSING else cell for name, cell in cells.items()}

    return [str(name).strip() for name in opened.columns], read_rows()


def _cell(value: object) -> str:
    return ";".join(map(cell_text, value)) if isinstance(value, list) else cell_text(value)


class Reading:
    """Rows of a user's table as records: its columns are found once, its cells looked up in the vocabulary."""

    def __init__(
        self, base: KnowledgeBase, given: SourceSet, names: Sequence[str], table: str, mapping: Mapping[str, str]
    ) -> None:
        """Find the columns by `mapping`, then by name; count the others. UserError without a column of files."""
        self.base, self.given = base, given
        self.columns = self._find(names, table, mapping)
        self._wordings: dict[str, dict[str, set[str]]] = {}

    def _find(self, names: Sequence[str], table: str, mapping: Mapping[str, str]) -> dict[str, list[str]]:
        known = {**COLUMNS, **{a: (a, *ATTRIBUTES.get(a, ())) for a in self.base.attributes}}
        for name, column in mapping.items():
            if name not in known or column not in names:
                raise UserError(
                    f"--map {name}={column} names no column of {table} or nothing that images have; known are "
                    f"{', '.join(known)}."
                )
        found: dict[str, list[str]] = {name: [column] for name, column in mapping.items()}
        taken = set(mapping.values())
        for name, aliases in known.items():
            keys = [column_key(alias) for alias in aliases]
            # A table may have mask_1, mask_2 for a nodule that was drawn in several files.
            hits = [
                c for c in names if c not in taken
                and (re.sub(r"\d+$", "", column_key(c)) if name in MASKS else column_key(c)) in keys
            ]  # fmt: skip
            if name not in found and hits:
                found[name] = hits if name in MASKS else [min(hits, key=lambda c: keys.index(column_key(c)))]
                taken.update(found[name])
        if "file" not in found:
            raise UserError(
                f"{table} has no column 'file'; name the image files in it, relative to the table's folder, or say "
                "which column holds them with --map file=COLUMN."
            )
        self.given.counts.update({f"ignored_column:{name}": 1 for name in names if name and name not in taken})
        return found

    def record(self, row: Mapping[str, str], where: str, prefix: str = "") -> ImageRecord:
        """Return what a row says of an image; `prefix` goes before the names of files."""
        cell = {name: row.get(columns[0], "") for name, columns in self.columns.items()}
        masks = {
            kind: tuple(prefix + name for c in self.columns[column] for name in _parts(row.get(c, "")))
            for column, kind in MASKS.items()
            if column in self.columns
        }
        plane = self._values(PLANE, cell.get("plane", ""), self.columns.get("plane"), where)
        if cell.get("sex") and person.sex(cell["sex"]) is None:
            self._unknown("sex", where)
        if cell.get("age") and person.age(cell["age"]) is None:
            self._unknown("age", where)
        return ImageRecord(
            file=prefix + cell.get("file", ""),
            where=where,
            patient_id=cell.get("patient_id") or None,
            exam_id=cell.get("exam_id") or None,
            report_id=cell.get("report_id") or None,
            plane=plane[0] if plane else None,
            cohort=cell.get("cohort") or None,
            label=cell.get("label") or None,
            sex=person.sex(cell.get("sex", "")),
            age=person.age(cell.get("age", "")),
            mm_per_pixel=self._scale(cell.get("mm_per_pixel", ""), where),
            masks={kind: names for kind, names in masks.items() if names},
            descriptors=tuple(self._descriptors(cell, where)),
        )

    def _scale(self, text: str, where: str) -> float | None:
        side = float(text) if re.fullmatch(r"\d*\.?\d+(e-?\d+)?", text) else 0.0
        if MM_PER_PIXEL[0] <= side <= MM_PER_PIXEL[1]:
            return side
        if text:
            self._unknown("mm_per_pixel", where)
        return None

    def _descriptors(self, cell: Mapping[str, str], where: str) -> Iterator[Descriptor]:
        for attribute, model in self.base.attributes.items():
            for part in _parts(cell.get(attribute, "")):
                if model.unit and re.fullmatch(r"\d+(\.\d+)?", part):
                    yield Descriptor(attribute, self.base.size_class(float(part)), part, number=float(part))
                    continue
                for value in self._values(attribute, part, self.columns.get(attribute), where):
                    yield Descriptor(attribute, value, part)

    def _values(self, attribute: str, word: str, columns: Sequence[str] | None, where: str) -> list[str]:
        """The value that a cell names by its own name, its phrase or a wording; none, counted, if not exactly one."""
        if not word:
            return []
        if attribute not in self.base.attributes:
            self._unknown(attribute, where)
            return []
        model = self.base.attributes[attribute]
        if word in model.values:
            return [word]
        if word in NOT_THERE and "absent" in model.values:
            return ["absent"]
        if attribute not in self._wordings:
            known = self._wordings[attribute] = {}
            for value, entry in model.values.items():
                for text in (entry.phrase, *entry.surfaces("en"), *entry.surfaces("zh")):
                    known.setdefault(text.casefold(), set()).add(value)
        known = self._wordings[attribute]
        # A Chinese column 边界 with the cell 清晰 says 边界清晰.
        for text in (word, f"{columns[0]}{word}" if columns else word):
            found = known.get(text.casefold(), set())
            if len(found) == 1:
                return sorted(found)
        self._unknown(attribute, where)
        return []

    def _unknown(self, column: str, where: str) -> None:
        """Count a cell without repeating it: it may hold anything, a patient's name too."""
        self.given.unknown[column] += 1
        self.given.reject(where, f"UNKNOWN_VALUE:{column}")


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in SEPARATOR.split(cell) if part.strip()]
