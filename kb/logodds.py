"""Which words one group of texts uses more than another: log-odds ratio with an informative Dirichlet prior.

Monroe BL, Colaresi MP, Quinn KM. Fightin' words: lexical feature selection and evaluation for identifying the content
of political conflict. Political Analysis 2008;16:372-403, equations 16, 19 and 22. Benjamini Y, Hochberg Y. Controlling
the false discovery rate. J R Stat Soc B 1995;57:289-300.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054  # two-sided 95 % of the standard normal distribution


@dataclass(frozen=True)
class Contrast:
    """Use of one word in a group against another: natural log of the odds ratio, its standard error, p of "equal"."""

    log_odds: float
    error: float

    @property
    def z(self) -> float:
        """Log-odds in standard errors (equation 22)."""
        return self.log_odds / self.error

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the log-odds, not corrected for the number of words."""
        return self.log_odds - Z95 * self.error, self.log_odds + Z95 * self.error

    @property
    def p(self) -> float:
        """Two-sided p under the normal approximation."""
        return math.erfc(abs(self.z) / math.sqrt(2))


def contrast(
    target: Mapping[str, float], other: Mapping[str, float], prior: Mapping[str, float]
) -> dict[str, Contrast]:
    """Log-odds ratio of every word of `prior` between two groups of counts.

    With counts y, totals n, prior counts a and their total A, the log-odds of a word in a group are
    log((y + a) / (n + A - y - a)); their difference has the variance 1 / (y + a) + 1 / (y' + a). A word that the
    prior gives no weight is left out: its odds would be undefined where nobody uses it.

    >>> found = contrast({"halo": 8, "clear": 12}, {"halo": 2, "clear": 18}, {"halo": 1, "clear": 3})
    >>> round(found["halo"].log_odds, 4), round(found["halo"].error, 4)
    (1.4351, 0.6667)
    """
    words = [word for word, weight in prior.items() if weight > 0]
    weight = sum(prior[word] for word in words)
    n, m = (sum(group.get(word, 0) for word in words) for group in (target, other))
    found = {}
    for word in words:
        y, x = target.get(word, 0) + prior[word], other.get(word, 0) + prior[word]
        if n + weight - y <= 0 or m + weight - x <= 0:
            continue  # the only word there is: its odds have no alternative
        odds = math.log(y / (n + weight - y)) - math.log(x / (m + weight - x))
        found[word] = Contrast(odds, math.sqrt(1 / y + 1 / x))
    return found


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
