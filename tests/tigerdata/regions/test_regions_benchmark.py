"""The parts of the segmentation benchmark whose answers are known: sweeps, blocks, cleaned masks, intervals."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.segmentation import blocks, clean, interval, sweeps


def test_a_new_sweep_starts_where_neighbours_hardly_look_alike() -> None:
    rng = np.random.default_rng(0)
    first, second = (cv2.resize(rng.integers(0, 256, (8, 8)).astype(np.uint8), (64, 64)) for _ in range(2))
    noise = rng.integers(0, 8, (10, 64, 64)).astype(np.uint8)
    frames = [(first if k < 6 else second) // 2 + noise[k] for k in range(10)]
    assert sweeps(frames) == [0] * 6 + [1] * 4


def test_blocks_are_contiguous_and_cut_no_sweep() -> None:
    sweep = [k for k, size in enumerate((30, 20, 22, 13, 15)) for _ in range(size)]
    parts = blocks(sweep)
    assert parts == ["train"] * 72 + ["val"] * 13 + ["test"] * 15
    assert all(len({p for p, s in zip(parts, sweep, strict=True) if s == own}) == 1 for own in set(sweep))


def test_letters_leave_a_mask_and_lobes_stay() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:30, 5:25], mask[10:20, 35:45], mask[1:3, 1:9] = True, True, True
    tidy = clean(mask)
    assert tidy[10:30, 5:25].all() and tidy[10:20, 35:45].all() and not tidy[1:3, 1:9].any()


def test_interval_draws_whole_groups() -> None:
    # Two groups that differ, none within: a resample has mean 0, 1/2 or 1, so the interval is the whole range ...
    values, groups = np.repeat([0.0, 1.0], 50), ["a"] * 50 + ["b"] * 50
    assert interval(values, groups) == (0.0, 1.0)
    # ... and with every frame its own group it is that of a mean of 100 coin flips: .5 +- 1.96 * .05.
    low, high = interval(values, [str(k) for k in range(100)])
    assert low == pytest.approx(0.402, abs=0.015) and high == pytest.approx(0.598, abs=0.015)


@pytest.mark.realdata
def test_the_gland_series_has_three_blocks_in_file_order(real_data: Path) -> None:
    files = sorted((real_data / "gland" / "image").iterdir(), key=lambda p: int(p.stem))
    sweep = sweeps([cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in files])
    parts = blocks(sweep)
    assert len(files) == 286 and max(sweep) == 16
    assert parts == sorted(parts, key=("train", "val", "test").index)
    assert [parts.count(p) for p in ("train", "val", "test")] == [191, 62, 33]
