"""Train, validation and test parts by patient: repeatable, stratified by class, never through a patient or a copy."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kb.errors import UserError
from tigerdata.images.duplicates import pixel_hash
from tigerdata.images.frames import read_clean

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

PARTS = ("train", "val", "test", "pool")
# The class of an image `i` with the prompt `p`: by pathology where the prompt knows it, else the image set's own.
LABEL = "coalesce(p.label, i.label, '')"
# A class with fewer patients in a part is pointed out. With three of them one patient moves a rate by a third.
FEW_PATIENTS = 3
NO_PATIENT = (
    "{unknown} of {total} images have no patient id and count as patients of their own: images of one patient may be in"
    " two parts."
)


class _Image(NamedTuple):
    image_id: str
    sha256: str
    patient_id: str | None
    cohort: str | None
    label: str
    pixel_hash: str | None
    alike: str


def groups(links: Sequence[Iterable[Hashable]]) -> list[int]:
    """Return the group number of each item; items that share any link are in one group (connected components).

    Groups are numbered in the order of their first item. With links such as (patient, file hash, pixel hash), all
    images of a patient and of everybody who shares a copied image with that patient make one group.
    """
    parent = list(range(len(links)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for item, keys in enumerate(links):
        for key in keys:
            a, b = root(first.setdefault(key, item)), root(item)
            parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(links))]


def assign(labels: Mapping[str, str], val: float, test: float, seed: int) -> dict[str, str]:
    """Return the part of each group, given each group's class.

    Within a class `round(share * n)` groups go to val and to test. A class of three groups or more has at least one
    in each part whose share is above zero; below that train comes first, then test, then val: a rare class can always
    be learnt. The result depends on the groups' names and the seed, not on their order.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UserError(f"Shares val={val} and test={test} must be 0 or more and sum to less than 1.")
    by_label: dict[str, list[str]] = defaultdict(list)
    for group in sorted(labels):
        by_label[labels[group]].append(group)
    parts = {}
    for label in sorted(by_label):
        members = by_label[label]
        order = _draws(f"{seed}:{label}").permutation(len(members))
        spare = len(members) - 1  # one group is train's, whatever the shares say
        n_test = min(spare, max(round(test * len(members)), int(test > 0)))
        n_val = min(spare - n_test, max(round(val * len(members)), int(val > 0)))
        for rank, index in enumerate(order):
            parts[members[index]] = "test" if rank < n_test else "val" if rank < n_test + n_val else "train"
    return parts


