"""Image sets as they lie on disk: a folder, a run of `tigergen augment`, an exported data set, or a table of files."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigergen.evaluation.extractors import square

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
TABLES = ("manifest.parquet", "images.csv", "metadata.jsonl")
FILE_COLUMNS, LABEL_COLUMNS = ("file", "file_name", "path", "image"), ("label", "class")
GROUP_COLUMNS = ("group", "patient_id", "patient")
# Images a side below which no distance of two sets says anything.
LEAST = 10


@dataclass(frozen=True)
class ImageSet:
    """Gray images uint8 [N, s, s] with their files, classes ("" where none is known) and patients (or files)."""

    images: NDArray[np.uint8]
    files: list[str]
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]
    by_patient: bool


def listed(
    path: str | os.PathLike[str], synthetic: bool, splits: tuple[str, ...] = ("val", "test")
) -> list[dict[str, str]]:
    """Rows file, label, group of a folder or table, as `synthetic` or real images.

    A table (Parquet, CSV, JSONL; in a folder: manifest.parquet, images.csv or metadata.jsonl) names files relative to
    itself. Rows not accepted are left out; of a table with both real and synthetic rows the wanted ones are taken, and
    of the real ones those of `splits` where there are such. The folder of a split of an exported data set is read by
    the `images.csv` above it. Other folders' images have the class of the folder they lie in.

    Raises:
        UserError: nothing there, no column of files, no image.
    """
    place = Path(path)
    table = next((place / name for name in TABLES if (place / name).is_file()), None) if place.is_dir() else place
    above = place.resolve().parent / "images.csv"
    if table is None and above.is_file():
        rows = [r for r in (_row(above, r) for r in _read(above)) if Path(r["file"]).is_relative_to(place.resolve())]
        rows = _chosen(rows, synthetic, splits)
    elif table is None:
        found = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        rows = [{"file": str(p), "label": p.parent.name if p.parent != place else "", "group": ""} for p in found]
    elif not table.is_file():
        raise UserError(f"there is no folder or table of images {path}.")
    else:
        rows = _chosen([_row(table, r) for r in _read(table)], synthetic, splits)
    if not rows:
        raise UserError(f"{path} holds no image to measure.")
    return rows


def _read(table: Path) -> Iterator[Mapping[str, Any]]:
    if table.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(table).to_pylist()
    elif table.suffix == ".jsonl":
        with open(table, encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    elif table.suffix == ".csv":
        with open(table, encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    else:
        raise UserError(f"{table} is no table of images: .parquet, .csv or .jsonl is read, or a folder of images.")


def _row(table: Path, given: Mapping[str, Any]) -> dict[str, str]:
    def first(columns: tuple[str, ...]) -> str:
        return next((str(given[c]) for c in columns if given.get(c) not in (None, "")), "")

    name = first(FILE_COLUMNS)
    if not name and str(given.get("accepted", "1")) in ("1", "True"):
        raise UserError(f"{table} has no column of files (one of {', '.join(FILE_COLUMNS)}).")
    out = {"file": str(table.parent / name), "label": first(LABEL_COLUMNS), "group": first(GROUP_COLUMNS)}
    return out | {key: str(given.get(key, "")) for key in ("accepted", "synthetic", "split")}


def _chosen(rows: list[dict[str, str]], synthetic: bool, splits: tuple[str, ...]) -> list[dict[str, str]]:
    yes, no = ("1", "True", "true"), ("0", "False", "false")
    rows = [r for r in rows if r["accepted"] not in no]
    if synthetic:
        return [r for r in rows if r["synthetic"] in yes] or rows
    rows = [r for r in rows if r["synthetic"] not in yes]
    return [r for r in rows if r["split"] in splits] or rows


def read_set(rows: list[dict[str, str]], size: int, limit: int, seed: int = 0) -> ImageSet:
    """Read rows of `listed`, at most `limit` a class (drawn by `seed`), as squares of `size` pixels.

    Raises:
        UserError: a file that cannot be read, or holds no scan, by name and reason.
    """
    from tigerdata.images.frames import Refused, read_gray

    rng = np.random.default_rng(seed)
    labels = np.array([r["label"] for r in rows])
    places = [np.nonzero(labels == name)[0] for name in sorted(set(labels))]
    kept = sorted(int(n) for place in places for n in rng.permutation(place)[:limit])
    images = []
    for n in kept:
        try:
            images.append(square(read_gray(Path(rows[n]["file"])), size))
        except Refused as error:
            raise UserError(f"{rows[n]['file']} cannot be measured: {error}; take it out of the set.") from error
    groups = [rows[n]["group"] for n in kept]
    by_patient = all(groups)
    files = [rows[n]["file"] for n in kept]
    return ImageSet(np.stack(images), files, labels[kept], np.array(groups if by_patient else files), by_patient)


def common_size(rows: list[dict[str, str]]) -> int:
    """Shorter side of the first image of a set: the size at which two sets are compared.

    Raises:
        UserError: the file cannot be read.
    """
    from tigerdata.images.frames import Refused, read_gray

    try:
        return min(read_gray(Path(rows[0]["file"])).shape)
    except Refused as error:
        raise UserError(f"{rows[0]['file']} cannot be measured: {error}; take it out of the set.") from error


def halves(groups: NDArray[np.str_], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of two halves of a set, whole groups [N] in each: what a real-against-real floor is made of."""
    names, index = np.unique(groups, return_inverse=True)
    order = rng.permutation(len(names))
    upto = np.cumsum(np.bincount(index)[order])
    first = np.isin(index, order[upto <= (len(groups) + 1) // 2])
    return np.nonzero(first)[0], np.nonzero(~first)[0]
