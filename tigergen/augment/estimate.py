"""What a plan will cost on this machine: time and disk, measured on a few of its own images. Nothing is kept."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tigergen.augment.pipe import open_pipe
from tigergen.augment.planfile import total
from tigergen.augment.run import Maker
from tigergen.augment.slots import Slots, donor_quality
from tigergen.model.folder import model_id

BATCH = 16
# A batch is measured only where a single image is faster than this: 16 images of a big model on a CPU take an hour.
SHORT_IMAGE_S = 2.0


def estimate(
    ws: Any, plan: Mapping[str, Any], model_folder: str | os.PathLike[str], batch: int = BATCH, pipe: Any = None
) -> dict[str, Any]:
    """Time and disk of a plan from a few of its images, made with the model of `model_folder`.

    Returns images, `seconds_per_image`, `hours`, `bytes_per_image` (PNG and records), `disk_bytes`, and in words
    `time_rule` and `disk_rule`; numbers are None where there is no model to measure with. `pipe` replaces loading it.
    """
    count, folder = total(plan), Path(model_folder)
    if pipe is None and not (folder / "model_index.json").is_file():
        return _unknown(count, "not measured: the workspace has no fine model yet (`tigergen train fine`)")
    pipe = pipe or open_pipe(folder)
    picked = np.unique(np.linspace(0, count - 1, min(batch, count)).astype(int))
    maker = _maker(ws, plan, pipe, model_id(folder), batch, picked)
    slots = [maker.slots.at(int(k)) for k in picked]
    # The first call also loads libraries and lays out memory; what is measured is the second.
    maker.sample(slots[:1])
    started = time.perf_counter()
    pixels, made = maker.sample(slots[:1]), slots[:1]
    seconds = time.perf_counter() - started
    if seconds < SHORT_IMAGE_S and len(slots) > 1:
        started = time.perf_counter()
        pixels, made = maker.sample(slots), slots
        seconds = (time.perf_counter() - started) / len(slots)
    sizes = []
    for slot, image in zip(made, pixels, strict=True):
        record = maker.record(slot, image, None, {})
        sizes.append(len(maker.encode(record, image)) + len(json.dumps(record, ensure_ascii=False).encode()))
    each = float(np.mean(sizes))
    device = str(getattr(pipe, "device", "cpu"))
    return {
        "images": count,
        "seconds_per_image": round(seconds, 4),
        "hours": round(seconds * count / 3600, 3),
        "bytes_per_image": round(each),
        "disk_bytes": round(each * count),
        "time_rule": f"measured: {len(made)} image{'s' * (len(made) > 1)} of this plan in one batch on this machine "
        f"({device}, {os.cpu_count()} cores); gates, and images made again for rejected ones, come on top",
        "disk_rule": f"measured: mean size of {len(made)} PNG and their records, times the images",
    }


def _unknown(count: int, rule: str) -> dict[str, Any]:
    numbers = dict.fromkeys(("seconds_per_image", "hours", "bytes_per_image", "disk_bytes"))
    return {"images": count, **numbers, "time_rule": rule, "disk_rule": rule}


def _maker(ws: Any, plan: Mapping[str, Any], pipe: Any, model: str, batch: int, picked: Any) -> Maker:
    """A maker that knows the donors of the picked images alone: a whole training split need not be read for that."""
    from tigergen.data import build_conditions, cases_of

    blank = Slots(plan, {})
    ids = sorted({blank.at(int(k)).donor for k in picked})
    rows = ws.cases("train")
    rows = rows[rows["image_id"].isin(ids)]
    size = int(pipe.config["image_size"])
    cases = cases_of(rows, build_conditions(list(rows["image_path"]), list(rows["mask_path"]), size))
    donors = cases.layouts()
    slots = Slots(plan, donor_quality(ws.kb, cases))
    gates: Any = None  # what is measured is the model; no image is judged
    return Maker(pipe, slots, gates, ws.kb, donors, dict(plan["sampling"]), model, batch, 1)
