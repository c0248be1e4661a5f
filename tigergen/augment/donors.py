"""Donors: the real training images whose nodule mask and edges a row borrows, and how they are chosen."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tigergen.augment.draws import Attributes

if TYPE_CHECKING:
    import pandas as pd

# What the donor's mask and edge map decide, and how much a disagreement with the row weighs. The plane comes first: a
# transverse layout under a longitudinal prompt contradicts itself. The edges show the capsule, so they decide the
# extension too: words alone reached .54 of it where the layouts of real nodules give .92.
LAYOUT = {
    "sonogram_direction": 100,
    "extension": 5,
    "shape": 4,
    "margin": 4,
    "aspect": 4,
    "diameter": 1,
    "nodule_location": 1,
}


class DonorPool:
    """Training images that may lend their layout, with the columns image_id, attributes and plane."""

    def __init__(self, cases: "pd.DataFrame") -> None:
        self.ids = np.array([str(i) for i in cases["image_id"]], dtype=object)
        self.planes = [str(plane) if isinstance(plane, str) and plane else "unknown" for plane in cases["plane"]]
        stated = list(cases["attributes"])
        # One column of truth a value, because every row of a plan asks every image.
        self._has = {
            (a, v): np.array([v in case.get(a, ()) for case in stated])
            for a in LAYOUT
            for v in {v for case in stated for v in case.get(a, ())}
        }

    def __len__(self) -> int:
        return len(self.ids)

    def _agrees(self, attribute: str, values: Iterable[str]) -> Any:
        """bool [N]: which images have all of these values."""
        out = np.ones(len(self), dtype=bool)
        for value in values:
            out &= self._has.get((attribute, value), False)
        return out

    def choose(
        self, asked: Attributes, avoid: Sequence[str], n: int, rng: np.random.Generator
    ) -> tuple[list[str], list[str]]:
        """Ids of the best-fitting donors, and the layout attributes on which all of them agree with the row.

        Donors that fit as well as the best one are taken, up to `n`; real images whose own prompt this is are avoided
        when there are others, because prompt and edges of one image together ask for that image.
        """
        agree = {a: self._agrees(a, asked[a]) for a in LAYOUT if a in asked}
        fit = np.zeros(len(self), dtype=int)
        for a, same in agree.items():
            fit += LAYOUT[a] * same
        free = ~np.isin(self.ids, list(avoid))
        if not free.any():
            free[:] = True
        best = np.flatnonzero(free & (fit == fit[free].max()))
        chosen = np.sort(rng.permutation(best)[:n])
        return [str(i) for i in self.ids[chosen]], [a for a, same in agree.items() if same[chosen].all()]

    def by_plane(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
        """For each plane: how many images may lend (`pool`) and how many different ones the rows use (`used`)."""
        used = {donor for row in rows for donor in row["donors"]}
        pool = Counter(self.planes)
        taken = Counter(plane for i, plane in zip(self.ids, self.planes, strict=True) if i in used)
        return {plane: {"pool": pool[plane], "used": taken[plane]} for plane in sorted(pool)}
