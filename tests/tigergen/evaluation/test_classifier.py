"""The classifier of the comparisons: architectures, classes, and the three augmentations that act on batches."""

import numpy as np
import pytest
import torch

from kb.errors import UserError
from tigergen.evaluation import classifier
from tigergen.evaluation.classical import Erasing
from tigergen.evaluation.classifier import FeatureSpace, Part, Variant, loss_of, predict, train_classifier

PLAIN = Variant(classical=False, balanced=True)


def part(classes: int, n: int = 90, size: int = 32) -> Part:
    """Class k has a bright band at its own height."""
    y = np.arange(n) % classes
    images = np.random.default_rng(n).integers(60, 160, (n, size, size))
    step = size // classes
    for k in range(classes):
        images[y == k, k * step : (k + 1) * step] += 60
    return Part(images.astype(np.uint8), y.astype(np.int64), [f"p{i}" for i in range(n)], np.zeros(n, bool))


def test_three_classes_are_told_apart() -> None:
    model = train_classifier(part(3), PLAIN, 0, 30)
    p = predict(model, part(3, 60).images)
    assert p.shape == (60, 3) and p.sum(1) == pytest.approx(np.ones(60))
    assert (p.argmax(1) == part(3, 60).y).mean() > 0.9


@pytest.mark.parametrize(("name", "low", "high"), [("resnet18", 11.1e6, 11.3e6), ("resnet50", 23.4e6, 23.6e6)])
def test_residual_networks_are_those_of_the_paper_with_one_channel(name: str, low: float, high: float) -> None:
    before = torch.random.get_rng_state()
    model, again = classifier.network(3, 64, name, 4), classifier.network(3, 64, name, 4)
    assert low < sum(p.numel() for p in model.parameters()) < high
    assert torch.equal(model.conv1.weight, again.conv1.weight) and model.conv1.in_channels == 1
    assert classifier.last_layer(model).out_features == 4
    assert torch.equal(before, torch.random.get_rng_state()), "no global seed is touched"
    with pytest.raises(UserError, match="no architecture 'vgg'"):
        classifier.network(0, 64, "vgg")


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    """Predictions of a classifier without augmentation."""
    return predict(train_classifier(part(2, 90, 16), PLAIN, 1, 20), part(2, 40, 16).images)


@pytest.mark.parametrize("changed", [{"mixing": True}, {"erasing": True}, {"feature_space": True}])
def test_augmentations_change_the_training_repeat_themselves_and_still_teach(changed: dict, plain: np.ndarray) -> None:
    variant = Variant(classical=False, balanced=True, **changed)
    seen = part(2, 40, 16)
    a, b = (predict(train_classifier(part(2, 90, 16), variant, 1, 20), seen.images) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - plain).max() > 1e-4
    assert ((a > 0.5) == seen.y).mean() > 0.8


def test_feature_space_pushes_away_from_the_own_class_only() -> None:
    hook = FeatureSpace(0)
    hook.share = 1.0
    assert hook(torch.nn.Identity(), (torch.ones(2, 3),)) is None, "without labels nothing changes: prediction"
    features = torch.tensor([[0.0], [1.0], [100.0], [7.0]])
    hook.labels = torch.tensor([0, 0, 1, 2])
    (moved,) = hook(torch.nn.Identity(), (features,))
    assert moved.flatten().tolist() == [-0.5, 1.5, 100.0, 7.0], "f + (f - g)/2; alone in its class: unchanged"


def test_erasing_puts_noise_into_a_rectangle_of_half_of_the_images() -> None:
    images = np.full((200, 32, 32), 100, np.uint8)
    out = Erasing(3)(images)
    np.testing.assert_array_equal(out, Erasing(3)(images))
    changed = (out != 100).any((1, 2))
    assert 0.35 < changed.mean() < 0.65
    shares = (out[changed] != 100).mean((1, 2))
    assert shares.max() <= 0.36 and shares.min() > 0.01


def test_losses_of_mixed_labels_are_means_of_the_losses() -> None:
    one, three = torch.randn(4, 1), torch.randn(4, 3)
    shares = torch.tensor([[0.3, 0.7]] * 4)
    both = [loss_of(one, torch.full((4,), k)) for k in (0, 1)]
    assert float(loss_of(one, shares)) == pytest.approx(float(0.3 * both[0] + 0.7 * both[1]), abs=1e-6)
    wide = torch.tensor([[0.2, 0.0, 0.8]] * 4)
    each = [loss_of(three, torch.full((4,), k)) for k in (0, 2)]
    assert float(loss_of(three, wide)) == pytest.approx(float(0.2 * each[0] + 0.8 * each[1]), abs=1e-6)
