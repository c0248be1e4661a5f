"""Log-odds with an informative prior and the false discovery rate, against other people's formulas and hand figures."""

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from kb import logodds
from kb.logodds import benjamini_hochberg, contrast


def test_contrast_by_hand() -> None:
    # 8 + 1 of 20 + 4 against 2 + 1 of 20 + 4: ln(9/15) - ln(3/21) = 1.4351; sqrt(1/9 + 1/15 + 1/3 + 1/21) = 0.7475
    found = contrast(8, 20, 2, 20, prior=1, weight=4)
    assert found.log_odds == pytest.approx(1.4351, abs=5e-5)
    assert found.error == pytest.approx(0.7475, abs=5e-5)
    assert found.interval == pytest.approx((1.4351 - 1.96 * 0.7475, 1.4351 + 1.96 * 0.7475), abs=1e-3)
    assert found.p == pytest.approx(2 * stats.norm.sf(1.4351 / 0.7475), abs=1e-4)


def test_contrast_equals_the_paper_written_out_with_arrays() -> None:
    """The paper's log-odds over a whole vocabulary, and its variance with the terms that the short form drops."""
    rng = np.random.default_rng(3)
    y, x = rng.integers(0, 60, 40), rng.integers(0, 400, 40)
    prior = 0.05 * (y + x + 1)
    n, m, total = y.sum(), x.sum(), prior.sum()
    omega_y, omega_x = (y + prior) / (n + total - y - prior), (x + prior) / (m + total - x - prior)
    variance = (1 + omega_y) / (y + prior) + (1 + omega_x) / (x + prior)  # 1/k + 1/rest = (1 + k/rest) / k
    found = [contrast(*row, total) for row in zip(y, [n] * 40, x, [m] * 40, prior, strict=True)]
    assert [c.log_odds for c in found] == pytest.approx((np.log(omega_y) - np.log(omega_x)).tolist())
    assert [c.error for c in found] == pytest.approx(np.sqrt(variance).tolist())


def test_a_light_prior_gives_the_plain_log_odds_ratio() -> None:
    found = contrast(30, 40, 10, 50, prior=1e-9, weight=2e-9)
    ratio = stats.contingency.odds_ratio([[30, 10], [10, 40]], kind="sample").statistic
    assert found.log_odds == pytest.approx(math.log(ratio))


def test_a_heavier_prior_pulls_to_no_difference() -> None:
    light, heavy = (contrast(9, 20, 1, 20, k, 4 * k).log_odds for k in (0.1, 50))
    assert 0 < heavy < 0.3 < 2 < light


@pytest.mark.parametrize("given", [(1, 2, 1, 2, 0, 4), (1, 2, 1, 2, 4, 4), (3, 2, 1, 2, 1, 4), (-1, 2, 1, 2, 1, 4)])
def test_counts_that_cannot_be_are_refused(given: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="no contrast"):
        contrast(*given)


@pytest.mark.parametrize("seed", range(5))
def test_q_values_equal_those_of_scipy(seed: int) -> None:
    values = np.random.default_rng(seed).beta(0.5, 2, 50)
    assert benjamini_hochberg(values.tolist()) == pytest.approx(stats.false_discovery_control(values).tolist())


def test_no_values_give_no_q() -> None:
    assert benjamini_hochberg([]) == []


def test_examples_of_the_docstrings() -> None:
    result = doctest.testmod(logodds)
    assert result.attempted >= 3 and result.failed == 0
