"""What becomes of one image file, in whatever process: decoded, cut into views, written, described for the tables.

The result depends on the file and its row alone. Workers see pseudonyms only, but for the ids in a DICOM header, which
they hand back for the pseudonyms and do not keep.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigerdata.images import duplicates
from tigerdata.images.frames import Frame, Refused, inside, read_frames, read_mask, write_gray
from tigerdata.regions import masks
from tigerdata.sources.records import Box, ImageRecord
from tigerdata.workspace import Workspace


@dataclass(frozen=True)
class Job:
    """What all files of a set share."""

    ws: Workspace
    root: Path
    source: str


@dataclass(frozen=True)
class Item:
    """A file of a set that is there, inside its folder, and the first of its content; `number` is its place."""

    number: int
    record: ImageRecord
    file: Path
    sha256: str


@dataclass
class Taken:
    """What a file became: rows of its frames, masks and fingerprints, or `refused` with the code that says why.

    `codes` are about its masks, which were left out; `who` is what a DICOM header says.
    """

    frames: list[dict[str, Any]] = field(default_factory=list)
    regions: list[dict[str, Any]] = field(default_factory=list)
    prints: list[dict[str, Any]] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    who: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None


def take_part(job: Job, items: list[Item]) -> list[Taken]:
    """Take some files; what a worker process does."""
    return [take(job, item) for item in items]


def take(job: Job, item: Item) -> Taken:
    """Decode a file, write its clean frames and masks into the workspace, return their rows.

    A file is taken as a whole or refused as a whole: frames written before a damaged one are taken away again.
    """
    settings = job.ws.settings
    limit, least = settings["images"]["max_megapixels"], settings["images"]["min_side"]
    taken = Taken()
    written: list[Path] = []
    try:
        for frame in read_frames(item.file, limit, least, settings["dicom"]):
            _take_frame(job, item, frame, taken, written)
    except Refused as error:
        for path in written:
            path.unlink(missing_ok=True)
        return Taken(refused=error.code)
    if len({row["frame"] for row in taken.frames}) > 1:
        taken.counts["files_of_several_frames"] += 1
    return taken


def _take_frame(job: Job, item: Item, frame: Frame, taken: Taken, written: list[Path]) -> None:
    record, levels = item.record, frame.levels
    taken.who = frame.who
    drawn = _read_masks(job, record, frame, taken)
    height, width = levels.shape
    boxes: list[Box] = list(frame.boxes) or [(0, 0, width, height)]
    if record.views:
        boxes = record.views(levels)
    if len(boxes) > 1:
        taken.counts["panels_split"] += 1
    if frame.burned_in:
        taken.counts["burned_in_text_stated"] += 1
    for index, box in enumerate(boxes):
        cut = {kind: _crop(mask, box) for kind, mask in drawn.items()}
        if len(boxes) > 1 and "nodule" in cut and not cut["nodule"].any():
            # Nobody outlined a nodule in this view: whether there is one is not known.
            taken.counts["view_without_mask"] += 1
            continue
        image_id = frame_id(item.sha256, frame.number, index)
        clean = _crop(levels, box)
        path = job.ws.frame_path(image_id)
        if write_gray(path, clean):
            written.append(path)
        taken.frames.append(
            {
                "image_id": image_id,
                "width": clean.shape[1],
                "height": clean.shape[0],
                "frame": frame.number,
                "read_as": ", ".join(frame.notes) or None,
                "burned_in": frame.burned_in,
            }
        )
        taken.prints.append(
            {
                "image_id": image_id,
                "pixel_hash": duplicates.pixel_hash(clean),
                "perceptual_hash": duplicates.perceptual_hash(clean),
                "thumbnail": duplicates.thumbnail(clean).tobytes(),
            }
        )
        origin = f"import:{job.source}"
        taken.regions += [masks.save(job.ws, image_id, k, m, origin=origin) for k, m in cut.items() if m.any()]


def frame_id(sha256: str, number: int, view: int) -> str:
    """Id of a view of a frame of a file: the file's hash for the first one, else a hash of all three."""
    if number == view == 0:
        return sha256[:16]
    name = f"{sha256}/{view}" if number == 0 else f"{sha256}/{number}/{view}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _read_masks(job: Job, record: ImageRecord, frame: Frame, taken: Taken) -> dict[str, NDArray[np.bool_]]:
    if frame.number:
        return {}
    found = {}
    shape = (frame.levels.shape[0], frame.levels.shape[1])
    limit = job.ws.settings["images"]["max_megapixels"]
    for kind, name in record.masks.items():
        try:
            found[kind] = read_mask(inside(job.root, name), shape, record.mask_channel, limit)
        except Refused as error:
            taken.codes.append(f"{kind.upper()}_MASK:{error.code}")
    return found


def _crop(array: NDArray, box: Box) -> NDArray:
    left, top, right, bottom = box
    return array[top:bottom, left:right]
