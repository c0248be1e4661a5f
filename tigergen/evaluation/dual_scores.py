"""What a dual encoder says of generated images: do they show their prompt (CLIP score), do they lie where real ones do.

Both stand beside what they would be by chance. The encoder must not have seen the real images that it is asked about:
those of val and test, where it was trained on train.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigergen.evaluation.dual_encoder import DualEncoder, Images, Vectors, said
from tigergen.evaluation.image_sets import LEAST, halves
from tigergen.evaluation.metric_sets import cmmd
from tigergen.evaluation.metric_words import clip_score

DRAWS = 10


def scores(
    encoder: DualEncoder,
    images: Images,
    asked: Sequence[str],
    real: Images,
    real_prompts: Sequence[str],
    patients: Sequence[str],
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """`words` and `distance` of generated images with the FG prompts asked, against unseen real ones with theirs."""
    made, held = encoder.image_vectors(images), encoder.image_vectors(real)
    return {
        "clip_score": words(encoder, made, asked, held, real_prompts, seed),
        "cmmd": distance(made, held, patients, seed),
    }


def words(
    encoder: DualEncoder, made: Vectors, asked: Sequence[str], held: Vectors, real_prompts: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """CLIP score (`metric_words.clip_score`) of image vectors [N, d] with the FG prompts that were asked for.

    `real`: that of held-out real images with theirs, the most that this encoder gives; `floor`: that of the same
    generated images with prompts of other ones that say something else, ten draws each, which it gives for nothing.
    Prompts of which no phrase is known are left out. Without a floor (one prompt only) there is no number.

    Returns: n, n_real, prompts (different ones asked), generated, real, floor (None or cosine_100 and hessel).
    """
    rows, others = np.flatnonzero(encoder.known(asked)), np.flatnonzero(encoder.known(real_prompts))
    kept = [asked[n] for n in rows.tolist()]
    out: dict[str, Any] = {"n": len(rows), "n_real": len(others), "prompts": len({said(prompt) for prompt in kept})}
    out |= dict.fromkeys(("generated", "real", "floor"))
    first, second = shuffled(kept, np.random.default_rng([seed, 11]))
    if len(rows) < LEAST or len(first) == 0:
        return out
    texts = encoder.text_vectors(kept)
    out |= {"generated": clip_score(made[rows], texts), "floor": clip_score(made[rows][first], texts[second])}
    if len(others) >= LEAST:
        out["real"] = clip_score(held[others], encoder.text_vectors([real_prompts[n] for n in others.tolist()]))
    return out


def shuffled(
    prompts: Sequence[str], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of images and of prompts [N draws] that do not belong together: each image with `draws` prompts of
    others that say something else. Images for which there is none are left out."""
    place: dict[frozenset[str], int] = {}
    keys = np.array([place.setdefault(said(prompt), len(place)) for prompt in prompts], np.intp)
    first, second = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for key in range(len(place)):
        own, other = np.flatnonzero(keys == key), np.flatnonzero(keys != key)
        if len(other):
            first.append(np.repeat(own, draws))
            second.append(rng.choice(other, len(own) * draws))
    return np.concatenate(first), np.concatenate(second)


def distance(made: Vectors, held: Vectors, patients: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Gaussian-kernel MMD of CMMD (`metric_sets.cmmd`, unbiased) on this encoder's unit vectors [N, d], and its floor.

    The held-out real images are split into halves by patient, ten times; generated images and one half are each
    compared with the other half, all at one N. Training images make no floor here: the encoder knows them by heart.

    Returns: n (smallest over the draws), generated, floor; None where a half has fewer than ten.
    """
    rng = np.random.default_rng([seed, 12])
    found: list[tuple[int, float, float]] = []
    for _ in range(DRAWS):
        parts = halves(np.asarray(patients), rng)
        n = min(*map(len, parts), len(made))
        if n < LEAST:
            return {"n": n, "generated": None, "floor": None}
        a, b = (held[rng.permutation(part)[:n]] for part in parts)
        own = made[rng.permutation(len(made))[:n]]
        found.append((n, cmmd(a, own)["unbiased"], cmmd(a, b)["unbiased"]))
    sizes, generated, floor = zip(*found, strict=True)
    return {"n": min(sizes), "generated": float(np.mean(generated)), "floor": float(np.mean(floor))}
