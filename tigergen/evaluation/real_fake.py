"""Two image sets against each other: every number with its N, its extractor and its real-against-real floor.

The real images are split into two halves by patient, again and again. The generated ones and the second half are each
compared with the first half, all at one N, so that the floor is what new real images would have got in their place.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.progress import Progress
from tigergen.evaluation import extractors
from tigergen.evaluation.evaluate import told_apart
from tigergen.evaluation.image_sets import LEAST, ImageSet, common_size, halves, listed, read_set
from tigergen.evaluation.metric_images import phash
from tigergen.evaluation.metric_neighbours import density_coverage, memorisation
from tigergen.evaluation.metric_sets import MetricError, cmmd, frechet_distance, kernel_distance
from tigergen.evaluation.metric_topology import geometry_score

Numbers = dict[str, float | None]

# Metric -> which way is better; the order of the table.
DIRECTIONS = {
    "frechet_distance": "lower", "kernel_distance": "lower", "gaussian_mmd": "lower", "precision": "higher",
    "recall": "higher", "density": "higher", "coverage": "higher", "phash_nearest": "lower", "told_apart": "lower",
    "geometry_score": "lower",
}  # fmt: skip
LEFT_OUT = {
    "inception_score": "off: ImageNet's classes say nothing of ultrasound, and it never looks at a real image; "
    "tigergen.metrics.inception_score computes it from logits",
    "ssim, gradient_similarity": "for pairs, and two sets have none: tigergen.metrics.ssim takes a generated image and "
    "the real one whose layout it was given",
    "cmmd": "gaussian_mmd is its formula (unbiased, sigma 10, times 1,000) on this extractor, with --extractor dual on "
    "unit vectors of an encoder of images and words; published values are on CLIP and not comparable",
}
COLUMNS = ("class", "metric", "better", "n", "generated", "floor", "floor_range", "worse_than_floor")


def measure_folders(
    real: str | os.PathLike[str],
    fake: str | os.PathLike[str],
    extractor: str = "texture",
    architecture: str | None = None,
    train: str | os.PathLike[str] | None = None,
    repeats: int = 10,
    limit: int = 1000,
    geometry: bool = False,
    seed: int = 0,
    judge_folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a generated set with a real one that the generator has not seen (`image_sets.listed` says what is read).

    `extractor`: texture, judge or dual (of `judge_folder`), or a safetensors file of a torchvision `architecture`;
    `train`: the images the generator was trained on, for `memorisation`; `repeats` draws of halves; at most `limit`
    images a class, of `train` all; `geometry`: the Geometry Score too, which takes long.
    Returns: extractor (id, weight hash, resize rule), sets (path, n by class), rows (class, metric, better, n,
    generated, floor, their ranges over the draws, worse_than_floor: share of draws, note), memorisation, left_out with
    reasons. Raises:
        UserError: a set that cannot be read or is too small to be split, an extractor that is not there.
    """
    rows = {"real": listed(real, False), "fake": listed(fake, True)}
    if train is not None:
        rows["train"] = listed(train, False, ("train",))
    size = min(common_size(rows["real"]), common_size(rows["fake"]))
    sets = {name: read_set(found, size, limit if name != "train" else len(found), seed) for name, found in rows.items()}
    ruler = _extractor(extractor, architecture, sets["real"], judge_folder)
    vectors = {name: np.asarray(ruler.vectors(s.images), np.float64) for name, s in sets.items()}
    own, other = (sets[name].labels for name in ("real", "fake"))
    classes = sorted((set(own) & set(other)) - {""})
    both = {*classes} or {*own, *other}  # another mixture of classes would be taken for another quality
    parts = {"all": (np.isin(own, [*both]), np.isin(other, [*both]))}
    parts |= {label: (own == label, other == label) for label in classes if len(classes) > 1}
    out: dict[str, Any] = {
        **ruler.about(),
        "dimensions": int(vectors["real"].shape[1]),
        "size": size,
        "sets": {name: {"path": str(p), "n": len(sets[name].files), "classes": _counts(sets[name])}
                 for name, p in (("real", real), ("fake", fake), ("train", train)) if name in sets},
        "classes_left_out": sorted(str(name) for name in {*own, *other} - both),
        "halves_by": "patient" if sets["real"].by_patient else "image: no patient is known, the floor may be too low",
        "repeats": repeats, "seed": seed, "rows": [], "left_out": LEFT_OUT,
    }  # fmt: skip
    for step, (label, (mine, theirs)) in enumerate(parts.items(), 1):
        place = {"real": np.nonzero(mine)[0], "fake": np.nonzero(theirs)[0]}
        out["rows"] += _part(label, sets, vectors, place, repeats, geometry, seed)
        if progress is not None:
            progress({"stage": "evaluate", "step": step, "steps": len(parts), "what": label})
    if all(row["generated"] is None for row in out["rows"]):
        raise UserError(out["rows"][0]["note"])
    if "train" in sets:
        found = memorisation(vectors["train"], vectors["real"], vectors["fake"], min(50, len(vectors["train"])))
        flagged = [sets["fake"].files[int(n)] for n in found["flagged"]]  # type: ignore[union-attr]
        out["memorisation"] = found | {"flagged": flagged, "n": len(vectors["fake"])}
    return out


