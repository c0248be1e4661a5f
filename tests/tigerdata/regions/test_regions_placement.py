"""Placement: the named third, the upper edge, the frame; each checked by other code than that which places."""

from collections import Counter
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tigerdata.phantom.render import render
from tigerdata.regions import thirds
from tigerdata.regions.placement import REACH, CannotPlace, place, transformed

POLES = ("upper", "middle", "lower")


@cache
def frames(plane: str) -> tuple[tuple[str, np.ndarray, np.ndarray], ...]:
    """Simulated frames of a plane at 128 pixels: (side, nodule, gland)."""
    rng = np.random.default_rng(7)
    out = []
    for side in ("left", "right", "isthmus") * 2:
        frame = render({"diameter": ["small"], "nodule_location": ["middle"]}, plane, side, rng, 128)
        out.append((side, frame.mask, frame.gland))
    return tuple(out)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def beyond(mask: np.ndarray, gland: np.ndarray) -> int:
    """Rows by which a mask passes the gland's upper edge, column by column; -1 where it leaves the gland otherwise."""
    most = 0
    for row, column in np.argwhere(mask & ~gland):
        below = np.flatnonzero(gland[:, column])
        if below.size == 0 or row > below[0]:
            return -1
        most = max(most, int(below[0]) - int(row))
    return most


def touches(mask: np.ndarray, gland: np.ndarray) -> bool:
    """Whether a mask holds the gland's uppermost pixel of some column, or one above it."""
    return any(mask[: np.flatnonzero(gland[:, c])[0] + 1, c].any() for c in np.flatnonzero(gland.any(0)))


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["longitudinal", "transverse"]),
    st.integers(0, 5),
    st.sampled_from([None, *POLES, "mid_upper", "mid_lower"]),
    st.sampled_from([None, "anterior", "posterior", "medial", "lateral"]),
    st.sampled_from([None, "absent", *REACH]),
    st.integers(0, 2**32 - 1),
)
def test_a_placed_mask_is_where_it_was_asked_to_be(
    plane: str, which: int, pole: str | None, other: str | None, extension: str | None, seed: int
) -> None:
    side, mask, gland = frames(plane)[which]
    words = [w for w in (pole, other) if w]
    try:
        placed = place(mask, gland, words, extension, seed, plane=plane, shows=side)
    except CannotPlace as refusal:
        assert refusal.code in {"LARGER_THAN_GLAND", "LARGER_THAN_THIRD", "CANNOT_MEET_EDGE"}
        return
    assert placed.mask.shape == mask.shape and placed.mask.any()
    # Whole: as large as the turned and scaled mask, so nothing was cut off at the frame.
    assert placed.mask.sum() == transformed(mask, placed.angle, placed.scale).sum()
    passed = beyond(placed.mask, gland)
    low, high = REACH.get(str(extension), (0, 0))
    assert low <= passed <= high <= 10 and placed.reach == passed
    assert touches(placed.mask, gland) if extension in REACH else extension is None or not touches(placed.mask, gland)
    rows, columns = np.nonzero(placed.mask)
    box_rows, box_columns = np.flatnonzero(gland.any(1)), np.flatnonzero(gland.any(0))
    across = (columns.mean() + 0.5 - box_columns[0]) / (box_columns[-1] + 1 - box_columns[0])
    down = (rows.mean() + 0.5 - box_rows[0]) / (box_rows[-1] + 1 - box_rows[0])
    third = min(2, int(3 * across))
    if plane == "longitudinal" and pole in POLES:
        assert POLES[third] == pole
    if pole in ("mid_upper", "mid_lower") and plane == "longitudinal":
        assert abs(across - (1 / 3 if pole == "mid_upper" else 2 / 3)) <= 1 / 6 + 1e-9
    if other in ("anterior", "posterior"):
        assert min(2, int(3 * down)) == (0 if other == "anterior" else 2)
    if other in ("medial", "lateral") and plane == "transverse" and side != "isthmus":
        right_end = (other == "medial") == (side == "right")
        assert third == (2 if right_end else 0)
    assert set(placed.unseen) == {
        w for w in words if (w in thirds.POLES and plane == "transverse")
        or (w in ("medial", "lateral") and (plane == "longitudinal" or side == "isthmus"))
    }  # fmt: skip


def test_positions_are_uniform_over_what_is_allowed() -> None:
    """A small nodule in a bar of gland: every column of the middle third is drawn, about equally often."""
    gland = np.zeros((13, 40), bool)
    gland[2:11, 5:35] = True
    mask = disc((13, 40), (6, 6), 1.5)
    centres = [np.nonzero(place(mask, gland, ["middle"], None, seed).mask)[1].mean() for seed in range(1500)]
    hits = Counter(int(c) for c in centres)
    assert min(centres) >= 14.5 and max(centres) < 24.5
    assert set(range(15, 24)) <= set(hits) and min(hits[c] for c in range(15, 24)) > 90


