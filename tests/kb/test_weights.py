"""Equations 9 and 10 against numbers worked out by hand."""

import doctest
import math

import pytest

from kb import weights
from kb.weights import delta, omega, term_frequency


@pytest.mark.parametrize(
    ("commonness", "weight"),
    # 0.6 + 5 / (1 + e^0) = 3.1; + e^1 = 1.9447; + e^1.5 = 1.5121; + e^5 = 0.6335
    [(0.0, 3.1), (0.2, 1.9447), (0.3, 1.5121), (1.0, 0.6335)],
)
def test_equation_9_gives_the_values_of_the_paper_settings(commonness: float, weight: float) -> None:
    assert omega(commonness) == pytest.approx(weight, abs=5e-5)


@pytest.mark.parametrize(
    ("commonness", "weight"),
    # e^1 = 2.718281828, 5 / 3.718281828 = 1.344707107; e^1.5 = 4.481689070, 5 / 5.481689070 = .912127618;
    # e^5 = 148.413159103, 5 / 149.413159103 = .033464255
    [(0.0, 3.1), (0.2, 1.944707107), (0.3, 1.512127618), (1.0, 0.633464255)],
)
def test_equation_9_by_hand_to_a_millionth(commonness: float, weight: float) -> None:
    assert omega(commonness) == pytest.approx(weight, abs=1e-6)


def test_equation_9_takes_other_settings() -> None:
    assert omega(1.0, a=1.0, b=2.0) == pytest.approx(1.0 + 2.0 / (1.0 + math.e**2))


def test_equation_10_by_role() -> None:
    assert [delta("particular", 0.4), delta("joint", 0.4), delta("common", 0.4), delta("other", 0.4)] == [0, 0.4, 1, 1]


def test_term_frequency_is_the_share_of_all_phrases_of_the_batch() -> None:
    assert term_frequency([["solid", "halo"], ["solid", "cyst"]]) == {"cyst": 0.25, "halo": 0.25, "solid": 0.5}


def test_examples_of_the_docstrings() -> None:
    result = doctest.testmod(weights)
    assert result.attempted == 3 and result.failed == 0
