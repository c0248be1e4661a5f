"""Nodule geometry: sizes in mm, bins, aspect, and outlines that differ by shape and margin."""

import cv2
import numpy as np
import pytest

import kb
from tigerdata.phantom.nodule import SIZES_MM, draw_outline, draw_size


def polygon(outline):
    theta = np.arange(len(outline.radius)) * (2 * np.pi / len(outline.radius))
    return np.stack([outline.radius * np.cos(theta), outline.radius * np.sin(theta)], axis=1).astype(np.float32)


def solidity(attributes, seed):
    points = polygon(draw_outline(attributes, 14.0, 10.0, np.random.default_rng(seed)))
    return cv2.contourArea(points) / cv2.contourArea(cv2.convexHull(points))


@pytest.mark.parametrize("value", ["small", "middle", "large"])
def test_sizes_stay_in_the_bin_of_the_knowledge_base_even_when_rounded(value):
    base = kb.load("thyroid")
    for bound in SIZES_MM[value]:
        assert base.size_class(round(bound)) == value
    rng = np.random.default_rng(0)
    for _ in range(50):
        width, height = draw_size({"diameter": [value], "aspect": ["oval"]}, rng)
        assert base.size_class(round(max(width, height))) == value


def test_aspect_is_height_over_width():
    rng = np.random.default_rng(0)
    for aspect, low, high in (("taller_than_wide", 1.1, 2), ("round", 0.9, 1.1), ("wider_than_tall", 0.4, 0.9)):
        for _ in range(20):
            width, height = draw_size({"aspect": [aspect]}, rng)
            assert low < height / width < high


@pytest.mark.parametrize("margin", ["clear", "spiculated", "lobulated", "irregular_margin"])
@pytest.mark.parametrize("shape", ["regular", "irregular"])
def test_bounding_box_is_the_size_asked_for(margin, shape):
    for seed in range(5):
        outline = draw_outline({"margin": [margin], "shape": [shape]}, 15.0, 9.0, np.random.default_rng(seed))
        assert np.ptp(polygon(outline), axis=0) == pytest.approx([15.0, 9.0], abs=0.35)


def test_irregular_shapes_and_margins_are_less_convex_than_regular_ones():
    regular = [solidity({"shape": ["regular"], "margin": ["clear"]}, s) for s in range(20)]
    assert min(regular) > 0.97
    for attributes in ({"shape": ["irregular"]}, {"margin": ["irregular_margin"]}, {"margin": ["spiculated"]}):
        assert np.mean([solidity(attributes, s) for s in range(20)]) < 0.93


def test_margins_bend_the_outline_faster_than_shapes_do():
    def fast_share(attributes):
        shares = []
        for seed in range(20):
            radius = draw_outline(attributes, 12.0, 12.0, np.random.default_rng(seed)).radius
            power = np.abs(np.fft.rfft(radius - radius.mean())) ** 2
            shares.append(power[6:].sum() / power[1:].sum())
        return np.mean(shares)

    assert fast_share({"margin": ["irregular_margin"]}) > 0.3
    assert fast_share({"shape": ["irregular"]}) < 0.06


def test_outlines_are_no_perfect_ellipses():
    radius = draw_outline({}, 12.0, 12.0, np.random.default_rng(3)).radius
    assert np.ptp(radius) > 0.1
