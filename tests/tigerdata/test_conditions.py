"""The condition maps against known answers, an independent gradient, and the leak that must not be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import kb
from kb.errors import UserError
from tigerdata import conditions


def speckled(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_sobel_of_a_step_is_half_the_step_beside_it_and_zero_elsewhere() -> None:
    image = np.zeros((20, 30), np.float32)
    image[:, 15:] = 100
    edges = conditions.sobel_magnitude(image)
    assert np.allclose(edges[:, 14:16], 50) and not edges[:, :14].any() and not edges[:, 16:].any()


def test_sobel_agrees_with_scipy() -> None:
    image = speckled(np.random.default_rng(1), (33, 47)).astype(np.float32)
    ours = conditions.sobel_magnitude(image)
    theirs = np.hypot(ndimage.sobel(image, 0, mode="mirror"), ndimage.sobel(image, 1, mode="mirror")) / 8
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_whole_map_agrees_with_an_independent_chain() -> None:
    """Gaussian, Sobel, blanking, block average and scaling, written with scipy and numpy only."""
    image = speckled(np.random.default_rng(2), (128, 128))
    mask = np.zeros((128, 128), bool)
    mask[50:70, 40:80] = True
    sigma = conditions.SMOOTHING * 4
    radius = int(np.ceil(3 * sigma))
    smooth = ndimage.gaussian_filter(image.astype(float), sigma, mode="mirror", radius=radius)
    edges = np.hypot(ndimage.sobel(smooth, 0, mode="mirror"), ndimage.sobel(smooth, 1, mode="mirror")) / 8 * 4
    reach = max(radius + 1, round(conditions.BLANK_MARGIN * 128))
    edges[ndimage.binary_dilation(mask, np.ones((2 * reach + 1,) * 2))] = 0
    blocks = edges.reshape(32, 4, 32, 4).mean(axis=(1, 3)) * 255 / conditions.FULL_SCALE
    ours = conditions.build(image, mask, 32).sobel
    assert np.abs(ours.astype(float) - np.clip(np.rint(blocks), 0, 255)).max() <= 1
    assert ours.max() > 20  # the comparison is of a map, not of zeros


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 64, 100]))
def test_no_pixel_inside_the_mask_reaches_the_sobel_map(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(40, 140)), int(rng.integers(40, 140)))
    image = speckled(rng, shape)
    mask = ndimage.gaussian_filter(rng.normal(size=shape), 6) > 0.05
    other = image.copy()
    other[mask] = speckled(rng, shape)[mask]
    one, two = conditions.build(image, mask, size), conditions.build(other, mask, size)
    np.testing.assert_array_equal(one.sobel, two.sobel)
    np.testing.assert_array_equal(one.mask, two.mask)


def test_the_background_does_reach_the_sobel_map() -> None:
    rng = np.random.default_rng(3)
    image, mask = speckled(rng, (64, 64)), np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    other = image.copy()
    other[50:60, 50:60] = 0
    assert (conditions.build(image, mask, 32).sobel != conditions.build(other, mask, 32).sobel).any()


def test_an_edge_has_the_same_value_whatever_else_is_in_the_frame() -> None:
    """No normalisation by the image's own maximum."""
    image = np.full((64, 64), 60, np.uint8)
    image[:, 16:] = 90
    brighter = image.copy()
    brighter[:, 48:] = 255
    mask = np.zeros((64, 64), bool)
    one, two = conditions.build(image, mask, 32), conditions.build(brighter, mask, 32)
    np.testing.assert_array_equal(one.sobel[:, :16], two.sobel[:, :16])
    assert two.sobel.max() > one.sobel.max() > 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_square_holds_the_nodule_and_is_no_larger_than_needed(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(20, 90)), data.draw(st.integers(20, 90))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    y, x, side = conditions.square(mask)
    assert y <= top and bottom <= y + side and x <= left and right <= x + side
    assert min(height, width) <= side <= max(height, width)
    if max(bottom - top, right - left) * 1.25 < min(height, width):
        assert side == min(height, width)  # nothing is padded without need
        assert 0 <= y <= height - side and 0 <= x <= width - side


