"""Polygons and COCO run lengths as masks: known answers, an independent implementation, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from tigerdata.regions.outlines import decode_counts, fill, run_lengths


def encode(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask by going through its pixels one by one, down the columns."""
    counts, last = [0], False
    for value in mask.T.ravel():
        if value != last:
            counts.append(0)
            last = not last
        counts[-1] += 1
    return counts


def compress(counts: list[int]) -> str:
    """COCO's string of run lengths, by its definition."""
    text = ""
    for k, count in enumerate(counts):
        value = count - counts[k - 2] if k > 2 else count
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            text += chr(48 + (group if done else group | 32))
            if done:
                break
    return text


def test_a_rectangle_covers_the_pixels_whose_centres_it_holds() -> None:
    mask = fill([[(2, 1), (5, 1), (5, 4), (2, 4)]], (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(mask, expected)
    # Half a pixel to the right and down: the border goes through the centres of columns 2 and 5 and of rows 1 and 4.
    shifted = fill([[(2.6, 1.6), (5.6, 1.6), (5.6, 4.6), (2.6, 4.6)]], (6, 8))
    np.testing.assert_array_equal(shifted[2:5, 3:6], True)
    assert shifted.sum() == 9


def test_polygons_are_united_and_cut_at_the_border() -> None:
    one, two = [(1, 1), (4, 1), (4, 4), (1, 4)], [(2, 2), (6, 2), (6, 6), (2, 6)]
    assert fill([one, two], (8, 8)).sum() == 9 + 16 - 4
    assert fill([[(-5, -5), (3, -5), (3, 3), (-5, 3)]], (8, 8)).sum() == 9
    assert not fill([[(20, 20), (30, 20), (30, 30)]], (8, 8)).any()
    assert not fill([], (8, 8)).any()


def test_small_discs_keep_their_area_wherever_they_lie() -> None:
    """On average over places: OpenCV's fillPoly makes a disc of 20 pixels a tenth larger."""
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    for radius in (6, 10, 25):
        places = [(50 + k / 7, 50 + k / 11) for k in range(20)]
        areas = [
            fill([[(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles]], (100, 100)).sum()
            for x, y in places
        ]
        assert np.mean(areas) == pytest.approx(np.pi * radius**2, rel=0.01)


POINTS = st.lists(st.tuples(st.integers(-40, 400), st.integers(-40, 400)), min_size=3, max_size=12)


@settings(deadline=None)
@given(POINTS)
def test_fill_agrees_with_scikit_image(points: list[tuple[int, int]]) -> None:
    # Tenths plus .037: no corner or edge of either implementation meets a pixel centre exactly.
    outline = [(x / 10 + 0.037, y / 10 + 0.0213) for x, y in points]
    mask = fill([outline], (36, 34))
    other = polygon2mask((36, 34), [(y - 0.5, x - 0.5) for x, y in outline])
    differing = np.argwhere(mask != other)
    for row, column in differing:  # only where an edge runs through the centre itself, to rounding
        assert min(_distance((column + 0.5, row + 0.5), a, b) for a, b in zip(outline, outline[1:] + outline[:1],
                                                                            strict=True)) < 1e-9  # fmt: skip


def _distance(p: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> float:
    p, a, b = (np.asarray(v) for v in (p, a, b))
    length = float((b - a) @ (b - a))
    t = 0.0 if length == 0 else min(1.0, max(0.0, float((p - a) @ (b - a)) / length))
    return float(np.hypot(*(a + t * (b - a) - p)))


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_run_lengths_come_back(height: int, width: int, random) -> None:
    mask = np.array([[random.random() < 0.3 for _ in range(width)] for _ in range(height)])
    counts = encode(mask)
    np.testing.assert_array_equal(run_lengths(counts, mask.shape), mask)
    assert decode_counts(compress(counts)) == counts


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000_000), max_size=30))
def test_compressed_numbers_of_any_size_come_back(counts: list[int]) -> None:
    assert decode_counts(compress(counts)) == counts


# Written by pycocotools 2.0.11 for an ellipse of 9 x 11 pixels and for two rectangles in a frame of 500 x 600.
KNOWN: list[tuple[str, tuple[int, int], list[int]]] = [
    (
        "`0184M2O000O20N10001N3L8", (11, 13),
        [16, 1, 8, 5, 5, 7, 4, 7, 4, 7, 3, 9, 3, 7, 4, 7, 4, 7, 5, 5, 8, 1, 16],
    ),
    (
        "\\`h0n0f>00000000000000000TcV8TOh]iG00", (500, 600),
        [25100, *[30, 470] * 9, 30, 269370, 2, 498, 2, 498],
    ),
]  # fmt: skip


def test_strings_of_pycocotools() -> None:
    assert KNOWN
    for text, shape, counts in KNOWN:
        assert decode_counts(text) == counts
        assert run_lengths(counts, shape).shape == shape


@pytest.mark.parametrize("text", ["~~~", "0P", "o", "é", "P" * 40])
def test_a_string_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        decode_counts(text)


@pytest.mark.parametrize("counts", [[5], [-1, 5], [3, 4, 5], [[1, 2], [3, 4]], []])
def test_run_lengths_that_do_not_fit(counts: list) -> None:
    with pytest.raises(ValueError):
        run_lengths(counts, (2, 2))
