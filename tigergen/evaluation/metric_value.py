"""What single training images are worth to a classifier: MoSo scores from per-image gradients."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from tigergen.evaluation.metric_sets import Array, MetricError, feature_matrix, feature_sets


def moso(gradients: Iterable[ArrayLike], rates: Sequence[float]) -> Array:
    """Moving-one-sample-out scores [N]: by how much the others' loss would rise had the image not been trained on.

    MoSo(z_i) = sum_t (eta_t / N) grad L(S without z_i, w_t) . grad l(z_i, w_t) over the checkpoints w_t, that is
    T/N eta_t (...) averaged over them (Tan et al. 2023, "Data Pruning via Moving-one-Sample-out", first-order
    estimator); grad L(S without z_i) = (sum_j g_j - g_i) / (N - 1). Higher: the image teaches what the others need;
    below 0: it pulls against them (a wrong label, an unlike image). In units of the loss. It ranks the use to this
    classifier, not realism; compare within a class, or standardise by class before a threshold. Half of the scores of
    a useless set are above 0: show the real images' scores beside it.

    Args:
        gradients: one array [N, P] a checkpoint: the gradient of each training image's own loss by P parameters, the
            same images in the same order (`linear_head_gradients` makes them of the last layer). An iterator is read
            one checkpoint at a time.
        rates: learning rate at each checkpoint.
    Raises:
        MetricError: NaN, no checkpoint, another number of rates or of images, fewer than two images.

    >>> moso([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]], rates=[0.3]).round(3).tolist()
    [0.0, 0.0, -0.1]
    """
    scores: Array | None = None
    left = list(rates)
    for step, checkpoint in enumerate(gradients):
        (g,) = feature_sets(gradients=checkpoint)
        if step >= len(left) or len(g) < 2 or (scores is not None and len(scores) != len(g)):
            raise MetricError(
                f"checkpoint {step} has {len(g)} images and there are {len(left)} learning rates; each needs its "
                "rate and the same two or more images."
            )
        others = (g.sum(0) - g) / (len(g) - 1)
        gain = left[step] / len(g) * (others * g).sum(1)
        scores = gain if scores is None else scores + gain
    if scores is None or step + 1 != len(left):
        raise MetricError(f"{len(left)} learning rates do not go with the checkpoints given.")
    return scores


def linear_head_gradients(features: ArrayLike, probabilities: ArrayLike, labels: ArrayLike) -> Array:
    """Gradient [N, C (d + 1)] of each image's cross-entropy by weights and bias of a linear last layer.

    (p - onehot(y)) x (h, 1): all that `moso` needs of a classifier of which only the last layer is looked at, without a
    backward pass.

    Args: features h [N, d] that enter the layer; probabilities p [N, C] after the softmax; labels [N] of 0..C-1.
    Raises:
        MetricError: NaN, shapes that do not pair, labels outside 0..C-1.

    >>> linear_head_gradients([[2.0]], [[0.25, 0.75]], [1]).tolist()
    [[0.5, 0.25, -0.5, -0.25]]
    """
    h, p, y = feature_matrix(features, "the features"), feature_matrix(probabilities, "the output"), np.asarray(labels)
    if not len(h) == len(p) == len(y) or y.ndim != 1 or not np.isin(y, np.arange(p.shape[1])).all():
        raise MetricError(
            f"{len(h)} features, {len(p)} outputs of {p.shape[1]} classes and {len(y)} labels do not fit."
        )
    error = p.astype(np.float64)
    error[np.arange(len(y)), y.astype(int)] -= 1.0
    extended = np.concatenate([h, np.ones((len(h), 1))], axis=1)
    return (error[:, :, None] * extended[:, None, :]).reshape(len(h), -1)
