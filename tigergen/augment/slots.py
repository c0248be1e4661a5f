"""Addressing: what image k of a plan is, from the plan's id and k alone, whatever the order, batch or process."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kb import KnowledgeBase
from tigerdata.prompts import SEPARATOR, phrases
from tigergen.augment.draws import Attributes
from tigergen.augment.planfile import plan_id
from tigergen.data import Cases


@dataclass(frozen=True)
class Slot:
    """One attempt at one image of a plan."""

    index: int
    attempt: int
    row: int
    label: str
    fg: str
    bg: str
    attributes: Attributes
    donor: str
    seed: int


def donor_quality(base: KnowledgeBase, cases: Cases) -> dict[str, list[str]]:
    """Image-quality phrases in the BG prompt of each case, by image id."""
    return {image_id: quality_of(base, bg) for image_id, bg in zip(cases.image_ids, cases.bg, strict=True)}


def quality_of(base: KnowledgeBase, bg: str) -> list[str]:
    """Image-quality phrases of a BG prompt."""
    words = {phrase for known in base.quality.values() for phrase in known}
    return [phrase for phrase in phrases(bg) if phrase in words]


def with_quality(bg: str, words: Sequence[str]) -> str:
    """A BG prompt with image-quality phrases behind its own, each once."""
    said = phrases(bg)
    return SEPARATOR.join([*said, *(w for w in words if w not in said)])


class Slots:
    """All images of a plan by index 0..total-1; `quality` gives the image-quality phrases of each donor."""

    def __init__(self, plan: Mapping[str, Any], quality: Mapping[str, list[str]]) -> None:
        self.plan, self.quality, self.id = plan, quality, plan_id(plan)
        self._ends = np.cumsum([row["count"] for row in plan["rows"]])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, index: int, attempt: int = 0) -> Slot:
        """Image `index` at its `attempt`-th try. Donors of a row take turns, and a retry takes the next one."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        row = self.plan["rows"][number]
        ordinal = index - (int(self._ends[number]) - row["count"])
        digest = hashlib.sha256(f"{self.id}/{index}/{attempt}".encode()).digest()
        donor = row["donors"][(ordinal + attempt) % len(row["donors"])]
        words = self.plan["sampling"].get("quality", "donor")
        extra = self.quality.get(donor, []) if words == "donor" else list(words)
        bg = with_quality(row["bg"] or "", extra)
        seed = int.from_bytes(digest[:8], "big") >> 1
        return Slot(index, attempt, number + 1, row["label"], row["fg"], bg, row["attributes"], donor, seed)
