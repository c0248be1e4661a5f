"""Metrics of feature sets: independent implementations, known answers, planted copies, and every documented example."""

import doctest
import importlib
import inspect
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tigergen import metrics as m
from tigergen.evaluation import metric_neighbours, metric_topology
from tigergen.evaluation.metric_topology import holes, living_times

rng = np.random.default_rng(5)
X, Y = rng.normal(size=(60, 5)), rng.normal(0.3, 1.2, size=(50, 5))
MODULES = ["classify", "images", "neighbours", "readers", "sets", "topology", "value", "words"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_the_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"tigergen.evaluation.metric_{name}"))
    assert found.failed == 0 and found.attempted > 0


def test_every_metric_says_formula_errors_and_shows_an_example() -> None:
    for name in set(m.__all__) - {"MetricError"}:
        text = inspect.getdoc(getattr(m, name)) or ""
        assert ">>>" in text and "MetricError:" in text, f"{name} lacks an example or its errors"


def test_cmmd_equals_the_double_sums_and_only_its_biased_form_is_biased() -> None:
    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-(cdist(a, b) ** 2) / (2 * 3.0**2))

    off = ~np.eye(60, dtype=bool), ~np.eye(50, dtype=bool)
    biased = k(X, X).mean() + k(Y, Y).mean() - 2 * k(X, Y).mean()
    unbiased = k(X, X)[off[0]].mean() + k(Y, Y)[off[1]].mean() - 2 * k(X, Y).mean()
    got = m.cmmd(X, Y, sigma=3.0)
    assert got == pytest.approx({"biased": 1000 * biased, "unbiased": 1000 * unbiased}, rel=1e-9)
    assert m.cmmd(X, Y, sigma=3.0, chunk=7) == pytest.approx(got, rel=1e-12)
    draws = [m.cmmd(*rng.normal(size=(2, 20, 4)), sigma=3.0) for _ in range(400)]
    biased, unbiased = (np.array([d[name] for d in draws]) for name in ("biased", "unbiased"))
    assert abs(unbiased.mean()) < 4 * unbiased.std() / 20 and biased.mean() > 20 * abs(unbiased.mean())


def by_loops(a: np.ndarray, b: np.ndarray, k: int) -> dict[str, float]:
    a, b = a.astype(float), b.astype(float)
    ra, rb = np.sort(cdist(a, a), 1)[:, k], np.sort(cdist(b, b), 1)[:, k]
    ball = cdist(a, b) < ra[:, None]
    recall = (cdist(a, b) < rb).any(1).mean()
    return {"precision": ball.any(0).mean(), "recall": recall, "density": ball.sum() / (k * len(b)),
            "coverage": ball.any(1).mean()}  # fmt: skip


CENTRES = np.repeat(rng.normal(size=(3, 20)) * 50, 60, 0)


@pytest.mark.parametrize("sample", [512, 20], ids=["row by row", "each pair once"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (rng.normal(size=(181, 20)), rng.normal(size=(150, 20))),
        (rng.normal(size=(181, 20)) + 1e4, rng.normal(size=(150, 20)) + 1e4),
        (CENTRES + 1e-3 * rng.normal(size=(180, 20)), CENTRES + 1e-3 * rng.normal(size=(180, 20))),
        (1e9 * rng.normal(size=(181, 3)), 1e9 * rng.normal(size=(150, 3))),
    ],
    ids=["plain", "far from 0", "three tight modes", "large"],
)
def test_density_coverage_is_exact_where_float32_alone_is_not(real, fake, kind, sample, monkeypatch) -> None:
    """Differences of 1e-3 at 50, which products in float32 cannot see, must still be decided as in float64."""
    monkeypatch.setattr(metric_neighbours, "_SAMPLE", sample)
    a, b = real.astype(kind), fake.astype(kind)
    assert m.density_coverage(a, b, k=4, chunk=64) == by_loops(a, b, 4)


def test_copies_of_a_fifth_of_the_training_set_are_found() -> None:
    rng = np.random.default_rng(11)
    train, held_out = rng.normal(size=(200, 8)), rng.normal(size=(200, 8))
    fresh = rng.normal(size=(200, 8))
    clean = m.memorisation(train, held_out, fresh)
    assert len(clean["flagged"]) <= 16 and clean["closer_to_train"] == pytest.approx(0.5, abs=0.12)
    assert clean["carlini"] == pytest.approx(clean["carlini_held_out"], abs=0.1)
    copied = rng.permutation(200)[:40]
    planted = fresh.copy()
    planted[copied] = train[copied] + 1e-3 * rng.normal(size=(40, 8))
    found = m.memorisation(train, held_out, planted)
    assert set(copied) <= set(found["flagged"]) and len(found["flagged"]) <= 40 + 16
    assert found["closer_to_train"] > clean["closer_to_train"] + 0.05 and found["closer_to_train_expected"] == 0.5
    assert found["carlini"] - clean["carlini"] > 0.15
    assert found["closer_to_train_ci"][0] < found["closer_to_train"] < found["closer_to_train_ci"][1]


