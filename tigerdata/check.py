"""Checks of a workspace's images: one score and one flag each, stored, counted, with what to do next.

A score is 1 where nothing is wrong and 0 where it could not be worse; an image is flagged below the check's threshold
(`[check]` in tiger.toml). In the manner of cleanvision; what cannot be judged has no score and no flag.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tigerdata.images.frames import read_clean
from tigerdata.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tigerdata.workspace import Workspace

# Check -> what a flag says, and what to do about it. The order is that of the table.
CHECKS: dict[str, tuple[str, str]] = {
    "blur": ("not sharp", "look at them in the gallery and leave out what shows nothing"),
    "dark": ("dark", "look at them in the gallery; scan settings or a wrong window of 16-bit files"),
    "low_information": ("few grey levels", "look at them in the gallery and leave out what shows nothing"),
    "text": ("writing left", "mask it by hand or leave the frames out: a model learns writing"),
    "odd_size": ("unusual size", "see whether they are crops, panels or another kind of image"),
    "truncated": ("cut off or damaged", "take the files from their source again"),
    "duplicate": (
        "copy of another frame",
        "nothing for splits, which keep copies together; remove them to count right",
    ),
    "mask": ("no usable mask", "draw or predict it again: `tigerdata segment`, or import a mask"),
    "disagreement": ("mask and text disagree", "see whether mask, side or report belongs to another nodule"),
    "few_patients": ("class of few patients", "collect more, or plan with `tigergen plan`; figures on it are weak"),
}
MASK_FAULTS = ("empty", "tiny", "large")


def check(ws: Workspace, progress: Progress | None = None) -> dict[str, Any]:
    """Score every accepted image, write the table `checks`, and return counts.

    Returns `images`, `flagged` (images with any flag), `checks` (check -> scored, flagged, threshold, worst image),
    `mask_flags` (counts of `regions.flags`), `rejected` (files refused at ingest, by code) and `next`, one sentence.
    Equal frames get equal scores; the call can be repeated. Raises UserError when there is no image.
    """
    from kb import store
    from kb.errors import UserError

    facts = _facts(ws)
    if not facts:
        raise UserError(f"{ws.path} holds no images; run `tigerdata ingest images` first.")
    rows = []
    for number, fact in enumerate(facts, 1):
        rows.append(_score(ws, fact))
        if progress:
            progress({"stage": "check", "step": number, "steps": len(facts)})
    _compare(ws, facts, rows)
    thresholds = ws.settings["check"]
    table = [_wide(fact["image_id"], row, thresholds) for fact, row in zip(facts, rows, strict=True)]
    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM checks")
        store.insert(con, "checks", _frame(table))
    return _summary(ws, table, thresholds)


def _facts(ws: Workspace) -> list[dict[str, Any]]:
    """One dict an accepted image: what its checks need from the database, read at once."""
    import json

    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT i.image_id, i.patient_id, i.width, i.height, i.plane, i.mm_per_pixel,
                      coalesce(p.label, i.label, '') AS label, p.nodule_id, p.attributes,
                      n.path AS nodule, n.flags, g.path AS gland,
                      CASE WHEN f.image_id IS NOT NULL THEN coalesce(d.duplicate_group, i.image_id) END AS copies
               FROM images i LEFT JOIN prompts p USING (image_id)
               LEFT JOIN fingerprints f USING (image_id) LEFT JOIN duplicates d USING (image_id)
               LEFT JOIN regions n ON n.image_id = i.image_id AND n.kind = 'nodule'
               LEFT JOIN regions g ON g.image_id = i.image_id AND g.kind = 'gland'
               WHERE i.rejected IS NULL ORDER BY i.image_id"""
        )
        names = [column[0] for column in rows.description or ()]
        facts = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
        sizes: dict[str, list[float]] = {}
        for nodule_id, number in con.execute(
            "SELECT nodule_id, number FROM findings WHERE attribute = 'diameter_mm' AND number IS NOT NULL"
        ).fetchall():
            sizes.setdefault(nodule_id, []).append(number)
    for fact in facts:
        fact["attributes"] = json.loads(fact["attributes"] or "{}")
        fact["sizes_mm"] = sizes.get(fact["nodule_id"], [])
        plane = fact["attributes"].get("sonogram_direction", [None])[0]
        fact["plane"] = fact["plane"] or plane
    return facts


def _score(ws: Workspace, fact: dict[str, Any]) -> dict[str, Any]:
    """Scores of one image from its own files."""
    from kb.errors import UserError
    from tigerdata.images import scores

    try:
        frame = read_clean(ws, fact["image_id"])
    except UserError:
        return {"truncated": 0.0}
    found: dict[str, Any] = {
        "blur": scores.sharpness(frame),
        "dark": scores.light(frame),
        "low_information": scores.information(frame),
        "text": scores.free_of_text(frame, ws.settings["images"]["text_threshold"]),
        "truncated": scores.complete(frame),
    }
    if fact["nodule"]:
        found |= _masks(ws, fact, frame.shape)
    return found


