"""What the report shows of a run: pictures with their conditions, nearest pairs, the map of attributes, the gates."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigerdata.manifest import reason_kind
from tigerdata.page import data_uri
from tigergen.augment.measured import REASONS

PER_CLASS = 5
PER_VALUE = 2
PAIRS = 4
# Grids of a run at 512 pixels would make a file of a hundred megabytes; the pairs stay at native size.
GRID_SIDE = 128
# What a gate rejects for and the name of its threshold in gates.json; a reason that is not here is shown without one.
THRESHOLDS = {
    "technical: not a number": "",
    "technical: constant or without contrast": "technical.sd_low",
    "technical: clipped": "technical.white_high",
    "technical: too dark": "technical.mean",
    "technical: too bright": "technical.mean",
    REASONS["exact"]: "",
    REASONS["nearest"]: "copy",
    REASONS["donor"]: "donor",
    REASONS["inside"]: "inside",
    REASONS["donor and inside"]: "donor_both",
    REASONS["hash"]: "hash",
    REASONS["texture"]: "texture",
    REASONS["realism"]: "realism",
    REASONS["attributes"]: "attributes",
    REASONS["mask"]: "mask",
    "duplicate": "duplicate",
}
OFF = "off"
NONE = "none"


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture for a grid: at most `GRID_SIDE` pixels high and wide."""
    import cv2

    scale = GRID_SIDE / max(image.shape)
    if scale >= 1:
        return image
    shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def spaced(n: int, count: int) -> list[int]:
    """At most `count` evenly spaced positions out of `n`, first and last included."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(n, count)).astype(int))] if n else []


class Pictures:
    """Pictures of a run and of the real training images behind it, as data: addresses."""

    def __init__(self, folder: Path, train: Any) -> None:
        self.folder, self.train = folder, train
        self.place = {image_id: n for n, image_id in enumerate(train.image_ids)}

    def made(self, file: str) -> NDArray[np.uint8]:
        """Pixels of an accepted image."""
        from tigergen.augment.files import read_pixels

        return read_pixels(self.folder / file)

    def conditions(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The donor, mask and edges that an image was made for, and the image itself."""
        edges, mask = self.place[row["donor_image_id"]], self.place[row["mask_image_id"]]
        return {
            "donor": data_uri(small(self.train.images[edges])),
            "mask": data_uri(small(self.train.masks[mask] * np.uint8(255))),
            "sobel": data_uri(small(self.train.sobel[edges])),
            "made": data_uri(small(self.made(row["file"]))),
            "file": row["file"],
        }


def grids(pictures: Pictures, kept: Any, target: str) -> list[dict[str, Any]]:
    """For each class, the target first: donor, mask, edge map and generated image of a few evenly spaced indices."""
    out = []
    for label in sorted(set(kept["label"]), key=lambda v: (v != target, v)):
        own = kept[kept["label"] == label]
        cells = []
        for row in own.iloc[spaced(len(own), PER_CLASS)].to_dict("records"):
            particular = [p for p, role in json.loads(row["roles"]) if role == "particular"]
            cells.append(
                pictures.conditions(row) | {"fg": row["fg"], "bg": row["bg"], "particular": particular},
            )
        out.append({"label": label, "cells": cells, "count": len(own)})
    return out


def by_attribute(pictures: Pictures, base: Any, kept: Any, target: str, names: Any) -> list[dict[str, Any]]:
    """For each attribute that the target's prompts state, a few accepted images of each value with their conditions."""
    own = kept[kept["label"] == target].reset_index(drop=True)
    said = [json.loads(text) for text in own["attributes"]]
    out = []
    for attribute, model in base.attributes.items():
        cells = []
        for value in model.values:
            having = [n for n, case in enumerate(said) if value in case.get(attribute, ())]
            for row in own.iloc[[having[i] for i in spaced(len(having), PER_VALUE)]].to_dict("records"):
                name = names(attribute, value)
                cells.append(pictures.conditions(row) | {"name": name, "index": int(row["index"])})
        if cells:
            out.append({"name": names(attribute), "cells": cells})
    return out


def pairs(pictures: Pictures, kept: Any) -> dict[str, list[dict[str, Any]]]:
    """Class -> its accepted images that resemble a real training image most, beside that image, at native size."""
    out: dict[str, list[dict[str, Any]]] = {}
    for label in sorted(set(kept["label"])):
        rows = [(json.loads(r["scores"]), r) for r in kept[kept["label"] == label].to_dict("records")]
        known = [(s, r) for s, r in rows if s.get("nearest") is not None and s.get("nearest_id") in pictures.place]
        known.sort(key=lambda pair: (-pair[0]["nearest"], pair[1]["index"]))
        out[label] = [
            {
                "made": data_uri(pictures.made(r["file"])),
                "real": data_uri(pictures.train.images[pictures.place[s["nearest_id"]]]),
                "real_id": s["nearest_id"],
                "score": s["nearest"],
                "donor": s.get("donor"),
                "file": r["file"],
            }
            for s, r in known[:PAIRS]
        ]
    return {label: shown for label, shown in out.items() if shown}


