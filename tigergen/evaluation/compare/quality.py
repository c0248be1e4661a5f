"""How good a method's images are, class by class: distances to real images nobody trained on, likeness, diversity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigergen.evaluation.classifier import Part
from tigergen.evaluation.compare.folds import Data
from tigergen.evaluation.evaluate import LIMIT, distance_row, tell_apart
from tigergen.evaluation.features import EXTRACTOR, TextureSpace
from tigergen.evaluation.metric_images import ssim

PAIRS = 200
FIELDS = ("frechet", "kernel", "density", "coverage")


def measure(data: Data, made: Sequence[Part]) -> dict[str, Any]:
    """Figures of each class, mean over generator seeds, each beside the floor that real images give.

    Real images to compare with are those of val and test; `known` ones, for the floor, those of train and pool. All
    sets of a class have one size. `ssim` is the mean over pairs of a generated and a held-out image of the class
    (floor: a known one and a held-out one); `diversity` is 1 - the mean SSIM of pairs of generated images (floor: of
    known ones). Texture features need no weights; distances on them react strongly, so read them beside the floor.

    Returns: extractor, rows (label, n, generated, floor: dicts of `FIELDS`, ssim, diversity, told_apart).
    """
    space = TextureSpace.fit(data.train.images)
    held, known = (_joined(data, parts) for parts in (("val", "test"), ("train", "pool")))
    rows = []
    for number, label in enumerate(data.classes):
        found = [_row(label, number, space, held, known, part, seed) for seed, part in enumerate(made)]
        rows.append(_mean(label, found))
    return {"extractor": EXTRACTOR, "rows": rows}


def _joined(data: Data, names: Sequence[str]) -> Part:
    parts = [data.parts[name] for name in names if name in data.parts]
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


def _row(
    label: str, number: int, space: TextureSpace, held: Part, known: Part, made: Part, seed: int
) -> dict[str, Any]:
    rng = np.random.default_rng([seed, number, 7])
    own = {name: _own(part, number, rng) for name, part in (("generated", made), ("held", held), ("known", known))}
    vectors = {name: space(images) for name, images in own.items()}
    groups = {name: np.array([label] * len(images)) for name, images in own.items()}
    row = distance_row(label, vectors, groups, rng)
    apart = tell_apart(label, vectors, groups, rng)
    out: dict[str, Any] = {"n": row["n"]}
    for side, name in (("generated", "generated"), ("floor", "known")):
        figures: dict[str, float | None] = dict(row[side] or dict.fromkeys(FIELDS))
        figures["ssim"] = _likeness(own[name], own["held"], rng)
        within = _likeness(own[name], own[name], rng, apart=True)
        figures["diversity"] = None if within is None else 1 - within
        figures["told_apart"] = apart.get(side)
        out[side] = figures
    return out


def _own(part: Part, number: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    rows = np.flatnonzero(part.y == number)
    return part.images[np.sort(rng.permutation(rows)[:LIMIT])]


def _likeness(
    a: NDArray[np.uint8], b: NDArray[np.uint8], rng: np.random.Generator, apart: bool = False
) -> float | None:
    """Mean SSIM of random pairs; `apart`: of two different images of one set. None where there is no pair."""
    if min(len(a), len(b)) < 1 + apart or a.shape[1] < 11:
        return None
    first = rng.integers(len(a), size=PAIRS)
    second = (first + rng.integers(1, len(b), size=PAIRS)) % len(b) if apart else rng.integers(len(b), size=PAIRS)
    return float(np.mean([ssim(a[i], b[j]) for i, j in zip(first, second, strict=True)]))


def _mean(label: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over generator seeds; None where any is missing."""
    out: dict[str, Any] = {"label": label, "n": min(row["n"] for row in found)}
    for side in ("generated", "floor"):
        out[side] = {}
        for name in found[0][side]:
            values = [row[side][name] for row in found]
            out[side][name] = None if any(v is None for v in values) else float(np.mean(values))
    return out
