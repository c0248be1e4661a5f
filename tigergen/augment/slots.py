"""Addressing: what image k of a plan is, from the plan's id and k alone, whatever the order, batch or process."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kb import KnowledgeBase
from tigergen.augment.draws import Attributes
from tigergen.augment.planfile import plan_id
from tigergen.data import Cases

SEPARATOR = ", "


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
    words = {phrase for phrases in base.quality.values() for phrase in phrases}
    return {
        image_id: [phrase for phrase in bg.split(SEPARATOR) if phrase in words]
        for image_id, bg in zip(cases.image_ids, cases.bg, strict=True)
    }


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
        said = row["bg"].split(SEPARATOR) if row["bg"] else []
        bg = SEPARATOR.join([*said, *(w for w in extra if w not in said)])
        seed = int.from_bytes(digest[:8], "big") >> 1
        return Slot(index, attempt, number + 1, row["label"], row["fg"], bg, row["attributes"], donor, seed)
