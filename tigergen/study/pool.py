"""What a study can show: real images of a held-out part and generated ones, on one grid, with what their texts say."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigergen.study.folder import REAL, Item

if TYPE_CHECKING:
    from kb.vocabulary import KnowledgeBase
    from tigerdata.workspace import Workspace

Grey = NDArray[np.uint8]
# Real images are brought to the grid of the generated ones by the function that made the generator's training images,
# then all are enlarged alike: what a reader sees differs by content, not by the way to the screen.
SIDE = 512
# Of each class of a run: the paper's test sets hold 500 images a category, and a run may hold 30,000.
PER_CLASS = 500


@dataclass(frozen=True)
class Candidate:
    """A picture that may be shown; `group` is its patient, or the outline behind a generated one."""

    item: Item
    pixels: Grey
    group: str


def pool(
    ws: Workspace, runs: Mapping[str, Path], split: str, classes: Sequence[str] | None, seed: int
) -> list[Candidate]:
    """Return accepted images of finished runs (name -> folder) and the real ones of `split`, on one square grid.

    The grid is that of the smallest generated image. Of a run's class at most `PER_CLASS` images are taken, at random.
    Classes without a real or without a generated image stay out, and so does every class that `classes` does not name.
    Raises UserError when a run is unfinished or nothing is left.
    """
    from tigergen.data import load_cases

    made = [row for name, folder in runs.items() for row in _generated(name, folder, ws.kb, seed)]
    if not made:
        raise UserError(f"{', '.join(map(str, runs.values()))}: no accepted image; run `tigergen augment` first.")
    size = min(min(candidate.pixels.shape) for candidate in made)
    cases = load_cases(ws, split, size)
    rows = ws.cases(split=split)
    unsure = dict(zip(rows["image_id"], rows["uncertain"], strict=True))
    real = []
    for k, image_id in enumerate(cases.image_ids):
        said = {a: v for a, v in cases.attributes[k].items() if a not in unsure[image_id]}
        item = Item(secrets.token_hex(8), REAL, cases.labels[k], image_id, visible(ws.kb, said))
        real.append(Candidate(item, cases.images[k], cases.patient_ids[k]))
    shared = {c.item.label for c in real}
    for name in runs:
        shared &= {c.item.label for c in made if c.item.source == name}
    if classes:
        missing = sorted(set(classes) - shared)
        if missing:
            raise UserError(f"class {missing[0]} has no image in split '{split}' or in a run; leave it out of --class.")
        shared &= set(classes)
    if not shared:
        raise UserError(f"no class has both real images in split '{split}' and generated ones; look at both.")
    return [_at(c, size) for c in (*real, *made) if c.item.label in shared]


def visible(base: KnowledgeBase, attributes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The attributes that a picture can show: those of the nodule, without sizes, for a picture has no scale."""
    known = base.attributes
    return {
        name: list(values)
        for name, values in attributes.items()
        if values and name in known and known[name].scope == "fg" and known[name].unit is None
    }


def shown(pixels: Grey, side: int = SIDE) -> bytes:
    """The picture as it leaves the server: `side` x `side` 8-bit grey PNG without metadata, stored uncompressed.

    Uncompressed, because smoother images compress better: the number of bytes would tell real from generated.
    """
    import io

    import cv2
    from PIL import Image

    how = cv2.INTER_CUBIC if side > pixels.shape[0] else cv2.INTER_AREA
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(cv2.resize(pixels, (side, side), interpolation=how))).save(
        buffer, format="PNG", compress_level=0
    )
    return buffer.getvalue()


def _generated(name: str, folder: Path, base: KnowledgeBase, seed: int) -> list[Candidate]:
    import pyarrow.parquet as pq

    from tigerdata.manifest import manifest_of
    from tigergen.augment.files import read_pixels

    columns = ["file", "label", "accepted", "attributes", "mask_image_id"]
    rows = [row for row in pq.read_table(manifest_of(folder), columns=columns).to_pylist() if row["accepted"]]
    rng = np.random.default_rng([seed, 0])
    found: list[Candidate] = []
    count: Counter[str] = Counter()
    for row in (rows[k] for k in rng.permutation(len(rows))):
        label, file = row["label"], folder / row["file"]
        count[label] += 1
        if count[label] > PER_CLASS:
            continue
        said: dict[str, Any] = json.loads(row["attributes"] or "{}")
        try:
            pixels = read_pixels(file)
        except OSError:
            raise UserError(f"{file} is missing or cannot be read; run `tigergen augment` again.") from None
        item = Item(secrets.token_hex(8), name, label, row["file"], visible(base, said))
        found.append(Candidate(item, pixels, str(row["mask_image_id"])))
    return found


def _at(candidate: Candidate, size: int) -> Candidate:
    """The candidate on a `size` x `size` grid."""
    import cv2

    if candidate.pixels.shape == (size, size):
        return candidate
    small = np.asarray(cv2.resize(candidate.pixels, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Candidate(candidate.item, small, candidate.group)
