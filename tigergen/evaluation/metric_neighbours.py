"""Precision, recall, density and coverage by nearest-neighbour balls, and what neighbours say about copied images."""

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
# Rows that tell roughly how far neighbours are.
_SAMPLE = 512


def _pairs(a: Rows, i: NDArray[np.intp], b: Rows, j: NDArray[np.intp]) -> Array:
    """Squared distances of the rows a[i] and b[j], pair by pair, in float64."""
    out, step = np.empty(len(i)), max(1, 4_000_000 // a.shape[1])
    for s in range(0, len(i), step):
        difference = a[i[s : s + step]].astype(np.float64) - b[j[s : s + step]]
        out[s : s + step] = np.einsum("nd,nd->n", difference, difference)
    return out


class _Set:
    """Rows with a centred and scaled copy in float32, whose products are cheap."""

    def __init__(self, rows: Rows, centre: Array, scale: float) -> None:
        self.rows, self.centre = rows, centre
        self.small = np.empty(rows.shape, np.float32)
        for i in range(0, len(rows), 1024):
            self.small[i : i + 1024] = (rows[i : i + 1024] - centre) / scale
        self.norm = np.einsum("nd,nd->n", self.small, self.small)


class _Distances:
    """Squared distances of the rows of `a` to all rows of `b`: products in float32, float64 where rounding decides.

    The products take nearly all the time, and half of it in float32. |error| <= gamma (|x|^2 + |y|^2) with
    gamma = (d + 16) 2^-24 (Higham 2002, section 3.1, for the dot product in any order, plus the conversion and the
    sums), on centred and scaled rows. A comparison closer than that is made again in float64.
    """

    def __init__(self, a: _Set, b: _Set, scale: float, chunk: int) -> None:
        self.a, self.b, self.scale, self.chunk = a, b, scale, chunk
        self.doubt = ((a.rows.shape[1] + 16) * 2.0**-24 * (a.norm + b.norm.max())).astype(np.float32)[:, None]

    def block(self, i: int, first: int = 0, step: int = 1) -> Floats:
        """Distances [c, columns] of a chunk of rows to each `step`-th row of `b` from `first`, in units of scale^2."""
        rows, columns = slice(i, i + self.chunk), slice(first, None, step)
        d = self.a.small[rows] @ self.b.small[columns].T
        d *= -2.0
        d += self.a.norm[rows, None]
        d += self.b.norm[columns]
        return d

    def exact(self, start: int, wanted: Bools) -> Array:
        """The distances of a block that `wanted` [c, M] names, row by row, in float64."""
        r, c = np.nonzero(wanted)
        if len(r) <= _MANY * wanted.size:
            return _pairs(self.a.rows, start + r, self.b.rows, c)
        rows = self.a.rows[start : start + len(wanted)] - self.a.centre
        whole = np.empty(wanted.shape)
        for j in range(0, len(self.b.rows), 1024):
            whole[:, j : j + 1024] = squared_distances(rows, self.b.rows[j : j + 1024] - self.b.centre)
        return whole[wanted]

    def inside(self, start: int, d: Floats, radius: Array) -> Bools:
        """Which distances of a block are below `radius` (squared, [c, 1] or [M])."""
        small = (radius / self.scale**2).astype(np.float32)
        out = d < small
        undecided = np.abs(d - small) <= self.doubt[start : start + len(d)]
        if undecided.any():
            out[undecided] = self.exact(start, undecided) < np.broadcast_to(radius, d.shape)[undecided]
        return out

    def radii(self, k: int) -> Array:
        """Squared distance of each row of `a`, which is `b`, to its k-th nearest other row."""
        n = len(self.a.rows)
        if n > 4 * _SAMPLE:
            # The k-th nearest of some rows is no nearer than that of all: what lies beyond need not be kept.
            reach = np.concatenate([self._reach(i, k) for i in range(0, n, self.chunk)])
            if (reach >= 0).all():
                return self._radii_within(reach, k)
        out = np.empty(n)
        for i in range(0, n, self.chunk):
            d = self.block(i)
            rows = np.arange(len(d))
            d[rows, i + rows] = np.inf
            near = d <= np.partition(d, k - 1, axis=1)[:, k - 1 : k] + 2 * self.doubt[i : i + len(d)]
            near[rows, i + rows] = False
            out[i : i + len(d)] = _kth(np.nonzero(near)[0], self.exact(i, near), len(d), k)
        return out

    def _reach(self, i: int, k: int) -> Floats:
        """How far the k-th neighbour of a chunk of rows can be, [c]; -1 where too many rows are as near as that."""
        step = len(self.a.rows) // _SAMPLE
        d = self.block(i, step=step)
        own = np.arange(i, i + len(d))
        own = own[own % step == 0]
        d[own - i, own // step] = np.inf
        reach = np.partition(d, k - 1, axis=1)[:, k - 1] + 2 * self.doubt[i : i + len(d), 0]
        return np.where((d <= reach[:, None]).sum(1) > 4 * k, np.float32(-1), reach)

    def _radii_within(self, reach: Floats, k: int) -> Array:
        """`radii` from each pair once: rows of a chunk against the rows from there on."""
        n, found = len(self.a.rows), []
        for i in range(0, n, self.chunk):
            d = self.block(i, first=i)
            size, rows = len(d), np.arange(len(d))
            d[rows, rows] = np.inf
            for near, turned in ((d <= reach[i : i + size, None], False), (d[:, size:] <= reach[i + size :], True)):
                r, c = np.nonzero(near)
                c += size * turned
                found.append((i + (c if turned else r), i + (r if turned else c), d[r, c]))
        r, c, d32 = (np.concatenate(parts) for parts in zip(*found, strict=True))
        close = d32 <= _kth(r, d32, n, k)[r] + 2 * self.doubt[r, 0]
        r, c = r[close], c[close]
        return _kth(r, _pairs(self.a.rows, r, self.b.rows, c), n, k)


def _kth(r: NDArray[np.intp], values: Floats | Array, rows: int, k: int) -> Array:
    """The k-th smallest value of each row 0..rows-1, of values [P] in rows r [P]."""
    order = np.lexsort((values, r))
    return np.asarray(values[order][np.searchsorted(r[order], np.arange(rows)) + k - 1])


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
    x, y = _Set(a, centre, scale), _Set(b, centre, scale)
    radius_a, radius_b = _Distances(x, x, scale, chunk).radii(k), _Distances(y, y, scale, chunk).radii(k)
    held, covered, recalled = np.zeros(len(b), np.int64), 0, 0
    across = _Distances(x, y, scale, chunk)
    for i in range(0, len(a), chunk):
        d = across.block(i)
        balls = across.inside(i, d, radius_a[i : i + chunk, None])
        held += balls.sum(0)
        covered += int(balls.any(1).sum())
        recalled += int(across.inside(i, d, radius_b).any(1).sum())
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
        extraction), and carlini_held_out: with few features or images that happens without any copy.
        nearer_than_real: share of rows with d1 below the `quantile` of held-out rows' d1, which is the share expected
        when nothing is memorised (Dar et al. 2024).
        flagged: indices of the rows with d1 or Carlini's ratio below the `quantile` of held-out rows, to be looked at;
        up to 2 `quantile` of a set without copies.
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
    near, real = (_nearest(rows, t, max(neighbours, 2), chunk) for rows in (s, h))
    other = _nearest(s, h, 1, chunk)[:, 0]
    tie = np.isclose(near[:, 0], other, rtol=1e-9, atol=0.0)
    closer = np.where(tie, 0.5, near[:, 0] < other)
    carlini, new = (np.divide(d[:, 0], c, out=np.zeros(len(d)), where=c > 0)
                    for d in (near, real) for c in [0.5 * d[:, :neighbours].mean(1)])  # fmt: skip
    nearer = near[:, 0] < np.quantile(real[:, 0], quantile)

    def ratio(d: Array) -> float:
        return float(np.median(np.divide(d[:, 0], d[:, 1], out=np.zeros(len(d)), where=d[:, 1] > 0)))

    return {
        "dcr": float(np.median(near[:, 0])), "dcr_held_out": float(np.median(real[:, 0])),
        "nndr": ratio(near), "nndr_held_out": ratio(real),
        "closer_to_train": float(closer.mean()), "closer_to_train_ci": wilson(round(closer.sum()), len(s)),
        "closer_to_train_expected": len(t) / (len(t) + len(h)),
        "carlini": float((carlini < 1).mean()), "carlini_held_out": float((new < 1).mean()),
        "nearer_than_real": float(nearer.mean()),
        "flagged": [int(n) for n in np.nonzero(nearer | (carlini < np.quantile(new, quantile)))[0]],
    }  # fmt: skip
