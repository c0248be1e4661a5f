"""What every reader of an image set hands to the ingest, and how the set's own words become the vocabulary's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError

# Sides of a pixel, in mm, that an ultrasound frame can have.
MM_PER_PIXEL = (0.001, 2.0)
# The corners (x, y) of a polygon in pixels of the file; pixel (0, 0) covers 0 <= x, y < 1.
Outline = tuple[tuple[float, float], ...]
# column -> the set's word -> what it says: any number of (attribute, value). None at all says that the word is known
# and states nothing ("not applicable"); a word that is missing here is counted as unknown.
Words = Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]]


@dataclass(frozen=True)
class Descriptor:
    """One statement about the nodule of an image: canonical attribute and value, and the set's own word for it."""

    attribute: str
    value: str
    surface: str
    certainty: str = "positive"
    number: float | None = None


@dataclass(frozen=True)
class ImageRecord:
    """One image file of a set; `where` names the row or file for messages, `file` is relative to the set's root.

    A region of a kind ("nodule", "gland") is drawn by mask files, by outlines, or by both: they are united.
    `mask_channel` picks the colour in which the mask files draw. `panel_aspect`: in this set, a scan wider than so many
    frame heights is a panel of two views, even where no seam shows (`tigerdata.images.sector.views`). `mm_per_pixel` is
    the side of a pixel, where the set states it; `pathology` the set's histology in words.
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
    masks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outlines: Mapping[str, tuple[Outline, ...]] = field(default_factory=dict)
    mask_channel: int | None = None
    descriptors: tuple[Descriptor, ...] = ()
    pathology: str | None = None
    panel_aspect: float | None = None


@dataclass
class SourceSet:
    """All records of a set, the folder that no file may leave, and what the reader could not use.

    `rejected` holds place and code of every refused row, cell or drawing; `unknown` counts words ("column=word") that
    stand for nothing in the vocabulary, without the word where it comes from a user's own table.
    """

    name: str
    root: Path
    records: list[ImageRecord] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)

    def reject(self, where: str, code: str) -> None:
        """Note something that is left out; the rest of the set goes on."""
        self.rejected.append({"where": where, "code": code})

    def translate(self, words: Words, column: str, word: str, where: str) -> Iterator[Descriptor]:
        """Yield what a word of the set says; a word that `words` lacks is counted, never guessed."""
        said = words[column].get(word)
        if said is None:
            self.unknown[f"{column}={word}"] += 1
            self.reject(where, f"UNKNOWN_VALUE:{column}")
            return
        for attribute, value in said:
            yield Descriptor(attribute, value, word)


Reader = Callable[[Path, KnowledgeBase, Mapping[str, Any]], SourceSet]


def require(base: KnowledgeBase, source: str, words: Words, organ: str) -> None:
    """Raise UserError when the workspace's vocabulary lacks a value that the source's words stand for."""
    for meanings in words.values():
        for attribute, value in (pair for said in meanings.values() for pair in said):
            if attribute not in base.attributes or value not in base.attributes[attribute].values:
                raise UserError(
                    f"The source '{source}' needs the value '{value}' of '{attribute}', which the vocabulary of this "
                    f"workspace ({base.domain}) lacks; make a workspace with `tigerdata init --domain {organ}`."
                )
