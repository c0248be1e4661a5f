"""Measure an augmented folder: does it show what was asked, does it keep its conditions, how far is it from real.

Every figure has its yardstick beside it: the same judge on real images, the same correlation on the donors themselves,
the same distance between two halves of the real images.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import sha256_file, write_json
from tigerdata.progress import Progress
from tigergen.evaluation import metrics
from tigergen.evaluation.adherence import attribute_table, mask_dice, sobel_correlation
from tigergen.evaluation.features import EXTRACTOR, TextureSpace

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace
    from tigergen.data import Cases

Images = NDArray[np.uint8]
RESULT = "evaluation.json"
# Attributes that mask and Sobel map do not show: only the prompt can bring them into the image.
TEXT_ONLY = ("composition", "echogenicity", "echotexture", "calcification", "halo")
NEAREST_SHOWN = 8
# Simulated frames on which a judge of simulated frames is held against the truth.
REAL_FRAMES = 600


def accepted(run: str | os.PathLike[str]) -> tuple[Any, Images]:
    """Manifest rows and pixels uint8 [N, s, s] of the accepted images of an augmented folder.

    Raises UserError when the folder is not finished or holds no accepted image.
    """
    import pandas as pd

    from tigergen.augment.files import read_pixels

    manifest = Path(run) / "manifest.parquet"
    if not manifest.is_file():
        raise UserError(f"{run} is no finished augmented folder; run `tigergen augment` again to finish it.")
    rows = pd.read_parquet(manifest)
    rows = rows[rows["accepted"]].reset_index(drop=True)
    if not len(rows):
        raise UserError(f"{manifest} holds no accepted image; see its reasons and change the plan.")
    return rows, np.stack([read_pixels(manifest.parent / name) for name in rows["file"]])


def evaluate_run(ws: "Workspace", run: str | os.PathLike[str], progress: Progress | None = None) -> dict[str, Any]:
    """Measure the accepted images of `run`; the figures are also written there as evaluation.json.

    Sections: `attributes` (judge's agreement on generated and real images, each attribute, with Wilson intervals),
    `adherence` (Sobel correlation outside the nodule, mask Dice by the segmenter), `distances` by class (kernel and
    Frechet distance, density and coverage on texture features, each beside real against real), `nearest` (the
    generated images that are closest to a real one).
    """
    from tigergen.data import load_cases

    rows, images = accepted(run)
    size = images.shape[1]
    train = load_cases(ws, "train", size)
    report = progress or (lambda event: None)
    result: dict[str, Any] = {
        "images": len(images),
        "by_class": {str(k): int(v) for k, v in rows["label"].value_counts().items()},
        "manifest_sha256": sha256_file(Path(run) / "manifest.parquet"),
    }
    sections = {
        "attributes": lambda: attribute_agreement(ws, rows, images),
        "adherence": lambda: adherence(ws, rows, images, train),
        "distances": lambda: distances(ws, rows, images, train),
        "nearest": lambda: nearest(rows, images, train),
    }
    for number, (name, measure) in enumerate(sections.items(), start=1):
        result[name] = measure()
        report({"stage": "evaluate", "step": number, "steps": len(sections), "done": name})
    write_json(Path(run) / RESULT, result)
    return result


def attribute_agreement(ws: "Workspace", rows: Any, images: Images) -> dict[str, Any] | None:
    """The judge's agreement with the prompts on generated images, and with what is true of real ones it never saw.

    Real ones are the test split; for a judge of simulated frames, fresh simulated ones of evenly mixed attributes.
    None when the workspace has no judge.
    """
    from tigergen.data import load_cases
    from tigergen.evaluation.judge import Judge
    from tigergen.workshop import JUDGE, model_folder, unseen_frames

    folder = model_folder(ws, JUDGE)
    if not (folder / "judge.json").is_file():
        return None
    judge = Judge.load(folder)
    asked = [{k: list(v) for k, v in json.loads(text).items()} for text in rows["attributes"]]
    if judge.view == "phantom":
        real, said = unseen_frames(REAL_FRAMES)
    else:
        test = load_cases(ws, "test", images.shape[1])
        real, said = test.images, test.attributes
    table = attribute_table(judge, images, asked, real, said)
    for row in table:
        row["text_only"] = row["attribute"] in TEXT_ONLY
    result: dict[str, Any] = {"by_attribute": table, "robustness": judge.figures.get("robustness", {})}
    for name, part in (("", table), ("text_only_", [row for row in table if row["text_only"]])):
        if part:
            generated, true = (float(np.mean([row[key] for row in part])) for key in ("generated", "real"))
            result |= {f"{name}generated": generated, f"{name}real": true, f"{name}ratio": generated / true}
    return result


def adherence(ws: "Workspace", rows: Any, images: Images, train: "Cases") -> dict[str, Any]:
    """How well the images keep what they were given: the edges around the nodule and the nodule's outline.

    Sobel correlation is 1 for a copy of the donor. Mask Dice: the segmenter's outline on the generated image against
    the mask asked for, beside the same on the donors themselves, which is as good as the segmenter can see.
    """
    place = {image_id: k for k, image_id in enumerate(train.image_ids)}
    donors = np.array([place[d] for d in rows["donor_image_id"]])
    masks = train.masks[donors].astype(bool)
    result: dict[str, Any] = {
        "sobel_correlation": _spread(sobel_correlation(images, masks, train.sobel[donors])),
    }
    segmenter = _segmenter(ws)
    if segmenter is not None:
        for name, frames in (("generated", images), ("donors", train.images[donors])):
            result[f"mask_dice_{name}"] = _spread(mask_dice(segmenter, frames, masks))
    return result


def _segmenter(ws: "Workspace") -> Any:
    from tigerdata.regions.segment import WEIGHTS

    weights = ws.path / "models" / "segmenter" / WEIGHTS
    if not weights.is_file():
        return None
    from tigerdata.regions.yolo import YoloSegmenter

    return YoloSegmenter(weights)


def _spread(values: NDArray[np.float64]) -> dict[str, float | int] | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, mid, high = np.quantile(known, [0.05, 0.5, 0.95])
    return {"mean": float(known.mean()), "q05": float(low), "q50": float(mid), "q95": float(high), "n": len(known)}


def distances(ws: "Workspace", rows: Any, images: Images, train: "Cases") -> dict[str, Any]:
    """Distances by class on texture features, z-scored on the real training images, beside real against real.

    Both comparisons use the same number of images, because every one of these numbers depends on it. `floor` compares
    other real images of the class (validation, test and pool) with the same number of real training images, or, for a
    rare class, splits the other real images in two halves.
    """
    from tigergen.data import load_cases

    space = TextureSpace.fit(train.images)
    others = load_cases(ws, None, images.shape[1])
    known = set(train.image_ids)
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {"extractor": EXTRACTOR, "classes": {}}
    for label in sorted(set(rows["label"])):
        fake = images[(rows["label"] == label).to_numpy()]
        real = [
            k
            for k, (i, name) in enumerate(zip(others.image_ids, others.labels, strict=True))
            if name == label and i not in known
        ]
        own = [k for k, name in enumerate(train.labels) if name == label]
        first = others.images[real]
        second = train.images[own] if len(own) >= len(fake) else np.empty((0, *images.shape[1:]), np.uint8)
        if not len(second):
            order = rng.permutation(len(first))
            first, second = first[order[: len(order) // 2]], first[order[len(order) // 2 :]]
        if not len(first) and len(second) > 1:
            order = rng.permutation(len(second))
            first, second = second[order[: len(order) // 2]], second[order[len(order) // 2 :]]
        n = min(len(fake), len(first), len(second))
        if n < 8:
            out["classes"][label] = {"n": n, "note": "too few images for a distance"}
            continue
        a, b, c = (space(part[rng.permutation(len(part))[:n]]) for part in (fake, first, second))
        row: dict[str, Any] = {"n": n}
        for name, (x, y) in {"generated": (b, a), "floor": (b, c)}.items():
            row[name] = {"kernel": metrics.kernel_distance(x, y), **metrics.density_coverage(x, y)}
            if n > x.shape[1]:
                row[name]["frechet"] = metrics.frechet_distance(x, y)
        out["classes"][label] = row
    return out


def nearest(rows: Any, images: Images, train: "Cases") -> list[dict[str, Any]]:
    """The generated images with the highest correlation to any real training image, for a look side by side."""
    from tigergen.augment.copies import CopyIndex

    index = CopyIndex(train.images, train.image_ids, train.patient_ids)
    similarity = index.similarity(images)
    best = similarity.argmax(axis=1)
    order = np.argsort(-similarity.max(axis=1), kind="stable")[:NEAREST_SHOWN]
    return [
        {
            "file": str(rows["file"][k]),
            "real_image_id": train.image_ids[best[k]],
            "is_donor": bool(train.image_ids[best[k]] == rows["donor_image_id"][k]),
            "correlation": float(similarity[k, best[k]]),
        }
        for k in order
    ]
