"""Image formation: scatterers, point-spread function, envelope, log compression.

Linear-systems model of B-mode imaging: the received complex envelope is the field of scatterers, weighted by tissue
echogenicity, convolved with the point-spread function (Bamber & Dickinson, Phys Med Biol 1980;25:463-479). Many
scatterers in one resolution cell give a circular Gaussian field, whose magnitude is Rayleigh distributed, with
mean/std = sqrt(pi / (4 - pi)) = 1.91 (Wagner et al., IEEE Trans Sonics Ultrason 1983;30:156-163).
"""

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

Array = np.ndarray
_QUANTILES = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)])
GAUSSIAN_LEVELS = (_QUANTILES * np.sqrt(0.5 / np.mean(_QUANTILES**2))).astype(np.float32)


@dataclass(frozen=True)
class Machine:
    """Settings of one scanner and examination; lengths in mm, levels in dB relative to thyroid parenchyma."""

    depth_mm: float
    width_mm: float
    axial_mm: float
    lateral_mm: float
    focus_mm: float
    gain_db: float
    range_db: float
    noise_db: float
    slope_db: float
    gamma: float
    smooth_px: float


def draw_machine(rng: np.random.Generator) -> Machine:
    """Draw the settings of one examination; nothing in them depends on the class of the patient.

    Depth stays within 32.5-35.5 mm: the bins of nodule diameter must not overlap in pixels (`nodule.SIZES_MM`).
    """
    frequency = rng.uniform(0.0, 1.0)  # 0: low (coarse speckle, deep), 1: high (fine speckle, shallow)
    return Machine(
        depth_mm=float(rng.uniform(32.5, 35.5)),
        width_mm=float(rng.uniform(33.5, 38.0)),
        axial_mm=0.09 - 0.02 * frequency,
        lateral_mm=0.24 - 0.07 * frequency,
        focus_mm=float(rng.uniform(10.0, 18.0)),
        gain_db=float(rng.uniform(-2.5, 2.5)),
        range_db=float(rng.uniform(66.0, 80.0)),
        noise_db=float(rng.uniform(-31.0, -26.0)),
        slope_db=float(rng.uniform(0.10, 0.28)) + 0.10 * frequency,
        gamma=float(rng.uniform(0.95, 1.2)),
        smooth_px=float(rng.uniform(0.4, 0.6)),
    )


def scatterers(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """One scatterer a pixel: random amplitudes float32 of mean 0 and variance 1/2, from 256 levels of a Gaussian.

    A table of quantiles is ten times faster than drawing normals; the sum over a resolution cell is Gaussian anyway.
    """
    return GAUSSIAN_LEVELS[np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8)].reshape(shape)


def kernel(sigma_px: float) -> Array:
    """Gaussian kernel float32 [k] of unit energy (sum of squares 1): convolving white noise keeps its power."""
    half = max(1, int(np.ceil(3.0 * sigma_px)))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    return (taps / np.sqrt((taps**2).sum())).astype(np.float32)


def overlap(first: Array, second: Array) -> float:
    """Inner product of two centred kernels of odd length: correlation of the same noise seen through both."""
    short, long = sorted((first, second), key=len)
    pad = (len(long) - len(short)) // 2
    return float((np.pad(short, pad) * long).sum())


def received(
    amplitude: Array, mirror: Array, px_mm: float, machine: Machine, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Complex echo signal before attenuation and a raw noise field of unit power, both float32 [2, H, W] (re, im).

    `amplitude` [H, W] is the root-mean-square strength of the scatterers, `mirror` [H, W] the strength of smooth
    interfaces, which add in phase; `px_mm` is the pixel size. The point-spread function is a blend of a narrow and a
    wide Gaussian; the blend is renormalised so that the power of a uniform field is the same at all depths. The
    magnitude of the signal is the envelope.
    """
    height, width = amplitude.shape
    raw = scatterers((2, height, width), rng)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) * np.float32(px_mm)
    wide = np.clip(np.abs(y - np.float32(machine.focus_mm)) / np.float32(22.0), 0.0, 1.0)
    axial = kernel(machine.axial_mm / px_mm), kernel(1.35 * machine.axial_mm / px_mm)
    lateral = kernel(machine.lateral_mm / px_mm), kernel(2.4 * machine.lateral_mm / px_mm)
    shared = overlap(*axial) * overlap(*lateral)
    norm = 1.0 / np.sqrt((1 - wide) ** 2 + wide**2 + 2 * wide * (1 - wide) * np.float32(shared))
    weights = ((1 - wide) * norm)[:, None], (wide * norm)[:, None]
    signal = np.empty_like(raw)
    for part in range(2):
        field = raw[part] * amplitude
        field += mirror
        near = cv2.sepFilter2D(field, -1, lateral[0], axial[0], borderType=cv2.BORDER_REFLECT)
        far = cv2.sepFilter2D(field, -1, lateral[1], axial[1], borderType=cv2.BORDER_REFLECT)
        near *= weights[0]
        far *= weights[1]
        np.add(near, far, out=signal[part])
    return signal, raw


def compress(signal: Array, machine: Machine, black: Array) -> Array:
    """Log-compress a complex signal [2, H, W] to grey values uint8 [H, W].

    Grey = 255 * ((20 log10 |z| + gain) / range + 0.42) ** gamma, clipped; `black` [W] marks columns outside the probe.
    Parenchyma (0 dB) lies at 42 % of the dynamic range, as in clinical frames, where it is dark grey.
    """
    power = signal[0] * signal[0]
    power += signal[1] * signal[1]
    # Compounding and persistence average the power of neighbouring looks and fill the nulls of the speckle.
    power = cv2.GaussianBlur(power, (5, 5), machine.smooth_px)
    power += np.float32(1e-12)
    level = cv2.log(power)
    level *= np.float32(255.0 * 10.0 / np.log(10.0) / machine.range_db)
    level += np.float32(255.0 * (0.42 + machine.gain_db / machine.range_db))
    grey = np.clip(level, 0.0, 255.0).astype(np.uint8)
    table = (255.0 * (np.arange(256) / 255.0) ** machine.gamma).round().astype(np.uint8)
    grey = cv2.LUT(grey, table)
    grey[:, black] = 0
    return grey