def _draws(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def thin(
    parts: Mapping[int, str], group_of: Sequence[int], labels: Sequence[str], rare: Mapping[str, int], seed: int
) -> dict[int, str]:
    """Make classes rare on purpose: keep at most `rare[label]` training images of a class, the rest goes to `pool`.

    `group_of` and `labels` are by image. Whole groups move, in a seeded order, and at least one stays, even one that
    is larger than asked. What is held back can later show what as many real images would have brought. Raises
    UserError for a class that has no training image and for a number below one.
    """
    thinned = dict(parts)
    for label, limit in sorted(rare.items()):
        sizes = Counter(g for g, own in zip(group_of, labels, strict=True) if own == label and parts[g] == "train")
        if not sizes or limit < 1:
            known = ", ".join(sorted({own for own in labels if own}))
            raise UserError(f"Class '{label}' cannot be thinned to {limit} training images; classes here: {known}.")
        order = _draws(f"{seed}:thin:{label}").permutation(sorted(sizes))
        kept = 0
        for group in (int(g) for g in order):
            if kept and kept + sizes[group] > limit:
                thinned[group] = "pool"
            else:
                kept += sizes[group]
    return thinned


def split(
    ws: Workspace,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    name: str = "default",
    from_cohort: bool = False,
    allow_missing_patients: bool = False,
    rare: Mapping[str, int] | None = None,
) -> dict[str, dict[str, int]]:
    """Write the split `name` for all accepted images and return part -> class -> number of images.

    By patient, stratified by class (that of the prompt, else of the image); images of one file, with the same pixels,
    or of one group of near-duplicates (`tigerdata.images.duplicates`) stay together. `from_cohort` takes the part from
    the images' cohort (train, val, test, or pool for extra real images that no step may use unasked) and checks that
    it cuts no group. `rare` (class -> number) thins classes of the training part on purpose, for experiments (`thin`).

    Raises UserError when an image has no patient and `allow_missing_patients` is not set (then each such image counts
    as a patient of its own), when a cohort is missing or unknown, and when a cohort cuts a group.
    """
    images, group_of = _images(ws, allow_missing_patients)
    parts = _cohort_parts(images, group_of) if from_cohort else _stratified(images, group_of, val, test, seed)
    parts = thin(parts, group_of, [row.label for row in images], rare or {}, seed)
    _write(ws, {name: parts}, images, group_of)
    return _count(parts, images, group_of)


def split_folds(
    ws: Workspace,
    folds: int,
    val: float = 0.15,
    seed: int = 0,
    name: str = "default",
    allow_missing_patients: bool = False,
) -> dict[str, dict[str, dict[str, int]]]:
    """Write `folds` splits named `<name>-fold1` … for cross-validation and return their counts as `split` does.

    Each patient is in the test part of exactly one fold, with every patient and image that shares a copy; classes are
    dealt evenly (`deal`). Within a fold, `val` is the share of all patients, drawn from those that are not its test
    part. Folds of an earlier call under that name are replaced. Raises UserError for fewer than two folds or more than
    there are groups, and as `split` does for images without a patient.
    """
    images, group_of = _images(ws, allow_missing_patients)
    labels = _strata(images, group_of)
    if folds < 2 or folds > len(labels):
        raise UserError(
            f"{folds} folds are not possible: the {len(images)} images come from {len(labels)} independent groups of"
            " patients; ask for 2 to as many folds as there are groups."
        )
    if not 0 <= val < 1 - 1 / folds:
        raise UserError(f"With {folds} folds the share val={val} must be 0 or more and below {1 - 1 / folds:.2f}.")
    sizes = Counter(images[group].image_id for group in group_of)
    fold_of = deal(labels, sizes, folds, seed)
    splits: dict[str, dict[int, str]] = {}
    for fold in range(folds):
        rest = {group: label for group, label in labels.items() if fold_of[group] != fold}
        drawn = assign(rest, val / (1 - 1 / folds), 0.0, seed)
        splits[f"{name}-fold{fold + 1}"] = {
            group: drawn.get(images[group].image_id, "test") for group in dict.fromkeys(group_of)
        }
    _write(ws, splits, images, group_of, stale=f"{name}-fold")
    return {fold: _count(parts, images, group_of) for fold, parts in splits.items()}


def deal(labels: Mapping[str, str], sizes: Mapping[str, int], folds: int, seed: int) -> dict[str, int]:
    """Return the fold (0 …) of each group, given each group's class and number of images.

    Class by class, the largest groups first (equal ones in a seeded order), each group goes to the fold that has the
    fewest groups of its class, then the fewest groups, then the fewest images. So the folds' numbers of groups of any
    class differ by at most one, their numbers of groups likewise, and no fold is empty. The result depends on the
    groups' names and the seed, not on their order.
    """
    fold_of: dict[str, int] = {}
    groups_in, images_in = [0] * folds, [0] * folds
    for label in sorted(set(labels.values())):
        members = [group for group in sorted(labels) if labels[group] == label]
        order = _draws(f"{seed}:fold:{label}").permutation(len(members))
        own = [0] * folds
        for group in sorted((members[i] for i in order), key=lambda g: -sizes[g]):
            fold = min(range(folds), key=lambda f: (own[f], groups_in[f], images_in[f]))
            fold_of[group] = fold
            own[fold] += 1
            groups_in[fold] += 1
            images_in[fold] += sizes[group]
    return fold_of


def remarks(ws: Workspace, name: str = "default") -> list[str]:
    """Return what a user of the split `name` must know, as sentences: images without a patient, parts of few patients.

    Raises UserError when there is no such split.
    """
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            f"""SELECT s.split, {LABEL} AS label, count(*), count(*) FILTER (coalesce(s.patient_id, '') = ''),
                       count(DISTINCT nullif(s.patient_id, '')) FROM splits s JOIN images i USING (image_id)
                LEFT JOIN prompts p USING (image_id) WHERE s.name = ? GROUP BY ALL ORDER BY ALL""",
            [name],
        ).fetchall()
    if not rows:
        raise UserError(f"There is no split '{name}' in {ws.path}; make it with `tigerdata split`.")
    said = []
    unknown, total = sum(row[3] for row in rows), sum(row[2] for row in rows)
    if unknown:
        said.append(NO_PATIENT.format(unknown=unknown, total=total))
    patients = {(label, part): known + lost for part, label, _, lost, known in rows}
    for label in sorted({row[1] for row in rows} - {""}):
        few = [
            f"{part} {patients.get((label, part), 0)}"
            for part in ("train", "val", "test")
            if any(row[0] == part for row in rows) and patients.get((label, part), 0) < FEW_PATIENTS
        ]
        if few:
            said.append(
                f"Class '{label}' has few patients in {', '.join(few)} (fewer than {FEW_PATIENTS}): a figure on it"
                " rests on single patients."
            )
    return said