def test_the_aspect_is_kept_and_the_frame_is_not_shifted_without_need() -> None:
    mask = np.zeros((100, 200), bool)
    mask[40:60, 86:116] = True
    made = conditions.build(np.full((100, 200), 50, np.uint8), mask, 50)
    rows, columns = np.flatnonzero(made.mask.any(1)), np.flatnonzero(made.mask.any(0))
    assert (len(rows), len(columns)) == (10, 15) and rows[0] == 20
    assert conditions.square(mask) == (0, 50, 100)


def test_mask_is_thresholded_by_area_and_a_tiny_one_survives() -> None:
    mask = np.zeros((64, 64), bool)
    mask[0:8, 0:8] = True
    mask[8:10, 0:8] = True  # covers half of the cells of the third row of 4 x 4 blocks: kept at .5
    small = conditions.build(np.arange(4096, dtype=np.uint32).reshape(64, 64).astype(np.uint8), mask, 16).mask
    assert small.sum() == 6 and small[:3, :2].all()
    dot = np.zeros((64, 64), bool)
    dot[33, 21] = True
    made = conditions.build(np.zeros((64, 64), np.uint8), dot, 16).mask
    assert made.sum() == 1 and made[8, 5] == 1


def test_constant_frame_and_empty_mask_give_zeros() -> None:
    made = conditions.build(np.full((30, 40), 77, np.uint8), np.zeros((30, 40), bool), 16)
    assert not made.sobel.any() and not made.mask.any() and (made.image == 77).all()


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError):
        conditions.build(np.zeros((8, 8), np.float32), np.zeros((8, 8), bool), 8)
    with pytest.raises(ValueError):
        conditions.build(np.zeros((8, 8), np.uint8), np.zeros((8, 9), bool), 8)


def test_quality_words_follow_the_pixels() -> None:
    base = kb.load("thyroid")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    flat = ndimage.gaussian_filter(noise, 8)
    low, high = conditions.quality_words(flat, base), conditions.quality_words(noise, base)
    assert low[:2] == [base.quality["definition"][0], base.quality["detail"][0]]
    assert high == [base.quality[name][-1] for name in ("definition", "detail", "brightness")]
    assert conditions.quality_words((noise // 6).astype(np.uint8), base)[2] == base.quality["brightness"][0]


def test_brightness_is_that_of_the_sector_not_of_the_black_border() -> None:
    frame = np.zeros((200, 256), np.uint8)
    frame[:, 64:192] = 90
    frame[80:120, 100:140] = 0  # a cyst lies inside the sector
    measured = conditions.quality_scores(frame)["brightness"]
    assert measured == pytest.approx(90 * (1 - 1600 / (200 * 128)), rel=0.06)


def test_quality_of_a_known_pattern() -> None:
    """Columns of 100 and 120 by turns: the Laplacian is +-40, so its variance is 1600, and no gradient is left."""
    frame = np.tile(np.array([100, 120], np.uint8), (256, 128))
    scores = conditions.quality_scores(frame)
    assert scores["definition"] == pytest.approx(1600, rel=0.01)
    assert scores["detail"] == 0 and scores["brightness"] == pytest.approx(110, rel=0.01)


def test_quality_does_not_depend_on_the_size_of_the_file() -> None:
    small = (
        ndimage.gaussian_filter(np.random.default_rng(4).normal(90, 60, (256, 256)), 2).clip(0, 255).astype(np.uint8)
    )
    large = np.repeat(np.repeat(small, 3, 0), 3, 1)
    one, two = conditions.quality_scores(small), conditions.quality_scores(large)
    assert two == pytest.approx(one, rel=1e-3)


def test_thresholds_of_the_wrong_number_or_order_are_refused() -> None:
    frame = np.full((32, 32), 90, np.uint8)
    cuts = {"definition": [1.0, 2.0], "detail": [0.2, 0.1], "brightness": [1.0, 2.0]}
    with pytest.raises(UserError, match="quality.detail"):
        conditions.quality_words(frame, kb.load("thyroid"), cuts)
