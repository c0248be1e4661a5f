"""Train, validation and test parts by patient: repeatable, stratified by class, never through a patient or a copy."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kb.errors import UserError

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

PARTS = ("train", "val", "test", "pool")


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
        digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(len(members))
        spare = len(members) - 1  # one group is train's, whatever the shares say
        n_test = min(spare, max(round(test * len(members)), int(test > 0)))
        n_val = min(spare - n_test, max(round(val * len(members)), int(val > 0)))
        for rank, index in enumerate(order):
            parts[members[index]] = "test" if rank < n_test else "val" if rank < n_test + n_val else "train"
    return parts


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
        digest = hashlib.sha256(f"{seed}:thin:{label}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(sorted(sizes))
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
    import pandas as pd

    from kb import store
    from tigerdata.images.duplicates import pixel_hash
    from tigerdata.images.frames import read_clean

    with ws.connect(read_only=True) as con:
        images = con.execute(
            """SELECT i.image_id, i.sha256, i.patient_id, i.cohort, coalesce(p.label, i.label, '') AS label,
                      f.pixel_hash, coalesce(d.duplicate_group, i.image_id) AS alike
               FROM images i LEFT JOIN prompts p USING (image_id) LEFT JOIN fingerprints f USING (image_id)
               LEFT JOIN duplicates d USING (image_id) WHERE i.rejected IS NULL ORDER BY i.image_id"""
        ).fetchall()
        # A refused copy under another patient's name still says that the two patients share an image.
        copies = con.execute(
            "SELECT sha256, patient_id FROM images WHERE rejected = 'DUPLICATE_OF_ANOTHER_PATIENT' ORDER BY image_id"
        ).fetchall()
    if not images:
        raise UserError(f"{ws.path} holds no images; run `tigerdata ingest images` first.")
    missing = [row[0] for row in images if not row[2]]
    if missing and not allow_missing_patients:
        raise UserError(
            f"{len(missing)} of {len(images)} images have no patient_id (first: {missing[0]}), so a split by patient is"
            " not possible; add the column, or allow it with --allow-missing-patients."
        )
    links = [
        [
            ("file", sha),
            # An image that came in before fingerprints were kept has none yet.
            ("pixels", pixels or pixel_hash(read_clean(ws, image_id))),
            ("alike", alike),
            *([("patient", patient)] if patient else []),
        ]
        for image_id, sha, patient, _, _, pixels, alike in images
    ]
    group_of = groups([*links, *([("file", s), *([("patient", p)] if p else [])] for s, p in copies)])[: len(links)]
    parts = _cohort_parts(images, group_of) if from_cohort else _stratified(images, group_of, val, test, seed)
    parts = thin(parts, group_of, [row[4] for row in images], rare or {}, seed)
    rows = pd.DataFrame(
        [(name, r[0], r[2], parts[g]) for r, g in zip(images, group_of, strict=True)],
        columns=["name", "image_id", "patient_id", "split"],
    )
    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM splits WHERE name = ?", [name])
        store.insert(con, "splits", rows)
    counts: dict[str, dict[str, int]] = {part: {} for part in PARTS if part in set(rows["split"])}
    for (part, label), n in sorted(Counter(zip(rows["split"], (r[4] for r in images), strict=True)).items()):
        counts[part][label or "(no label)"] = n
    return counts


def _stratified(images: Sequence[tuple], group_of: Sequence[int], val: float, test: float, seed: int) -> dict[int, str]:
    """Part of each group; a group with several classes counts as the one that the fewest groups have."""
    classes: dict[int, set[str]] = defaultdict(set)
    for row, group in zip(images, group_of, strict=True):
        classes[group].add(row[4])
    frequency = Counter(label for found in classes.values() for label in found)
    # A group's name is its first image, so that the split does not depend on how patients are named.
    names = {group: images[group][0] for group in classes}
    labels = {names[g]: min(found, key=lambda x: (frequency[x], x)) for g, found in classes.items()}
    parts = assign(labels, val, test, seed)
    return {group: parts[names[group]] for group in classes}


def _cohort_parts(images: Sequence[tuple], group_of: Sequence[int]) -> dict[int, str]:
    parts: dict[int, str] = {}
    for (image_id, _, _, cohort, *_), group in zip(images, group_of, strict=True):
        if cohort not in PARTS:
            raise UserError(
                f"Image {image_id} has cohort '{cohort or ''}'; a split from cohorts needs {', '.join(PARTS)}."
            )
        if parts.setdefault(group, cohort) != cohort:
            raise UserError(
                f"Image {image_id} is in cohort {cohort}, but its patient or a copy of it is in {parts[group]}; mend"
                " the cohort column, or split by patient."
            )
    return parts
