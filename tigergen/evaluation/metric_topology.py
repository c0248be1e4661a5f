"""Geometry Score: do two sets of points have holes of the same size and number?

Persistent homology of witness complexes in dimension 1. The complexes are small (64 landmarks), so that a reduction
over whole numbers as bit sets is enough, and no library whose wheels carry GPL parts (GUDHI with CGAL) is needed.
"""

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tigergen.evaluation.metric_sets import Array, MetricError, feature_sets, squared_distances

Ints = NDArray[np.intp]
HOLES = 100


def geometry_score(
    x: ArrayLike, y: ArrayLike, gamma: float = 1 / 128, landmarks: int = 64, n: int = 100, seed: int = 0
) -> float:
    """Geometry Score of two sets; 0 is equal, lower is better (mostly .0001 to .1); sees topology only.

    sum_i (MRLT_x(i) - MRLT_y(i))^2, where MRLT(i) is the mean over `n` draws of landmarks of the share of [0,
    alpha_max] in which the witness complex has i one-dimensional holes, i < 100; alpha_max = gamma times the largest
    distance of a point from a landmark. Source: Khrulkov and Oseledets 2018, eq. 2-3 and algorithms 1-2. Theirs lets
    gamma grow with N; here it is fixed, and N must be the same, because both change the score. Landmarks are drawn
    without repetition, the same rows of both sets.

    It does not move when a set is shifted or scaled, and may not see blur or noise at all.

    Args: x, y features [N, d]; n draws of landmarks, about 0.1 s each at N = 1,000 (theirs: 1,000 draws).
    Raises:
        MetricError: NaN, sets of different size, no more rows than landmarks, fewer than 4 landmarks.

    >>> ring = np.stack([np.cos(np.arange(80.0)), np.sin(np.arange(80.0))], axis=1)
    >>> geometry_score(ring, 3 * ring + 7, landmarks=20, n=5) < 1e-12
    True
    """
    a, b = feature_sets(first=x, second=y)
    if len(a) != len(b):
        raise MetricError(f"{len(a)} and {len(b)} rows: the Geometry Score depends on N; draw both sets to one size.")
    if landmarks < 4 or n < 1 or not gamma > 0 or len(a) <= landmarks:
        raise MetricError(f"{len(a)} rows are too few for {landmarks} landmarks (4 or more, fewer than the rows).")
    rng = np.random.default_rng(seed)
    total = np.zeros(HOLES)
    for _ in range(n):
        rows = rng.permutation(len(a))[:landmarks]
        total += living_times(a, rows, gamma) - living_times(b, rows, gamma)
    return float(((total / n) ** 2).sum())


def living_times(points: Array, landmarks: Ints, gamma: float) -> Array:
    """RLT [100]: share of 0..alpha_max in which the complex on these rows as landmarks has i holes (eq. 2-3)."""
    own = points - points.mean(0)
    d = np.sqrt(squared_distances(own, own[landmarks]))
    top = gamma * float(d.max())
    out = np.zeros(HOLES)
    if top == 0.0:
        out[0] = 1.0
        return out
    bars = np.minimum(holes(d, top), top)
    edges = np.unique(np.concatenate([[0.0, top], bars.ravel()]))
    middle = (edges[1:] + edges[:-1]) / 2
    alive = ((bars[:, :1] <= middle) & (middle < bars[:, 1:])).sum(0)
    few = alive < HOLES
    np.add.at(out, alive[few], np.diff(edges)[few])
    return out / top


def holes(d: Array, top: float) -> Array:
    """Birth and death [holes, 2] of the one-dimensional classes of a witness complex; death is inf past `top`.

    Args: d distances [witnesses, landmarks]. A simplex appears when some witness has all of it nearer than any other
    landmark plus the parameter, and its faces are there (relaxed witness complex, de Silva and Carlsson 2004).
    """
    order = np.argsort(d, axis=1, kind="stable")
    s = np.take_along_axis(d, order, axis=1)
    n = d.shape[1]
    vertex, edge, triangle = (_appearance(s, order, dimension, top) for dimension in (0, 1, 2))
    i, j = np.divmod(np.arange(n * n), n)
    edge = np.maximum(edge, np.maximum(vertex[i], vertex[j]))
    codes = np.nonzero(np.isfinite(triangle))[0]
    sides = np.stack([codes // n, codes // (n * n) * n + codes % n, codes % (n * n)], axis=1)
    values = np.maximum(triangle[codes], edge[sides].max(1, initial=0.0))
    kept = np.isfinite(values)
    return _persistence(edge, n, sides[kept], values[kept])


def _appearance(s: Array, order: Ints, dimension: int, top: float) -> Array:
    """Parameter [n ** (dimension + 1)] at which a witness first has each simplex, inf past `top`, faces not regarded.

    It is the distance of the farthest vertex less that of the nearest landmark left out (0 if that is farther). The
    code of a simplex is its vertices, ascending, as the digits of a number to the base n.
    """
    n = s.shape[1]
    out, digits = np.full(n ** (dimension + 1), np.inf), n ** np.arange(dimension, -1, -1)
    for depth in range(dimension, n):  # place of the farthest vertex among the witness's landmarks
        some = False
        for left_out in range(min(dimension, depth) + 1):  # the nearer ones are all in
            value = np.zeros(len(s)) if depth == left_out else s[:, depth] - s[:, left_out]
            near = value <= top
            if not near.any():
                continue
            some = True
            free = combinations(range(left_out + 1, depth), dimension - left_out)
            places = np.array([(*range(left_out), *rest, depth) for rest in free], np.intp).reshape(-1, dimension + 1)
            vertices = np.sort(order[near][:, places], axis=2)
            np.minimum.at(out, vertices @ digits, value[near, None])
        if not some:
            break  # farther places are relaxed more
    return out


def _persistence(edge: Array, n: int, sides: Ints, values: Array) -> Array:
    """Bars of dimension 1 from the appearance of edges [n * n] and of triangles with their three edges [T, 3]."""
    codes = np.nonzero(np.isfinite(edge))[0]
    codes = codes[np.argsort(edge[codes], kind="stable")]
    place = {int(code): rank for rank, code in enumerate(codes)}
    parent = list(range(n))

    def root(v: int) -> int:
        while parent[v] != v:
            parent[v] = v = parent[parent[v]]
        return v

    born = {}
    for rank, code in enumerate(codes):
        u, v = root(int(code) // n), root(int(code) % n)
        if u == v:
            born[rank] = edge[code]  # it closes a cycle
        else:
            parent[u] = v
    columns: dict[int, int] = {}  # lowest edge of a reduced boundary (its highest bit) to that boundary
    bars = []
    for t in np.argsort(values, kind="stable"):
        boundary = 0
        for code in sides[t]:
            boundary ^= 1 << place[int(code)]
        while boundary and (low := boundary.bit_length() - 1) in columns:
            boundary ^= columns[low]
        if boundary:
            columns[low] = boundary
            bars.append((born.pop(low), values[t]))
    return np.array([*bars, *((birth, np.inf) for birth in born.values())]).reshape(-1, 2)
