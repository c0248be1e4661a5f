"""Realism: how far an image lies from the real images of its class, in the space of texture features.

The Mahalanobis distance with one covariance for all classes (Lee et al. 2018), Ledoit and Wolf's shrinkage estimate of
it, on the features of `tigergen.evaluation.features`. It sees noise, flat areas and foreign textures; whether the
anatomy makes sense it does not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigergen.augment.measured import LEAST, MOST, Threshold, evenly, highest, left_out
from tigergen.data import Cases
from tigergen.evaluation.features import TextureSpace

Images = NDArray[np.uint8]
Vectors = NDArray[np.float64]
# A class of fewer training images than this is measured from the centre of all: its own would be off by chance.
CENTRE = 30


@dataclass(frozen=True)
class Realism:
    """Real training images in texture space: `vectors` [N, 52], the centre of each class, the inverse covariance."""

    space: TextureSpace
    vectors: Vectors
    centres: dict[str, Vectors]
    middle: Vectors
    precision: Vectors

    @classmethod
    def fit(cls, images: Images, labels: Sequence[str]) -> "Realism":
        """Learn from real training images uint8 [N, s, s] and their classes."""
        space = TextureSpace.fit(images)
        return cls._of(space, space(images), np.array(labels, dtype=object))

    @classmethod
    def _of(cls, space: TextureSpace, vectors: Vectors, labels: NDArray[Any]) -> "Realism":
        from sklearn.covariance import ledoit_wolf

        middle = vectors.mean(0)
        big = [str(label) for label in np.unique(labels) if (labels == label).sum() >= CENTRE]
        centres = {label: vectors[labels == label].mean(0) for label in big}
        around = np.stack([v - centres.get(str(label), middle) for v, label in zip(vectors, labels, strict=True)])
        covariance, _ = ledoit_wolf(around, assume_centered=True)
        # A set without any spread (a single frame again and again) has no inverse; a little of the scale is added.
        covariance += 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-6) * np.eye(len(covariance))
        return cls(space, vectors, centres, middle, np.linalg.inv(covariance))

    def distance(self, vector: Vectors, label: str) -> float:
        """Mahalanobis distance of one texture vector [52] from the centre of a class."""
        apart = vector - self.centres.get(label, self.middle)
        return float(np.sqrt(max(0.0, float(apart @ self.precision @ apart))))

    def nearest(self, vector: Vectors, skip: NDArray[np.bool_]) -> float:
        """Euclidean distance from the nearest training image that `skip` [N] leaves in; infinite without any."""
        squared = ((self.vectors - vector) ** 2).sum(1)
        return float(np.sqrt(np.where(skip, np.inf, squared).min()))

    def thresholds(self, train: Cases, held_out: Cases | None, quantile: float) -> dict[str, Threshold]:
        """Threshold of each class of the training cases: of its own held-out images where at least two of them lie
        beyond it, else of all classes together, each image measured from its own class.

        Where fewer than 50 images are held out, training images join, a quarter of the patients left out in turn.
        """
        labels: list[str] = []
        distances: list[float] = []
        for n in evenly(len(held_out), MOST) if held_out is not None else []:
            labels.append(held_out.labels[n])  # type: ignore[union-attr]
            distances.append(self.distance(self.space(held_out.images[n : n + 1])[0], labels[-1]))  # type: ignore[union-attr]
        own = np.array(train.labels, dtype=object)
        what = "real held-out images"
        if len(distances) < 50:
            what = "real images, held out or left out by patient"
            for part in left_out(train.patient_ids):
                if (~part).sum() < 2:
                    continue
                others = Realism._of(self.space, self.vectors[~part], own[~part])
                for n in np.flatnonzero(part)[evenly(int(part.sum()), LEAST)]:
                    labels.append(train.labels[n])
                    distances.append(others.distance(self.vectors[n], labels[-1]))
        pooled = highest(distances, quantile, f"{what} of all classes")
        found = {}
        for label in sorted(set(train.labels)):
            mine = [d for d, name in zip(distances, labels, strict=True) if name == label]
            enough = (1 - quantile) * len(mine) >= 2
            found[label] = highest(mine, quantile, f"{what} of its class") if enough else pooled
        return found