def _extractor(
    name: str, architecture: str | None, real: ImageSet, judge_folder: str | os.PathLike[str] | None
) -> extractors.Extractor:
    if name == "texture":
        return extractors.texture(real.images)
    if name in ("judge", "dual"):
        if judge_folder is None:
            raise UserError(f"the extractor `{name}` is a workspace's own; name the workspace with -w.")
        if name == "dual":
            from tigergen.evaluation.dual_encoder import DualEncoder

            return extractors.dual(DualEncoder.load(judge_folder))
        from tigergen.evaluation.judge import Judge

        return extractors.judge(Judge.load(judge_folder), judge_folder)
    return extractors.weights_file(name, architecture)


def _counts(images: ImageSet) -> dict[str, int]:
    names, counts = np.unique(images.labels, return_counts=True)
    return {str(name): int(n) for name, n in zip(names, counts, strict=True)}


def _part(
    label: str,
    sets: Mapping[str, ImageSet],
    vectors: Mapping[str, NDArray[np.float64]],
    place: Mapping[str, NDArray[np.intp]],
    repeats: int,
    geometry: bool,
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of one class: each metric over all draws."""
    rng = np.random.default_rng(seed)
    hashes = {name: np.stack([phash(image) for image in sets[name].images[at]]) for name, at in place.items()}
    generated: list[Numbers] = []
    floor: list[Numbers] = []
    n = 0
    for _ in range(repeats):
        first, second = halves(sets["real"].groups[place["real"]], rng)
        n = min(len(first), len(second), len(place["fake"]))
        if n < LEAST:
            note = f"{n} images a side in class {label}: two halves of the real set of {LEAST} or more are needed."
            return [{"class": label, "metric": name, "better": way, "n": n, "generated": None, "floor": None,
                     "floor_range": None, "worse_than_floor": None, "note": note}
                    for name, way in DIRECTIONS.items() if geometry or name != "geometry_score"]  # fmt: skip
        drawn = [rng.permutation(part)[:n] for part in (first, second)]
        fakes = rng.permutation(len(place["fake"]))[:n]
        a, b = (vectors["real"][place["real"][part]] for part in drawn)
        f = vectors["fake"][place["fake"][fakes]]
        ha, hb, hf = hashes["real"][drawn[0]], hashes["real"][drawn[1]], hashes["fake"][fakes]
        generated.append(_numbers(a, f, ha, hf, geometry, seed))
        floor.append(_numbers(a, b, ha, hb, geometry, seed))
    return [_row(label, name, n, [g[name] for g in generated], [r[name] for r in floor]) for name in generated[0]]


def _numbers(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    ha: NDArray[np.bool_],
    hb: NDArray[np.bool_],
    geometry: bool,
    seed: int,
) -> Numbers:
    """All numbers of one draw; None where N is too small for one to say anything."""
    near = density_coverage(a, b, k=5)
    out: Numbers = {"frechet_distance": None, "kernel_distance": kernel_distance(a, b)}
    out |= {"gaussian_mmd": cmmd(a, b)["unbiased"]} | near
    signs = [np.where(h, 1.0, -1.0) for h in (ha, hb)]
    out["phash_nearest"] = float(((64 - signs[0] @ signs[1].T) / 2).min(0).mean())
    out["told_apart"] = told_apart(a, b)
    if len(a) > a.shape[1]:
        out["frechet_distance"] = frechet_distance(a, b)
    if geometry:
        try:
            out["geometry_score"] = geometry_score(a, b, n=20, seed=seed)
        except MetricError:
            out["geometry_score"] = None
    return out


def _row(label: str, metric: str, n: int, generated: list[float | None], floor: list[float | None]) -> dict[str, Any]:
    """Means and ranges over the draws, and how often the generated images were further off than new real ones."""
    row: dict[str, Any] = {"class": label, "metric": metric, "better": DIRECTIONS[metric], "n": n}
    g, r = (np.array([v for v in values if v is not None]) for values in (generated, floor))
    if len(g) == 0 or len(r) == 0:
        nothing = dict.fromkeys(("generated", "generated_range", "floor", "floor_range", "worse_than_floor"))
        return row | nothing | {"note": "too few images for this many features; the number would say nothing"}
    worse = g > r if DIRECTIONS[metric] == "lower" else g < r
    row |= {"generated": float(g.mean()), "generated_range": [float(g.min()), float(g.max())]}
    row |= {"floor": float(r.mean()), "floor_range": [float(r.min()), float(r.max())]}
    return row | {"worse_than_floor": float(worse.mean()), "note": ""}


def outlined(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows as text, for a table of `COLUMNS`."""

    def text(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, list):
            return " .. ".join(text(v) for v in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return [{name: text(row.get(name)) for name in COLUMNS} for row in found["rows"]]
