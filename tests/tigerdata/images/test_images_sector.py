"""Where the scan is: views of a panel, the box around the field, and frames that have no surround."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tigerdata.images.sector import hull, scan_box, sector, views

WIDE_IS_PANEL = 1.3


def texture(shape: tuple[int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 60, shape)
    return np.clip(90 + cv2.GaussianBlur(noise, (0, 0), 3) * 4, 20, 255).astype(np.uint8)


def panel(left: tuple[int, int], right: tuple[int, int] | None, seed: int = 0) -> np.ndarray:
    """Noise views at the given columns on black, 315 x 500 like the DDTI set's files."""
    frame = np.zeros((315, 500), np.uint8)
    for start, stop in filter(None, (left, right)):
        frame[7:308, start:stop] = texture((301, stop - start), seed + start)
    return frame


def fan(centre: int, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    """A convex probe's field: a ring's part that opens downwards."""
    field = np.zeros(shape, np.uint8)
    cv2.ellipse(field, (centre, -60), (340, 340), 0, 60, 120, 1, -1)
    cv2.circle(field, (centre, -60), 90, 0, -1)
    return texture(shape, centre) * field


@pytest.mark.parametrize(
    "spans, cut",
    [(((57, 442), None), [(57, 442)]), (((5, 250), (250, 496)), [(5, 250), (250, 496)]),
     (((7, 285), (285, 499)), [(7, 285), (285, 499)]), (((7, 247), (256, 492)), [(7, 247), (256, 492)])],
)  # fmt: skip
def test_panels_are_cut_at_the_seam(spans: tuple, cut: list[tuple[int, int]]) -> None:
    for seed in range(5):
        frame = panel(*spans, seed=seed)
        assert views(frame, WIDE_IS_PANEL) == views(frame) == [(a, 7, b, 308) for a, b in cut]


def test_without_a_seam_only_what_a_reader_knows_makes_a_panel() -> None:
    wide = panel((5, 495), None)
    assert views(wide, WIDE_IS_PANEL) == [(5, 7, 250, 308), (250, 7, 495, 308)]
    assert views(wide) == [(5, 7, 495, 308)]


def test_darkness_is_left_whole() -> None:
    assert views(np.zeros((50, 60), np.uint8)) == [(0, 0, 60, 50)]


def test_a_shadow_is_no_gap() -> None:
    """Behind bone or poor contact all is dark, but the skin above it is not."""
    frame = panel((57, 442), None)
    shadow = np.ones(frame.shape, np.float32)
    shadow[40:308, 240:265] = 0.02
    frame = (frame * cv2.GaussianBlur(shadow, (0, 0), 4)).astype(np.uint8)  # as wide as a beam at its edge
    assert np.median(frame[40:, 252]) < 10
    assert views(frame) == [(57, 7, 442, 308)]


def test_two_fans_are_two_views() -> None:
    both = np.concatenate([fan(200), fan(200)], axis=1)
    (a, top, b, bottom), second = views(both)
    assert b <= 400 <= second[0] and (second[0] - 400, second[2] - 400) == (a, b) and second[1::2] == (top, bottom)


def test_a_fan_keeps_its_tips() -> None:
    frame = fan(200)
    rows, columns = np.nonzero(frame)
    left, top, right, bottom = scan_box(frame)
    assert abs(top - rows.min()) <= 8 and abs(bottom - rows.max() - 1) <= 6
    assert abs(left - columns.min()) <= 12 and abs(right - columns.max() - 1) <= 12
    field = frame > 0
    assert (hull(frame) & field).sum() > 0.99 * field.sum()
    assert sector(frame)[field].mean() > 0.99


def test_a_trapezoid_is_boxed_and_hulled() -> None:
    field = np.zeros((300, 400), np.uint8)
    corners = np.array([[120, 20], [280, 20], [360, 280], [40, 280]])
    cv2.fillConvexPoly(field, corners, 1)
    frame = texture((300, 400), 1) * field
    left, top, right, bottom = scan_box(frame)
    assert abs(top - 20) <= 2 and abs(bottom - 281) <= 2 and abs(left - 40) <= 8 and abs(right - 361) <= 8
    assert (hull(frame) ^ (field > 0)).mean() < 0.03


def test_rulers_and_letters_do_not_stretch_the_box() -> None:
    frame = panel((144, 354), None)
    for y in range(7, 300, 30):
        cv2.circle(frame, (56, y), 1, 255, -1)
        cv2.circle(frame, (144 + (y - 7) // 2, 3), 1, 255, -1)
    cv2.putText(frame, "T", (400, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 200, 2)
    assert scan_box(frame) == (144, 7, 354, 308)
    assert not hull(frame)[:, :130].any() and not hull(frame)[:, 370:].any()


@given(seed=st.integers(0, 99), height=st.integers(24, 160), width=st.integers(24, 160))
def test_a_frame_without_a_surround_comes_back_whole(seed: int, height: int, width: int) -> None:
    assert scan_box(texture((height, width), seed)) == (0, 0, width, height)
    assert hull(texture((height, width), seed)).all()


@given(seed=st.integers(0, 99), margins=st.tuples(*[st.integers(0, 60)] * 4))
def test_the_box_is_the_scan_whatever_the_surround(seed: int, margins: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = margins
    frame = cv2.copyMakeBorder(texture((90, 120), seed), top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    found = scan_box(frame)
    exact = (left, top, left + 120, top + 90)
    thin = max(3, round(0.012 * max(frame.shape)))
    assert found == ((0, 0, frame.shape[1], frame.shape[0]) if max(margins) <= thin else exact)
