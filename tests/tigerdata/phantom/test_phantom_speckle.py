"""Image formation: first- and second-order statistics of speckle, power over depth, log compression."""

from dataclasses import replace

import numpy as np
import pytest

from tigerdata.phantom.speckle import GAUSSIAN_LEVELS, compress, draw_machine, kernel, overlap, received

PX = 0.14


@pytest.fixture
def machine():
    return draw_machine(np.random.default_rng(1))


def uniform_envelope(machine, seed=0, size=256):
    amplitude = np.ones((size, size), np.float32)
    signal, _ = received(amplitude, np.zeros_like(amplitude), PX, machine, np.random.default_rng(seed))
    return np.hypot(signal[0], signal[1])


def test_envelope_of_a_uniform_field_is_rayleigh(machine):
    envelopes = np.concatenate([uniform_envelope(machine, seed) for seed in range(4)])
    assert envelopes.mean() / envelopes.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    # Rayleigh quantile: sigma * sqrt(-2 ln(1 - p)), sigma^2 = 1/2 for unit power.
    for p in (0.25, 0.5, 0.9):
        assert np.quantile(envelopes, p) == pytest.approx(np.sqrt(-np.log(1 - p)), rel=0.05)


def test_speckle_is_wider_across_the_beam_than_along_it(machine):
    intensity = uniform_envelope(machine) ** 2
    spectrum = np.abs(np.fft.fft2(intensity - intensity.mean())) ** 2
    correlation = np.fft.ifft2(spectrum).real
    correlation /= correlation[0, 0]
    assert correlation[0, 2] > correlation[2, 0] + 0.15


def test_speckle_grows_away_from_the_focus(machine):
    intensity = uniform_envelope(replace(machine, focus_mm=6.0)) ** 2

    def lateral(rows):
        part = intensity[rows] - intensity[rows].mean()
        return (part[:, :-3] * part[:, 3:]).mean() / part.var()

    assert lateral(slice(190, 256)) > lateral(slice(20, 70)) + 0.1


def test_power_does_not_depend_on_depth(machine):
    power = np.mean([uniform_envelope(machine, seed) ** 2 for seed in range(8)], axis=(0, 2))
    blocks = power.reshape(8, 32).mean(axis=1)
    assert np.all(np.abs(blocks - 1.0) < 0.12)


def test_kernels_have_unit_energy_and_overlap_is_their_correlation():
    narrow, wide = kernel(1.0), kernel(2.4)
    assert float((narrow**2).sum()) == pytest.approx(1.0, abs=1e-5)
    assert overlap(narrow, narrow) == pytest.approx(1.0, abs=1e-5)
    # Two Gaussians: sqrt(2 a b / (a^2 + b^2)).
    assert overlap(narrow, wide) == pytest.approx(np.sqrt(2 * 2.4 / (1 + 2.4**2)), abs=0.01)


def test_scatterers_have_mean_zero_and_half_variance():
    assert GAUSSIAN_LEVELS.mean() == pytest.approx(0.0, abs=1e-6)
    assert (GAUSSIAN_LEVELS**2).mean() == pytest.approx(0.5, abs=1e-5)


def test_parenchyma_maps_to_its_share_of_the_dynamic_range(machine):
    plain = replace(machine, gain_db=0.0, gamma=1.0)
    black = np.zeros(16, bool)
    signal = np.zeros((2, 16, 16), np.float32)
    signal[0] = 1.0
    assert compress(signal, plain, black)[8, 8] == int(255 * 0.42)
    # Ten decibels are 10 / range of the grey scale.
    louder = compress(signal * np.float32(10**0.5), plain, black)[8, 8]
    assert int(louder) - int(255 * 0.42) == pytest.approx(255 * 10 / plain.range_db, abs=1.5)
    black[:4] = True
    assert compress(signal, plain, black)[:, :4].max() == 0


def test_machines_differ():
    machines = [draw_machine(np.random.default_rng(k)) for k in range(50)]
    assert len({m.depth_mm for m in machines}) == 50
    assert all(32.5 <= m.depth_mm <= 35.5 for m in machines)
