"""The folds of a comparison: a workspace seen through one split each; what is trained, chosen and tested on."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.errors import UserError
from tigergen.data import Cases, load_cases
from tigergen.evaluation.arms import sides
from tigergen.evaluation.classifier import Part
from tigergen.evaluation.compare.settings import Settings, Sizes
from tigergen.evaluation.dual_encoder import too_few

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = "default"
VALIDATION = 0.15


class Fold:
    """A workspace as one split shows it: `cases("train")` are that split's, for whoever reads a workspace.

    `rare`: class to number: so many training images of it stay, by whole patients, and the others are in `pool`.
    """

    def __init__(self, ws: Any, name: str, number: int, rare: Mapping[str, int], seed: int) -> None:
        self.ws, self.name, self.number, self.rare, self.seed = ws, name, number, dict(rare), seed
        self.path, self.kb, self.settings = ws.path, ws.kb, ws.settings

    @cached_property
    def _rows(self) -> "pd.DataFrame":
        rows = self.ws.cases(name=self.name)
        if self.rare:
            from tigerdata.splits import thin

            patients = [
                str(p) if p is not None else str(i) for p, i in zip(rows["patient_id"], rows["image_id"], strict=True)
            ]
            place = {patient: n for n, patient in enumerate(dict.fromkeys(patients))}
            group = [place[patient] for patient in patients]
            parts = {g: str(part) for g, part in zip(group, rows["split"], strict=True)}
            thinned = thin(parts, group, [str(label) for label in rows["label"]], self.rare, self.seed)
            rows["split"] = [thinned[g] for g in group]
        return rows

    def cases(self, split: str | None = None, name: str = DEFAULT) -> "pd.DataFrame":
        """As `Workspace.cases`; the default split is this fold's."""
        if name != DEFAULT:
            return self.ws.cases(split, name)
        rows = self._rows
        return rows.copy() if split is None else rows[rows["split"] == split].reset_index(drop=True)

    def has(self, part: str) -> bool:
        """Whether there is a case in this part."""
        return bool((self._rows["split"] == part).any())


def open_folds(ws: Any, settings: Settings) -> list[Fold]:
    """The folds: the workspace's own split, or `folds` ones by patient, drawn once and kept in the workspace.

    Raises:
        UserError: no split, images without a patient, more folds than patients, and as `splits.split_folds` says.
    """
    if settings.folds == 1:
        names = [DEFAULT]
    else:
        prefix = f"compare-k{settings.folds}-seed{settings.seed}"
        names = [f"{prefix}-fold{n + 1}" for n in range(settings.folds)]
        with ws.connect(read_only=True) as con:
            known = {row[0] for row in con.execute("SELECT DISTINCT name FROM splits").fetchall()}
        whole = set(names) <= known and not ws.cases(name=names[0])["split"].isna().any()
        if not whole:
            from tigerdata.splits import split_folds

            split_folds(ws, settings.folds, VALIDATION, settings.seed, prefix)
    folds = [Fold(ws, name, n + 1, settings.rare, settings.seed) for n, name in enumerate(names)]
    for fold in folds:
        for part in ("train", "val", "test"):
            if not fold.has(part):
                raise UserError(f"split '{fold.name}' has no case in '{part}'; run `tigerdata split` first.")
    return folds


@dataclass(frozen=True)
class Data:
    """A fold's images. `classes`: those that are told apart, with two the target last (it is class 1).

    `train`: all training cases, also of classes that no classifier sees: generators learn from them. `parts`: real
    images of the compared classes in train, val, test and, where there are further real ones, pool; `fg`: their FG
    prompts in the same order.
    """

    fold: Fold
    classes: tuple[str, ...]
    train: Cases
    parts: Mapping[str, Part]
    fg: Mapping[str, list[str]]

    @property
    def sizes(self) -> Sizes:
        """What stages cost by."""
        real, scored = len(self.parts["train"].y), sum(len(self.parts[p].y) for p in ("val", "test"))
        return Sizes(real, len(self.classes), scored, 0 if too_few(self.train.fg) else len(self.train))

    @property
    def positives(self) -> list[int]:
        """Classes whose one-against-the-rest figures are averaged: the target, or all of more than two."""
        return [1] if len(self.classes) == 2 else list(range(len(self.classes)))


def load_data(fold: Fold, settings: Settings, size: int) -> Data:
    """Images of a fold at `size` pixels.

    Raises:
        UserError: a class that is missing in a part, or a patient who is in two parts.
    """
    cases = {part: load_cases(fold, part, size) for part in ("train", "val", "test", "pool") if fold.has(part)}  # type: ignore[arg-type]
    check_patients(cases)
    if settings.multiclass:
        labels = sorted(set(cases["train"].labels))
        if settings.target not in labels:
            raise UserError(f"the training split has no image of {settings.target}; it has {', '.join(labels)}.")
        classes = tuple(settings.reference) and tuple(sorted({*settings.reference, settings.target})) or tuple(labels)
        place = {label: n for n, label in enumerate(classes)}
    else:
        against = sides(cases["test"].labels, settings.target, settings.reference or None)
        classes = ("/".join(against), settings.target)
        place = {**dict.fromkeys(against, 0), settings.target: 1}
    chosen = {part: among(own, place) for part, own in cases.items()}
    parts = {part: part_of(own, place) for part, own in chosen.items()}
    for part in ("train", "val", "test"):
        counts = Counter(parts[part].y.tolist())
        missing = [label for n, label in enumerate(classes) if not counts[n]]
        if missing:
            raise UserError(
                f"{fold.name}: there is no image of {missing[0]} in '{part}'; all classes are needed there."
            )
    return Data(fold, classes, cases["train"], parts, {part: own.fg for part, own in chosen.items()})


def check_patients(cases: Mapping[str, Cases]) -> None:
    """Raise UserError when a patient has images in train, or held back, and in val or test."""
    known = {p for part in ("train", "pool") if part in cases for p in cases[part].patient_ids}
    for part in ("val", "test"):
        both = sorted(known & set(cases[part].patient_ids))
        if both:
            raise UserError(f"{len(both)} patients are in train and in {part}; draw the split again by patient.")


def among(cases: Cases, place: Mapping[str, int]) -> Cases:
    """The cases of the classes in `place`."""
    return cases.select([n for n, label in enumerate(cases.labels) if label in place])


def part_of(cases: Cases, place: Mapping[str, int]) -> Part:
    """Real images of cases whose labels are all in `place`, which gives each its number."""
    y = np.array([place[label] for label in cases.labels], np.int64)
    return Part(cases.images, y, cases.patient_ids, np.zeros(len(y), bool))


def labels_of(settings: Settings, data: Data) -> list[str]:
    """Labels that images are generated for, the target first."""
    others = [label for name in data.classes for label in re.split("/", name) if label != settings.target]
    return [settings.target, *others]


def named(cases: Cases, base: Any) -> Cases:
    """The same cases told by the name of their class alone: what Tiger-N learns from (Dai et al. 2025, Table 3, 11)."""
    from tigerdata.prompts import compose

    prompts = {label: compose(base, label, {}) for label in set(cases.labels)}
    return replace(cases, fg=[prompts[l].fg for l in cases.labels], bg=[prompts[l].bg for l in cases.labels])  # noqa: E741


def take(part: Part, rows: Sequence[int]) -> Part:
    """These rows of a part."""
    order = list(rows)
    return Part(part.images[order], part.y[order], [part.patients[n] for n in order], part.generated[order])
