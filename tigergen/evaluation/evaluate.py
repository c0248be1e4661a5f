"""Measure a finished run against real images: every number with its N and its real-against-real floor."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import read_json, write_json
from tigerdata.manifest import manifest_of, reason_kind
from tigerdata.progress import Progress
from tigergen.evaluation.adherence import attribute_table, donor_likeness, mask_dice, sobel_correlation
from tigergen.evaluation.extractors import texture
from tigergen.evaluation.features import EXTRACTOR
from tigergen.evaluation.image_sets import LEAST
from tigergen.evaluation.metric_neighbours import density_coverage
from tigergen.evaluation.metric_sets import Array, MetricError, frechet_distance, kernel_distance

Images = NDArray[np.uint8]
LIMIT = 1000
STEPS = 5


def evaluate(
    ws: Any,
    run: str | os.PathLike[str],
    judge: Any = None,
    segmenter: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    dual: Any = None,
) -> dict[str, Any]:
    """Write `evaluation.json` into the run's folder and return it.

    Real images to compare with are those of val and test, which the generator has not seen; the floor compares them
    with the real training (and pool) images at the same N. At most 1,000 images a class are looked at. `judge`: for
    the attributes; `segmenter`: for the Dice of asked and found nodules; `dual`: a dual encoder for CLIP score and
    CMMD; without one, its figures are left out (`workshop.evaluate` passes the workspace's own).

    Raises:
        UserError: the run is not finished or has no accepted image, or there is no real held-out image.
    """
    import pandas as pd

    from tigergen.augment.files import read_pixels
    from tigergen.data import load_cases

    folder, rng = Path(run), np.random.default_rng(seed)
    table = pd.read_parquet(manifest_of(folder))
    kept = table[table["accepted"]].reset_index(drop=True)
    if len(kept) == 0:
        raise UserError(f"{folder} has no accepted image to evaluate; see its README for what the gates rejected.")
    size = int(kept["width"].iloc[0])
    train = load_cases(ws, "train", size)
    present = set(ws.cases()["split"])
    held = [load_cases(ws, split, size) for split in ("val", "test") if split in present]
    if not held:
        raise UserError("there is no val or test split to compare with; run `tigerdata split` first.")
    seen = [train, *([load_cases(ws, "pool", size)] if "pool" in present else [])]
    parts = [kept[kept["label"] == label] for label in sorted(set(kept["label"]))]
    sample = pd.concat([p.iloc[np.sort(rng.permutation(len(p))[:LIMIT])] for p in parts], ignore_index=True)
    images = np.stack([read_pixels(folder / f) for f in sample["file"]])
    asked = [json.loads(a) for a in sample["attributes"]]
    labels = np.array(sample["label"])
    place = {i: n for n, i in enumerate(train.image_ids)}
    donors = [place[d] for d in sample["donor_image_id"]]
    _tell(progress, 1, "distances")
    ruler = texture(train.images)
    real = np.concatenate([c.images for c in held])
    real_labels = np.array([label for c in held for label in c.labels])
    known = np.concatenate([c.images for c in seen])
    known_labels = np.array([label for c in seen for label in c.labels])
    vectors = {name: np.asarray(ruler.vectors(v), np.float64)
               for name, v in (("generated", images), ("held", real), ("known", known))}  # fmt: skip
    groups = {"generated": labels, "held": real_labels, "known": known_labels}
    classes = sorted(set(labels) & set(real_labels))
    distances = [distance_row(label, vectors, groups, rng) for label in classes]
    _tell(progress, 2, "adherence")
    edges = sobel_correlation(images, train.masks[donors], train.sobel[donors])
    out: dict[str, Any] = {
        "extractor": EXTRACTOR,
        "weights_sha256": ruler.weights_sha256,
        "distances": distances,
        "telling_apart": [tell_apart(label, vectors, groups, rng) for label in classes],
        "edges": {"mean": _mean(edges), "n": int(np.isfinite(edges).sum())},
        "gates": gate_counts(table),
        "generated": dict(sorted(Counter(kept["label"]).items())),
        "donors": [_donor_row(label, labels, images, donors, train, seed) for label in sorted(set(labels))],
    }
    if segmenter is not None:
        got, best = mask_dice(segmenter, images, train.masks[donors]), mask_dice(segmenter, real, _masks(held))
        out["mask"] = {"generated": _mean(got), "real": _mean(best), "n": len(got), "n_real": len(best)}
    if judge is not None:
        _tell(progress, 3, "attributes")
        said = [a for c in held for a in c.attributes]
        rows = attribute_table(judge, images, asked, real, said)
        ratios = [r["ratio"] for r in rows if r["ratio"] is not None]
        figures = judge.figures
        out["attributes"] = {"rows": rows, "mean_ratio": float(np.mean(ratios)) if ratios else None, "judge": figures}
    _tell(progress, 4, "words")
    made = (images, labels, [str(f) for f in sample["fg"]])
    out["dual_encoder"] = _dual_figures(dual, classes, made, (real, real_labels), held, seed)
    write_json(folder / "evaluation.json", out)
    _tell(progress, STEPS, "done")
    return out


def _tell(progress: Progress | None, step: int, what: str) -> None:
    if progress is not None:
        progress({"stage": "evaluate", "step": step, "steps": STEPS, "what": what})


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _masks(held: list[Any]) -> NDArray[np.uint8]:
    return np.concatenate([c.masks for c in held])


def _donor_row(
    label: str, labels: NDArray[np.str_], images: Images, donors: list[int], train: Any, seed: int
) -> dict[str, Any]:
    """Gradient similarity of a class's images and their donors."""
    rows = np.flatnonzero(labels == label)
    found = donor_likeness(images[rows], [donors[n] for n in rows], train, np.random.default_rng([seed, 13]))
    return {"label": label, **found}


def _dual_figures(
    dual: Any,
    classes: list[str],
    made: tuple[Images, NDArray[np.str_], list[str]],
    real: tuple[Images, NDArray[np.str_]],
    held: list[Any],
    seed: int,
) -> dict[str, Any]:
    """CLIP score and CMMD a class, with the encoder that they are of, or why they are left out.

    `made`: generated images, their labels and FG prompts; `real`: images and labels of the cases `held`, in one array.
    """
    if dual is None:
        return {"left_out": "there is no dual encoder in the workspace; `tigergen train judge` trains one."}
    from tigergen.evaluation.dual_scores import scores

    seen = {i for c in held for i in c.image_ids} & set(dual.image_ids)
    if seen:
        return {
            "left_out": f"the dual encoder was trained on {len(seen)} of the images that are held out now; run "
            "`tigergen train judge` again."
        }
    (images, labels, asked), (pixels, real_labels) = made, real
    texts, patients = ([v for c in held for v in getattr(c, name)] for name in ("fg", "patient_ids"))
    rows = []
    for label in classes:
        own, other = np.flatnonzero(labels == label), np.flatnonzero(real_labels == label)
        said, whose = ([values[n] for n in other] for values in (texts, patients))
        found = scores(dual, images[own], [asked[n] for n in own], pixels[other], said, whose, seed)
        rows.append({"label": label, **found})
    unknown = dual.unknown([*asked, *texts])
    return {**dual.about(), "rows": rows, "unknown_phrases": unknown, "figures": dual.figures}


def _compare(a: Array, b: Array) -> dict[str, float | None]:
    """Three distances of two equally large sets; None where the sets are too small for it to say anything."""
    out: dict[str, float | None] = {"kernel": kernel_distance(a, b)}
    try:
        out["frechet"] = frechet_distance(a, b)
    except MetricError:
        out["frechet"] = None
    found = density_coverage(a, b, k=5)
    return out | {"density": found["density"], "coverage": found["coverage"]}


def distance_row(
    label: str, vectors: Mapping[str, Array], groups: Mapping[str, NDArray[np.str_]], rng: np.random.Generator
) -> dict[str, Any]:
    """Generated and known real images of a class, each against held-out real ones, all sets of one size."""
    own = {name: vectors[name][groups[name] == label] for name in vectors}
    n = min(len(v) for v in own.values())
    if n < LEAST:
        return {"label": label, "n": n, "generated": None, "floor": None}
    drawn = {name: v[np.sort(rng.permutation(len(v))[:n])] for name, v in own.items()}
    compared = {
        "generated": _compare(drawn["held"], drawn["generated"]),
        "floor": _compare(drawn["held"], drawn["known"]),
    }
    return {"label": label, "n": n, **compared}


def tell_apart(
    label: str, vectors: Mapping[str, Array], groups: Mapping[str, NDArray[np.str_]], rng: np.random.Generator
) -> dict[str, Any]:
    """AUROC of a plain classifier (logistic, texture features, 5-fold) at telling generated from held-out real images.

    .5 is what one wishes for; the floor tells known real from held-out real images in the same way.
    """
    own = {name: vectors[name][groups[name] == label] for name in vectors}
    n = min(len(v) for v in own.values())
    out: dict[str, Any] = {"label": label, "n": n}
    if n < LEAST:
        return out
    drawn = {name: v[np.sort(rng.permutation(len(v))[:n])] for name, v in own.items()}
    for name, other in (("generated", "generated"), ("floor", "known")):
        out[name] = told_apart(drawn["held"], drawn[other])
    return out


def told_apart(a: Array, b: Array) -> float:
    """AUROC of a logistic classifier in 5-fold cross-validation at telling two sets of features [N, d] apart."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    x, y = np.concatenate([a, b]), np.repeat([0, 1], (len(a), len(b)))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(roc_auc_score(y, cross_val_predict(model, x, y, cv=folds, method="decision_function")))


def gate_counts(table: Any) -> dict[str, Any]:
    """Attempts, accepted, rejected by reason, images that could not be filled, from a manifest."""
    rejected = table[~table["accepted"]]["reason"].map(reason_kind)
    unfilled = set(table["index"]) - set(table[table["accepted"]]["index"])
    reasons = {str(k): int(v) for k, v in sorted(rejected.value_counts().items())}
    return {
        "attempts": len(table),
        "accepted": int(table["accepted"].sum()),
        "rejected": reasons,
        "unfilled": len(unfilled),
    }


def read_evaluation(run: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The stored evaluation of a run, or None."""
    path = Path(run) / "evaluation.json"
    return read_json(path) if path.is_file() else None
