"""Nodule placement, 10,000 random draws on simulated frames: where the centroid lies and how far the edge is passed.

Needs nothing but the program. What is checked is computed here again from the masks, not taken from the placement.
`python benchmarks/bench_place.py 500` draws fewer.
"""

import json
import sys
import time
from collections import Counter

import numpy as np

from tigerdata.phantom.render import render
from tigerdata.regions.placement import REACH, CannotPlace, place

SIZE, GLANDS = 128, 60
WORDS = {
    "longitudinal": ("upper", "middle", "lower", "mid_upper", "mid_lower", "anterior", "posterior"),
    "transverse": ("medial", "lateral", "anterior", "posterior"),
}
EXTENSIONS = (None, "absent", *REACH)
WINDOWS = {"upper": (0, 1 / 3), "middle": (1 / 3, 2 / 3), "lower": (2 / 3, 1), "mid_upper": (1 / 6, 1 / 2),
           "mid_lower": (1 / 2, 5 / 6)}  # fmt: skip


def main(draws: int) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for k in range(GLANDS):
        plane, side = ("longitudinal", "transverse")[k % 2], ("left", "right")[k // 2 % 2]
        size = ("small", "middle", "large")[int(rng.choice(3, p=(0.4, 0.4, 0.2)))]
        frame = render({"diameter": [size]}, plane, side, rng, SIZE)
        frames.append((plane, side, frame.mask, frame.gland))
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    for _ in range(draws):
        plane, side, _, gland = frames[int(rng.integers(GLANDS))]
        mask = frames[int(rng.integers(GLANDS))][2]
        word, extension = str(rng.choice(WORDS[plane])), EXTENSIONS[int(rng.integers(len(EXTENSIONS)))]
        try:
            placed = place(mask, gland, [word], extension, rng, plane=plane, shows=side)
        except CannotPlace as refusal:
            counts[f"refused {refusal.code}"] += 1
            continue
        counts["placed"] += 1
        counts["centroid in the named third"] += in_window(placed.mask, gland, word, side)
        passed = beyond(placed.mask, gland)
        low, high = REACH.get(str(extension), (0, 0))
        counts["extensions asked"] += extension in REACH
        counts["extension within 0-10 px and its grade"] += extension in REACH and low <= passed <= high
        counts["whole, and inside the gland but for its extension"] += passed >= 0 and placed.mask.any()
    seconds = time.perf_counter() - started
    counts_ = {name: int(n) for name, n in sorted(counts.items())}
    print(json.dumps({"draws": draws, **counts_, "ms a draw": round(1000 * seconds / draws, 1)}, indent=1))


def in_window(mask: np.ndarray, gland: np.ndarray, word: str, side: str) -> bool:
    rows, columns = np.nonzero(mask)
    y, x = np.flatnonzero(gland.any(1)), np.flatnonzero(gland.any(0))
    across, down = (columns.mean() + 0.5 - x[0]) / (x[-1] + 1 - x[0]), (rows.mean() + 0.5 - y[0]) / (y[-1] + 1 - y[0])
    if word in ("anterior", "posterior"):
        return bool((down < 1 / 3) if word == "anterior" else (down >= 2 / 3))
    if word in ("medial", "lateral"):
        return bool((across >= 2 / 3) if (word == "medial") == (side == "right") else (across < 1 / 3))
    low, high = WINDOWS[word]
    return bool(low <= across <= high)


def beyond(mask: np.ndarray, gland: np.ndarray) -> int:
    """Rows beyond the upper edge; -1 if a pixel lies outside the gland and not above it."""
    rows, columns = np.nonzero(mask & ~gland)
    if rows.size == 0:
        return 0
    if not gland[:, columns].any(0).all():
        return -1
    passed = gland[:, columns].argmax(0) - rows
    return int(passed.max()) if passed.min() > 0 else -1


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
