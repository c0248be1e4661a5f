"""Precision, recall, density and coverage by nearest-neighbour balls, and what neighbours say about copied images."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tigergen.evaluation.metric_classify import wilson
from tigergen.evaluation.metric_sets import (
    Array,
    MetricError,
    Rows,
    feature_matrix,
    feature_sets,
    same_features,
    squared_distances,
)

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

# Above this share of undecided pairs, products in float64 are faster than looking at the pairs one by one.
_MANY = 0.01


def _pairs(a: Rows, i: NDArray[np.intp], b: Rows, j: NDArray[np.intp]) -> Array:
    """Squared distances of the rows a[i] and b[j], pair by pair, in float64."""
    out, step = np.empty(len(i)), max(1, 4_000_000 // a.shape[1])
    for s in range(0, len(i), step):
        difference = a[i[s : s + step]].astype(np.float64) - b[j[s : s + step]]
        out[s : s + step] = np.einsum("nd,nd->n", difference, difference)
    return out


class _Distances:
    """Squared distances of the rows of `a` to all rows of `b`: products in float32, float64 where rounding decides.

    The products take nearly all the time, and half of it in float32. |error| <= gamma (|x|^2 + |y|^2) with
    gamma = (d + 16) 2^-24 (Higham 2002, section 3.1, for the dot product in any order, plus the conversion and the
    sums), on centred and scaled rows. A comparison closer than that is made again in float64.
    """

    def __init__(self, a: Rows, b: Rows, centre: Array, scale: float, chunk: int) -> None:
        self.a, self.b, self.centre, self.scale, self.chunk = a, b, centre, scale, chunk
        self.small_b = self._small(b)
        self.norm_b = np.einsum("nd,nd->n", self.small_b, self.small_b)
        self.gamma = (a.shape[1] + 16) * 2.0**-24

    def _small(self, rows: Rows) -> Floats:
        """Centred and scaled rows in float32, converted piece by piece."""
        out = np.empty(rows.shape, np.float32)
        for i in range(0, len(rows), 1024):
            out[i : i + 1024] = (rows[i : i + 1024] - self.centre) / self.scale
        return out

    def blocks(self) -> Iterator[tuple[int, Floats, Floats]]:
        """First row, distances [c, M] in units of scale^2, and their uncertainty [c, 1]."""
        own = self.small_b if self.a is self.b else None
        top = self.norm_b.max()
        for i in range(0, len(self.a), self.chunk):
            rows = self._small(self.a[i : i + self.chunk]) if own is None else own[i : i + self.chunk]
            norm = np.einsum("nd,nd->n", rows, rows)[:, None]
            d = rows @ self.small_b.T
            d *= -2.0
            d += norm
            d += self.norm_b
            yield i, d, np.asarray(self.gamma * (norm + top), np.float32)

    def exact(self, start: int, wanted: Bools) -> Array:
        """The distances of a block that `wanted` [c, M] names, row by row, in float64."""
        r, c = np.nonzero(wanted)
        if len(r) <= _MANY * wanted.size:
            return _pairs(self.a, start + r, self.b, c)
        rows = self.a[start : start + len(wanted)] - self.centre
        whole = np.empty(wanted.shape)
        for j in range(0, len(self.b), 1024):
            whole[:, j : j + 1024] = squared_distances(rows, self.b[j : j + 1024] - self.centre)
        return whole[wanted]

    def radii(self, k: int) -> Array:
        """Squared distance of each row of `a`, which is `b`, to its k-th nearest other row."""
        out = np.empty(len(self.a))
        for i, d, doubt in self.blocks():
            rows = np.arange(len(d))
            d[rows, i + rows] = np.inf
            near = d <= np.partition(d, k - 1, axis=1)[:, k - 1 : k] + 2 * doubt
            near[rows, i + rows] = False
            found, r = self.exact(i, near), np.nonzero(near)[0]
            order = np.lexsort((found, r))
            out[i : i + len(d)] = found[order][np.searchsorted(r, rows) + k - 1]
        return out

    def inside(self, start: int, d: Floats, doubt: Floats, radius: Array) -> Bools:
        """Which distances of a block are below `radius` (squared, [c, 1] or [M])."""
        small = (radius / self.scale**2).astype(np.float32)
        out = d < small
        d = np.abs(d - small)
        undecided = d <= doubt
        if undecided.any():
            out[undecided] = self.exact(start, undecided) < np.broadcast_to(radius, d.shape)[undecided]
        return out


def density_coverage(real: ArrayLike, fake: ArrayLike, k: int = 5, chunk: int = 512) -> dict[str, float]:
    """Precision, recall, density and coverage of `fake` against `real` by k-nearest-neighbour balls; higher is better.

    density = 1/(kM) sum_j #{i: f_j in B(r_i)}, coverage = 1/N #{i: some f_j in B(r_i)} (Naeem et al. 2020, eq. 3-4);
    precision = share of fakes in some B(r_i), recall = share of reals in some B(f_j) (Kynkaanniemi et al. 2019). B(r_i)
    reaches, open, to the k-th nearest other real row. Shares 0..1; density may pass 1. Coverage grows with the number
    of fakes: sets of equal size are the fair comparison. Never one number for both: they can disagree.

    Args: real [N, d], fake [M, d] features; float32 is taken as it is. Memory is that of the inputs, a float32 copy of
    each, and about 16 chunk max(N, M) bytes; the result depends on neither `chunk` nor the input's type.
    Raises:
        MetricError: NaN, unequal feature counts, fewer than k + 1 rows in a set.

    >>> density_coverage([[0.0], [1.0], [2.0]], [[0.1], [0.2], [9.0]], k=1)["coverage"]
    0.6666666666666666
    """
    a, b = feature_matrix(real, "the real set"), feature_matrix(fake, "the fake set")
    same_features(a, b)
    if k < 1 or min(len(a), len(b)) < k + 1:
        raise MetricError(f"density and coverage with k = {k} need at least {k + 1} samples in each set.")
    centre = a.mean(0, dtype=np.float64)
    scale = max(float(np.abs(rows - centre).max()) for s in (a, b) for rows in np.array_split(s, len(s) // 1024 + 1))
    scale = scale or 1.0
    radius_a = _Distances(a, a, centre, scale, chunk).radii(k)
    radius_b = _Distances(b, b, centre, scale, chunk).radii(k)
    held, covered, recalled = np.zeros(len(b), np.int64), 0, 0
    across = _Distances(a, b, centre, scale, chunk)
    for i, d, doubt in across.blocks():
        balls = across.inside(i, d, doubt, radius_a[i : i + len(d), None])
        held += balls.sum(0)
        covered += int(balls.any(1).sum())
        recalled += int(across.inside(i, d, doubt, radius_b).any(1).sum())
    return {
        "precision": float((held > 0).mean()),
        "recall": recalled / len(a),
        "density": float(held.sum() / (k * len(b))),
        "coverage": covered / len(a),
    }


def _nearest(queries: Array, among: Array, k: int, chunk: int) -> Array:
    """Distances [Q, k] to the k nearest rows, nearest first."""
    out = np.empty((len(queries), k))
    for i in range(0, len(queries), chunk):
        d = squared_distances(queries[i : i + chunk], among)
        out[i : i + chunk] = np.sqrt(np.sort(np.partition(d, k - 1, axis=1)[:, :k], axis=1))
    return out


def memorisation(
    train: ArrayLike,
    held_out: ArrayLike,
    synthetic: ArrayLike,
    neighbours: int = 50,
    quantile: float = 0.02,
    chunk: int = 1024,
) -> dict[str, float | tuple[float, float] | list[int]]:
    """Is the synthetic set nearer to the images that the generator was trained on than new real images are?

    d1 <= d2 ... are a row's distances to its nearest training rows. Nothing here proves privacy: sets that pass can
    still leak (Yao et al. 2025 on distance to closest record); it finds copies, and only those its features can see.

    Args: train, held_out, synthetic features [N, d] of one extractor; held-out images are of other patients.
    Returns:
        dcr: median d1 of synthetic rows (distance to closest record, feature units), and dcr_held_out, that of held-out
        rows: much less than it is a warning.
        nndr: median d1 / d2 (0..1), and nndr_held_out; near 0 a copy.
        closer_to_train: share of synthetic rows whose nearest real row is a training row (ties count half), ci its
        Wilson interval; expected is train / (train + held-out), the share when nothing is memorised.
        carlini: share of rows with d1 / (0.5 mean of d1 .. d`neighbours`) < 1 (Carlini et al. 2023, untargeted
        extraction).
        nearer_than_real: share of rows with d1 below the `quantile` of held-out rows' d1, which is the share expected
        when nothing is memorised (Dar et al. 2024).
        flagged: indices of the rows that either of the last two names, to be looked at.
    Raises:
        MetricError: NaN, unequal feature counts, no held-out or synthetic row, fewer training rows than `neighbours`.

    >>> found = memorisation([[0.0], [4.0], [8.0]], [[2.0], [6.0]], [[4.0], [5.9]], neighbours=2)
    >>> found["flagged"], found["closer_to_train"]
    ([0, 1], 0.5)
    """
    t, h, s = feature_sets(train=train, held_out=held_out, synthetic=synthetic)
    if min(len(h), len(s)) < 1 or len(t) < max(neighbours, 2) or neighbours < 1:
        raise MetricError(
            f"{len(t)} training, {len(h)} held-out and {len(s)} synthetic rows: one held-out and one synthetic row and "
            f"{max(neighbours, 2)} training rows are needed; lower `neighbours` for a smaller training set."
        )
    t, h, s = (rows - t.mean(0) for rows in (t, h, s))
    near, real = _nearest(s, t, max(neighbours, 2), chunk), _nearest(h, t, 2, chunk)
    other = _nearest(s, h, 1, chunk)[:, 0]
    tie = np.isclose(near[:, 0], other, rtol=1e-9, atol=0.0)
    closer = np.where(tie, 0.5, near[:, 0] < other)
    copied = near[:, 0] < 0.5 * near[:, :neighbours].mean(1)
    nearer = near[:, 0] < np.quantile(real[:, 0], quantile)

    def ratio(d: Array) -> float:
        return float(np.median(np.divide(d[:, 0], d[:, 1], out=np.zeros(len(d)), where=d[:, 1] > 0)))

    return {
        "dcr": float(np.median(near[:, 0])), "dcr_held_out": float(np.median(real[:, 0])),
        "nndr": ratio(near), "nndr_held_out": ratio(real),
        "closer_to_train": float(closer.mean()), "closer_to_train_ci": wilson(round(closer.sum()), len(s)),
        "closer_to_train_expected": len(t) / (len(t) + len(h)),
        "carlini": float(copied.mean()), "nearer_than_real": float(nearer.mean()),
        "flagged": [int(n) for n in np.nonzero(copied | nearer)[0]],
    }  # fmt: skip
