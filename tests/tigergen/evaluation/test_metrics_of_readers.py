"""Metrics of images, prompts, readers and training images: known answers and independent implementations."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binomtest

from tigergen import metrics as m

rng = np.random.default_rng(6)
A = rng.integers(0, 256, (24, 30)).astype(np.uint8)
B = np.clip(A + rng.normal(0, 40, A.shape), 0, 255).astype(np.uint8)
KERNELS = [
    [[0, 0, 0, 0, 0], [1, 3, 8, 3, 1], [0, 0, 0, 0, 0], [-1, -3, -8, -3, -1], [0, 0, 0, 0, 0]],
    [[0, 0, 1, 0, 0], [0, 8, 3, 0, 0], [1, 3, 0, -3, -1], [0, 0, -3, -8, 0], [0, 0, -1, 0, 0]],
    [[0, 0, 1, 0, 0], [0, 0, 3, 8, 0], [-1, -3, 0, 3, 1], [0, -8, -3, 0, 0], [0, 0, -1, 0, 0]],
    [[0, 1, 0, -1, 0], [0, 3, 0, -3, 0], [0, 8, 0, -8, 0], [0, 3, 0, -3, 0], [0, 1, 0, -1, 0]],
]


def test_gradient_similarity_equals_a_loop_over_the_pixels() -> None:
    """Sources print the third kernel in two signs; the absolute value does not see it."""
    values = []
    for i in range(2, 22):
        for j in range(2, 28):
            blocks = [image[i - 2 : i + 3, j - 2 : j + 3].astype(float) for image in (A, B)]
            gx, gy = (max(abs((block * np.array(k)).mean()) for k in KERNELS) for block in blocks)
            r, k = abs(gx - gy) / max(gx, gy), 200 / max(gx, gy)
            s = (2 * (1 - r) + k) / (1 + (1 - r) ** 2 + k)
            e = 1 - ((float(A[i, j]) - float(B[i, j])) / 255) ** 2
            values.append((1 - 0.1 * s) * s + 0.1 * s * e)
    assert m.gradient_similarity(A, B) == pytest.approx(np.mean(values), abs=1e-12)
    assert m.gradient_similarity(A, A) == 1 and m.gradient_similarity(A, B) == m.gradient_similarity(B, A)
    assert m.gradient_similarity(A / 255, B / 255) == pytest.approx(np.mean(values), abs=1e-12)
    flat = np.full((9, 9), 100, np.uint8)
    assert m.gradient_similarity(flat, flat) == 1


def test_phash_equals_its_definition_with_a_written_out_cosine_transform() -> None:
    from PIL import Image

    n = np.arange(32)
    cosines = np.cos(np.pi * n[:, None] * (2 * n[None] + 1) / 64)

    def bits(image: np.ndarray) -> np.ndarray:
        small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS), float)
        low = (cosines @ small @ cosines.T)[:8, :8]
        return low > np.median(low)

    other = np.ascontiguousarray(A[::-1, :20])
    assert m.phash_distance(A, other) == (bits(A) != bits(other)).sum() > 10
    assert m.phash_distance(A, A) == 0 and isinstance(m.phash_distance(A, B), int)
    noise = rng.integers(0, 256, (60, 40, 40)).astype(np.uint8)
    assert np.mean([m.phash_distance(noise[k], noise[k + 30]) for k in range(30)]) == pytest.approx(32, abs=3)


def test_inception_score_equals_loops_and_its_bounds() -> None:
    logits = rng.normal(0, 2, (53, 7))
    p = softmax(logits[np.random.RandomState(2020).permutation(53)], axis=1)
    scores = []
    for i in range(5):
        part = p[i * 53 // 5 : (i + 1) * 53 // 5]
        scores.append(np.exp(np.mean([np.sum(row * np.log(row / part.mean(0))) for row in part])))
    assert m.inception_score(logits, splits=5) == pytest.approx({"mean": np.mean(scores), "std": np.std(scores)})
    assert m.inception_score(np.ones((20, 7)), splits=1)["mean"] == pytest.approx(1)
    assert m.inception_score(np.eye(7).repeat(9, 0) * 1e4, splits=1)["mean"] == pytest.approx(7)


def test_clip_score_clamps_the_mean_or_each_pair() -> None:
    angles = np.deg2rad([0, 60, 120, 180])
    texts = np.stack([np.cos(angles), np.sin(angles)], 1) * 7
    got = m.clip_score(np.tile([3.0, 0.0], (4, 1)), texts)
    assert got["cosine_100"] == pytest.approx(0, abs=1e-9) and got["hessel"] == pytest.approx(2.5 * 1.5 / 4)


# Fourteen readers, ten cases, five categories: the worked example of the statistic's usual presentation (kappa .210).
FLEISS = [(0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1), (7, 7, 0, 0, 0),
          (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)]  # fmt: skip


def test_fleiss_kappa_of_the_known_example_in_any_order_and_naming() -> None:
    ratings = np.array([np.repeat(np.arange(5), row) for row in FLEISS])
    assert m.fleiss_kappa(ratings) == pytest.approx(0.20993, abs=1e-5)
    shuffled = rng.permuted(ratings, axis=1)
    assert m.fleiss_kappa(np.array(list("abcde"))[shuffled]) == pytest.approx(m.fleiss_kappa(ratings), abs=1e-12)
    assert m.fleiss_kappa([[1, 1, 1], [0, 0, 0]]) == 1
    assert abs(np.mean([m.fleiss_kappa(rng.integers(0, 3, (50, 4))) for _ in range(60)])) < 0.03


def test_mcnemar_equals_the_binomial_test() -> None:
    for b, c in ((0, 1), (3, 9), (10, 10), (25, 8)):
        assert m.mcnemar(b, c) == pytest.approx(binomtest(b, b + c, 0.5).pvalue, abs=1e-12)
        assert m.mcnemar(b, c) == m.mcnemar(c, b)


def test_moso_equals_loops_and_finds_wrong_labels() -> None:
    grads, rates = rng.normal(size=(3, 8, 4)), [0.1, 0.05, 0.01]
    expected = np.zeros(8)
    for g, rate in zip(grads, rates, strict=True):
        for i in range(8):
            others = np.delete(g, i, 0).mean(0)
            expected[i] += rate / 8 * others @ g[i]
    assert m.moso(iter(grads), rates) == pytest.approx(expected, abs=1e-15)
    x = np.random.default_rng(12).normal(size=(80, 3))
    y = (x[:, 0] > 0).astype(int)
    y[:6] = 1 - y[:6]
    w, checkpoints = np.zeros((4, 2)), []
    for _ in range(30):
        p = softmax(np.c_[x, np.ones(80)] @ w, axis=1)
        g = m.linear_head_gradients(x, p, y)
        checkpoints.append(g)
        w -= 0.5 * g.mean(0).reshape(2, 4).T
    worst = np.argsort(m.moso(checkpoints, [0.5] * 30))[:10]
    assert len(set(range(6)) & set(worst)) >= 5


def test_linear_head_gradients_equal_autograd() -> None:
    h, y = rng.normal(size=(5, 3)), np.array([0, 2, 1, 2, 0])
    layer = torch.nn.Linear(3, 3).double()
    expected = []
    for row, label in zip(torch.tensor(h), torch.tensor(y), strict=True):
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(row), label).backward()
        expected.append(torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1).flatten().numpy().copy())
    p = torch.softmax(layer(torch.tensor(h)), 1).detach().numpy()
    np.testing.assert_allclose(m.linear_head_gradients(h, p, y), expected, atol=1e-12)


def test_brier_and_calibration_of_several_classes() -> None:
    from sklearn.metrics import brier_score_loss

    p, y = softmax(rng.normal(0, 2, (90, 4)), axis=1), rng.integers(0, 4, 90)
    assert m.brier(y, p)["sum"] == pytest.approx(
        np.mean([((row - np.eye(4)[k]) ** 2).sum() for row, k in zip(p, y, strict=True)])
    )
    two, z = rng.uniform(size=70), rng.integers(0, 2, 70)
    assert m.brier(z, two)["half"] == pytest.approx(brier_score_loss(z, two))
    assert m.brier(z, np.c_[1 - two, two]) == pytest.approx(m.brier(z, two))
    total = 0.0
    for low in np.arange(0, 1, 0.1):
        here = (p.max(1) > low + 1e-12) & (p.max(1) <= low + 0.1 + 1e-12)
        if here.any():
            total += here.sum() / 90 * abs((p.argmax(1) == y)[here].mean() - p.max(1)[here].mean())
    assert m.expected_calibration_error(y, p) == pytest.approx(total)


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.gradient_similarity(A, B[:5]),
        lambda: m.gradient_similarity(A[:4, :4], B[:4, :4]),
        lambda: m.phash_distance(A / 255, B / 255),
        lambda: m.inception_score(np.ones((5, 3))),
        lambda: m.inception_score(np.full((20, 3), np.nan)),
        lambda: m.clip_score(np.ones((2, 3)), np.ones((3, 3))),
        lambda: m.clip_score(np.zeros((2, 3)), np.ones((2, 3))),
        lambda: m.fleiss_kappa([[1, 1], [1, 1]]),
        lambda: m.fleiss_kappa([[1.0, np.nan], [1, 0]]),
        lambda: m.fleiss_kappa([["a", None], ["b", "a"]]),
        lambda: m.fleiss_kappa([[1], [2]]),
        lambda: m.mcnemar(0, 0),
        lambda: m.mcnemar(-1, 2),
        lambda: m.moso([], []),
        lambda: m.moso([np.ones((3, 2))], [0.1, 0.1]),
        lambda: m.moso([np.ones((3, 2)), np.ones((4, 2))], [0.1, 0.1]),
        lambda: m.linear_head_gradients(np.ones((2, 3)), np.ones((2, 2)), [0, 2]),
        lambda: m.brier([0, 1], [[0.5, 0.6], [0.5, 0.5]]),
        lambda: m.brier([0, 3], [[0.5, 0.5], [0.5, 0.5]]),
        lambda: m.expected_calibration_error([0, 1], [0.2, 0.3], bins=0),
    ],
)
def test_meaningless_inputs_raise_the_named_error(call) -> None:
    with pytest.raises(m.MetricError):
        call()
