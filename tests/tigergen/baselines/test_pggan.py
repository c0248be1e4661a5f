"""PG-GAN part by part: growth, fading, equalised weights, gradient penalty."""

import numpy as np
import pytest
import torch

from tigergen.baselines.pggan import Critic, Generator, conv, growth, pixel_norm, widths, with_deviation
from tigergen.baselines.pggan_train import penalty, shown


def test_growth_visits_every_level_and_ends_whole() -> None:
    seen = [growth(step, 600, 5) for step in range(600)]
    levels = [level for level, _ in seen]
    assert levels == sorted(levels) and [levels.count(n) for n in range(5)] == [100, 100, 100, 100, 200]
    assert all(alpha == 1.0 for level, alpha in seen if level == 0) and seen[-1] == (4, 1.0)
    fading = [alpha for level, alpha in seen if level == 2]
    assert fading[0] == pytest.approx(0.02) and fading[49:] == [1.0] * 51 and fading == sorted(fading)
    assert [growth(step, 3, 1) for step in range(3)] == [(0, 1.0)] * 3


def test_a_new_level_fades_in_without_a_jump() -> None:
    torch.manual_seed(0)
    generator, critic = Generator(16, 2, 8), Critic(16, 2, 8)
    z, classes = torch.randn(3, 64), torch.tensor([0, 1, 0])
    old = generator(z, classes, 1)
    torch.testing.assert_close(generator(z, classes, 2, 0.0), torch.nn.functional.interpolate(old, scale_factor=2))
    images = torch.randn(3, 1, 16, 16)
    small = torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(critic(images, classes, 2, 0.0), critic(small, classes, 1))
    assert (generator(z, classes, 2, 1.0) - generator(z, classes, 2, 0.0)).abs().max() > 1e-4


def test_real_images_fade_as_generated_ones_do() -> None:
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(shown(images, 2, 1.0), images)
    coarse = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(images, 2), scale_factor=2)
    torch.testing.assert_close(shown(images, 2, 0.25), coarse + 0.25 * (images - coarse))


def test_equalised_layers_keep_the_size_of_signals() -> None:
    torch.manual_seed(0)
    out = conv(32, 256)(torch.randn(4, 32, 16, 16))[:, :, 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(2.0, rel=0.1), "gain √2: the variance doubles, leaky ReLU halves it"
    x = torch.randn(2, 8, 3, 3)
    assert (pixel_norm(x) ** 2).mean(1).flatten().numpy() == pytest.approx(np.ones(18), abs=1e-4)
    assert with_deviation(torch.ones(4, 2, 4, 4))[:, 2].abs().max() < 1e-3, "equal images deviate by nothing"
    assert widths(64, 128) == [128, 128, 128, 64, 32]


def test_gradient_penalty_of_a_critic_whose_gradient_is_known() -> None:
    class Linear(torch.nn.Module):
        def forward(self, images, classes, level, alpha):
            return 3.0 * images.flatten(1)[:, 0]

    real, fake = torch.randn(2, 5, 1, 4, 4)
    found = penalty(Linear(), real, fake, torch.zeros(5, dtype=torch.long), 0, 1.0, torch.rand(5, 1, 1, 1))
    assert float(found) == pytest.approx((3.0 - 1.0) ** 2)