def test_memorisation_equals_plain_loops() -> None:
    train, held_out, synthetic = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)), rng.normal(size=(12, 3))
    found = m.memorisation(train, held_out, synthetic, neighbours=10, quantile=0.3)
    near, real = np.sort(cdist(synthetic, train), 1), np.sort(cdist(held_out, train), 1)
    assert found["dcr"] == pytest.approx(np.median(near[:, 0])) and found["dcr_held_out"] == pytest.approx(
        np.median(real[:, 0])
    )
    assert found["nndr"] == pytest.approx(np.median(near[:, 0] / near[:, 1]))
    assert found["closer_to_train"] == (near[:, 0] < cdist(synthetic, held_out).min(1)).mean()
    assert found["carlini"] == (near[:, 0] / (0.5 * near[:, :10].mean(1)) < 1).mean()
    assert found["nearer_than_real"] == (near[:, 0] < np.quantile(real[:, 0], 0.3)).mean()
    assert found["closer_to_train_expected"] == 0.6


def rank_gf2(columns: list[int]) -> int:
    rank = 0
    while columns:
        pivot = columns.pop()
        if pivot:
            rank += 1
            low = pivot & -pivot
            columns = [c ^ pivot if c & low else c for c in columns]
    return rank


def test_holes_of_the_witness_complex_equal_ranks_of_its_boundary_matrices() -> None:
    """Each simplex's appearance by its definition, over all witnesses, and Betti numbers by linear algebra."""
    d = cdist(rng.normal(size=(40, 2)), rng.normal(size=(9, 2)))
    top, appears = 0.6, {}
    for size in (1, 2, 3):
        for s in combinations(range(9), size):
            rest = [v for v in range(9) if v not in s]
            own = min(max(0.0, w[list(s)].max() - w[rest].min()) for w in d)
            appears[s] = max([own, *(appears[f] for f in combinations(s, size - 1) if f)])
    bars = holes(d, top)
    assert len(bars) > 3
    for t in np.linspace(0.01, top - 0.01, 25):
        here = [[s for s in appears if len(s) == size and appears[s] <= t] for size in (1, 2, 3)]
        edge = {s: 1 << n for n, s in enumerate(here[1])}
        sides = [sum(edge[f] for f in combinations(s, 2)) for s in here[2]]
        cycles = len(here[1]) - rank_gf2([(1 << u) | (1 << v) for u, v in here[1]])
        assert ((bars[:, 0] <= t) & (t < bars[:, 1])).sum() == cycles - rank_gf2(sides), t


def test_geometry_score_tells_a_ring_from_a_disc_and_not_a_ring_from_a_larger_one() -> None:
    angle, radius = rng.uniform(0, 2 * np.pi, 300), np.sqrt(rng.uniform(0, 1, 300))
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.normal(1, 0.02, (300, 1))
    disc = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    settings = {"gamma": 0.25, "landmarks": 24, "n": 6}
    assert m.geometry_score(ring, 5 * ring + 3, **settings) == pytest.approx(0, abs=1e-12)
    assert m.geometry_score(ring, disc, **settings) > 0.2
    assert living_times(ring, np.arange(24), 0.25).sum() == pytest.approx(1)
    assert living_times(np.zeros((30, 2)), np.arange(24), 0.25)[0] == 1
    assert m.geometry_score(ring, disc, seed=1, **settings) == m.geometry_score(ring, disc, seed=1, **settings)


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.cmmd(X[:1], Y),
        lambda: m.cmmd(X, Y, sigma=0),
        lambda: m.cmmd(X * np.nan, Y),
        lambda: m.memorisation(X, Y, Y[:, :2]),
        lambda: m.memorisation(X[:20], Y, Y),
        lambda: m.memorisation(X, Y[:0], Y),
        lambda: m.geometry_score(X, Y),
        lambda: m.geometry_score(X, X, landmarks=60),
        lambda: m.geometry_score(X, X, gamma=0, landmarks=8),
        lambda: m.density_coverage(X.astype(np.float32) * np.inf, Y),
        lambda: m.density_coverage(X, Y, k=0),
    ],
)
def test_meaningless_sets_raise_the_named_error(call) -> None:
    with pytest.raises(m.MetricError):
        call()


def test_the_bars_of_nothing_are_none() -> None:
    assert metric_topology.holes(np.ones((5, 4)), 1e-9).shape[1] == 2
