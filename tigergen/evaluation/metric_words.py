"""Metrics on the outputs of a classifier or of a dual encoder of images and texts."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from tigergen.evaluation.metric_sets import MetricError, feature_sets


def inception_score(logits: ArrayLike, splits: int = 10, seed: int = 2020) -> dict[str, float]:
    """exp of the mean divergence of a classifier's verdict on an image from its mean verdict; higher is held better.

    exp(mean_i KL(p(y | x_i) || mean_i p(y | x_i))) on each of `splits` parts of the shuffled rows, their mean and
    population SD (Salimans et al. 2016; order of torch-fidelity, whose seed 2020 is). 1 .. number of classes.

    Off by default in `tigergen evaluate`: it is defined on the classes of ImageNet, among which an ultrasound frame has
    no place; it never looks at a real image; it is blind to copies and to modes missing within a class; and it depends
    on `splits` and the order. It is here to set a number beside that of the paper, on logits of a classifier you name.

    Args: logits [N, classes], before the softmax.
    Raises:
        MetricError: NaN, fewer rows than splits, one class.

    >>> round(inception_score(np.eye(4).repeat(5, 0) * 99, splits=1)["mean"], 6)
    4.0
    """
    (z,) = feature_sets(logits=logits)
    if splits < 1 or len(z) < splits or z.shape[1] < 2:
        raise MetricError(f"logits of shape {z.shape} cannot be scored in {splits} parts of rows.")
    # The legacy generator: its permutation is part of the definition that others use.
    log_p = log_softmax(z[np.random.RandomState(seed).permutation(len(z))], axis=1)
    edges = [i * len(z) // splits for i in range(splits + 1)]
    scores = []
    for i, j in zip(edges, edges[1:], strict=False):
        p = np.exp(log_p[i:j])
        scores.append(np.exp((p * (log_p[i:j] - np.log(p.mean(0)))).sum(1).mean()))
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores))}


def clip_score(image_vectors: ArrayLike, text_vectors: ArrayLike) -> dict[str, float]:
    """Agreement of images with their texts by the cosine of a dual encoder, in two usual scalings; higher is better.

    cosine_100 = max(100 mean cos, 0) (torchmetrics); hessel = mean of 2.5 max(cos, 0) (Hessel et al. 2021, eq. 1).
    Row i of the images belongs to row i of the texts. Values of different encoders cannot be compared: CLIP reads at
    most 77 tokens and no Chinese, so use an encoder trained on such pairs and show the real images' own score beside
    it.

    Args: image_vectors, text_vectors [N, d], of any length.
    Raises:
        MetricError: NaN, shapes that do not pair, no row, or a vector of length 0.

    >>> clip_score([[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, -3.0]])
    {'cosine_100': 0.0, 'hessel': 1.25}
    """
    a, b = feature_sets(image=image_vectors, text=text_vectors)
    if len(a) != len(b) or len(a) == 0:
        raise MetricError(f"{len(a)} image vectors and {len(b)} text vectors do not pair up.")
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (norm > 0).all():
        raise MetricError("a vector of length 0 has no direction; the encoder gave nothing for this image or text.")
    cosine = (a * b).sum(1) / norm
    return {"cosine_100": max(100.0 * float(cosine.mean()), 0.0), "hessel": float(2.5 * np.maximum(cosine, 0.0).mean())}
