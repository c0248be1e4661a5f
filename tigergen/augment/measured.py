"""Thresholds of the gates, each measured on real images of other patients and kept with the rule that gave it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# More images move a threshold less than the choice of patients does; fewer leave a high quantile to the one extreme.
MOST, LEAST = 400, 200
# What an image is rejected for, by the score of the manifest that says so.
REASONS = {
    "exact": "copy: the pixels of a real image",
    "nearest": "copy: too near to a real image",
    "hash": "copy: the perceptual hash of a real image",
    "texture": "copy: the texture of a real image",
    "donor": "copy: too near to its donor",
    "inside": "copy: the nodule of its donor",
    "donor and inside": "copy: layout and nodule of its donor",
    "realism": "realism: unlike the real images of its class",
    "attributes": "attributes: not what the prompt says",
    "mask": "mask: nodule not where it was asked",
}


@dataclass(frozen=True)
class Threshold:
    """What an image is rejected for: a score above `value`, or below it where `above` is False.

    value: None switches the gate off, its score is still recorded; rule: how it was found, in words, for people.
    n: real images that it was measured on, 0 where it is a fixed number.
    """

    value: float | None
    above: bool
    rule: str
    n: int = 0

    def rejects(self, score: float | None) -> bool:
        """Whether this score fails; a score that could not be taken does not."""
        if self.value is None or score is None:
            return False
        return score > self.value if self.above else score < self.value


def highest(scores: Sequence[float], quantile: float, what: str, ceiling: float | None = None) -> Threshold:
    """The score that 1 - `quantile` of the real images exceed, at most `ceiling`."""
    if not len(scores):
        return Threshold(ceiling, True, f"fixed: there are no {what}" if ceiling else f"not measured: no {what}")
    value, rule = float(np.quantile(scores, quantile)), f"exceeded by {1 - quantile:.1%} of {len(scores)} {what}"
    if ceiling is not None and value > ceiling:
        value, rule = ceiling, f"fixed: what is {rule} is even higher"
    return Threshold(round(value, 4), True, rule, len(scores))


def lowest(scores: Sequence[float | None], quantile: float, what: str, ceiling: float | None = None) -> Threshold:
    """The score that all but `quantile` of the real images reach, one of their scores, at most `ceiling`.

    Images whose score could not be taken (None) do not count.
    """
    known = [s for s in scores if s is not None]
    if not known:
        return Threshold(None, False, f"not measured: no {what}")
    value = float(np.quantile(known, quantile, method="lower"))
    rule = f"reached by all but {quantile:.1%} of {len(known)} {what}"
    if ceiling is not None and value > ceiling:
        value, rule = ceiling, f"fixed: what is {rule} is even higher"
    return Threshold(round(value, 4), False, rule, len(known))


def evenly(n: int, most: int = MOST) -> NDArray[np.intp]:
    """Numbers of at most `most` of n images, evenly spaced: files of one patient lie side by side."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp)) if n else np.zeros(0, np.intp)


def left_out(patients: Sequence[str], parts: int = 4) -> list[NDArray[np.bool_]]:
    """Training images in `parts` groups of whole patients: each is measured against the others, as if held out."""
    names = {patient: k % parts for k, patient in enumerate(sorted(set(patients)))}
    part = np.array([names[p] for p in patients])
    return [part == k for k in range(parts) if (part == k).any() and (part != k).any()]
