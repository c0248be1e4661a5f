"""Gates: planted copies are caught, broken images refused, novel ones pass."""

import cv2
import numpy as np
import pytest

from kb.errors import UserError
from tests.proof_corpus import frame
from tigergen.augment.copies import CopyIndex, duplicates, fingerprints, inside_correlation
from tigergen.augment.gates import Gates, GateSettings

N = 150


def stack(start: int, patients: int, n: int) -> np.ndarray:
    return np.stack([frame(start + k, patients + k)[0] for k in range(n)])


@pytest.fixture(scope="module")
def gates() -> Gates:
    ids = [f"r{k}" for k in range(N)]
    return Gates.fit(stack(0, 0, N), ids, [f"p{k}" for k in range(N)], stack(1000, 1000, 100))


def shifted(image: np.ndarray, dx: int, dy: int) -> np.ndarray:
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(image, move, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)


def copies(kind: str, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "exact":
        return image
    if kind == "flipped":
        return np.ascontiguousarray(image[:, ::-1])
    if kind == "shifted":  # up to 6 % of 64 pixels
        return shifted(image, int(rng.integers(-4, 5)), int(rng.integers(-4, 5)))
    if kind == "brightened":
        return np.clip(image * 1.25 + 12, 0, 255).astype(np.uint8)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("donor", ["own", "other"])
@pytest.mark.parametrize("kind", ["exact", "flipped", "shifted", "brightened", "noise"])
def test_planted_copies_are_caught(gates: Gates, kind: str, donor: str) -> None:
    """Copies of the donor itself count too: it is the image that a leaking model repeats first."""
    rng = np.random.default_rng(1)
    planted = np.stack([copies(kind, image, rng) for image in gates.index.images[:60]])
    donors = [f"r{k if donor == 'own' else k + 60}" for k in range(60)]
    masks = np.stack([frame(k, k)[1] for k in range(60)])
    verdicts = gates.check(planted, donors, masks, [{}] * 60)
    caught = [v.reason is not None and v.reason.startswith("copy") for v in verdicts]
    assert np.mean(caught) >= 0.95
    if kind in ("exact", "flipped"):
        assert all(caught) and verdicts[0].scores["exact"] == "r0"


def test_novel_images_pass(gates: Gates) -> None:
    novel = stack(2000, 2000, 120)
    reasons = [v.reason for v in gates.check(novel, ["r0"] * 120, np.zeros_like(novel), [{}] * 120)]
    assert sum(r is not None for r in reasons) <= 0.10 * 120


def test_the_layout_of_the_donor_alone_is_no_copy(gates: Gates) -> None:
    """A condition asks for the donor's layers; new speckle and a new nodule must get through."""
    rng = np.random.default_rng(0)
    images, masks = [], []
    for k in range(40):
        image, mask = frame(5000 + k, k)
        images.append(np.clip(image * rng.uniform(0.9, 1.1), 0, 255).astype(np.uint8))
        masks.append(mask)
    verdicts = gates.check(np.stack(images), [f"r{k}" for k in range(40)], np.stack(masks), [{}] * 40)
    assert sum((v.reason or "").startswith("copy") for v in verdicts) <= 4


def test_scores_do_not_depend_on_the_batch_or_on_names(gates: Gates) -> None:
    images = stack(3000, 3000, 9)
    whole = gates.index.similarity(images)
    single = np.concatenate([gates.index.similarity(i[None]) for i in images])
    np.testing.assert_allclose(whole, single, atol=1e-5)
    order = np.random.default_rng(0).permutation(N)
    renamed = CopyIndex(gates.index.images[order], [gates.index.ids[k] for k in order], [str(k) for k in order])
    np.testing.assert_allclose(renamed.similarity(images), whole[:, order], atol=1e-5)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((64, 64), np.uint8), "constant"),
        (np.full((64, 64), np.nan), "not a number"),
        (np.where(np.arange(64) < 40, 255, 30) * np.ones((64, 1)), "clipped"),
        (np.arange(64) % 20 * np.ones((64, 1)) * 1.0, "contrast|dark"),
    ],
)
def test_broken_images_are_refused(gates: Gates, image: np.ndarray, reason: str) -> None:
    import re

    verdict = gates.check(image[None], ["r0"], np.zeros((1, 64, 64)), [{}])[0]
    assert verdict.reason is not None and re.search(reason, verdict.reason)


def test_the_copied_nodule_of_the_donor_is_seen() -> None:
    donor, mask = frame(1, 1)
    other = frame(2, 2)[0].copy()
    assert abs(inside_correlation(other, donor, mask)) < 0.9
    other[mask] = donor[mask]
    assert inside_correlation(other, donor, mask) > 0.95


def test_duplicates_are_the_later_ones_and_found_in_any_chunk() -> None:
    images = stack(0, 0, 30)
    images[7], images[20], images[25] = images[3], images[7], images[11]
    prints = fingerprints(images)
    for chunk in (4, 1024):
        assert [(r, f) for r, f, _ in duplicates(prints, 0.995, chunk)] == [(7, 3), (20, 3), (25, 11)]


def test_the_same_frame_under_two_patients_does_not_open_the_gate(gates: Gates) -> None:
    real = gates.index
    held = np.concatenate([real.images[:10], stack(1000, 1000, 90)])
    spoilt = Gates.fit(real.images, real.ids, real.patients, held)
    assert real.threshold(held) == pytest.approx(1.0) and spoilt.copy_threshold == spoilt.settings.copy_ceiling
    assert Gates.fit(real.images, real.ids, real.patients, held[:0]).copy_threshold == spoilt.settings.copy_ceiling


class OneAnswer:
    view = "values"

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def predict(self, images: np.ndarray) -> dict:
        p = np.array([[1.0, 0.0]] if self.answer == "regular" else [[0.0, 1.0]])
        return {"shape": (["regular", "irregular"], np.repeat(p, len(images), 0))}


def test_the_judge_is_recorded_and_gates_where_a_minimum_is_set(gates: Gates) -> None:
    real = gates.index.images
    settings = GateSettings(attribute_minimum=0.5)
    strict = Gates.fit(real, gates.index.ids, gates.index.patients, real[:0], settings, judge=OneAnswer("regular"))
    novel, masks = stack(2000, 2000, 2), np.zeros((2, 64, 64))
    verdicts = strict.check(novel, ["r0"] * 2, masks, [{"shape": ["regular"]}, {"shape": ["irregular"]}])
    assert [v.scores["attributes"] for v in verdicts] == [1.0, 0.0]
    assert verdicts[0].reason is None and verdicts[1].reason is not None and "prompt" in verdicts[1].reason
    with pytest.raises(UserError, match="no judge"):
        Gates.fit(real, gates.index.ids, gates.index.patients, real[:0], settings)
