"""The U-Net: its loss by hand, frames learnt in seconds, the same masks after saving, answers made from known maps."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kb.errors import UserError
from tests.tigerdata.conftest import draw
from tigerdata import regions
from tigerdata.images.augment import Together
from tigerdata.images.ingest import ingest_images
from tigerdata.regions import unet
from tigerdata.regions.segment import dice
from tigerdata.regions.square import fit, unfit
from tigerdata.splits import split
from tigerdata.workspace import Workspace

SMALL = unet.Recipe(imgsz=64, epochs=24, widths=(8, 16, 24, 32), batch=4)


def logits(probability: np.ndarray) -> torch.Tensor:
    return torch.logit(torch.tensor(probability, dtype=torch.float64))[None, None]


def test_loss_of_hand_made_masks() -> None:
    truth = np.zeros((8, 8))
    truth[2:6, 2:6] = 1  # 16 of 64 pixels
    y = torch.tensor(truth)[None, None]
    # All one half: both = 8, total = 32 + 16, so Dice loss = 1 - 17 / 49; cross-entropy = ln 2.
    half = unet.loss(logits(np.full((8, 8), 0.5)), y)
    assert half.item() == pytest.approx(1 - 17 / 49 + np.log(2))
    right = unet.loss(logits(np.clip(truth, 1e-9, 1 - 1e-9)), y)
    wrong = unet.loss(logits(np.clip(1 - truth, 1e-9, 1 - 1e-9)), y)
    assert right.item() < 1e-6 and wrong.item() > 20
    # The mean over the batch of the loss of each: a small nodule counts as much as a large one.
    both = unet.loss(
        torch.cat([logits(np.full((8, 8), 0.5)), logits(np.clip(truth, 1e-9, 1 - 1e-9))]), y.repeat(2, 1, 1, 1)
    )
    assert both.item() == pytest.approx((half.item() + right.item()) / 2)


def test_network_keeps_the_side_and_every_pixel_reaches_the_answer() -> None:
    net = unet.network((8, 8, 16)).eval()
    x = torch.rand(1, 1, 32, 32, requires_grad=True)
    y = net(x)
    assert y.shape == (1, 1, 32, 32)
    y.sum().backward()
    assert (x.grad != 0).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights trained on 24 drawn frames."""
    path = tmp_path_factory.mktemp("unet") / "weights.safetensors"
    unet.train([draw(seed) for seed in range(24)], path, "nodule", SMALL, seed=1)
    return path


def test_a_few_frames_are_learnt_in_seconds(trained: Path) -> None:
    segmenter = unet.UNetSegmenter(trained)
    frames = [draw(seed) for seed in range(100, 116)]  # never trained on
    found, scores = segmenter.predict(np.stack([image for image, _ in frames]))
    values = [dice(a, mask) for a, (_, mask) in zip(found, frames, strict=True)]
    assert np.mean(values) > 0.8, values
    assert found.dtype == bool and scores.dtype == np.float32 and (scores > 0.5).all() and (scores <= 1).all()


