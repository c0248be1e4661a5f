"""The images that a method has drawn, block by block, with what each was asked for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.files import atomic_write
from tigergen.evaluation.classifier import Part
from tigergen.evaluation.compare.folds import Data, labels_of, take
from tigergen.evaluation.compare.settings import per_class

if TYPE_CHECKING:
    from tigergen.baselines.methods import Method
    from tigergen.evaluation.compare.comparison import Comparison

BLOCK = 256
BATCH = 16


@dataclass(frozen=True)
class Made:
    """Generated images with FG prompt ("" where an earlier version kept none) and donor's id, in one order."""

    part: Part
    fg: Sequence[str]
    donors: Sequence[str]


def draw_block(comparison: "Comparison", path: Path, data: Data, method: "Method", seed: int, start: int) -> None:
    """Draw the images `start` to `start` + `BLOCK` of a method's plan and write them to `path`."""
    from tigergen.augment.slots import Slots, donor_quality
    from tigergen.baselines.train import open_generator
    from tigergen.baselines.work import drawn

    plan = comparison.plan(data, method, seed)
    donors = data.train.layouts()
    slots = Slots(plan, donor_quality(comparison.ws.kb, data.train))
    chosen = [slots.at(k) for k in range(start, min(start + BLOCK, len(slots)))]
    draw = open_generator(method.model, comparison.generator_folder(data, method, seed))
    sampling = {**plan["sampling"], **method.sampling}
    parts = drawn(draw, chosen, donors, comparison.ws.kb, sampling, BATCH, comparison.threads)
    began = time.monotonic()
    pixels = np.concatenate(list(parts))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file, images=pixels, labels=[s.label for s in chosen], donors=[s.donor for s in chosen],
            fg=[s.fg for s in chosen], seconds=time.monotonic() - began,
        )  # fmt: skip


def read_made(comparison: "Comparison", data: Data, method: "Method", seed: int, amount: float | None = None) -> Made:
    """A method's images, the first of a fixed order for `amount` times the real ones, or all; larger amounts hold the
    smaller ones."""
    folder = comparison.images_folder(data, method, seed)
    blocks = [np.load(p) for p in sorted(folder.glob("block-*.npz"))]
    images, labels, donors = (np.concatenate([b[name] for b in blocks]) for name in ("images", "labels", "donors"))
    fg: list[Any] = [text for b in blocks for text in (b["fg"] if "fg" in b.files else [""] * len(b["labels"]))]
    order: list[int] = []
    for number, label in enumerate(labels_of(comparison.settings, data)):
        own = np.flatnonzero(labels == label)
        count = len(own) if amount is None else min(len(own), per_class(amount, data.sizes))
        order += np.random.default_rng([seed, number, 5]).permutation(own)[:count].tolist()
    place = {label: n for n, joined in enumerate(data.classes) for label in joined.split("/")}
    y = np.array([place[label] for label in labels], np.int64)
    made = Part(images, y, [f"generated-{n}" for n in range(len(y))], np.ones(len(y), bool))
    return Made(take(made, order), [str(fg[n]) for n in order], [str(donors[n]) for n in order])
