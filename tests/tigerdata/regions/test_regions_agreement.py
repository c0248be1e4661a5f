"""Mask against text: known sizes, forms and places; what cannot be compared is not in the result."""

import numpy as np
import pytest

from kb import load
from tigerdata.phantom.render import render
from tigerdata.regions.agreement import agreement, longest

BASE = load("thyroid")


def box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (100, 140)) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[top : top + height, left : left + width] = True
    return out


def test_the_longest_extent_is_the_diagonal_of_a_box() -> None:
    assert longest(box(10, 10, 31, 41)) == pytest.approx(51)  # 30 by 40 between pixel centres, and a pixel
    assert longest(box(5, 5, 1, 1)) == 1


@pytest.mark.parametrize(
    ("sizes", "words", "expected"),
    [
        ((10.0, 7.0), [], 1.0),  # 50 px of 0.2 mm are 10 mm
        ((20.0, 16.0), [], 10 / 20),
        ((7.0, 20.0, 16.0), [], 10 / 16),  # a frame shows two of three diameters
        ((5.0,), ["large"], 0.5),  # a number says more than a word
        ((), ["middle"], 1.0),
        ((), ["large"], 0.5),
        ((), ["small"], 1.0),
    ],
)
def test_size_needs_a_scale_and_compares_with_numbers_before_words(
    sizes: tuple[float, ...], words: list[str], expected: float
) -> None:
    nodule, said = box(40, 40, 1, 50), {"diameter": words}
    assert agreement(BASE, nodule, None, said, sizes, None, 0.2) == {"size": pytest.approx(expected)}
    assert agreement(BASE, nodule, None, said, sizes, None, None) == {}


def test_aspect_is_read_off_the_box_of_frames_that_are_not_longitudinal() -> None:
    tall, wide = box(10, 10, 40, 20), box(10, 10, 20, 40)
    assert agreement(BASE, tall, None, {"aspect": ["taller_than_wide"]}) == {"aspect": 1.0}
    assert agreement(BASE, wide, None, {"aspect": ["taller_than_wide"]}) == {"aspect": 0.5}
    assert agreement(BASE, wide, None, {"aspect": ["wider_than_tall"]}, plane="transverse") == {"aspect": 1.0}
    assert agreement(BASE, tall, None, {"aspect": ["round"]}) == {"aspect": 0.5}
    assert agreement(BASE, tall, None, {"aspect": ["wider_than_tall"]}, plane="longitudinal") == {}
    assert agreement(BASE, tall, None, {"aspect": ["oval"]}) == {}


def test_side_and_pole_are_compared_where_the_frame_shows_them() -> None:
    lobes = box(30, 10, 40, 40) | box(30, 90, 40, 40) | box(35, 50, 6, 40)
    nodule = box(40, 20, 10, 12)  # in the lobe on the image's left: the patient's right one
    say = {"nodule_location": ["right", "upper"]}
    assert agreement(BASE, nodule, lobes, say, plane="transverse") == {"side": 1.0, "gland": 1.0}
    assert agreement(BASE, nodule, lobes, {"nodule_location": ["left"]}, plane="transverse")["side"] == 0.0
    one = box(30, 10, 40, 100)
    assert "side" not in agreement(BASE, nodule, one, say, plane="transverse")
    assert agreement(BASE, nodule, one, say, plane="longitudinal") == {"pole": 1.0, "gland": 1.0}
    assert agreement(BASE, nodule, one, {"nodule_location": ["lower"]}, plane="longitudinal")["pole"] == 0.0
    cut = box(30, 0, 40, 100)
    assert "pole" not in agreement(BASE, nodule, cut, say, plane="longitudinal")


def test_a_nodule_outside_the_gland_is_seen_unless_the_text_lets_it_out() -> None:
    gland, nodule = box(40, 20, 40, 80), box(30, 40, 20, 20)
    assert agreement(BASE, nodule, gland, {}) == {"gland": 0.5}
    assert agreement(BASE, nodule, gland, {"extension": ["extrathyroidal"]}) == {}
    assert agreement(BASE, nodule, gland, {"extension": ["absent"]}) == {"gland": 0.5}


def test_simulated_nodules_agree_with_their_own_description_and_not_with_another() -> None:
    """The phantom knows mm a pixel and the true diameters: right descriptions agree, doubled sizes do not."""
    rng = np.random.default_rng(0)
    for k in range(6):
        said = {"diameter": [("small", "middle", "large")[k % 3]], "extension": ["absent"], "shape": ["regular"]}
        frame = render(said, "transverse", ("left", "right")[k % 2], rng, 192)
        true = (frame.width_mm, frame.height_mm)
        own = agreement(BASE, frame.mask, frame.gland, said, true, "transverse", frame.mm_per_pixel)
        assert own["size"] > 0.85 and own["gland"] > 0.95
        double = tuple(2.2 * v for v in true)
        assert agreement(BASE, frame.mask, None, {}, double, None, frame.mm_per_pixel)["size"] < 0.75
