"""Frames: determinism, true sizes, and physics with known answers."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tigerdata.phantom.render import render
from tigerdata.phantom.speckle import draw_machine

PLAIN = {"composition": ["solid"], "diameter": ["middle"], "aspect": ["wider_than_tall"], "margin": ["clear"]}
ECHO = ("anechoic", "markedly_hypoechoic", "hypoechoic", "isoechoic", "hyperechoic")


def frame(attributes, seed=0, plane="transverse", side="right", **options):
    return render({**PLAIN, **attributes}, plane, side, np.random.default_rng(seed), **options)


def core(mask):
    """The inner part of a mask."""
    return cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)


def below(mask, gap=6, depth=25):
    """A band under the middle third of a nodule."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    third = len(columns) // 3
    band = np.zeros_like(mask)
    band[rows[-1] + gap : rows[-1] + gap + depth, columns[third] : columns[-third]] = True
    return band


def test_same_seed_same_bytes_and_other_seed_other_image():
    first, again, other = frame({}, 1), frame({}, 1), frame({}, 2)
    assert first.image.tobytes() == again.image.tobytes() and np.array_equal(first.mask, again.mask)
    assert first.image.tobytes() != other.image.tobytes()
    assert first.image.dtype == np.uint8 and first.mask.dtype == bool and first.gland.dtype == bool


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("diameter", ["small", "middle", "large"])
def test_mask_measures_the_true_diameters(diameter, size):
    for seed in range(4):
        for plane in ("transverse", "longitudinal"):
            shown = frame({"diameter": [diameter]}, seed, plane, size=size)
            width = shown.mask.any(0).sum() * shown.mm_per_pixel
            height = shown.mask.any(1).sum() * shown.mm_per_pixel
            assert width == pytest.approx(shown.width_mm, abs=2.5 * shown.mm_per_pixel)
            assert height == pytest.approx(shown.height_mm, abs=2.5 * shown.mm_per_pixel)
            # A coarse ellipse of these axes has the area of the mask.
            area = shown.mask.sum() * shown.mm_per_pixel**2
            assert area == pytest.approx(np.pi / 4 * shown.width_mm * shown.height_mm, rel=0.12)


def test_one_identity_is_one_nodule_in_every_frame():
    machine = draw_machine(np.random.default_rng(5))
    frames = [frame({}, seed, identity=77, machine=machine) for seed in range(3)]
    assert len({(f.width_mm, f.height_mm) for f in frames}) == 1
    areas = [int(f.mask.sum()) for f in frames]
    assert np.ptp(areas) <= 0.02 * max(areas)
    assert frame({}, 0, identity=78, machine=machine).width_mm != frames[0].width_mm


def test_grey_level_follows_echogenicity():
    machine = draw_machine(np.random.default_rng(0))
    means = []
    for value in ECHO:
        composition = "cystic" if value == "anechoic" else "solid"
        attributes = {"echogenicity": [value], "composition": [composition]}
        frames = [frame(attributes, seed, machine=machine) for seed in range(6)]
        means.append(np.mean([f.image[core(f.mask)].mean() for f in frames]))
    assert np.all(np.diff(means) > 10), means


