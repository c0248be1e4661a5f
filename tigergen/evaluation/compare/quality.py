"""How good a method's images are, class by class: distances to real images nobody trained on, likeness, diversity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigergen.evaluation.adherence import PAIRS, donor_likeness
from tigergen.evaluation.classifier import Part
from tigergen.evaluation.compare.folds import Data
from tigergen.evaluation.compare.made import Made
from tigergen.evaluation.dual_encoder import DualEncoder, too_few
from tigergen.evaluation.dual_scores import scores
from tigergen.evaluation.evaluate import LIMIT, distance_row, tell_apart
from tigergen.evaluation.extractors import Extractor, texture
from tigergen.evaluation.features import EXTRACTOR
from tigergen.evaluation.metric_images import ssim

FIELDS = ("frechet", "kernel", "density", "coverage")
# How many images each of these is of; the distances have `n`.
COUNTS = ("clip_n", "clip_real_n", "cmmd_n", "gradient_n")


def measure(data: Data, made: Sequence[Made], encoder: DualEncoder | None) -> dict[str, Any]:
    """Figures of each class, mean over generator seeds, each beside the floor that real images give.

    Real images to compare with are those of val and test; `known` ones, for the floor, those of train and pool. All
    sets of a class have one size. `ssim` is the mean over pairs of a generated and a held-out image of the class
    (floor: a known one and a held-out one); `diversity` is 1 - the mean SSIM of pairs of generated images (floor: of
    known ones). Texture features need no weights; distances on them react strongly, so read them beside the floor.
    `clip` (CLIP score, cosine x 100; floor: prompts of others; `real`: held-out images with theirs) and `cmmd` are of
    the fold's dual encoder (`dual_scores.scores`), `gradient` is of pairs with the donors (`adherence.donor_likeness`).

    Returns: extractor, weights_sha256, dual_encoder (what it is, its figures and the phrases it does not know, or why
    it is left out), rows (label, n and `COUNTS`, generated and floor: dicts of `FIELDS`, ssim, diversity, told_apart,
    clip, cmmd, gradient; real: dict of clip).
    """
    ruler = texture(data.train.images)
    held, known = (_joined(data, parts) for parts in (("val", "test"), ("train", "pool")))
    asked = [text for part in ("val", "test") for text in data.fg[part]]
    rows = []
    for number, label in enumerate(data.classes):
        found = []
        for seed, one in enumerate(made):
            row = _row(label, number, ruler, held, known, one.part, seed)
            found.append(_added(row, number, data, held, asked, one, encoder, seed))
        rows.append(_mean(label, found))
    about: dict[str, Any] = {"left_out": too_few(data.train.fg)}
    if encoder is not None:
        about = {**encoder.about(), "figures": encoder.figures}
        about["unknown_phrases"] = encoder.unknown([*asked, *(text for one in made for text in one.fg)])
    return {"extractor": EXTRACTOR, "weights_sha256": ruler.weights_sha256, "dual_encoder": about, "rows": rows}


def _joined(data: Data, names: Sequence[str]) -> Part:
    parts = [data.parts[name] for name in names if name in data.parts]
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


def _row(label: str, number: int, ruler: Extractor, held: Part, known: Part, made: Part, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, number, 7])
    own = {name: _own(part, number, rng) for name, part in (("generated", made), ("held", held), ("known", known))}
    vectors = {name: np.asarray(ruler.vectors(images), np.float64) for name, images in own.items()}
    groups = {name: np.array([label] * len(images)) for name, images in own.items()}
    row = distance_row(label, vectors, groups, rng)
    apart = tell_apart(label, vectors, groups, rng)
    out: dict[str, Any] = {"n": row["n"]}
    for side, name in (("generated", "generated"), ("floor", "known")):
        figures: dict[str, float | None] = dict(row[side] or dict.fromkeys(FIELDS))
        figures["ssim"] = _likeness(own[name], own["held"], rng)
        within = _likeness(own[name], own[name], rng, apart=True)
        figures["diversity"] = None if within is None else 1 - within
        figures["told_apart"] = apart.get(side)
        out[side] = figures
    return out


def _added(
    row: dict[str, Any],
    number: int,
    data: Data,
    held: Part,
    asked: Sequence[str],
    made: Made,
    encoder: DualEncoder | None,
    seed: int,
) -> dict[str, Any]:
    """The row with what needs the prompts, the encoder or the donors."""
    rng = np.random.default_rng([seed, number, 8])
    own = np.sort(rng.permutation(np.flatnonzero(made.part.y == number))[:LIMIT]).tolist()
    place = {image_id: n for n, image_id in enumerate(data.train.image_ids)}
    likeness = donor_likeness(made.part.images[own], [place[made.donors[n]] for n in own], data.train, rng)
    out = {**row, **dict.fromkeys(COUNTS, 0), "gradient_n": likeness["n"], "real": {"clip": None}}
    sides: dict[str, dict[str, float | None]] = {
        side: {"clip": None, "cmmd": None, "gradient": likeness[side]} for side in ("generated", "floor")
    }
    if encoder is not None:
        other = np.flatnonzero(held.y == number).tolist()
        found = scores(
            encoder, made.part.images[own], [made.fg[n] for n in own], held.images[other], [asked[n] for n in other],
            [held.patients[n] for n in other], seed,
        )  # fmt: skip
        words, apart = found["clip_score"], found["cmmd"]
        out |= {"clip_n": words["n"], "clip_real_n": words["n_real"], "cmmd_n": apart["n"]}
        out["real"] = {"clip": words["real"] and words["real"]["cosine_100"]}
        for side, figures in sides.items():
            figures |= {"clip": words[side] and words[side]["cosine_100"], "cmmd": apart[side]}
    return out | {side: {**row[side], **figures} for side, figures in sides.items()}


def _own(part: Part, number: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    rows = np.flatnonzero(part.y == number)
    return part.images[np.sort(rng.permutation(rows)[:LIMIT])]


def _likeness(
    a: NDArray[np.uint8], b: NDArray[np.uint8], rng: np.random.Generator, apart: bool = False
) -> float | None:
    """Mean SSIM of random pairs; `apart`: of two different images of one set. None where there is no pair."""
    if min(len(a), len(b)) < 1 + apart or a.shape[1] < 11:
        return None
    first = rng.integers(len(a), size=PAIRS)
    second = (first + rng.integers(1, len(b), size=PAIRS)) % len(b) if apart else rng.integers(len(b), size=PAIRS)
    return float(np.mean([ssim(a[i], b[j]) for i, j in zip(first, second, strict=True)]))


def _mean(label: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over generator seeds; None where any is missing."""
    out: dict[str, Any] = {"label": label, **{name: min(row[name] for row in found) for name in ("n", *COUNTS)}}
    for side in ("generated", "floor", "real"):
        out[side] = {}
        for name in found[0][side]:
            values = [row[side][name] for row in found]
            out[side][name] = None if any(v is None for v in values) else float(np.mean(values))
    return out