def heat(base: Any, train: Any, kept: Any, names: Any) -> dict[str, Any]:
    """Attribute values by class: share of the images that state the attribute, real and generated.

    Returns `classes` and `groups`, one an attribute with `rows` of cells (kind, count, of, share, colour).
    """
    classes = sorted({*train.labels, *kept["label"]})
    cases: dict[tuple[str, str], list[Any]] = {(label, kind): [] for label in classes for kind in ("real", "made")}
    for label, said in zip(train.labels, train.attributes, strict=True):
        cases[label, "real"].append(said)
    for label, text in zip(kept["label"], kept["attributes"], strict=True):
        cases[label, "made"].append(json.loads(text))
    groups = []
    for attribute, model in base.attributes.items():
        stated = {key: [case[attribute] for case in own if case.get(attribute)] for key, own in cases.items()}
        rows = []
        for value in model.values:
            cells = [_cell(kind, [value in v for v in stated[label, kind]]) for label, kind in cases]
            if any(cell["count"] for cell in cells):
                rows.append({"name": names(attribute, value), "cells": cells})
        if rows:
            groups.append({"name": names(attribute), "rows": rows})
    return {"classes": classes, "groups": groups}


def _cell(kind: str, hits: Sequence[bool]) -> dict[str, Any]:
    share = sum(hits) / len(hits) if hits else 0.0
    # Colours of the page's style for real and generated, as strong as the share.
    tint = {"real": "71,99,127", "made": "224,138,60"}[kind]
    colour = f"rgba({tint},{0.75 * share:.2f})"
    return {"kind": kind, "count": sum(hits), "of": len(hits), "share": share, "colour": colour}


def plain_chinese(pattern: str) -> str:
    """One Chinese name out of a pattern of the vocabulary: what may be left out is, else the first alternative.

    >>> plain_chinese("(边界|界限)(尚|较|)(清晰|清楚)")
    '边界清晰'
    """
    while "(" in pattern:
        pattern = re.sub(r"\(([^()]*)\)", lambda m: "" if "" in m[1].split("|") else m[1].split("|")[0], pattern)
    return pattern


def flat(settings: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """Nested settings with dotted names; lists stay as they are."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        out |= flat(value, f"{head}{name}.") if isinstance(value, Mapping) else {f"{head}{name}": value}
    return out


def shown(value: Any) -> str:
    """A setting for people: few digits, a dash for nothing."""
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return " – ".join(shown(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def gate_rows(rejected: Mapping[str, int], thresholds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every gate with its threshold and how many images it rejected, those with none too."""
    settings = flat(thresholds)
    counts = {**dict.fromkeys(THRESHOLDS, 0)}
    for reason, n in rejected.items():
        # The reason of a duplicate goes on with the image that it repeats.
        name = "duplicate" if reason.startswith("duplicate") else reason
        counts[name] = counts.get(name, 0) + n
    out = []
    for reason, n in counts.items():
        setting = THRESHOLDS.get(reason)
        value = settings.get(setting) if setting else None
        limit = "–" if setting is None else NONE if not setting else OFF if value is None else shown(value)
        out.append({"reason": reason, "threshold": limit, "count": n})
    return out


def score_rows(kept: Any) -> list[dict[str, Any]]:
    """Lowest, median and highest of every score that the accepted images have."""
    values: dict[str, list[float]] = {}
    for text in kept["scores"]:
        for name, value in json.loads(text).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values.setdefault(name, []).append(float(value))
    return [
        {"name": name, "n": len(v), "low": min(v), "median": float(np.median(v)), "high": max(v)}
        for name, v in sorted(values.items())
    ]


def unfilled(table: Any) -> list[dict[str, Any]]:
    """Cells of the plan that lack images: class, row, how many are missing, prompt, why the attempts were rejected."""
    filled = set(table[table["accepted"]]["index"])
    lacking = table[~table["index"].isin(filled)]
    out = []
    for (label, row), part in lacking.groupby(["label", "plan_row"], sort=True):
        reasons = Counter(map(reason_kind, part["reason"]))
        one = {"label": label, "row": int(row), "missing": int(part["index"].nunique()), "fg": part["fg"].iloc[0]}
        out.append(one | {"reasons": dict(sorted(reasons.items()))})
    return out


def basis(ws: Any) -> dict[str, Any]:
    """Images and patients of each split, in all and a class: what every figure rests on."""
    cases = ws.cases()
    cases = cases[cases["split"].notna()]
    classes = sorted(set(cases["label"]))
    splits = []
    for split in ("train", "val", "test", "pool"):
        part = cases[cases["split"] == split]
        if len(part):
            counts = [int((part["label"] == label).sum()) for label in classes]
            one = {"split": split, "images": len(part), "patients": int(part["patient_id"].nunique())}
            splits.append(one | {"classes": counts})
    return {"classes": classes, "splits": splits}