def test_isoechoic_is_as_bright_as_the_gland_around_it():
    differences = []
    for seed in range(8):
        shown = frame({"echogenicity": ["isoechoic"]}, seed)
        ring = cv2.dilate(shown.mask.astype(np.uint8), np.ones((17, 17), np.uint8)).astype(bool)
        ring &= shown.gland & ~cv2.dilate(shown.mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
        differences.append(float(shown.image[core(shown.mask)].mean()) - float(shown.image[ring].mean()))
    assert abs(np.mean(differences)) < 8


def paired(attributes, seeds=10):
    """Mean grey below the nodule with attributes minus without, same seeds."""
    gaps = []
    for seed in range(seeds):
        machine = draw_machine(np.random.default_rng(seed))
        changed = frame(attributes, seed, "longitudinal", identity=seed, machine=machine)
        plain = frame({"echogenicity": ["hypoechoic"]}, seed, "longitudinal", identity=seed, machine=machine)
        gaps.append(changed.image[below(changed.mask)].mean() - plain.image[below(plain.mask)].mean())
    return np.mean(gaps)


def test_macrocalcification_casts_a_shadow():
    assert paired({"echogenicity": ["hypoechoic"], "calcification": ["macrocalcification"]}) < -12


def test_rim_calcification_casts_a_shadow():
    assert paired({"echogenicity": ["hypoechoic"], "calcification": ["rim_calcification"]}) < -12


def test_a_cyst_enhances_what_lies_behind_it():
    assert paired({"composition": ["cystic"], "echogenicity": ["anechoic"]}) > 6


def test_calcium_is_the_brightest_thing_in_a_nodule():
    for kind in ("microcalcification", "macrocalcification", "rim_calcification", "comet_tail"):
        shown = frame({"echogenicity": ["hypoechoic"], "calcification": [kind]}, 3)
        plain = frame({"echogenicity": ["hypoechoic"], "calcification": ["absent"]}, 3)
        assert np.quantile(shown.image[shown.mask], 0.985) > np.quantile(plain.image[plain.mask], 0.985) + 40


def test_a_halo_is_a_dark_ring_inside_the_outline():
    for kind, least in (("thin_even", 20), ("unevenly_thick", 20), ("interrupted", 10)):  # the last is half a ring
        drops = []
        for seed in range(4):
            shown = frame({"echogenicity": ["isoechoic"], "halo": [kind]}, seed)
            inner = cv2.erode(shown.mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
            deep = cv2.erode(shown.mask.astype(np.uint8), np.ones((31, 31), np.uint8)).astype(bool)
            drops.append(shown.image[deep].mean() - shown.image[shown.mask & ~inner].mean())
        assert np.mean(drops) > least, kind


def test_an_unclear_margin_is_a_slow_edge():
    def steepness(margin):
        values = []
        for seed in range(8):
            shown = frame({"echogenicity": ["markedly_hypoechoic"], "margin": [margin]}, seed)
            smooth = cv2.GaussianBlur(shown.image.astype(np.float32), (0, 0), 1.5)
            edge = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
            ring = cv2.morphologyEx(shown.mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
            values.append(edge[ring].mean())
        return np.mean(values)

    assert steepness("clear") > 1.4 * steepness("unclear")


def test_extension_moves_the_nodule_against_the_capsule():
    def depth_of_top(extension):
        tops = []
        for seed in range(12):
            shown = frame({"extension": [extension]}, seed, "longitudinal")
            tops.append(np.flatnonzero(shown.mask.any(1))[0] * shown.mm_per_pixel)
        return np.mean(tops)

    tops = [depth_of_top(e) for e in ("absent", "abutting_capsule", "bulging", "extrathyroidal")]
    assert np.all(np.diff(tops) < -1.0), tops


def test_left_lobe_is_the_mirror_of_the_right():
    """The trachea's dark column is on the side of the midline: right of the image for the right lobe."""
    for side, darker in (("right", slice(-30, None)), ("left", slice(0, 30))):
        lighter = slice(0, 30) if side == "right" else slice(-30, None)
        contrast = [
            shown.image[150:200, lighter].mean() - shown.image[150:200, darker].mean()
            for shown in (frame({"diameter": ["small"]}, seed, side=side) for seed in range(8))
        ]
        assert np.mean(contrast) > 10


@pytest.mark.parametrize("side", ["left", "right", "isthmus"])
@pytest.mark.parametrize("plane", ["transverse", "longitudinal", "oblique"])
def test_every_plane_and_side_renders_with_the_nodule_in_the_gland(plane, side):
    for seed in range(3):
        shown = frame({}, seed, plane, side)
        assert shown.mask.any() and not (shown.mask & ~shown.gland).any()
        assert shown.gland.sum() > shown.mask.sum()


def test_nodule_is_never_cut_by_the_frame():
    for seed in range(10):
        for plane in ("transverse", "longitudinal"):
            for aspect in ("taller_than_wide", "wider_than_tall", "round"):
                mask = frame({"diameter": ["large"], "aspect": [aspect]}, seed, plane).mask
                assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_gain_changes_brightness_and_nothing_else_in_the_layout():
    machine = draw_machine(np.random.default_rng(0))
    dark, bright = (frame({}, 4, machine=replace(machine, gain_db=gain)) for gain in (-6.0, 6.0))
    assert bright.image.mean() > dark.image.mean() + 20
    assert np.array_equal(dark.mask, bright.mask) and np.array_equal(dark.gland, bright.gland)
