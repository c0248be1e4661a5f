"""What every reader of an image set hands to the ingest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb import KnowledgeBase

# (left, top, right, bottom) in pixels of the file, right and bottom excluded.
Box = tuple[int, int, int, int]
ViewFinder = Callable[[NDArray[np.uint8]], list[Box]]


@dataclass(frozen=True)
class Descriptor:
    """One statement about the nodule of an image: canonical attribute and value, and the set's own word for it."""

    attribute: str
    value: str
    surface: str


@dataclass(frozen=True)
class ImageRecord:
    """One image file of a set; `where` names the row or file for messages, `file` is relative to the set's root.

    `views` splits a panel of several frames into boxes; without it the whole file is one frame. `mask_channel` picks
    the colour in which the mask files draw the nodule.
    """

    file: str
    where: str
    patient_id: str | None = None
    exam_id: str | None = None
    report_id: str | None = None
    plane: str | None = None
    cohort: str | None = None
    label: str | None = None
    sex: str | None = None
    age: float | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    mask_channel: int | None = None
    descriptors: tuple[Descriptor, ...] = ()
    views: ViewFinder | None = None


@dataclass
class SourceSet:
    """All records of a set, the folder that no file may leave, and counts of what the reader could not use."""

    name: str
    root: Path
    records: list[ImageRecord]
    counts: dict[str, int] = field(default_factory=dict)


Reader = Callable[[Path, KnowledgeBase, Mapping[str, Any]], SourceSet]
