"""Polygons and run lengths give the mask back, read by the importer and by other programs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from tigerdata.export.shapes import box, outlines, run_lengths_of
from tigerdata.regions.outlines import fill, run_lengths


def holes_filled(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    # The outside is connected over corners where the mask's parts are not.
    return binary_fill_holes(mask, structure=np.ones((3, 3)))


@given(st.integers(0, 2**63), st.floats(0.05, 0.95))
def test_outlines_filled_again_are_the_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((9, 7)) < share
    polygons, hollow = outlines(mask)
    np.testing.assert_array_equal(fill([p.tolist() for p in polygons], mask.shape), holes_filled(mask))
    assert hollow == bool((holes_filled(mask) != mask).any())


@given(st.integers(0, 2**63), st.floats(0, 1))
def test_run_lengths_are_the_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((5, 8)) < share
    np.testing.assert_array_equal(run_lengths(run_lengths_of(mask), mask.shape), mask)


def test_an_outline_has_corners_only_and_starts_at_the_top() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    polygons, hollow = outlines(mask)
    assert [p.tolist() for p in polygons] == [[[2, 1], [7, 1], [7, 4], [2, 4]]] and not hollow
    assert box(mask) == (2, 1, 5, 3)


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    polygons, hollow = outlines(np.eye(2, dtype=bool))
    assert len(polygons) == 2 and not hollow


def test_an_empty_mask_has_no_outline() -> None:
    assert outlines(np.zeros((4, 4), bool)) == ([], False)


@pytest.mark.parametrize("radius", [2.5, 11.3, 40.0])
def test_scikit_image_fills_an_outline_to_the_same_mask(radius: float) -> None:
    """Independent implementation: it tests pixel centres at whole numbers, half a pixel from ours."""
    y, x = np.mgrid[:100, :90]
    mask = (x - 41.2) ** 2 + 1.4 * (y - 48.7) ** 2 < radius**2
    polygons, _ = outlines(mask)
    np.testing.assert_array_equal(polygon2mask(mask.shape, polygons[0][:, ::-1] - 0.5), mask)
