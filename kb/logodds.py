"""Which words one group uses more than another: log-odds ratio with an informative Dirichlet prior, and its q-values.

Monroe BL, Colaresi MP, Quinn KM. Fightin' words: lexical feature selection and evaluation for identifying the content
of political conflict. Political Analysis 2008;16:372-403. Benjamini Y, Hochberg Y. Controlling
the false discovery rate. J R Stat Soc B 1995;57:289-300.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054  # two-sided 95 % of the standard normal distribution


@dataclass(frozen=True)
class Contrast:
    """Use of one word in a group against another: natural log of the odds ratio, its standard error, p of "equal"."""

    log_odds: float
    error: float

    @property
    def z(self) -> float:
        """Log-odds in standard errors, the z-score of the paper."""
        return self.log_odds / self.error

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the log-odds, not corrected for the number of words."""
        return self.log_odds - Z95 * self.error, self.log_odds + Z95 * self.error

    @property
    def p(self) -> float:
        """Two-sided p under the normal approximation."""
        return math.erfc(abs(self.z) / math.sqrt(2))


def contrast(y: float, n: float, x: float, m: float, prior: float, weight: float) -> Contrast:
    """Log-odds ratio of one word between a group that uses it `y` times of `n` and one that does `x` times of `m`.

    `prior` of `weight` prior counts are the word's. The log-odds in a group are log((y + a) / (n + A - y - a)); the
    variance of their difference is the sum of the inverse smoothed counts, of the word and of the rest in both groups
    (the paper's short form leaves the rest out, which is right for rare words only). Raises ValueError unless the
    counts and the prior leave room for the word and for the rest.

    >>> found = contrast(8, 20, 2, 20, prior=1, weight=4)
    >>> round(found.log_odds, 4), round(found.error, 4)
    (1.4351, 0.7475)
    """
    if not (0 < prior < weight and 0 <= y <= n and 0 <= x <= m):
        raise ValueError(f"no contrast of {y} of {n} and {x} of {m} with a prior of {prior} of {weight}")
    cells = [y + prior, n + weight - y - prior, x + prior, m + weight - x - prior]
    odds = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return Contrast(odds, math.sqrt(sum(1 / cell for cell in cells)))


def benjamini_hochberg(values: Sequence[float]) -> list[float]:
    """q-values of p-values, in the same order: the false discovery rate at which each would be the last one taken.

    >>> [round(q, 3) for q in benjamini_hochberg([0.01, 0.04, 0.03, 0.5])]
    [0.04, 0.053, 0.053, 0.5]
    """
    order = sorted(range(len(values)), key=lambda k: values[k], reverse=True)
    found, lowest = [1.0] * len(values), 1.0
    for behind, k in enumerate(order):
        lowest = min(lowest, values[k] * len(values) / (len(values) - behind))
        found[k] = lowest
    return found
