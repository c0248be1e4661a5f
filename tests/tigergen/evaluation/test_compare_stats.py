"""Figures, intervals and corrected p-values of a comparison against other implementations and planted effects."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_auc_score

from tigergen.evaluation.compare.stats import (
    Bootstrap,
    Scored,
    differences,
    figures,
    holm,
    two_sided,
    youden,
)
from tigergen.evaluation.metric_classify import percentile_interval


def closed_testing(p: list[float]) -> list[float]:
    """Holm from its origin, the closure of Bonferroni tests: p of i is the largest |S| min p(S) over sets with i."""
    out = []
    for i in range(len(p)):
        others = [j for j in range(len(p)) if j != i]
        sets = [(i, *more) for k in range(len(p)) for more in combinations(others, k)]
        out.append(min(1.0, max(len(s) * min(p[j] for j in s) for s in sets)))
    return out


@pytest.mark.parametrize(
    "p", [[0.01, 0.04, 0.03], [0.2], [0.005, 0.011, 0.02, 0.04, 0.13], [0.9, 0.5, 0.5], [0.0, 1.0]]
)
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    assert holm(p).tolist() == pytest.approx(closed_testing(p))


def test_holm_by_hand() -> None:
    # Five tests: 5 × .005, 4 × .011, 3 × .02, 2 × .04, 1 × .13, each no smaller than the one before.
    assert holm([0.02, 0.005, 0.13, 0.011, 0.04]).tolist() == pytest.approx([0.06, 0.025, 0.13, 0.044, 0.08])


def scored(seed: int, gain: float, n: int = 300, classes: int = 2, test_seed: int = 0) -> Scored:
    """Scores that know the label by `gain`; the test labels and patients are the same for all seeds."""
    rng, own = np.random.default_rng([test_seed, 1]), np.random.default_rng([seed, 2])
    y, y_val = rng.integers(0, classes, n), own.integers(0, classes, n)

    def probabilities(labels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        logits = gain * np.eye(classes)[labels] + noise.normal(size=(n, classes))
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    patients = np.array([f"p{k // 2}" for k in range(n)])
    shared = np.random.default_rng([test_seed, 3])
    return Scored(y_val, probabilities(y_val, own), y, probabilities(y, shared), patients)


def test_the_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        y, p = np.append(rng.integers(0, 2, 12), [0, 1]), rng.integers(0, 6, 14) / 5
        cut = youden(y, p)

        def worth(t: float, y: np.ndarray = y, p: np.ndarray = p) -> float:
            return float(((p >= t) & (y == 1)).sum() / (y == 1).sum() + ((p < t) & (y == 0)).sum() / (y == 0).sum())

        assert worth(cut) == pytest.approx(max(worth(t) for t in np.arange(-0.1, 1.2, 0.1)))


def test_figures_equal_those_of_scikit_learn() -> None:
    one = scored(0, 1.5)
    got = {k: float(v[0]) for k, v in figures(one, [1], np.ones((1, 300))).items()}
    called = one.p_test[:, 1] >= youden(one.y_val, one.p_val[:, 1])
    assert got["auroc"] == pytest.approx(roc_auc_score(one.y_test, one.p_test[:, 1]))
    assert got["accuracy"] == pytest.approx(accuracy_score(one.y_test, called))
    assert got["sensitivity"] == pytest.approx(recall_score(one.y_test, called))
    assert got["specificity"] == pytest.approx(recall_score(one.y_test, called, pos_label=0))
    assert got["brier"] == pytest.approx(brier_score_loss(one.y_test, one.p_test[:, 1]))
    many = scored(0, 1.5, classes=4)
    got = {k: float(v[0]) for k, v in figures(many, range(4), np.ones((1, 300))).items()}
    assert got["auroc"] == pytest.approx(roc_auc_score(many.y_test, many.p_test, multi_class="ovr"))
    assert got["accuracy"] == pytest.approx(accuracy_score(many.y_test, many.p_test.argmax(1)))
    assert got["sensitivity"] == pytest.approx(recall_score(many.y_test, many.p_test.argmax(1), average="macro"))


def test_weights_are_repeated_cases() -> None:
    one, rng = scored(1, 1.0, n=40), np.random.default_rng(0)
    w = rng.integers(0, 4, (3, 40)).astype(float)
    got = figures(one, [1], w)
    for r in range(3):
        rows = np.repeat(np.arange(40), w[r].astype(int))
        again = Scored(one.y_val, one.p_val, one.y_test[rows], one.p_test[rows], one.patients[rows])
        plain = figures(again, [1], np.ones((1, len(rows))))
        assert {k: v[r] for k, v in got.items()} == pytest.approx({k: v[0] for k, v in plain.items()})


def compared(gains: dict[str, float]) -> list[dict]:
    """Two folds, three seeds; each method's scores know the label by its own gain."""
    folds = {
        name: [[scored(10 * f + s, g + 0.1 * s, test_seed=f) for s in range(3)] for f in range(2)]
        for name, g in gains.items()
    }
    bootstrap = Bootstrap([own[0].patients for own in folds["tiger-f"]], 3, repeats=400)
    found = {name: bootstrap.of(own, [1]) for name, own in folds.items()}
    return differences(found, "tiger-f", [n for n in gains if n != "tiger-f"])


def test_differences_find_what_was_planted_and_nothing_else() -> None:
    worse, same, better = compared({"tiger-f": 1.2, "worse": 0.4, "same": 1.2, "better": 2.4})
    assert worse["auroc"]["ci"][0] > 0 and worse["p_holm"] < 0.05 and worse["above"] == worse["pairs"] == 6
    assert same["auroc"]["difference"] == 0.0 and same["p"] == 1.0 and same["auroc"]["ci"] == [0.0, 0.0]
    assert better["auroc"]["ci"][1] < 0 and better["p_holm"] < 0.05
    assert all(row["p_holm"] >= row["p"] for row in (worse, same, better))


def test_the_interval_covers_and_the_p_value_is_uniform_enough() -> None:
    """Pure noise, many times: the difference of two useless scores is outside its interval about once in twenty."""
    outside, small = 0, 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        y = rng.integers(0, 2, 80)
        who = np.arange(80).astype(str)
        parts = [np.stack([1 - p, p], 1) for p in rng.random((2, 80))]
        a, b = (Scored(y, parts[0], y, p, who) for p in parts)
        bootstrap = Bootstrap([who], 1, seed=trial, repeats=300)
        draws = bootstrap.of([[a]], [1])["auroc"][1] - bootstrap.of([[b]], [1])["auroc"][1]
        low, high = percentile_interval(draws)
        outside += not low <= 0 <= high
        small += two_sided(draws) < 0.05
    assert outside <= 8 and small <= 8


def test_seeds_widen_the_interval() -> None:
    """Seeds that disagree must show, even where patients alone would give a narrow interval."""
    alike = [[scored(0, 1.0) for _ in range(4)]]
    apart = [[scored(s, 1.0 + 0.8 * s) for s in range(4)]]
    bootstrap = Bootstrap([alike[0][0].patients], 4, repeats=500)
    a, b = (percentile_interval(bootstrap.of(own, [1])["auroc"][1]) for own in (alike, apart))
    assert b[1] - b[0] > a[1] - a[0]
