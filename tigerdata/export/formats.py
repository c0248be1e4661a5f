"""Formats of an export. A new format is one function here or in another package's entry point `tigerdata.export`.

A format gets the rows of the export (one dict an image) and a folder; it writes the images by calling each row's
`png()` and returns the names of the fields that it cannot carry.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kb.errors import UserError
from kb.files import atomic_write

FIELDS = ("label", "split", "synthetic", "group", "image_id", "fg", "bg", "attributes")


@dataclass(frozen=True)
class Row:
    """One image to export: `file` relative to the folder, its facts, and a function that gives the PNG bytes."""

    file: str
    facts: dict[str, Any]
    png: Callable[[], bytes]


Writer = Callable[[Sequence[Row], Path], list[str]]


def write_images(rows: Sequence[Row], folder: Path) -> None:
    """Write the files of all rows."""
    for row in rows:
        path = folder / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row.png())


def imagefolder(rows: Sequence[Row], folder: Path) -> list[str]:
    """torchvision ImageFolder: `train/FTC/x.png`. Classes are numbered alphabetically (classes.txt)."""
    write_images(rows, folder)
    names = sorted({row.facts["label"] for row in rows})
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return [f for f in FIELDS if f not in ("label", "split")]


def hf(rows: Sequence[Row], folder: Path) -> list[str]:
    """Hugging Face imagefolder: the class folders and one `metadata.jsonl` a split."""
    write_images(rows, folder)
    for split in sorted({row.facts["split"] for row in rows}):
        with (
            atomic_write(folder / split / "metadata.jsonl") as temporary,
            open(temporary, "w", encoding="utf-8") as file,
        ):
            for row in rows:
                if row.facts["split"] == split:
                    line = {"file_name": row.file.split("/", 1)[1], **{f: row.facts[f] for f in FIELDS if f != "split"}}
                    file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
    return []


def writer(name: str) -> Writer:
    """The format of this name, built in or installed.

    Raises:
        UserError: there is none.
    """
    own: dict[str, Writer] = {"imagefolder": imagefolder, "hf": hf}
    if name in own:
        return own[name]
    found = {e.name: e for e in entry_points(group="tigerdata.export")}
    if name in found:
        loaded: Writer = found[name].load()
        return loaded
    raise UserError(f"there is no export format '{name}'; choose one of {', '.join(sorted({*own, *found}))}.")
