"""What becomes of one image file, in whatever process: decoded, cut into views, written, described for the tables.

The result depends on the file and its row alone. Workers see pseudonyms only, but for the ids in a DICOM header, which
they hand back for the pseudonyms and do not keep.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigerdata.images import duplicates
from tigerdata.images.clean import View, clean
from tigerdata.images.frames import Frame, Refused, read_frames, write_gray
from tigerdata.regions import masks
from tigerdata.regions.drawn import draw
from tigerdata.sources.records import ImageRecord
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
    """What a file became: rows of its frames, what cleaning did, masks, fingerprints, or why it is `refused` (a code).

    `codes` are about what its frames go without: masks that were left out, text that was not found. `who` is what a
    DICOM header says.
    """

    frames: list[dict[str, Any]] = field(default_factory=list)
    cleaning: list[dict[str, Any]] = field(default_factory=list)
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
    record = item.record
    taken.who = frame.who
    height, width = frame.levels.shape
    drawn: dict[str, NDArray[np.bool_]] = {}
    if not frame.number:  # what a set draws is drawn on the first frame of a file
        drawn, codes = draw(job.root, record, (height, width), job.ws.settings["images"]["max_megapixels"])
        taken.codes += codes
    views = clean(frame.levels, frame.rgb, job.ws.settings["images"], record.panel_aspect, frame.boxes)
    _count(views, drawn, taken.counts)
    if frame.burned_in:
        taken.counts["burned_in_text_stated"] += 1
        if not any(view.masked or view.levels.shape != (height, width) for view in views):
            # The header says so and cleaning took nothing away: a person has to look.
            taken.codes += [c for c in ["BURNED_IN_TEXT"] if c not in taken.codes]
    for index, view in enumerate(views):
        cut = {kind: view.crop(mask) for kind, mask in drawn.items()}
        if len(views) > 1 and "nodule" in cut and not cut["nodule"].any():
            # Nobody outlined a nodule in this view: whether there is one is not known.
            taken.counts["view_without_mask"] += 1
            continue
        image_id = frame_id(item.sha256, frame.number, index)
        path = job.ws.frame_path(image_id)
        if write_gray(path, view.levels):
            written.append(path)
        taken.frames.append(
            {
                "image_id": image_id,
                "width": view.levels.shape[1],
                "height": view.levels.shape[0],
                "file_width": width,
                "file_height": height,
                "frame": frame.number,
                "read_as": ", ".join(frame.notes) or None,
                "burned_in": frame.burned_in,
                "mm_per_pixel": record.mm_per_pixel or frame.mm_per_pixel,
            }
        )
        taken.cleaning.append(view.row(image_id))
        taken.prints.append(
            {
                "image_id": image_id,
                "pixel_hash": duplicates.pixel_hash(view.levels),
                "perceptual_hash": duplicates.perceptual_hash(view.levels),
                "thumbnail": duplicates.thumbnail(view.levels).tobytes(),
            }
        )
        origin = f"import:{job.source}"
        taken.regions += [masks.save(job.ws, image_id, k, m, origin=origin) for k, m in cut.items() if m.any()]


def _count(views: Sequence[View], drawn: Mapping[str, NDArray[np.bool_]], counts: Counter[str]) -> None:
    """Count what cleaning did to a frame, and what it took from the masks that came with it."""
    counts["panels_split"] += len(views) > 1
    counts["frames_with_signs"] += any(view.masked for view in views)
    for kind, mask in drawn.items():
        kept = sum(int(view.crop(mask).sum()) for view in views)
        counts[f"{kind}_mask_cut"] += kept < int(mask.sum())


def frame_id(sha256: str, number: int, view: int) -> str:
    """Id of a view of a frame of a file: the file's hash for the first one, else a hash of all three."""
    if number == view == 0:
        return sha256[:16]
    name = f"{sha256}/{view}" if number == 0 else f"{sha256}/{number}/{view}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]
