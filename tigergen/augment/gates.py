"""Gates: what a generated image must pass before it may enter a data set. Each gate gives a score and a reason."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigergen.augment.copies import CopyIndex, Images, inside_correlation


class Judge(Protocol):
    """Reads attributes off images: attribute -> (values, probabilities [N, V]); `view` says what it can be asked."""

    view: str

    def predict(self, images: Images) -> dict[str, tuple[list[str], NDArray[np.floating[Any]]]]: ...


class Segmenter(Protocol):
    """Finds nodules: masks bool [N, H, W] and scores [N]."""

    def predict(self, images: Images) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]: ...


@dataclass(frozen=True)
class GateSettings:
    """Thresholds. A minimum of None switches that gate off; its score is still recorded when the judge is there.

    copy_quantile: share of real held-out images that must stay below the copy threshold.
    copy_ceiling: the threshold is never higher. Real collections hold the same frame under two patients; measured on
        such pairs, the threshold would let every copy through.
    donor: correlation with the donor's patient above which even a conditioned image is a copy; the donor's layout is
        asked for, so it is higher than the measured threshold of everybody else.
    inside: correlation of the nodule's texture with the donor's nodule.
    keep_all: reject nothing, record the scores alone: to look at a model that has hardly learned.
    """

    copy_quantile: float = 0.98
    copy_ceiling: float = 0.95
    donor: float = 0.95
    inside: float = 0.9
    duplicate: float = 0.995
    attribute_minimum: float | None = None
    mask_minimum: float | None = None
    keep_all: bool = False


@dataclass(frozen=True)
class Limits:
    """Range of mean, standard deviation and share of white pixels, taken from real training images and widened."""

    mean: tuple[float, float]
    sd_low: float
    white_high: float

    @classmethod
    def fit(cls, real: Images) -> "Limits":
        """Half the 1st and 1.5 times the 99th percentile of the real images [N, s, s]."""
        means, sds = real.mean((1, 2)), real.std((1, 2))
        white = (real == 255).mean((1, 2))
        low, high = np.percentile(means, (1, 99))
        top = max(0.05, 2.0 * float(np.percentile(white, 99)))
        return cls((float(low) / 2, min(250.0, float(high) * 1.5)), float(np.percentile(sds, 1)) / 2, top)

    def reason(self, image: NDArray[Any]) -> str | None:
        """Why an image is technically broken, or None."""
        if not np.isfinite(image).all():
            return "technical: not a number"
        if float(image.std()) < max(1.0, self.sd_low):
            return "technical: constant or without contrast"
        if float((image >= 255).mean()) > self.white_high:
            return "technical: clipped"
        mean = float(image.mean())
        if not self.mean[0] <= mean <= self.mean[1]:
            return "technical: too dark" if mean < self.mean[0] else "technical: too bright"
        return None


@dataclass(frozen=True)
class Verdict:
    """Scores of one image and the first reason to reject it; None is a pass."""

    scores: dict[str, Any]
    reason: str | None


@dataclass
class Gates:
    """All gates, fitted to real images; `judge` and `segmenter` add scores, and gates where a minimum is set."""

    settings: GateSettings
    limits: Limits
    index: CopyIndex
    copy_threshold: float
    judge: Judge | None = None
    segmenter: Segmenter | None = None

    @classmethod
    def fit(
        cls,
        train: Images,
        ids: Sequence[str],
        patients: Sequence[str],
        held_out: Images,
        settings: GateSettings | None = None,
        judge: Judge | None = None,
        segmenter: Segmenter | None = None,
    ) -> "Gates":
        """Fit to real training images uint8 [N, s, s] and to real images of other patients [M, s, s].

        Raises:
            UserError: no training image, or a minimum is set without the judge or segmenter it needs.
        """
        settings = settings or GateSettings()
        if len(train) < 2:
            raise UserError(f"the gates need real training images and found {len(train)}; split the workspace first.")
        if settings.attribute_minimum is not None and judge is None:
            raise UserError("the attribute gate is on but no judge is given; train one or switch the gate off.")
        if settings.mask_minimum is not None and segmenter is None:
            raise UserError("the mask gate is on but no segmenter is given; give one or switch the gate off.")
        index = CopyIndex(train, list(ids), list(patients))
        # Without held-out images nothing can be measured; the ceiling is then the stated fixed threshold.
        measured = index.threshold(held_out, settings.copy_quantile) if len(held_out) else 1.0
        threshold = min(measured, settings.copy_ceiling)
        return cls(settings, Limits.fit(train), index, threshold, judge, segmenter)

    def thresholds(self) -> dict[str, Any]:
        """What the run used, for the manifest's settings and the report."""
        return {**asdict(self.settings), "copy": round(self.copy_threshold, 4), "technical": asdict(self.limits)}

    def check(
        self,
        images: NDArray[np.generic],
        donors: Sequence[str],
        masks: NDArray[np.generic],
        attributes: Sequence[dict[str, list[str]]],
    ) -> list[Verdict]:
        """Judge a batch [B, s, s] with the donor id, asked mask and asked attributes of each image."""
        finite = np.nan_to_num(np.asarray(images, dtype=np.float64), nan=0.0, posinf=255.0, neginf=0.0)
        pixels = np.clip(np.rint(finite), 0, 255).astype(np.uint8)
        similar = self.index.similarity(pixels)
        agreement = self._agreement(pixels, attributes)
        overlap = self._overlap(pixels, masks)
        out = []
        for n, image in enumerate(pixels):
            scores = self._copy_scores(image, similar[n], donors[n], masks[n])
            scores |= {"attributes": agreement[n]} if agreement else {}
            scores |= {"mask": overlap[n]} if overlap else {}
            reason = self.limits.reason(images[n]) or self._reason(scores)
            out.append(Verdict(scores, None if self.settings.keep_all else reason))
        return out

    def _copy_scores(
        self, image: Images, similar: NDArray[np.float32], donor: str, mask: NDArray[np.generic]
    ) -> dict[str, Any]:
        family = self.index.relatives(donor)
        others = np.where(family, -1.0, similar)
        nearest = int(others.argmax())
        scores: dict[str, Any] = {
            "exact": self.index.exact(image),
            "nearest": round(float(others[nearest]), 4),
            "nearest_id": self.index.ids[nearest],
        }
        if family.any():
            scores["donor"] = round(self.index.closest(image, family), 4)
            scores["inside"] = round(inside_correlation(image, self.index.image(donor), mask), 4)
        return scores

    def _reason(self, scores: dict[str, Any]) -> str | None:
        s = self.settings
        if scores["exact"] is not None:
            return "copy: the pixels of a real image"
        if scores["nearest"] > self.copy_threshold:
            return "copy: too near to a real image"
        if scores.get("donor", 0.0) >= max(s.donor, self.copy_threshold):
            return "copy: too near to its donor"
        if scores.get("inside", 0.0) >= s.inside:
            return "copy: the nodule of its donor"
        if s.attribute_minimum is not None and scores["attributes"] < s.attribute_minimum:
            return "attributes: not what the prompt says"
        if s.mask_minimum is not None and scores["mask"] < s.mask_minimum:
            return "mask: nodule not where it was asked"
        return None

    def _agreement(self, images: Images, attributes: Sequence[dict[str, list[str]]]) -> list[float]:
        """Share of the asked attributes that the judge sees, an image."""
        if self.judge is None:
            return []
        from tigergen.evaluation.judge import visible

        seen = self.judge.predict(images)
        out = []
        for n, row in enumerate(attributes):
            asked = {a: v for a, v in visible(row, self.judge.view).items() if a in seen}
            hits = [seen[a][0][int(np.argmax(seen[a][1][n]))] == v for a, v in asked.items()]
            out.append(round(float(np.mean(hits)), 4) if hits else 1.0)
        return out

    def _overlap(self, images: Images, masks: NDArray[np.generic]) -> list[float]:
        if self.segmenter is None:
            return []
        found, _ = self.segmenter.predict(images)
        both = (found & masks.astype(bool)).sum((1, 2))
        total = found.sum((1, 2)) + masks.astype(bool).sum((1, 2))
        return [round(float(v), 4) for v in 2.0 * both / np.maximum(total, 1)]
