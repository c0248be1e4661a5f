"""Gates: what a generated image must pass before it may enter a data set. Each gate gives a score and a reason.

Every threshold is measured on real images (`augment.measured`): real held-out images pass at a stated rate.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigergen.augment.copies import CopyIndex, Images, Views, inside_correlation
from tigergen.augment.measured import LEAST, MOST, REASONS, Threshold, evenly, highest, lowest
from tigergen.augment.realism import Realism
from tigergen.data import Cases

OTHERS = "real images of other patients"


class Judge(Protocol):
    """Reads attributes off images: attribute -> (values, probabilities [N, V]); `view` says what it can be asked."""

    view: str

    def predict(self, images: Images) -> dict[str, tuple[list[str], NDArray[np.floating[Any]]]]: ...


class Segmenter(Protocol):
    """Finds nodules: masks bool [N, H, W] and scores [N]."""

    def predict(self, images: Images) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]: ...


# Gates that a run can go without, and the share of real images that switches each off when it is None.
OPTIONAL = {"realism": "realism_quantile", "attributes": "attribute_quantile", "mask": "mask_quantile"}


@dataclass(frozen=True)
class GateSettings:
    """How the thresholds are found. None switches a gate off; its score is still recorded.

    copy_quantile: share of real images of other patients whose correlation with their nearest training image stays
        below the copy threshold; hash_quantile, texture_quantile: the same of the perceptual hash and of the distance
        to the nearest training image in texture space.
    copy_ceiling: the correlation threshold is never higher, and a real image that exceeds it is the same frame under
        another patient and sets no threshold.
    hash_ceiling: bits of 64; a hash that is nearer than the threshold is a copy's, and the threshold is never higher.
    donor: correlation with the donor's patient above which even a conditioned image is a copy; the donor's layout is
        asked for, so it is higher than the measured threshold of everybody else.
    inside: correlation of the nodule's texture with the donor's nodule, likewise.
    donor_both, inside_both: lower bounds of the two that no image may exceed together. Of 160 images of a model trained
        on simulated frames for an hour none did, while .7 of its donors with new speckle do.
    duplicate: correlation of thumbnails above which two generated images are one.
    realism_quantile: share of real held-out images that must pass the realism gate.
    attribute_quantile, mask_quantile: share of real held-out images that the judge's agreement, or the overlap with the
        segmenter's mask, may reject. attribute_minimum, mask_minimum: a fixed threshold in place of the measured one.
    keep_all: reject nothing, record the scores alone: to look at a model that has hardly learned.
    """

    copy_quantile: float = 0.98
    copy_ceiling: float = 0.95
    hash_quantile: float = 0.995
    hash_ceiling: int = 7
    texture_quantile: float = 0.995
    donor: float = 0.95
    inside: float = 0.9
    donor_both: float = 0.85
    inside_both: float = 0.7
    duplicate: float = 0.995
    realism_quantile: float | None = 0.99
    attribute_quantile: float | None = 0.01
    mask_quantile: float | None = 0.01
    attribute_minimum: float | None = None
    mask_minimum: float | None = None
    keep_all: bool = False

    @classmethod
    def without(cls, gates: Sequence[str], keep_all: bool = False) -> "GateSettings":
        """The defaults with some of `OPTIONAL` switched off; UserError for a gate that cannot be or is none."""
        unknown = sorted(set(gates) - set(OPTIONAL))
        if unknown:
            raise UserError(
                f"there is no gate {', '.join(unknown)} that can be left out; choose from {', '.join(OPTIONAL)}."
            )
        off: dict[str, Any] = {OPTIONAL[gate]: None for gate in gates}
        return cls(keep_all=keep_all, **off)


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
    """All gates, fitted to real images. `measured` holds the threshold of each score, `by_class` those of realism."""

    settings: GateSettings
    limits: Limits
    index: CopyIndex
    realism: Realism
    measured: dict[str, Threshold]
    by_class: dict[str, Threshold]
    twins: int
    judge: Judge | None = None
    segmenter: Segmenter | None = None

    @classmethod
    def fit(
        cls,
        train: Cases,
        held_out: Cases | None,
        settings: GateSettings | None = None,
        judge: Judge | None = None,
        segmenter: Segmenter | None = None,
    ) -> "Gates":
        """Fit to the real training cases and to real held-out cases of other patients; seconds for 400 of these.

        Raises:
            UserError: no training image, or a minimum is set without the judge or segmenter it needs.
        """
        s = settings or GateSettings()
        if len(train) < 2:
            raise UserError(f"the gates need real training images and found {len(train)}; split the workspace first.")
        if s.attribute_minimum is not None and judge is None:
            raise UserError("the attribute gate is on but no judge is given; train one or switch the gate off.")
        if s.mask_minimum is not None and segmenter is None:
            raise UserError("the mask gate is on but no segmenter is given; give one or switch the gate off.")
        index = CopyIndex(train.images, list(train.image_ids), list(train.patient_ids))
        realism = Realism.fit(train.images, train.labels)
        gates = cls(s, Limits.fit(train.images), index, realism, {}, {}, 0, judge, segmenter)
        gates._measure_copies(held_out)
        if s.realism_quantile is None:
            gates.by_class = {label: Threshold(None, True, "switched off") for label in sorted(set(train.labels))}
        else:
            gates.by_class = realism.thresholds(train, held_out, s.realism_quantile)
        gates._measure_agreement(held_out)
        return gates

    def _measure_copies(self, held_out: Cases | None) -> None:
        """Correlation, hash and texture of real images with their nearest training image of another patient.

        Where few images are held out, training images join, their own patients' images left out of the search.
        """
        s, found, empty = self.settings, [], np.zeros(len(self.index.ids), bool)
        if held_out is not None and len(held_out):
            shown = held_out.images[evenly(len(held_out))]
            vectors = self.realism.space(shown)
            found = [self._nearest(i, Views.of(i), v, empty) for i, v in zip(shown, vectors, strict=True)]
        if len(found) < LEAST:
            for n in evenly(len(self.index.ids), LEAST - len(found)):
                kin = self.index.of_patient(self.index.patients[n])
                if not kin.all():
                    image = self.index.images[n]
                    found.append(self._nearest(image, Views.of(image), self.realism.vectors[n], kin))
        alone = [f for f in found if f["nearest"] < s.copy_ceiling]
        self.twins = len(found) - len(alone)
        self.measured["nearest"] = highest(
            [f["nearest"] for f in alone], s.copy_quantile, OTHERS, ceiling=s.copy_ceiling
        )
        self.measured["hash"] = lowest([f["hash"] for f in alone], 1 - s.hash_quantile, OTHERS, ceiling=s.hash_ceiling)
        self.measured["texture"] = lowest([f["texture"] for f in alone], 1 - s.texture_quantile, OTHERS)
        self.measured["donor"] = Threshold(s.donor, True, "fixed: the donor's layout is asked for")
        self.measured["inside"] = Threshold(s.inside, True, "fixed")

    def _measure_agreement(self, held_out: Cases | None) -> None:
        """Thresholds of judge and segmenter: what nearly all real held-out images reach."""
        s, what = self.settings, "real held-out images"
        for name, model, fixed, quantile in (
            ("attributes", self.judge, s.attribute_minimum, s.attribute_quantile),
            ("mask", self.segmenter, s.mask_minimum, s.mask_quantile),
        ):
            if fixed is not None:
                self.measured[name] = Threshold(fixed, False, "fixed")
            elif model is None:
                missing = "judge" if name == "attributes" else "segmenter"
                self.measured[name] = Threshold(None, False, f"not measured: no {missing}")
            elif quantile is None or held_out is None or not len(held_out):
                rule = "switched off" if quantile is None else f"not measured: no {what}"
                self.measured[name] = Threshold(None, False, rule)
            else:
                asked = held_out.select(evenly(len(held_out), MOST if name == "attributes" else LEAST))
                if name == "attributes":
                    scores = self._agreement(asked.images, asked.attributes)
                else:
                    scores = [self._overlap(i, m) for i, m in zip(asked.images, asked.masks, strict=True)]
                self.measured[name] = lowest(scores, quantile, what)

    @property
    def copy_threshold(self) -> float:
        """Correlation with a real image of another patient than the donor's above which an image is a copy."""
        return float(self.measured["nearest"].value or 0.0)

    def thresholds(self) -> dict[str, Any]:
        """What the run used, for the manifest's settings and the report."""
        found = [t.value for t in self.by_class.values() if t.value is not None]
        return {
            **asdict(self.settings),
            "copy": round(self.copy_threshold, 4),
            **{name: self.measured[name].value for name in ("hash", "texture", "attributes", "mask")},
            "realism": max(found, default=None),
            "technical": asdict(self.limits),
            "measured": {name: asdict(t) for name, t in self.measured.items()},
            "realism_by_class": {label: asdict(t) for label, t in self.by_class.items()},
            "same_frame_under_two_patients": self.twins,
        }

    def check(
        self,
        images: NDArray[np.generic],
        donors: Sequence[str],
        masks: NDArray[np.generic],
        attributes: Sequence[dict[str, list[str]]],
        labels: Sequence[str],
    ) -> list[Verdict]:
        """Judge a batch [B, s, s] with the donor id, asked mask, asked attributes and class of each image.

        The real images are searched for one image after the other, so that a score does not depend on its batch. The
        segmenter, the dearest of all, is asked only about images that passed everything else.
        """
        finite = np.nan_to_num(np.asarray(images, dtype=np.float64), nan=0.0, posinf=255.0, neginf=0.0)
        pixels = np.clip(np.rint(finite), 0, 255).astype(np.uint8)
        vectors, agreement = self.realism.space(pixels), self._agreement(pixels, attributes)
        out = []
        for n, image in enumerate(pixels):
            scores = self._scores(image, vectors[n], donors[n], masks[n], labels[n])
            if self.judge is not None:
                scores["attributes"] = agreement[n]
            reason = self.limits.reason(images[n]) or self._reason(scores, labels[n])
            if reason is None and self.segmenter is not None:
                scores["mask"] = self._overlap(image, masks[n])
                if self.measured["mask"].rejects(scores["mask"]):
                    reason = REASONS["mask"]
            out.append(Verdict(scores, None if self.settings.keep_all else reason))
        return out

    def _nearest(
        self, image: Images, views: Views, vector: NDArray[np.float64], skip: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Correlation, hash and texture distance of the nearest real images that `skip` leaves in."""
        row, score = self.index.nearest(views, skip)
        return {
            "nearest": round(score, 4),
            "nearest_id": self.index.ids[row] if row >= 0 else None,
            "hash": self.index.hash_distance(image, skip),
            "texture": round(self.realism.nearest(vector, skip), 4),
        }

    def _scores(
        self, image: Images, vector: NDArray[np.float64], donor: str, mask: NDArray[np.generic], label: str
    ) -> dict[str, Any]:
        family, views = self.index.relatives(donor), Views.of(image)
        scores: dict[str, Any] = {"exact": self.index.exact(image), **self._nearest(image, views, vector, family)}
        scores["realism"] = round(self.realism.distance(vector, label), 4)
        if not np.isfinite(scores["texture"]):
            scores["texture"] = None
        if family.any():
            scores["donor"] = round(float(self.index.correlation(views, np.flatnonzero(family)).max()), 4)
            scores["inside"] = round(inside_correlation(image, self.index.image(donor), mask), 4)
        return scores

    def _reason(self, scores: dict[str, Any], label: str) -> str | None:
        if scores["exact"] is not None:
            return REASONS["exact"]
        for name in ("nearest", "donor", "inside", "hash", "texture"):
            if self.measured[name].rejects(scores.get(name)):
                return REASONS[name]
        if scores.get("donor", 0.0) > self.settings.donor_both and scores["inside"] > self.settings.inside_both:
            return REASONS["donor and inside"]
        if label in self.by_class and self.by_class[label].rejects(scores["realism"]):
            return REASONS["realism"]
        if self.measured["attributes"].rejects(scores.get("attributes")):
            return REASONS["attributes"]
        return None

    def _agreement(self, images: Images, attributes: Sequence[dict[str, list[str]]]) -> list[float | None]:
        """Share of the asked attributes that the judge sees, an image; None where it was asked for none it knows."""
        if self.judge is None:
            return [None] * len(images)
        from tigergen.evaluation.judge import visible

        seen, out = self.judge.predict(images), []
        for n, row in enumerate(attributes):
            asked = {a: v for a, v in visible(row, self.judge.view).items() if a in seen}
            hits = [seen[a][0][int(np.argmax(seen[a][1][n]))] == v for a, v in asked.items()]
            out.append(round(float(np.mean(hits)), 4) if hits else None)
        return out

    def _overlap(self, image: Images, mask: NDArray[np.generic]) -> float | None:
        """Dice of the segmenter's nodule and the mask asked for (`tigerdata.regions.segment.dice`)."""
        from tigerdata.regions.segment import dice

        assert self.segmenter is not None
        return round(dice(self.segmenter.predict(image[None])[0][0], mask.astype(bool)), 4)
