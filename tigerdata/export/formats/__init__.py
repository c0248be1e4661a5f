"""Formats of an export: one module each, in one table that the command's help and the documents are made from.

A format is a function of the rows of the export and a folder. It writes the folder's files, by calling each row's
`png()` and, if it needs it, `mask()`, and returns what it could not carry. Another package adds a format by an entry
point of the group `tigerdata.export` that names such a function; ours cannot be replaced by name.
"""

import importlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP = "tigerdata.export"
FIELDS = ("label", "split", "synthetic", "group", "image_id", "fg", "bg", "attributes", "mask")
SPLITS = ("train", "val", "test")
# A shard is a file that is read in one sweep: large enough for a disk, small enough to be sent again. A reader that
# shuffles loads a shard's index, so their number of images is bounded too.
SHARD_BYTES, SHARD_IMAGES = 256 * 2**20, 10_000


@dataclass(frozen=True)
class Row:
    """One image to export.

    `file`: split/class/image_id.png, where class folders put it. `facts`: the `FIELDS` but the mask, `attributes` as
    JSON. `png()`: the file's bytes, gray or three channels. `mask()`: bool [H, W], the nodule in this image's pixels.
    """

    file: str
    facts: dict[str, Any]
    png: Callable[[], bytes]
    mask: "Callable[[], NDArray[np.bool_]]"

    @property
    def name(self) -> str:
        """The image's id, unique over the export, so that flat folders need no class in the name."""
        return str(self.facts["image_id"])


@dataclass(frozen=True)
class Written:
    """What a format did.

    `lost`: those of `FIELDS` that its own files do not hold. `places`: for each row's `file` where its image lies,
    (path in the folder, member inside that file or ""); rows that are not named lie at `file`. `remarks`: sentences
    that a user must know. `data_files`: split to file pattern, for the card's front matter (Hugging Face).
    `marked`: generated images keep the PNG text and XMP that say so.
    """

    lost: Sequence[str] = ()
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    data_files: Mapping[str, str] = field(default_factory=dict)
    marked: bool = True


Writer = Callable[[Sequence[Row], Path], "Written | list[str]"]


@dataclass(frozen=True)
class Format:
    """Where a format is written (`module:function`) and which program reads it."""

    target: str
    reads: str


FORMATS: dict[str, Format] = {
    name: Format(f"{__name__}.{module}:write", reads)
    for name, module, reads in (
        ("imagefolder", "imagefolder", "torchvision ImageFolder, timm, Keras: a folder a class"),
        ("hf", "hf", "Hugging Face imagefolder: class folders and metadata.jsonl"),
        ("hf-parquet", "hf_parquet", "Hugging Face Parquet shards with images and masks inside"),
        ("webdataset", "webdataset", "WebDataset tar shards in shuffled order"),
        ("coco", "coco", "COCO instances: detection and segmentation"),
        ("yolo", "yolo", "Ultralytics segmentation: images, polygons, data.yaml"),
        ("yolo-cls", "yolo_cls", "Ultralytics classification: a folder a class"),
        ("medmnist", "medmnist", "MedMNIST: one npz of arrays"),
        ("nnunet", "nnunet", "nnU-Net v2 (NaturalImage2DIO): images and label maps"),
    )
}


def installed() -> dict[str, str]:
    """Name and target of the formats that other packages add."""
    from importlib.metadata import entry_points

    return {e.name: e.value for e in entry_points(group=GROUP) if e.name not in FORMATS}


def writer(name: str) -> Callable[[Sequence[Row], Path], Written]:
    """The format of this name, built in or installed.

    Raises:
        UsageError: there is none, or an installed one cannot be loaded.
    """
    target = FORMATS[name].target if name in FORMATS else installed().get(name)
    if target is None:
        known = ", ".join([*FORMATS, *sorted(installed())])
        raise UsageError(f"there is no export format '{name}'; choose one of {known}.")
    module, _, function = target.partition(":")
    try:
        write: Writer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the export format '{name}' ({target}) cannot be loaded ({error}); update it.") from error

    def call(rows: Sequence[Row], folder: Path) -> Written:
        done = write(rows, folder)
        return done if isinstance(done, Written) else Written(lost=done)

    return call


def without(*carried: str) -> list[str]:
    """The fields that are lost when only these are carried."""
    return [name for name in FIELDS if name not in carried]


def class_names(rows: Sequence[Row]) -> list[str]:
    """Classes in alphabetical order: their position is their number in every format."""
    return sorted({str(row.facts["label"]) for row in rows})


def write_classes(rows: Sequence[Row], folder: Path) -> list[str]:
    """Write `classes.txt`, one class a line in the order of the numbers, and return the classes."""
    names = class_names(rows)
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return names


def splits_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each split that has some, train first, in their order."""
    return {s: part for s in SPLITS if (part := [row for row in rows if row.facts["split"] == s])}


def shards(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in shards of equal length; the first image's size stands for all."""
    if rows:
        each = max(1, min(SHARD_IMAGES, SHARD_BYTES // len(rows[0].png())))
        for start in range(0, len(rows), each):
            yield list(rows[start : start + each])


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels from a PNG's header (IHDR, the first chunk: PNG specification, 11.2.2)."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def mask_png(row: Row) -> bytes:
    """The nodule mask as a gray PNG of 0 and 255."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(row.mask()).convert("L").save(buffer, format="PNG")
    return buffer.getvalue()


def put(path: Path, content: bytes) -> None:
    """Write a file and the folders above it. No temporary name: the export's own folder appears as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
