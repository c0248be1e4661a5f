"""Does a generated image follow what was asked: nodule mask, edge map of the background, attributes of the prompt."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tigergen.evaluation.metric_classify import wilson
from tigergen.evaluation.metric_images import dice, gradient_similarity, pearson

if TYPE_CHECKING:
    from tigergen.data import Cases

Images = NDArray[np.uint8]
# Pairs that a mean over pairs is taken of; all of a run at 512 px would take minutes.
PAIRS = 200


def sobel_correlation(images: Images, masks: NDArray[np.generic], asked: Images) -> NDArray[np.float64]:
    """Pearson correlation [N] of the edge map asked for and that of the image, outside the blanked nodule.

    images, asked: uint8 [N, s, s]; masks [N, s, s]. The map of the image is made by `tigerdata.conditions.build`, as
    in training; NaN where a map is constant, which says nothing.
    """
    from tigerdata.conditions import build, dilate

    out = np.full(len(images), np.nan)
    for n, (image, mask, edges) in enumerate(zip(images, masks, asked, strict=True)):
        nodule = mask.astype(bool)
        got = build(image, nodule, image.shape[0]).sobel
        outside = ~dilate(nodule, 2)
        if got[outside].std() > 0 and edges[outside].std() > 0:
            out[n] = pearson(got, edges, where=outside)
    return out


def mask_dice(segmenter: Any, images: Images, masks: NDArray[np.generic]) -> NDArray[np.float64]:
    """Dice [N] of the nodule that a segmenter finds and the mask asked for."""
    found, _ = segmenter.predict(images)
    return np.array([dice(a, b) for a, b in zip(found, masks, strict=True)])


def donor_likeness(images: Images, donors: Sequence[int], train: "Cases", rng: np.random.Generator) -> dict[str, Any]:
    """Gradient similarity of generated images uint8 [N, s, s] and the donor frames whose layout they were given.

    `donors`: their positions in `train`. `floor`: of the same donors and another patient's real training image of the
    same plane, drawn anew for each. At most `PAIRS` images; those whose plane no other patient has are left out.
    Near the floor the layout is not kept (or was never told); near 1 the image may be a copy of its donor.

    Returns: n, generated, floor (None where there is no pair).
    """
    planes = [tuple(a.get("sonogram_direction", ())) for a in train.attributes]
    of_plane = {plane: [k for k, other in enumerate(planes) if other == plane] for plane in set(planes)}
    own, floor = [], []
    for n in rng.permutation(len(images))[:PAIRS]:
        donor = donors[int(n)]
        others = [k for k in of_plane[planes[donor]] if train.patient_ids[k] != train.patient_ids[donor]]
        if others:
            own.append(gradient_similarity(images[n], train.images[donor]))
            floor.append(gradient_similarity(train.images[others[int(rng.integers(len(others)))]], train.images[donor]))
    if not own:
        return {"n": 0, "generated": None, "floor": None}
    return {"n": len(own), "generated": float(np.mean(own)), "floor": float(np.mean(floor))}


def watcher(segmenter: Any = None, judge: Any = None) -> Callable[[Images, "Cases"], dict[str, float]] | None:
    """What training shows of images uint8 [N, s, s] beside the grid: means over the cases that they are to follow.

    "mask IoU" of the nodule that the segmenter finds and the mask asked for, "attributes": agreement of the judge with
    the attributes asked for, mean over them. What is not given is left out; None when nothing is.
    """
    if segmenter is None and judge is None:
        return None

    def figures(images: Images, cases: "Cases") -> dict[str, float]:
        out = {}
        if segmenter is not None:
            overlap = mask_dice(segmenter, images, cases.masks)
            out["mask IoU"] = float(np.mean(overlap / (2 - overlap)))
        if judge is not None:
            from tigergen.evaluation.judge import agreement

            shares = agreement(judge, images, cases.attributes)
            out["attributes"] = float(np.mean(list(shares.values()))) if shares else float("nan")
        return out

    return figures


def attribute_table(
    judge: Any,
    generated: Images,
    asked: Sequence[dict[str, list[str]]],
    real: Images,
    said: Sequence[dict[str, list[str]]],
) -> list[dict[str, Any]]:
    """Agreement of the judge with the prompt on generated images and on real ones, and their ratio, an attribute.

    The judge's own errors are in both columns; the ratio is what the generator loses.
    """
    from tigergen.evaluation.judge import hits_by_attribute

    made, true = hits_by_attribute(judge, generated, asked), hits_by_attribute(judge, real, said)
    out = []
    for name in sorted(set(made) & set(true)):
        a, b = made[name], true[name]
        if len(a) == 0 or len(b) == 0:
            continue
        row = {
            "attribute": name,
            "generated": float(a.mean()),
            "n_generated": len(a),
            "generated_ci": wilson(int(a.sum()), len(a)),
        }
        row |= {"real": float(b.mean()), "n_real": len(b), "real_ci": wilson(int(b.sum()), len(b))}
        out.append(row | {"ratio": float(a.mean() / b.mean()) if b.any() else None})
    return out
