"""What a term's role is worth: its commonness and its weight in attention (equations 9 and 10 of the Tiger paper).

A fact about roles, so it stands with them: `tigerdata terms` shows these weights and the model's attention uses them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

A, B = 0.6, 5.0  # a and b of equation 9 as the paper sets them


def omega(delta: float, a: float = A, b: float = B) -> float:
    """Weight of a term from its commonness `delta`: a + b / (1 + exp(b delta)) (equation 9).

    >>> [round(omega(d), 4) for d in (0.0, 0.05, 1.0)]
    [3.1, 2.7891, 0.6335]
    """
    return a + b / (1.0 + math.exp(b * delta))


def delta(role: str, tau: float = 0.0) -> float:
    """Commonness of a term by its role: particular 0, joint its frequency `tau`, any other 1 (equation 10).

    >>> [delta(role, 0.25) for role in ("particular", "joint", "common")]
    [0.0, 0.25, 1.0]
    """
    return {"particular": 0.0, "joint": tau}.get(role, 1.0)


def term_frequency(prompts: Iterable[Sequence[str]]) -> dict[str, float]:
    """Share of each phrase among all phrases of `prompts`: tau of equation 10 over a batch or a corpus.

    >>> term_frequency([["solid", "halo"], ["solid", "cyst"]])
    {'cyst': 0.25, 'halo': 0.25, 'solid': 0.5}
    """
    counts = Counter(phrase for phrases in prompts for phrase in phrases)
    total = sum(counts.values())
    return {phrase: count / total for phrase, count in sorted(counts.items())}