def test_a_side_is_found_in_a_frame_of_both_lobes_and_refused_in_one_of_the_other() -> None:
    gland = disc((60, 120), (30, 25), 18) | disc((60, 120), (30, 95), 18)
    gland[18:24, 20:100] = True
    assert thirds.shows_both(gland)
    mask = disc((60, 120), (30, 60), 5)
    for word, low, high in (("right", 0, 40), ("left", 80, 120)):
        columns = np.nonzero(place(mask, gland, [word], None, 1, plane="transverse").mask)[1]
        assert low <= columns.mean() < high
    with pytest.raises(CannotPlace, match="shows the left, not the right") as refusal:
        place(mask, gland, ["right"], None, 1, plane="transverse", shows="left")
    assert refusal.value.code == "LOCATION_NOT_IN_FRAME"
    assert not thirds.shows_both(disc((60, 120), (30, 25), 18))


def test_simulated_frames_of_a_lobe_are_not_taken_for_both() -> None:
    assert not any(thirds.shows_both(gland) for side, _, gland in frames("transverse") if side != "isthmus")


@pytest.mark.parametrize(
    ("words", "extension", "half", "code"),
    [
        ([], None, (45, 45), "LARGER_THAN_GLAND"),
        (["upper"], None, (3, 30), "LARGER_THAN_THIRD"),
        (["posterior"], "bulging", (4, 4), "LARGER_THAN_THIRD"),
        (["upper", "lower"], None, (2, 2), "LOCATION_NOT_IN_FRAME"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(
    words: list[str], extension: str | None, half: tuple[int, int], code: str
) -> None:
    gland, nodule = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    gland[20:60, 30:70] = True
    nodule[50 - half[0] : 50 + half[0], 50 - half[1] : 50 + half[1]] = True
    with pytest.raises(CannotPlace) as refusal:
        place(nodule, gland, words, extension)
    assert refusal.value.code == code and str(refusal.value).count(".") == 1


def test_empty_masks_and_a_gland_without_room_above_it() -> None:
    gland = np.zeros((40, 40), bool)
    gland[:20, 5:35] = True  # the gland begins at the frame's first row
    nodule = disc((40, 40), (10, 20), 4)
    with pytest.raises(CannotPlace) as refusal:
        place(nodule, gland, [], "extrathyroidal")
    assert refusal.value.code == "CANNOT_MEET_EDGE"
    assert touches(place(nodule, gland, [], "abutting_capsule").mask, gland)
    for empty, code in (((nodule & False, gland), "EMPTY_MASK"), ((nodule, gland & False), "EMPTY_GLAND")):
        with pytest.raises(CannotPlace) as refusal:
            place(*empty)
        assert refusal.value.code == code
    with pytest.raises(ValueError):
        place(nodule, gland, [], "somewhere")
    with pytest.raises(ValueError):
        place(nodule[:10], gland)


def test_the_same_seed_gives_the_same_place_and_scaling_is_a_last_resort() -> None:
    gland = np.zeros((64, 100), bool)
    gland[20:44, 10:90] = True
    nodule = disc((64, 100), (32, 50), 7)
    first = place(nodule, gland, ["lower"], "bulging", 5)
    assert (first.mask == place(nodule, gland, ["lower"], "bulging", 5).mask).all()
    assert first.scale >= 0.85  # it fits as it is
    assert place(disc((64, 100), (32, 50), 16), gland, [], None, 5).scale < 0.85


@pytest.mark.realdata
def test_real_outlines_in_real_glands(real_data: Path) -> None:
    """DDTI nodules in every 20th gland frame, any word and extension: what is placed is as asked."""
    glands = [
        cv2.imread(str(f), cv2.IMREAD_GRAYSCALE) > 127 for f in sorted((real_data / "gland/mask").iterdir())[::20]
    ]
    nodules = [cv2.imread(str(f))[:, :, 1] > 127 for f in sorted((real_data / "ddti").glob("*.b.jpg"))[::30]]
    rng, counts = np.random.default_rng(0), Counter()
    for gland in (g for g in glands if g.any()):
        for extension in (None, "absent", *REACH):
            nodule = nodules[int(rng.integers(len(nodules)))]
            patch = transformed(nodule, 0.0, 0.25)
            mask = np.zeros_like(gland)
            mask[: patch.shape[0], : patch.shape[1]] = patch
            word = ("anterior", "posterior", "upper")[int(rng.integers(3))]
            try:
                placed = place(mask, gland, [word], extension, rng, plane="transverse")
            except CannotPlace as refusal:
                counts[refusal.code] += 1
                continue
            counts["placed"] += 1
            main = thirds.main_parts(gland)
            low, high = REACH.get(str(extension), (0, 0))
            assert low <= beyond(placed.mask, main) <= high
            rows, box = np.nonzero(placed.mask)[0], np.flatnonzero(main.any(1))
            down = (rows.mean() + 0.5 - box[0]) / (box[-1] + 1 - box[0])
            assert word == "upper" or (down < 1 / 3 if word == "anterior" else down >= 2 / 3)
    assert counts["placed"] > sum(counts.values()) / 2 and counts["EMPTY_GLAND"] == 0