def test_training_changes_no_global_state_and_repeats_itself(tmp_path: Path) -> None:
    frames = [draw(seed) for seed in range(8)]
    digests = []
    for name in ("a", "b"):
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        recipe = unet.Recipe(imgsz=64, epochs=1, widths=(8, 8, 16), batch=4)
        unet.train(frames, tmp_path / f"{name}.safetensors", "nodule", recipe, threads=1, seed=5)
        assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
        torch.rand(3)
        digests.append(hashlib.sha256((tmp_path / f"{name}.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_training_can_begin_with_another_u_net(trained: Path, tmp_path: Path) -> None:
    frames = [draw(seed) for seed in range(200, 208)]
    few = replace(SMALL, epochs=1)
    losses: dict[str, list[float]] = {"random": [], "started": []}
    for name, start in (("random", None), ("started", trained)):
        note = losses[name].append
        unet.train(frames, tmp_path / name, "gland", few, seed=1, start=start, progress=lambda e, n=note: n(e["loss"]))
    assert losses["started"][0] < 0.7 * losses["random"][0]
    with pytest.raises(UserError, match="has the channels"):
        unet.train(frames, tmp_path / "x", "gland", replace(few, widths=(8, 8, 24)), start=trained)


def test_a_moved_file_gives_the_same_masks_and_a_frame_does_not_depend_on_the_others(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copy(trained, tmp_path / "weights.safetensors")
    images = np.stack([draw(seed)[0] for seed in range(50, 54)])
    first, scores = unet.UNetSegmenter(trained).predict(images)
    again, other = regions.open_segmenter(tmp_path).predict(images)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(scores, other)
    np.testing.assert_array_equal(unet.UNetSegmenter(trained).predict(images[2:3])[0][0], first[2])


def test_the_mirrored_frame_gives_the_mirrored_mask(trained: Path) -> None:
    segmenter = unet.UNetSegmenter(trained)
    image = draw(70, (80, 80))[0]  # square, or the padding would be on the other side
    there, _ = segmenter.predict(image[None])
    back, _ = segmenter.predict(np.ascontiguousarray(image[:, ::-1])[None])
    assert dice(there[0], back[0][:, ::-1]) > 0.99


def test_passes_make_the_same_number_of_steps_of_few_and_of_many_frames() -> None:
    for frames in (8, 50, 191, 423, 1415):
        assert unet.passes(frames) * (frames // 8) == pytest.approx(unet.STEPS, rel=0.06)
    assert unet.passes(100_000) == 1


def soft(*parts: tuple[slice, slice, float]) -> np.ndarray:
    values = np.zeros((60, 60), np.float32)
    for rows, columns, value in parts:
        values[rows, columns] = value
    return values


def test_outline_of_known_maps() -> None:
    large, small = (slice(5, 25), slice(5, 25), 0.9), (slice(40, 50), slice(40, 50), 0.95)
    speck, hole = (slice(55, 57), slice(2, 4), 0.99), (slice(12, 16), slice(12, 16), 0.1)
    mask, score = unet.outline(soft(large, small, speck, hole), one=True)
    assert mask[5:25, 5:25].all() and mask.sum() == 400  # the hole is filled, the smaller part left out
    assert score == pytest.approx((384 * 0.9 + 16 * 0.1) / 400)
    mask, _ = unet.outline(soft(large, small, speck), one=False)
    assert mask.sum() == 500  # both lobes of a gland, not the speck
    faint, score = unet.outline(soft((slice(5, 25), slice(5, 25), 0.3)), one=True)
    assert faint.sum() == 400 and score == pytest.approx(0.3)  # a guess, and it says how unsure
    nothing, score = unet.outline(soft(), one=True)
    assert not nothing.any() and score == 0


@given(st.integers(20, 90), st.integers(20, 90), st.sampled_from([64, 96]))
@settings(deadline=None, max_examples=25)
def test_the_square_and_back_keeps_shape_and_place(height: int, width: int, size: int) -> None:
    mask = np.zeros((height, width), bool)
    mask[height // 4 : 3 * height // 4, width // 3 : width] = True
    square = fit(mask.astype(np.uint8) * np.uint8(255), size)
    back = unfit(square.astype(np.float32) / 255, mask.shape) > 0.5
    assert square.shape == (size, size) and back.shape == mask.shape and dice(back, mask) > 0.85


def test_fit_pads_right_and_below_and_keeps_the_aspect() -> None:
    small = fit(np.full((50, 100), 200, np.uint8), 20)
    assert (small[:10] == 200).all() and not small[10:].any()


def test_frame_and_mask_change_together_and_by_the_seed() -> None:
    mask = np.zeros((64, 64), bool)
    mask[20:40, 10:30] = True
    image = np.where(mask, 250, 20).astype(np.uint8)
    change, again = Together(3), Together(3)
    for _ in range(30):
        moved, where = change(image, mask)
        same, same_where = again(image, mask)
        np.testing.assert_array_equal(moved, same)
        np.testing.assert_array_equal(where, same_where)
        assert moved.dtype == np.uint8 and where.dtype == bool
        if where.sum() > 50:
            assert np.median(moved[where]) > np.median(moved[~where]) + 50  # the mask still lies on the bright square


def test_workspace_to_masks_and_back(small_ws: Workspace, tmp_path: Path) -> None:
    split(small_ws)
    with small_ws.connect() as con:
        hidden = "SELECT image_id FROM splits WHERE split = 'test'"
        con.execute(f"DELETE FROM regions WHERE image_id IN ({hidden})")
        without = con.execute(f"SELECT count(*) FROM ({hidden})").fetchone()[0]
    result = regions.train_segmenter(small_ws, imgsz=64, epochs=25, width=0.5)
    assert result["model"] == "unet" and result["held_out"] == "val" and result["dice"] > 0.6 and result["minutes"] > 0
    folder = small_ws.path / "models" / "segmenter" / "nodule"
    saved = json.loads((folder / "segmenter.json").read_text())
    assert saved["settings"]["imgsz"] == 64 and saved["settings"]["kind"] == "nodule"
    assert saved["settings"]["widths"] == [8, 24, 48, 64, 80] and saved["result"]["dice"] == result["dice"]
    counts = regions.segment(small_ws)
    assert counts["without_mask"] == without and counts["predicted"] > 0
    with small_ws.connect(read_only=True) as con:
        origins = {r[0].split(":")[0] for r in con.execute("SELECT origin FROM regions").fetchall()}
        (held,) = con.execute("SELECT list(image_id) FROM splits WHERE split <> 'train'").fetchone()
        (trained_on,) = con.execute("SELECT trained_on FROM models WHERE kind = 'segmenter'").fetchone()
    assert origins == {"import", "unet"} and not set(held) & set(json.loads(trained_on))
    with pytest.raises(UserError, match="outlines the nodule, not the gland"):
        regions.segment(small_ws, folder, kind="gland")


def test_gland_masks_train_a_gland_segmenter(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": f"P{k}", "label": "normal"} for k in range(14)])
    table = root / "images.csv"
    table.write_text(table.read_text().replace("mask_file", "gland_file"))
    ingest_images(ws, root)
    split(ws)
    result = regions.train_segmenter(ws, kind="gland", imgsz=64, epochs=1, width=0.25)
    assert result["kind"] == "gland" and regions.open_segmenter(result["weights"]).kind == "gland"
    assert regions.segment(ws, kind="gland")["without_mask"] == 0
    assert regions.segment(ws, result["weights"], kind="gland", min_score=0.0)["predicted"] == 0


def test_bad_input_is_one_sentence(small_ws: Workspace, tmp_path: Path) -> None:
    split(small_ws)
    with pytest.raises(UserError, match="multiple of 32, at least 64, not 100"):
        regions.train_segmenter(small_ws, imgsz=100)
    with pytest.raises(UserError, match="no --model vgg; write unet or yolo"):
        regions.train_segmenter(small_ws, model="vgg")
    with pytest.raises(UserError, match="no --kind trachea; write nodule or gland"):
        regions.train_segmenter(small_ws, kind="trachea")
    with pytest.raises(UserError, match="holds no segmenter"):
        regions.open_segmenter(tmp_path)
    broken = tmp_path / "weights.safetensors"
    for content in (b"", b"<html>", b"\xff" * 200):
        broken.write_bytes(content)
        with pytest.raises(UserError, match="holds no U-Net of TigerData"):
            regions.open_segmenter(broken)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, broken, metadata={"unet": '{"kind": "nodule", "imgsz": 64, "widths": [8, 8]}'})
    with pytest.raises(UserError, match="holds no U-Net"):
        regions.open_segmenter(broken)
