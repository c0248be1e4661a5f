"""Draws, averaged weights, learning rate, statistics: known answers and properties."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from kb.errors import UserError
from tigergen.training import checkpoint
from tigergen.training.draws import Order, class_weights, draw_noise, held_out_noise, module_draws
from tigergen.training.ema import Ema, ema_decay
from tigergen.training.inputs import evaluating
from tigergen.training.loop import learning_rate


def test_a_rare_class_is_drawn_as_often_as_stated() -> None:
    labels = ["benign"] * 1000 + ["FTC"] * 30
    weights = class_weights(labels, 0.5)
    assert weights[-1] / weights[0] == pytest.approx(np.sqrt(1000 / 30))
    order = Order(weights, seed=0)
    drawn = Counter(labels[index] for step in range(2000) for index in order.indices(step, 8))
    # Share of FTC: 30·30^-½ / (30·30^-½ + 1000·1000^-½) = √30 / (√30 + √1000).
    expected = np.sqrt(30) / (np.sqrt(30) + np.sqrt(1000))
    assert drawn["FTC"] / 16000 == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 30 / 1030), (1.0, 0.5)])
def test_balance_goes_from_natural_to_equal(balance: float, share: float) -> None:
    labels = ["benign"] * 1000 + ["FTC"] * 30
    order = Order(class_weights(labels, balance), seed=1)
    drawn = [labels[index] for step in range(1030) for index in order.indices(step, 4)]
    assert drawn.count("FTC") / len(drawn) == pytest.approx(share, abs=0.002)


def test_unweighted_epochs_hold_every_image_once_and_differ() -> None:
    order = Order(np.ones(10), seed=3)
    epochs = [[index for step in range(e * 5, e * 5 + 5) for index in order.indices(step, 2)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_order_has_no_memory() -> None:
    weights = np.random.default_rng(0).random(37)
    forward = Order(weights, seed=5)
    expected = [forward.indices(step, 4) for step in range(60)]
    backward = Order(weights, seed=5)
    assert [backward.indices(step, 4) for step in reversed(range(60))] == expected[::-1]


def test_noise_belongs_to_a_place_in_the_batch_and_not_to_a_process() -> None:
    whole = draw_noise(7, 11, range(6), (2, 3, 3), 1000, [0.5, 0.5])
    parts = [draw_noise(7, 11, places, (2, 3, 3), 1000, [0.5, 0.5]) for places in (range(4), range(4, 6))]
    assert torch.equal(whole.noise, torch.cat([part.noise for part in parts]))
    assert torch.equal(whole.timesteps, torch.cat([part.timesteps for part in parts]))
    assert np.array_equal(whole.dropped, np.concatenate([part.dropped for part in parts]))
    other = draw_noise(7, 12, range(6), (2, 3, 3), 1000, [0.5, 0.5])
    assert not torch.equal(whole.noise, other.noise)


def test_timesteps_of_a_batch_are_spread_and_each_place_sees_all_of_them() -> None:
    drawn = np.stack([draw_noise(3, step, range(8), (1,), 1000, []).timesteps.numpy() for step in range(2000)])
    assert drawn.min() == 0 and drawn.max() == 999
    quarters = np.stack([(drawn // 250 == q).sum(axis=1) for q in range(4)], axis=1)
    assert quarters.min() >= 1 and quarters.max() <= 3, "eight independent draws miss a quarter in one batch of three"
    for place in range(8):
        share = np.bincount(drawn[:, place] // 100, minlength=10) / len(drawn)
        assert share == pytest.approx(np.full(10, 0.1), abs=0.03)


def test_branches_drop_apart_and_as_often_as_stated() -> None:
    dropped = np.concatenate(
        [draw_noise(0, step, range(8), (1,), 10, [0.1, 0.4, 0.0]).dropped for step in range(500)]
    )  # fmt: skip
    assert dropped.mean(axis=0) == pytest.approx([0.1, 0.4, 0.0], abs=0.03)
    assert abs(np.corrcoef(dropped[:, 0], dropped[:, 1])[0, 1]) < 0.06


def test_drawing_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    draw_noise(0, 0, range(2), (2,), 10, [0.1])
    held_out_noise(0, 4, (2,), 10)
    assert torch.equal(before, torch.get_rng_state())


def test_held_out_timesteps_cover_the_schedule_evenly() -> None:
    _, timesteps = held_out_noise(0, 4, (1,), 1000)
    assert timesteps.tolist() == [125, 375, 625, 875]


def test_averaged_weights_follow_the_written_out_recursion() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    ema, expected = Ema([weight], decay=0.3), 1.0
    for step, value in enumerate([2.0, 4.0, 8.0, 16.0], start=1):
        weight.data.fill_(value)
        ema.update()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert ema.shadow[0].item() == pytest.approx(expected, rel=1e-6)
    with ema.applied():
        assert weight.item() == pytest.approx(expected, rel=1e-6)
    assert weight.item() == 16.0


def test_decay_of_the_average_warms_up() -> None:
    assert ema_decay(1, 0.999) == pytest.approx(2 / 11)
    assert ema_decay(10**6, 0.999) == 0.999


def test_learning_rate_rises_holds_and_falls() -> None:
    factors = [learning_rate(step, 100, 10, 0.5) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:50] == [1.0] * 41
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.02)
    assert learning_rate(0, 100, 0, 0.0) == 1.0


def test_statistics_after_the_checkpoint_are_dropped(tmp_path) -> None:
    for step in (1, 2, 3):
        checkpoint.append_statistics(tmp_path, {"step": step})
    with (tmp_path / checkpoint.STATISTICS).open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    checkpoint.trim_statistics(tmp_path, 2)
    assert (tmp_path / checkpoint.STATISTICS).read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_damaged_checkpoint_is_named(tmp_path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"state\.pt"):
        checkpoint.load_checkpoint(tmp_path)


@pytest.mark.parametrize(("balance", "rare"), [(0.0, 30 / 2000), (0.5, 0.1098), (1.0, 0.5)])
def test_thirty_rare_images_among_two_thousand_are_drawn_as_documented(balance: float, rare: float) -> None:
    """Share of a class of n: n·n^-balance over the sum of all classes'; with 0.5, √30 / (√30 + √1970) = .1098."""
    labels = ["benign"] * 1970 + ["FTC"] * 30
    order = Order(class_weights(labels, balance), seed=4)
    epochs = [
        Counter(index for step in range(e * 250, e * 250 + 250) for index in order.indices(step, 8)) for e in range(8)
    ]
    drawn = sum(count for epoch in epochs for index, count in epoch.items() if index >= 1970)
    assert drawn / 16000 == pytest.approx(rare, abs=0.0006)
    expected = 2000 * rare / 30  # times that each rare image comes in an epoch of 2,000
    for epoch in epochs:
        times = [epoch[index] for index in range(1970, 2000)]
        assert min(times) >= np.floor(expected) and max(times) <= np.ceil(expected)


def test_what_modules_draw_follows_from_step_and_place_and_leaves_no_trace() -> None:
    drop, ones = nn.Dropout(0.5), torch.ones(64)

    def drawn(step: int, place: int) -> torch.Tensor:
        with module_draws(torch.device("cpu"), 7, step, place):
            return drop(ones)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn(3, 0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)  # whatever others draw meanwhile
    assert torch.equal(drawn(3, 0), first)
    assert not torch.equal(drawn(4, 0), first) and not torch.equal(drawn(3, 2), first)


def test_evaluation_leaves_each_part_in_the_mode_it_was_in() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    module[1].eval()
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, True, False, False]