def _images(ws: Workspace, allow_missing_patients: bool) -> tuple[list[_Image], list[int]]:
    """Return all accepted images and the group of each; a group's number is the position of its first image."""
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            f"""SELECT i.image_id, i.sha256, i.patient_id, i.cohort, {LABEL} AS label, f.pixel_hash,
                       coalesce(d.duplicate_group, i.image_id) AS alike
                FROM images i LEFT JOIN prompts p USING (image_id) LEFT JOIN fingerprints f USING (image_id)
                LEFT JOIN duplicates d USING (image_id) WHERE i.rejected IS NULL ORDER BY i.image_id"""
        ).fetchall()
        # A refused copy under another patient's name still says that the two patients share an image.
        copies = con.execute(
            "SELECT sha256, patient_id FROM images WHERE rejected = 'DUPLICATE_OF_ANOTHER_PATIENT' ORDER BY image_id"
        ).fetchall()
    images = [_Image(*row) for row in rows]
    if not images:
        raise UserError(f"{ws.path} holds no images; run `tigerdata ingest images` first.")
    missing = [row.image_id for row in images if not row.patient_id]
    if missing and not allow_missing_patients:
        raise UserError(
            f"{len(missing)} of {len(images)} images have no patient_id (first: {missing[0]}), so a split by patient is"
            " not possible; add the column, or allow it with --allow-missing-patients."
        )
    links = [[*_copy_links(ws, row), *_patient(row.patient_id)] for row in images]
    group_of = groups([*links, *([("file", sha), *_patient(patient)] for sha, patient in copies)])
    return images, group_of[: len(images)]


def _patient(patient_id: str | None) -> list[tuple[str, str]]:
    return [("patient", patient_id)] if patient_id else []


def _copy_links(ws: Workspace, image: _Image) -> list[tuple[str, str]]:
    """What makes two images copies of each other when they share it: the file, the pixels, or near-duplicates."""
    # An image that came in before fingerprints were kept has none yet.
    pixels = image.pixel_hash or pixel_hash(read_clean(ws, image.image_id))
    return [("file", image.sha256), ("pixels", pixels), ("alike", image.alike)]


def _write(
    ws: Workspace,
    splits: Mapping[str, Mapping[int, str]],
    images: Sequence[_Image],
    group_of: Sequence[int],
    stale: str | None = None,
) -> None:
    """Store splits in one transaction; other ones whose name begins with `stale` and a number are removed."""
    import pandas as pd

    from kb import store

    rows = pd.DataFrame(
        [
            (name, image.image_id, image.patient_id, parts[group])
            for name, parts in splits.items()
            for image, group in zip(images, group_of, strict=True)
        ],
        columns=["name", "image_id", "patient_id", "split"],
    ).astype("string")
    with ws.connect() as con, store.transaction(con):
        if stale is not None:
            known = con.execute("SELECT DISTINCT name FROM splits WHERE starts_with(name, ?)", [stale]).fetchall()
            for (name,) in known:
                if name.removeprefix(stale).isdigit():
                    con.execute("DELETE FROM splits WHERE name = ?", [name])
        for name in splits:
            con.execute("DELETE FROM splits WHERE name = ?", [name])
        store.insert(con, "splits", rows)


def _count(parts: Mapping[int, str], images: Sequence[_Image], group_of: Sequence[int]) -> dict[str, dict[str, int]]:
    found = Counter((parts[group], image.label) for image, group in zip(images, group_of, strict=True))
    counts: dict[str, dict[str, int]] = {part: {} for part in PARTS if any(part == p for p, _ in found)}
    for (part, label), n in sorted(found.items()):
        counts[part][label or "(no label)"] = n
    return counts


def _strata(images: Sequence[_Image], group_of: Sequence[int]) -> dict[str, str]:
    """Class of each group, by its name; a group with several classes counts as the one that the fewest groups have."""
    classes: dict[int, set[str]] = defaultdict(set)
    for image, group in zip(images, group_of, strict=True):
        classes[group].add(image.label)
    frequency = Counter(label for found in classes.values() for label in found)
    # A group's name is its first image, so that the split does not depend on how patients are named.
    return {images[g].image_id: min(found, key=lambda x: (frequency[x], x)) for g, found in classes.items()}


def _stratified(
    images: Sequence[_Image], group_of: Sequence[int], val: float, test: float, seed: int
) -> dict[int, str]:
    parts = assign(_strata(images, group_of), val, test, seed)
    return {group: parts[images[group].image_id] for group in group_of}


def _cohort_parts(images: Sequence[_Image], group_of: Sequence[int]) -> dict[int, str]:
    parts: dict[int, str] = {}
    for image, group in zip(images, group_of, strict=True):
        if image.cohort not in PARTS:
            raise UserError(
                f"Image {image.image_id} has cohort '{image.cohort or ''}'; a split from cohorts needs"
                f" {', '.join(PARTS)}."
            )
        if parts.setdefault(group, image.cohort) != image.cohort:
            raise UserError(
                f"Image {image.image_id} is in cohort {image.cohort}, but its patient or a copy of it is in"
                f" {parts[group]}; mend the cohort column, or split by patient."
            )
    return parts
