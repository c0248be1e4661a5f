"""What every reader of an image set hands to the ingest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kb import KnowledgeBase

# Sides of a pixel, in mm, that an ultrasound frame can have.
MM_PER_PIXEL = (0.001, 2.0)


@dataclass(frozen=True)
class Descriptor:
    """One statement about the nodule of an image: canonical attribute and value, and the set's own word for it."""

    attribute: str
    value: str
    surface: str


@dataclass(frozen=True)
class ImageRecord:
    """One image file of a set; `where` names the row or file for messages, `file` is relative to the set's root.

    `panel_aspect`: in this set, a scan wider than so many frame heights is a panel of two views, even where no seam
    shows (`tigerdata.images.sector.views`). `mask_channel` picks the colour in which the mask files draw the nodule.
    `mm_per_pixel` is the side of a pixel, where the set states it.
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
    mm_per_pixel: float | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    mask_channel: int | None = None
    descriptors: tuple[Descriptor, ...] = ()
    panel_aspect: float | None = None


@dataclass
class SourceSet:
    """All records of a set, the folder that no file may leave, and counts of what the reader could not use."""

    name: str
    root: Path
    records: list[ImageRecord]
    counts: dict[str, int] = field(default_factory=dict)


Reader = Callable[[Path, KnowledgeBase, Mapping[str, Any]], SourceSet]
