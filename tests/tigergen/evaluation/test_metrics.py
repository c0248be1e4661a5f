"""Metrics: known answers, properties, and independent implementations."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import norm

from tigergen import metrics as m
from tigergen.evaluation.features import TextureSpace, texture_features
from tigergen.evaluation.metric_classify import cluster_weights, weighted_aurocs

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(120, 6)), rng.normal(0.4, 1.3, size=(90, 6))


def test_frechet_distance_of_known_gaussians() -> None:
    """In one dimension it is (m1 - m2)^2 + (s1 - s2)^2."""
    a, b = rng.normal(size=(50, 1)), rng.normal(2, 3, size=(70, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert m.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_equals_the_matrix_root_formula() -> None:
    ca, cb = np.cov(X, rowvar=False), np.cov(Y, rowvar=False)
    root = np.trace(sqrtm(ca @ cb).real)
    expected = ((X.mean(0) - Y.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * root
    assert m.frechet_distance(X, Y) == pytest.approx(expected, rel=1e-8)
    assert m.frechet_distance(Y, X) == pytest.approx(expected, rel=1e-8)
    assert m.frechet_distance(X, X) == pytest.approx(0, abs=1e-9)
    assert m.frechet_distance(X, X + [3, 4, 0, 0, 0, 0]) == pytest.approx(25, rel=1e-9)


def test_kernel_distance_equals_the_double_sum_and_is_unbiased() -> None:
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    a, b = X[:12], Y[:9]
    xx = np.mean([k(a[i], a[j]) for i in range(12) for j in range(12) if i != j])
    yy = np.mean([k(b[i], b[j]) for i in range(9) for j in range(9) if i != j])
    xy = np.mean([k(p, q) for p in a for q in b])
    assert m.kernel_distance(a, b) == pytest.approx(xx + yy - 2 * xy, rel=1e-10)
    assert m.kernel_distance(X, Y, chunk=7) == pytest.approx(m.kernel_distance(X, Y), rel=1e-10)
    same = [m.kernel_distance(*rng.normal(size=(2, 10, 4))) for _ in range(800)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(800)


def test_density_coverage_equals_plain_loops() -> None:
    a, b, k = X[:40], Y[:30], 3
    da = np.sort(np.linalg.norm(a[:, None] - a[None], axis=2), 1)[:, k]
    db = np.sort(np.linalg.norm(b[:, None] - b[None], axis=2), 1)[:, k]
    d = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = {
        "precision": (d < da[:, None]).any(0).mean(),
        "recall": (d < db[None]).any(1).mean(),
        "density": (d < da[:, None]).sum() / (k * 30),
        "coverage": (d.min(1) < da).mean(),
    }
    assert m.density_coverage(a, b, k=k) == pytest.approx(expected)
    assert m.density_coverage(a, b, k=k, chunk=7) == pytest.approx(expected)
    shift = m.density_coverage(a + 100, b + 100, k=k)
    assert shift == pytest.approx(expected)
    far = m.density_coverage(a, b + 1e3, k=k)
    assert set(far.values()) == {0.0}
    assert m.density_coverage(a, a, k=k)["coverage"] == 1.0


def test_ssim_equals_scikit_image_with_wang_settings() -> None:
    similarity = pytest.importorskip("skimage.metrics").structural_similarity
    a = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert m.ssim(a, b) == pytest.approx(similarity(a, b, **settings), abs=1e-9)
    assert m.ssim(a, a) == pytest.approx(1) and m.ssim(a, b) == m.ssim(b, a)
    assert m.ssim(a / 255, b / 255) == pytest.approx(m.ssim(a, b), abs=1e-9)


def test_dice_and_correlation_by_hand() -> None:
    a, b = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [1, 0]])
    assert m.dice(a, b) == 0.5 and m.dice(a * 0, b * 0) == 1.0 and m.dice(a, a) == 1.0
    assert m.pearson(X[:, 0], X[:, 1]) == pytest.approx(np.corrcoef(X[:, 0], X[:, 1])[0, 1])
    assert m.pearson(X, -X, where=X > 0) == pytest.approx(-1)


def labelled(n: int = 150, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.repeat([0, 1], [n // 3, n - n // 3])
    p, q = rng.normal(y, 1.2), rng.normal(0.7 * y, 1.0)
    return y, (np.round(p, 1) if ties else p), q


def test_auroc_equals_sklearn_and_the_pair_count() -> None:
    from sklearn.metrics import roc_auc_score

    y, p, _ = labelled()
    pairs = (p[y == 1][:, None] > p[y == 0][None]).mean() + 0.5 * (p[y == 1][:, None] == p[y == 0][None]).mean()
    value = m.auroc(y, p)["auroc"]
    assert value == pytest.approx(roc_auc_score(y, p), abs=1e-12) and value == pytest.approx(pairs, abs=1e-12)
    assert m.auroc(y, -p)["auroc"] == pytest.approx(1 - value)
    assert m.auroc(y, np.exp(p))["auroc"] == pytest.approx(value)
    weighted = weighted_aurocs(y.astype(bool), p, np.ones((1, len(y))))
    assert weighted[0] == pytest.approx(value, abs=1e-12)


def test_delong_variance_equals_the_double_loop() -> None:
    y, p, q = labelled(60)
    pos, neg = p[y == 1], p[y == 0]
    psi = (pos[:, None] > neg[None]) + 0.5 * (pos[:, None] == neg[None])
    expected = psi.mean(1).var(ddof=1) / len(pos) + psi.mean(0).var(ddof=1) / len(neg)
    got = m.auroc(y, p)
    assert got["variance"] == pytest.approx(expected)
    assert got["ci"][0] == pytest.approx(got["auroc"] - norm.ppf(0.975) * np.sqrt(expected))
    both = [(s[y == 1][:, None] > s[y == 0][None]) + 0.5 * (s[y == 1][:, None] == s[y == 0][None]) for s in (p, q)]
    d = both[0] - both[1]
    z = d.mean() / np.sqrt(d.mean(1).var(ddof=1) / d.shape[0] + d.mean(0).var(ddof=1) / d.shape[1])
    assert m.delong_test(y, p, q) == pytest.approx(2 * norm.sf(abs(z)))
    assert m.delong_test(y, p, p) == 1.0 and m.delong_test(y, p, q) == pytest.approx(m.delong_test(y, q, p))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Two unit normals one apart: AUROC = Phi(1 / sqrt 2)."""
    truth, local = norm.cdf(np.sqrt(0.5)), np.random.default_rng(1)
    y = np.repeat([0, 1], 60)
    hits = 0
    for _ in range(100):
        low, high = m.auroc(y, local.normal(y, 1), seed=0)["ci"]
        hits += low <= truth <= high
    assert 0.88 <= hits / 100 < 1


