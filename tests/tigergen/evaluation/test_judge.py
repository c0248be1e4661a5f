"""The judge learns what is in the image, nothing that is not, and says how it is done."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import kb
from kb.errors import UserError
from tigergen.evaluation.judge import Judge, agreement, head_loss, hits_by_attribute, train_judge, visible
from tigergen.evaluation.judge_network import augment, blur

COUNT, SIZE = 320, 32


def planted(seed: int) -> tuple[np.ndarray, list[dict[str, list[str]]]]:
    """Brightness of a square tells the echogenicity, nothing tells the margin, half of the rows lack the halo."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 90, (COUNT, SIZE, SIZE), dtype=np.uint8)
    rows = []
    for image in images:
        value, row, column = int(rng.integers(3)), *rng.integers(4, 18, 2)
        image[row : row + 8, column : column + 8] = (20, 120, 220)[value]
        attributes = {
            "echogenicity": [("anechoic", "isoechoic", "hyperechoic")[value]],
            "margin": [str(rng.choice(["clear", "irregular_margin"]))],
            "composition": ["solid"],
        }
        if rng.random() < 0.5:
            attributes["halo"] = ["thin_even" if value == 2 else "absent"]
        rows.append(attributes)
    return images, rows


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> tuple[Judge, Path]:
    folder = tmp_path_factory.mktemp("judge")
    trained = train_judge(
        *planted(0), kb.load("thyroid"), folder, held_out=planted(1), epochs=8, size=SIZE, width=8
    )  # fmt: skip
    return trained, folder


def test_it_learns_a_planted_attribute_and_is_near_chance_on_a_random_one(judge: tuple[Judge, Path]) -> None:
    images, rows = planted(2)
    said = agreement(judge[0], images, rows)
    assert said["echogenicity"] > 0.95
    assert said["halo"] > 0.95  # learned from the half that has it
    assert 0.4 < said["margin"] < 0.6
    assert "composition" not in said  # one value only: nothing to tell apart


def test_probabilities_sum_to_one_in_the_order_of_the_knowledge_base(judge: tuple[Judge, Path]) -> None:
    predicted = judge[0].predict(planted(3)[0][:5])
    values, probability = predicted["echogenicity"]
    order = list(kb.load("thyroid").attributes["echogenicity"].values)
    assert values == sorted(values, key=order.index)
    assert probability.shape == (5, 3)
    assert probability.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_it_is_read_back_as_it_was_written(judge: tuple[Judge, Path]) -> None:
    trained, folder = judge
    images = planted(4)[0][:7]
    again = Judge.load(folder)
    assert again.figures == trained.figures and again.view == "values"
    for name, (values, probability) in trained.predict(images).items():
        assert again.predict(images)[name][0] == values
        assert np.array_equal(again.predict(images)[name][1], probability)


def test_its_limits_are_measured_with_it(judge: tuple[Judge, Path]) -> None:
    figures = judge[0].figures
    assert figures["trained_on"] == figures["held_out"] == COUNT
    assert set(figures["robustness"]) == {"blur 0.4 px", "blur 0.6 px", "noise 0.06", "noise 0.10"}
    assert figures["robustness"]["noise 0.06"]["echogenicity"] > 0.9
    assert figures["mean"] == pytest.approx(np.mean(list(figures["accuracy"].values())))


def test_a_value_that_it_has_never_seen_counts_as_wrong(judge: tuple[Judge, Path]) -> None:
    images, rows = planted(5)
    hits = hits_by_attribute(judge[0], images[:4], [{"echogenicity": ["mixed_echo"]}, {}, *rows[2:4]])
    assert hits["echogenicity"].tolist()[0] is False
    assert len(hits["echogenicity"]) == 3


def test_head_loss_ignores_missing_labels() -> None:
    logits = [torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0, 1.0, 1.0], [0.0, 9.0, 0.0]])]
    targets = torch.tensor([[0, -1], [-1, -1]])
    expected = F.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    assert head_loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_what_can_be_seen_of_a_simulated_frame() -> None:
    row = {"margin": ["clear", "smooth"], "aspect": ["oval"]}
    assert visible(row, "values") == {"aspect": "oval"}
    assert visible(row, "phantom") == {"margin": "clear", "aspect": "wider_than_tall"}
    with pytest.raises(UserError, match="phantom"):
        visible(row, "unknown")


def test_augmentation_is_light_and_keeps_left_and_right() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.full((16, 1, 32, 32), -0.5)
    images[:, :, :, 20:] = 0.5
    changed = augment(images, generator)
    assert changed.shape == images.shape and changed.abs().max() <= 1
    assert (changed[:, :, :, 26:].mean(dim=(1, 2, 3)) > changed[:, :, :, :12].mean(dim=(1, 2, 3)) + 0.5).all()
    assert not torch.equal(changed[0], changed[1])
    turned = augment(images.repeat(16, 1, 1, 1), generator, mirror=True)
    brighter_left = turned[:, :, :, :12].mean(dim=(1, 2, 3)) > turned[:, :, :, 26:].mean(dim=(1, 2, 3))
    assert 0.4 < brighter_left.float().mean() < 0.6


def test_images_are_mirrored_only_where_no_side_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tigergen.evaluation import judge as module

    asked: list[bool] = []
    monkeypatch.setattr(module, "augment", lambda x, generator, mirror: asked.append(mirror) or augment(x, generator))
    images, rows = planted(6)
    sides = [{"nodule_location": [("left", "right")[k % 2]]} for k in range(COUNT)]
    for attributes, expected in ((rows, True), (sides, False)):
        asked.clear()
        # With 4 channels torch 2.14 frees memory twice in the backward pass (channels last, AVX2).
        train_judge(images, attributes, kb.load("thyroid"), tmp_path, epochs=2, size=SIZE, width=8)
        assert set(asked) == {expected}


def test_blur_keeps_the_mean_and_spreads_a_point_by_the_gaussian() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    out = blur(image, 0.6)[0, 0]
    assert out.sum().item() == pytest.approx(1, rel=1e-6)
    assert (out[4, 5] / out[4, 4]).item() == pytest.approx(np.exp(-1 / (2 * 0.36)), rel=1e-5)


def test_no_judge_without_attributes_or_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two values"):
        train_judge(np.zeros((2, 8, 8), np.uint8), [{}, {}], kb.load("thyroid"), tmp_path)
    with pytest.raises(UserError, match="no judge"):
        Judge.load(tmp_path)
