"""Cleaning: what is drawn over a frame is found and filled, tissue stays, and all of it is written down."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tigerdata.conditions import sobel_magnitude
from tigerdata.images import burned_in
from tigerdata.images.clean import KINDS, View, clean, fill
from tigerdata.images.frames import read_frames, read_gray
from tigerdata.images.ingest import ingest_images
from tigerdata.phantom.corpus import uniform_frames
from tigerdata.regions import masks
from tigerdata.sources.ddti import PANEL_ASPECT
from tigerdata.workspace import DEFAULT_SETTINGS, Workspace

SETTINGS = DEFAULT_SETTINGS["images"]


@pytest.fixture(scope="module")
def tissue() -> tuple[np.ndarray, np.ndarray]:
    """Simulated frames of 256 pixels and their nodules; bright calcifications are among them."""
    images, nodules, _ = uniform_frames(12, 256, seed=5)
    return images, nodules.astype(bool)


def one(levels: np.ndarray, rgb: np.ndarray | None = None) -> View:
    (view,) = clean(levels, rgb, SETTINGS)
    return view


def surrounded(levels: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(levels, 40, 30, 60, 60, cv2.BORDER_CONSTANT, value=0)


def write(levels: np.ndarray, text: str, at: tuple[int, int], level: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """The frame with a string on it, and the string's pixels."""
    ink = np.zeros_like(levels)
    cv2.putText(ink, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    share = ink.astype(float) / 255
    return np.rint(levels * (1 - share) + level * share).astype(np.uint8), ink > 127


def test_the_convolution_is_the_one_that_torch_computes() -> None:
    import torch

    rng = np.random.default_rng(0)
    for (stride, dilation), size in ((layer, n) for layer in burned_in.LAYERS for n in (1, 3, 5)):
        image = rng.normal(size=(3, 21, 34)).astype(np.float32)
        weight, bias = rng.normal(size=(4, 3, size, size)).astype(np.float32), rng.normal(size=4).astype(np.float32)
        expected = torch.nn.functional.conv2d(
            *(torch.from_numpy(a) for a in (image[None], weight, bias)),
            stride=stride, padding=dilation * (size // 2), dilation=dilation,
        )[0].numpy()  # fmt: skip
        np.testing.assert_allclose(burned_in.convolve(image, weight, bias, stride, dilation), expected, atol=1e-4)


def test_the_network_has_the_numbers_that_its_module_says() -> None:
    assert f"{sum(w.size + b.size for w, b, _, _ in burned_in._weights()):,}" in burned_in.__doc__
    assert burned_in.score(np.zeros((63, 130), np.uint8)).shape == (16, 33)


def test_text_is_masked_and_tissue_is_not(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    images, nodules = tissue
    hit = total = 0
    for k, image in enumerate(images):
        before = one(image)
        assert before.lost < 0.01
        assert not (before.crop(nodules[k]) & before.filled).any()
        text, ink = write(image, "RT 12.3mm", (30 + 10 * k, 40 + 14 * k), 255 - 5 * k)
        after = one(text)
        hit, total = hit + int((after.crop(ink) & after.filled).sum()), total + int(after.crop(ink).sum())
    assert hit >= 0.95 * total


def test_signs_in_the_surround_go_and_the_box_is_the_scan(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    image = tissue[0][0]
    frame, ink = write(surrounded(image), "NAME 1234", (70, 25))
    frame, more = write(frame, "5cm", (20, 200))
    view = one(frame)
    np.testing.assert_allclose(view.box, (60, 40, 316, 296), atol=5)
    assert not (view.crop(ink | more) & ~view.filled).any()
    # What lies over the edge of the field: the part on the field is filled with tissue, the part beside it is black.
    frame, ink = write(surrounded(image), "LEFT LOBE", (70, 44))
    view = one(frame)
    left, top, _, _ = view.box
    assert view.crop(ink)[view.filled].any() and not (view.crop(ink) & ~view.filled).any()
    assert view.levels[view.crop(ink)].max() < 150


def test_a_colour_box_is_found_on_a_tinted_display(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    image = tissue[0][0].astype(float)
    tinted = np.stack([image * 0.8, image * 0.85, np.minimum(255, image * 1.1)], axis=2).astype(np.uint8)
    grey = cv2.cvtColor(tinted, cv2.COLOR_RGB2GRAY)
    assert not burned_in.coloured(tinted, SETTINGS["colour_threshold"]).any()
    np.testing.assert_array_equal(one(grey, tinted).levels, one(grey).levels)
    drawn = np.zeros(grey.shape, bool)
    flow = tinted.copy()
    cv2.circle(flow, (120, 120), 14, (200, 30, 20), -1)
    cv2.circle(flow, (160, 120), 9, (20, 40, 220), -1)
    cv2.rectangle(flow, (80, 80), (190, 160), (90, 200, 110), 1)
    drawn |= (flow != tinted).any(axis=2)
    grey = cv2.cvtColor(flow, cv2.COLOR_RGB2GRAY)
    view = one(grey, flow)
    assert view.filled[drawn].mean() > 0.99 and "colour" in view.masked
    kept = ~view.filled[84:157, 84:187]
    assert kept.mean() > 0.6  # the tissue inside the box stays
    np.testing.assert_array_equal(view.levels[~view.filled], grey[~view.filled])


def test_the_colour_of_an_overlay_is_not_taken_for_the_tint(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    """Few pixels of tissue are as bright as the box: the median of that grey step is the box's colour."""
    grey = np.minimum(tissue[0][0], 150)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    rgb[60:64, 20:60] = 200  # a few pixels of tissue that are as bright
    rgb[100:140, 100:140] = (255, 190, 160)
    found = burned_in.coloured(rgb, SETTINGS["colour_threshold"])
    assert found[100:140, 100:140].all()
    found[95:145, 95:145] = False
    assert not found.any()


@pytest.mark.parametrize("side", [1200, 1700])
def test_a_large_frame_is_cleaned_as_a_small_one(tissue: tuple[np.ndarray, np.ndarray], side: int) -> None:
    image = cv2.resize(tissue[0][0], (side, side), interpolation=cv2.INTER_CUBIC)
    frame = cv2.copyMakeBorder(image, 50, 70, 90, 110, cv2.BORDER_CONSTANT, value=0)
    ink = np.zeros_like(frame)
    cv2.putText(ink, "DOE 12", (side // 3, side // 3), cv2.FONT_HERSHEY_SIMPLEX, side / 700, 255, side // 350)
    rgb = np.repeat(np.maximum(frame, ink)[:, :, None], 3, axis=2)
    rgb[side // 2 : side // 2 + 90, side // 2 : side // 2 + 90] = (200, 40, 30)
    view = one(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), rgb)
    np.testing.assert_allclose(view.box, (90, 50, 90 + side, 50 + side), atol=8)
    assert view.filled[view.crop(ink) > 0].mean() > 0.95
    assert view.filled[view.crop((rgb[:, :, 0] == 200) & (rgb[:, :, 1] == 40))].all()


def test_a_filling_has_no_edge_where_black_has_one(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    image = tissue[0][0]
    holes = np.zeros(image.shape, bool)
    holes[100:116, 60:160] = True
    near = cv2.dilate(holes.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0

    def energy(levels: np.ndarray) -> float:
        return float(np.square(sobel_magnitude(levels.astype(np.float32))[near]).mean())

    filled = fill(image, holes, np.ones_like(holes))
    assert energy(filled) < 0.7 * energy(image) < 0.5 * energy(np.where(holes, 0, image).astype(np.uint8))
    np.testing.assert_array_equal(filled[~holes], image[~holes])


def test_a_filling_keeps_the_edge_of_the_field() -> None:
    frame = np.zeros((80, 80), np.uint8)
    frame[:, 40:] = 120
    holes = np.zeros(frame.shape, bool)
    holes[30:50, 20:60] = True
    np.testing.assert_array_equal(fill(np.where(holes, 255, frame).astype(np.uint8), holes, frame > 0), frame)
    assert fill(frame, np.ones_like(holes), frame > 0).max() == 0  # nothing is known


@settings(deadline=None, max_examples=40)
@given(
    levels=arrays.arrays(np.uint8, st.tuples(st.integers(16, 90), st.integers(16, 90))),
    aspect=st.none() | st.floats(0.5, 3),
    colour=st.booleans(),
)
def test_whatever_comes_in_views_are_cuts_with_the_rest_unchanged(
    levels: np.ndarray, aspect: float | None, colour: bool
) -> None:
    rgb = np.stack([levels, levels[::-1], levels], axis=2) if colour else None
    for view in clean(levels, rgb, SETTINGS, aspect):
        left, top, right, bottom = view.box
        assert 0 <= left < right <= levels.shape[1] and 0 <= top < bottom <= levels.shape[0]
        assert view.levels.shape == view.filled.shape == (bottom - top, right - left)
        np.testing.assert_array_equal(view.levels[~view.filled], view.crop(levels)[~view.filled])
        assert 0 <= view.lost <= 1 and set(view.masked) <= set(KINDS)
        assert bool(view.masked) == view.filled.any()


def test_noise_is_not_read_as_text() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    assert one(noise).lost < burned_in.TOO_MUCH


def test_cleaning_can_be_switched_off(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    frame, _ = write(surrounded(tissue[0][0]), "NAME", (70, 60))
    (view,) = clean(frame, None, {**SETTINGS, "clean": False})
    np.testing.assert_array_equal(view.levels, frame)
    assert view.lost == 0 and not view.masked


def test_a_file_tells_its_colours_only_if_it_has_any(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(tmp_path / "grey.png")
    rgb = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "colour.png")
    assert next(read_frames(tmp_path / "grey.png")).rgb is None
    np.testing.assert_array_equal(next(read_frames(tmp_path / "colour.png")).rgb, rgb)


def test_ingest_cuts_masks_along_and_writes_down_what_it_did(
    ws: Workspace, tmp_path: Path, tissue: tuple[np.ndarray, np.ndarray]
) -> None:
    image, nodule = surrounded(tissue[0][0]), surrounded(tissue[1][0].astype(np.uint8))
    frame, ink = write(image, "DOE JANE", (70, 20))
    frame, more = write(frame, "RT LOBE", (90, 280))
    cv2.imwrite(str(tmp_path / "a.png"), frame)
    cv2.imwrite(str(tmp_path / "m.png"), nodule * 255)
    (tmp_path / "images.csv").write_text("file,mask_file\na.png,m.png\n")
    result = ingest_images(ws, tmp_path)
    assert result["frames_with_signs"] == 1 and "nodule_mask_cut" not in result
    with ws.connect(read_only=True) as con:
        ((image_id, *box, masked, lost),) = con.execute("SELECT * FROM cleaning").fetchall()
        ((width, height),) = con.execute("SELECT width, height FROM images").fetchall()
        ((path,),) = con.execute("SELECT path FROM regions").fetchall()
    left, top, right, bottom = box
    assert (width, height) == (right - left, bottom - top)
    np.testing.assert_array_equal(masks.load(ws, path), nodule[top:bottom, left:right] > 0)
    stored = cv2.imread(str(ws.frame_path(image_id)), cv2.IMREAD_GRAYSCALE)
    assert stored.shape == (height, width) and 0 < lost < 0.2
    boxes = json.loads(masked)["text"]
    covered = np.zeros(frame.shape, bool)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] = True
    inside = np.zeros(frame.shape, bool)
    inside[top:bottom, left:right] = True
    assert covered[more & inside].mean() > 0.95  # boxes are in the original's pixels
    assert ingest_images(ws, tmp_path)["new"] == 0


def test_a_mask_that_leaves_the_scanned_field_is_cut_and_counted_in_numbers_that_json_takes(
    ws: Workspace, tmp_path: Path, tissue: tuple[np.ndarray, np.ndarray]
) -> None:
    nodule = surrounded(tissue[1][0].astype(np.uint8))
    nodule[:2, :2] = 1
    cv2.imwrite(str(tmp_path / "a.png"), surrounded(tissue[0][0]))
    cv2.imwrite(str(tmp_path / "m.png"), nodule * 255)
    (tmp_path / "images.csv").write_text("file,mask_file\na.png,m.png\n")
    assert json.loads(json.dumps(ingest_images(ws, tmp_path)))["nodule_mask_cut"] == 1


@pytest.mark.realdata
def test_real_nodules_are_kept_and_real_signs_go(real_data: Path) -> None:
    """DDTI frames carry a mark and rulers, some callipers and text; BrEaST frames carry nothing."""
    frames = sorted((real_data / "ddti").glob("*.a.jpg"))
    counts = {"masked": 0, "cut": 0, "nodule": 0, "views": 0, "signs": 0}
    for path in frames[::4]:
        nodule = np.asarray(cv2.imread(str(path).replace(".a.", ".b.")))[:, :, 1] > 127
        found = clean(read_gray(path), None, SETTINGS, PANEL_ASPECT)
        counts["views"] += len(found)
        counts["nodule"] += int(nodule.sum())
        counts["cut"] += int(nodule.sum()) - sum(int(v.crop(nodule).sum()) for v in found)
        counts["masked"] += sum(int((v.crop(nodule) & v.filled).sum()) for v in found)
        counts["signs"] += any(v.masked for v in found)
    assert counts["masked"] < 0.002 * counts["nodule"] and counts["cut"] < 0.001 * counts["nodule"]
    assert counts["signs"] > 0.9 * len(frames[::4]) and counts["views"] > 1.2 * len(frames[::4])
    for path in sorted(p for p in (real_data / "breast").glob("case*.png") if "_" not in p.stem)[1::4]:
        frame = next(read_frames(path))
        assert one(frame.levels, frame.rgb).lost < 0.02


@pytest.mark.realdata
def test_the_text_that_a_real_frame_carries_is_found(real_data: Path) -> None:
    """80_2 says ADENOPATIA II IZQ over two lines in its lower half; both were read off the picture."""
    (view,) = clean(read_gray(real_data / "ddti" / "80_2.a.jpg"), None, SETTINGS)
    covered = view.filled[190:225, 205:300]
    assert covered.mean() > 0.3 and view.lost < 0.05


def test_a_workspace_can_be_told_not_to_clean(tmp_path: Path, listed: Callable[..., Path]) -> None:
    root = listed([{}])
    frame = surrounded(cv2.imread(str(root / "000.png"), 0))
    cv2.imwrite(str(root / "000.png"), frame)
    (root / "images.csv").write_text("file\n000.png\n")
    ws = Workspace.create(tmp_path / "plain", settings={"images": {"clean": False}})
    ingest_images(ws, root)
    with ws.connect(read_only=True) as con:
        ((image_id,),) = con.execute("SELECT image_id FROM images").fetchall()
    np.testing.assert_array_equal(cv2.imread(str(ws.frame_path(image_id)), 0), frame)