def _masks(ws: Workspace, fact: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    from kb.errors import UserError
    from tigerdata.regions import masks
    from tigerdata.regions.agreement import agreement

    def load(path: str | None) -> NDArray[np.bool_] | None:
        try:
            mask = masks.load(ws, path) if path else None
        except UserError:
            return None
        return mask if mask is not None and mask.shape == shape else None

    nodule, gland = load(fact["nodule"]), load(fact["gland"])
    if nodule is None or not nodule.any():
        return {"mask": 0.0, "mask_flags": "unreadable" if nodule is None else "empty"}
    flags = masks.flags(nodule)
    found: dict[str, Any] = {"mask": 1.0 - len(flags) / 4, "mask_flags": ",".join(flags)}
    if set(flags) & set(MASK_FAULTS):
        found["mask"] = 0.0
    agreed = agreement(ws.kb, nodule, gland, fact["attributes"], fact["sizes_mm"], fact["plane"], fact["mm_per_pixel"])
    if agreed:
        found["disagreement"] = min(agreed.values())
        floor = ws.settings["check"]["disagreement"]
        found["disagrees_on"] = ",".join(name for name, value in agreed.items() if value < floor)
    return found


def _compare(ws: Workspace, facts: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Add the scores that need the other images: size, copies, patients a class."""
    from tigerdata.images.scores import usual_size

    copies = Counter(fact["copies"] for fact in facts)
    people: dict[str, set[str]] = {}
    for fact in facts:
        people.setdefault(fact["label"], set()).add(fact["patient_id"] or fact["image_id"])
    least = ws.settings["check"]["patients"]
    usual = usual_size([(fact["width"], fact["height"]) for fact in facts])
    for fact, row, ratio in zip(facts, rows, usual, strict=True):
        row["odd_size"] = ratio
        if fact["copies"]:  # none of an image that came in before duplicates were looked for
            row["duplicate"] = 1.0 / copies[fact["copies"]]
        if fact["label"]:
            row["few_patients"] = min(1.0, len(people[fact["label"]]) / least)


def _wide(image_id: str, row: dict[str, Any], thresholds: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"image_id": image_id}
    for name in CHECKS:
        score = row.get(name)
        out[f"{name}_score"] = score
        out[f"is_{name}"] = None if score is None else bool(score < thresholds.get(name, 1.0))
    return out | {name: row.get(name, "") for name in ("mask_flags", "disagrees_on")}


def _frame(table: list[dict[str, Any]]) -> Any:
    """The table with a type for every column, also for one without any value."""
    import pandas as pd

    kinds = {
        name: "float64" if name.endswith("_score") else "boolean" if name.startswith("is_") else "string"
        for name in table[0]
    }
    return pd.DataFrame(table).astype(kinds)


def _summary(ws: Workspace, table: list[dict[str, Any]], thresholds: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, dict[str, Any]] = {}
    for name in CHECKS:
        scored = [row for row in table if row[f"{name}_score"] is not None]
        worst = min(scored, key=lambda row: row[f"{name}_score"], default=None)
        counts[name] = {
            "scored": len(scored),
            "flagged": sum(row[f"is_{name}"] for row in scored),
            "threshold": thresholds.get(name, 1.0),
            "worst": None if worst is None else round(worst[f"{name}_score"], 3),
            "image": worst["image_id"] if worst is not None else None,
        }
    flags = Counter(flag for row in table for flag in row["mask_flags"].split(",") if flag)
    with ws.connect(read_only=True) as con:
        refused = con.execute(
            "SELECT rejected, count(*) FROM images WHERE rejected IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return {
        "images": len(table),
        "flagged": sum(any(row[f"is_{name}"] for name in CHECKS) for row in table),
        "checks": counts,
        "mask_flags": dict(sorted(flags.items())),
        "rejected": dict(refused),
        "next": _next(counts),
    }


def _next(counts: dict[str, dict[str, Any]]) -> str:
    """What to do first: about the check that flags most among those that a person can do something about."""
    found = [name for name in CHECKS if counts[name]["flagged"]]
    if not found:
        return "Nothing is flagged. Next: tigerdata split."
    most = max(found, key=lambda name: counts[name]["flagged"])
    what, advice = CHECKS[most]
    return (
        f"Most flags: {counts[most]['flagged']} of the images, {what}: {advice}. "
        f"Next: tigerdata view --flag {most} --out gallery.html."
    )