def test_images_of_one_patient_widen_the_interval() -> None:
    y, p, _ = labelled(90)
    thrice = [np.repeat(v, 3) for v in (y, p, np.arange(90))]
    naive, grouped = m.auroc(*thrice[:2]), m.auroc(*thrice)
    width = [np.diff(r["ci_bootstrap"])[0] for r in (naive, grouped, m.auroc(y, p))]
    assert width[1] == pytest.approx(width[2], rel=0.1) and width[1] > 1.4 * width[0]
    weights = cluster_weights(thrice[2], 50, np.random.default_rng(0))
    assert (weights[:, ::3] == weights[:, 1::3]).all() and (weights.sum(1) == 270).all()


def test_wilson_confusion_brier_and_calibration_by_hand() -> None:
    low, high = m.wilson(8, 10)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert m.wilson(0, 5)[0] == 0.0 and m.wilson(5, 5)[1] == 1.0
    y, p = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.5, 0.2, 0.6, 0.1])
    c = m.confusion(y, p, 0.5)
    assert (c["tp"], c["fn"], c["fp"], c["tn"]) == (2, 1, 1, 1) and c["accuracy"] == 0.6
    assert m.brier(y, p)["half"] == pytest.approx((0.01 + 0.25 + 0.64 + 0.36 + 0.01) / 5)
    # Bins (0,.5] and (.5,1]: means of p .8/3 against 2/3 of y; .75 against .5.
    assert m.expected_calibration_error(y, p, bins=2) == pytest.approx((abs(2 - 0.8) + abs(1 - 1.5)) / 5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.frechet_distance(X[:5], Y),
        lambda: m.frechet_distance(X, Y[:, :3]),
        lambda: m.kernel_distance(X * np.nan, Y),
        lambda: m.kernel_distance(X[:1], Y),
        lambda: m.density_coverage(X[:5], Y, k=5),
        lambda: m.ssim(np.zeros((20, 20), np.uint8), np.zeros((20, 20))),
        lambda: m.ssim(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)),
        lambda: m.ssim(np.full((20, 20), 7.0), np.zeros((20, 20))),
        lambda: m.pearson(np.ones(5), np.arange(5)),
        lambda: m.dice(np.ones((2, 2)), np.ones(2)),
        lambda: m.auroc([1, 1, 1], [0.1, 0.2, 0.3]),
        lambda: m.auroc([0, 1, 2], [0.1, 0.2, 0.3]),
        lambda: m.auroc([0, 1], [0.1, np.nan]),
        lambda: m.auroc([0, 1], [0.1, 0.2], groups=[1]),
        lambda: m.delong_test([0, 0], [1, 2], [1, 2]),
        lambda: m.wilson(3, 2),
        lambda: m.confusion([0, 0], [0.1, 0.2], 0.5),
        lambda: m.brier([0, 1], [0.1, 1.2]),
        lambda: m.expected_calibration_error([0, 1], [-0.1, 0.2]),
        lambda: texture_features(np.zeros((2, 20, 20))),
        lambda: TextureSpace.fit(np.zeros((1, 20, 20), np.uint8)),
    ],
)
def test_meaningless_inputs_raise_the_named_error(call) -> None:
    with pytest.raises(m.MetricError):
        call()


def test_texture_features_see_what_they_should_and_nothing_depends_on_the_batch() -> None:
    images = rng.integers(0, 256, (12, 48, 48)).astype(np.uint8)
    f = texture_features(images)
    assert f.shape == (12, 52) and np.isfinite(f).all()
    np.testing.assert_allclose(texture_features(images, chunk=5), f)
    assert f[:, 0] == pytest.approx(images.mean((1, 2)) / 255)
    flat = texture_features(np.full((1, 48, 48), 90, np.uint8))
    assert np.isfinite(flat).all()
    space = TextureSpace.fit(images)
    assert np.abs(space(images).mean(0)).max() < 0.6 and np.abs(space(images // 8)).max() <= 5.0


def test_cooccurrence_equals_scikit_image() -> None:
    feature = pytest.importorskip("skimage.feature")
    images = rng.integers(0, 256, (3, 32, 32)).astype(np.uint8)
    images[1] = np.sort(images[1], axis=1)
    got = texture_features(images)[:, 16:20]
    for image, row in zip(images, got, strict=True):
        p = feature.graycomatrix((image / 255 * 16).clip(0, 15).astype(np.uint8), [1], [0], 16, True, True)
        expected = [feature.graycoprops(p, n)[0, 0] for n in ("contrast", "correlation", "ASM", "homogeneity")]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
