"""Neck anatomy in a transverse or longitudinal section: layers, gland, trachea, vessels, and the nodule's place.

Lengths are millimetres. A transverse section is described for the right lobe (midline at large x); the canvas of a
left lobe runs its x axis the other way. Levels are decibels relative to thyroid parenchyma.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from tigerdata.phantom.nodule import Outline
from tigerdata.phantom.tissue import Array, Canvas, curve, ellipse, line, sheared, smoothstep, texture, wobble

MUSCLE_DB, FAT_DB, SKIN_DB, CONNECTIVE_DB, BLOOD_DB = -9.5, -8.0, 5.0, 0.5, -27.0
# Distance from the anterior capsule to the top of the nodule, by extension (negative: beyond the capsule).
GAPS_MM = {
    "absent": (2.6, 4.0),
    "abutting_capsule": (0.0, 0.2),
    "bulging": (-2.0, -1.5),
    "capsule_disruption": (-3.6, -3.2),
    "extrathyroidal": (-4.2, -3.6),
}
# Where along the lobe a pole lies in a longitudinal section (0: cranial tip, left of the image; 1: caudal tip).
POLES = {"upper": 0.22, "mid_upper": 0.36, "middle": 0.5, "mid_lower": 0.64, "lower": 0.78}


@dataclass
class Layers:
    """Depth in mm of the lower surface of each superficial layer, float32 [W]."""

    skin: Array
    fat: Array
    strap: Array


@dataclass
class Site:
    """Where the nodule lies and the anterior gland surface [W] before the nodule changes it (all in mm)."""

    centre: tuple[float, float]
    surface: Array
    layers: Layers


@dataclass
class Lobe:
    """The gland before painting: implicit regions and the structures around it."""

    inside: Array
    surface: Array
    nodule_x: float
    isthmus_mm: float = 0.0
    trachea: tuple[float, float, float] | None = None
    carotid: tuple[float, float, float] | None = None
    deep_mm: float = 24.0


def draw_layers(canvas: Canvas, rng: np.random.Generator) -> Layers:
    """Draw skin, subcutaneous fat and strap muscle; the capsule lies 5-6 mm below the probe."""
    length = len(canvas.x)
    tilt = (canvas.x / canvas.width - 0.5) * rng.normal(0, 0.7)
    skin = 0.9 + rng.uniform(0, 0.3) + curve(rng, length, 6, 0.05)
    fat = skin + rng.uniform(0.8, 1.4) + curve(rng, length, 6, 0.16) + 0.5 * tilt
    strap = fat + rng.uniform(2.6, 3.3) + curve(rng, length, 5, 0.22) + tilt
    return Layers(*(part.astype(np.float32) for part in (skin, fat, strap)))


def place(
    canvas: Canvas, plane: str, side: str, pole: str, extension: str, outline: Outline, rng: np.random.Generator
) -> tuple[Lobe, Site]:
    """Lay out the section around a nodule; returns the gland and the nodule's site."""
    layers = draw_layers(canvas, rng)
    size = outline.width_mm, outline.height_mm
    gap = float(rng.uniform(*GAPS_MM[extension]))
    if plane == "transverse":
        draw = _isthmus_transverse if side == "isthmus" else _lobe_transverse
        lobe = draw(canvas, layers, size, max(gap, 0.0), rng)
    else:
        lobe = _longitudinal(canvas, layers, size, max(gap, 0.0), pole, side == "isthmus", rng)
    # The nodule hangs below the gland surface: its highest point, measured from the surface, lies at `gap`.
    theta = np.arange(len(outline.radius)) * (2 * np.pi / len(outline.radius))
    upper = np.sin(theta) < 0
    px, py = (outline.radius * np.cos(theta))[upper], (outline.radius * np.sin(theta))[upper]
    grid = canvas.x if canvas.x[-1] > canvas.x[0] else canvas.x[::-1]
    surface = lobe.surface if canvas.x[-1] > canvas.x[0] else lobe.surface[::-1]
    y = float(np.max(gap - py + np.interp(lobe.nodule_x + px, grid, surface)))
    y = min(y, canvas.depth - outline.height_mm / 2 - 0.3)
    return lobe, Site((lobe.nodule_x, y), lobe.surface, layers)


def _lobe_transverse(
    canvas: Canvas, layers: Layers, size: tuple[float, float], gap: float, rng: np.random.Generator
) -> Lobe:
    half = max(float(rng.uniform(7.0, 9.5)), size[0] / 2 + 2.4)
    deep = max(float(rng.uniform(6.5, 8.5)), (size[1] + gap + 2.2) / 2)
    visible = float(np.clip(canvas.width - 2 * half - rng.uniform(6, 9), 4.5, rng.uniform(7, 11)))
    x = canvas.width - visible - half
    column = int(np.argmin(np.abs(canvas.x - x)))
    y = float(layers.strap[column]) + deep - 0.2
    shift = wobble(rng, canvas, 0.45)
    inside = ellipse(canvas, (x, y), (half, deep), shift) < 1.0
    isthmus = float(rng.uniform(2.6, 4.2))
    radius = float(rng.uniform(7.5, 9.5))
    band = (canvas.y[:, None] < (layers.strap + isthmus + 0.9)[None, :]) & (canvas.x[None, :] > x)
    inside |= band
    inside &= canvas.y[:, None] > layers.strap[None, :]
    trachea = (x + half + 0.72 * radius, float(layers.strap[column]) + isthmus + radius, radius)
    vessel = float(rng.uniform(2.8, 3.6))
    carotid = (x - half - 0.7 * vessel, y + float(rng.uniform(0.0, 0.35)) * deep, vessel)
    across = np.clip(1.0 - ((canvas.x - x) / half) ** 2, 0.0, 1.0)
    top = np.where(canvas.x > x, layers.strap, np.maximum(layers.strap, y - deep * np.sqrt(across)))
    reach = max(0.0, half - size[0] / 2 - 2.4)
    at = x + float(rng.uniform(-0.7, 0.7)) * reach
    return Lobe(inside, top.astype(np.float32), at, isthmus, trachea, carotid, y + deep)


def _isthmus_transverse(
    canvas: Canvas, layers: Layers, size: tuple[float, float], gap: float, rng: np.random.Generator
) -> Lobe:
    middle = canvas.width / 2 + float(rng.uniform(-2, 2))
    at = middle + float(rng.uniform(-1.5, 1.5))
    bump = size[1] + gap + 1.5 - 3.0
    thick = 3.0 + max(bump, 0.0) * np.exp(-0.5 * ((canvas.x - at) / (0.55 * size[0] + 1.5)) ** 4)
    inside = canvas.y[:, None] < (layers.strap + thick)[None, :]
    inside &= np.abs(canvas.x - middle)[None, :] < 13
    radius = float(rng.uniform(8.0, 9.5))
    top = float(layers.strap[int(np.argmin(np.abs(canvas.x - middle)))])
    for sign in (-1.0, 1.0):
        half, deep = float(rng.uniform(6.5, 8.5)), float(rng.uniform(6.5, 8.5))
        centre = middle + sign * (radius + 0.75 * half)
        inside |= ellipse(canvas, (centre, top + deep), (half, deep), wobble(rng, canvas, 0.4)) < 1.0
    inside &= canvas.y[:, None] > layers.strap[None, :]
    trachea = (middle, top + max(size[1] + gap + 1.2, 3.0) + radius, radius)
    return Lobe(inside, layers.strap, at, 3.0, trachea, None, top + 17)


def _longitudinal(
    canvas: Canvas,
    layers: Layers,
    size: tuple[float, float],
    gap: float,
    pole: str,
    isthmus: bool,
    rng: np.random.Generator,
) -> Lobe:
    share = POLES.get(pole, 0.5) + float(rng.uniform(-0.04, 0.04))
    half = float(rng.uniform(20.0, 24.0))
    at = float(np.clip(canvas.width * (0.5 + 0.45 * (share - 0.5)), size[0] / 2 + 3, canvas.width - size[0] / 2 - 3))
    middle = at + (0.5 - share) * 2 * half * 0.8
    along = (canvas.x - middle) / half
    profile = np.sqrt(np.clip(1.0 - np.abs(along) ** 2.4, 0.0, 1.0))
    normal = float(rng.uniform(5.0, 7.0)) if isthmus else float(rng.uniform(12.0, 15.0))
    here = max(0.35, float(np.interp(at, *_ascending(canvas.x, profile))))
    need = (size[1] + gap + 2.5) / here
    thick = max(normal, min(need, canvas.depth - 9.0)) * profile
    thick = thick * (1.0 + curve(rng, len(canvas.x), 6, 0.03))
    top = layers.strap + 0.22 * (thick.max() - thick) * (profile > 0)
    inside = (canvas.y[:, None] > top[None, :]) & (canvas.y[:, None] < (top + thick)[None, :])
    surface = top.astype(np.float32)
    lobe = Lobe(inside, surface, at, deep_mm=float((top + thick).max()))
    if isthmus:
        lobe.isthmus_mm = float((top + thick).max() - layers.strap.min())
    return lobe


def _ascending(x: Array, values: Array) -> tuple[Array, Array]:
    return (x, values) if x[-1] > x[0] else (x[::-1], values[::-1])


def paint(canvas: Canvas, lobe: Lobe, layers: Layers, plane: str, rng: np.random.Generator) -> None:
    """Fill the canvas with everything but the nodule."""
    shape = canvas.level.shape
    fibres = sheared(texture(rng, shape, int(canvas.depth / 0.75), int(canvas.width / 5.0)), rng.normal(0, 0.12))
    clouds = texture(rng, shape, 11, 9)
    canvas.level[:] = CONNECTIVE_DB + 6.5 * fibres + 2.5 * clouds
    _muscle_below(canvas, lobe, fibres, rng)
    if lobe.carotid is not None:
        _vessels(canvas, lobe, rng)
    _superficial(canvas, layers, fibres, rng)
    gland = lobe.inside
    fine = texture(rng, shape, int(canvas.depth / 1.6), int(canvas.width / 1.6))
    np.copyto(canvas.level, 2.0 * clouds + 1.8 * fine, where=gland)
    canvas.gland |= gland
    if lobe.trachea is not None:
        _trachea(canvas, lobe.trachea, rng)
    elif lobe.isthmus_mm > 0:
        _rings(canvas, lobe, rng)


def _superficial(canvas: Canvas, layers: Layers, fibres: Array, rng: np.random.Generator) -> None:
    """Skin, fat with septa, strap muscle with fibrils, and the bright fasciae between them."""
    end = int(min(len(canvas.y), float(layers.strap.max()) / canvas.px_mm + 3))
    y, level = canvas.y[:end, None], canvas.level[:end]
    grain = texture(rng, (end, len(canvas.x)), int(end * canvas.px_mm / 0.35), int(canvas.width / 4.0))
    strap = MUSCLE_DB + 2.2 * grain
    np.copyto(level, strap, where=y < layers.strap[None, :])
    np.copyto(level, FAT_DB + 3.0 * fibres[:end] + 1.5 * grain, where=y < layers.fat[None, :])
    np.copyto(level, SKIN_DB + 2.0 * grain, where=y < layers.skin[None, :])
    length = len(canvas.x)
    line(canvas, np.full(length, 0.25, np.float32), 0.18, 2.2)
    line(canvas, layers.skin, 0.14, np.clip(0.8 + curve(rng, length, 7, 0.4), 0, None))
    line(canvas, layers.fat, 0.16, np.clip(2.8 + curve(rng, length, 24, 2.2), 0, None))
    if rng.uniform() < 0.7:
        septum = layers.skin + (layers.fat - layers.skin) * rng.uniform(0.3, 0.7) + curve(rng, length, 6, 0.15)
        line(canvas, septum, 0.13, np.clip(0.7 + curve(rng, length, 6, 0.7), 0, None))
    if rng.uniform() < 0.6:
        plane = layers.fat + (layers.strap - layers.fat) * rng.uniform(0.35, 0.6) + curve(rng, length, 6, 0.12)
        line(canvas, plane, 0.12, np.clip(0.5 + curve(rng, length, 7, 0.5), 0, None))


def capsule(canvas: Canvas, surface: Array, keep: Array, rng: np.random.Generator) -> None:
    """Bright anterior capsule along `surface` [W] mm, weakened where `keep` [W] is below 1, and the posterior one."""
    length = len(canvas.x)
    strength = np.clip(3.0 + curve(rng, length, 24, 1.3), 1.0, None) * keep
    line(canvas, surface.astype(np.float32), 0.20, strength)
    bottom = (len(canvas.y) - 1 - np.argmax(canvas.gland[::-1], axis=0)) * np.float32(canvas.px_mm)
    present = canvas.gland.any(axis=0) & (bottom < canvas.depth - 1)
    line(canvas, bottom.astype(np.float32), 0.2, np.clip(1.0 + curve(rng, length, 8, 0.8), 0, None) * present)


def _muscle_below(canvas: Canvas, lobe: Lobe, fibres: Array, rng: np.random.Generator) -> None:
    """Longus colli behind the gland and the bright, shadowing face of the spine below it."""
    length = len(canvas.x)
    tilt = (canvas.x - canvas.width / 2) * rng.normal(0, 0.07)
    top = lobe.deep_mm + rng.uniform(0.5, 2.5) + curve(rng, length, 4, 0.9) + tilt
    thick = rng.uniform(4.0, 7.0) + curve(rng, length, 4, 0.9)
    y = canvas.y[:, None]
    body = (y > top[None, :]) & (y < (top + thick)[None, :])
    np.copyto(canvas.level, MUSCLE_DB + 3.5 * fibres, where=body)
    line(canvas, top.astype(np.float32), 0.22, np.clip(1.6 + curve(rng, length, 14, 2.4), 0, None))
    bone = (top + thick).astype(np.float32)
    line(canvas, bone, 0.35, np.clip(1.4 + curve(rng, length, 16, 3.2), 0, None))
    canvas.loss += np.where((y > bone[None, :]) & (y < bone[None, :] + 3.0), np.float32(3.2 * canvas.px_mm), 0.0)


def _vessels(canvas: Canvas, lobe: Lobe, rng: np.random.Generator) -> None:
    """Common carotid artery and internal jugular vein lateral to the lobe, under the sternocleidomastoid muscle."""
    assert lobe.carotid is not None
    x, y, radius = lobe.carotid
    muscle = ellipse(canvas, (x - 4.5, y - 8.5), (8.5, rng.uniform(3.5, 4.5)), wobble(rng, canvas, 0.5)) < 1.0
    np.copyto(canvas.level, np.float32(MUSCLE_DB + 1.0), where=muscle)
    flat = float(rng.uniform(0.45, 0.8))
    for centre, axes, wall in (
        ((x - rng.uniform(3.5, 5.5), y - rng.uniform(5.5, 7.0)), (rng.uniform(3.2, 4.5), 3.4 * flat), 0.4),
        ((x, y), (radius, radius * rng.uniform(0.88, 1.0)), 1.1),
    ):
        distance = ellipse(canvas, centre, axes, wobble(rng, canvas, 0.22))
        lumen = distance < 1.0
        np.copyto(canvas.level, np.float32(BLOOD_DB), where=lumen)
        ring = cv2.exp(np.maximum(np.float32(-1.0 / 0.008) * (distance - np.float32(1.1)) ** 2, np.float32(-40)))
        facing = (np.abs(canvas.y - centre[1]) / axes[1]).clip(0.0, 1.0) ** 3
        canvas.diffuse += np.float32(wall) * ring * facing[:, None]
        canvas.loss -= lumen * np.float32(0.55 * canvas.px_mm)


def _trachea(canvas: Canvas, place_: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Anterior tracheal wall, reverberation below it, and the dirty shadow of the air column."""
    x, y, radius = place_
    across = (canvas.x - x) / radius
    inside = np.abs(across) < 1.0
    wall = y - radius * np.sqrt(np.clip(1.0 - across**2, 0.0, 1.0)) * 0.98
    wall = (wall + curve(rng, len(canvas.x), 9, 0.12)).astype(np.float32)
    below = (canvas.y[:, None] > wall[None, :]) & inside[None, :]
    np.copyto(canvas.level, np.float32(-50.0), where=below)
    canvas.gland &= ~below
    # Columns of weak clutter, as the probe sees many echoes between wall and skin.
    clutter = texture(rng, canvas.level.shape, int(canvas.depth / 2.5), int(canvas.width / 1.1))
    depth = np.clip(canvas.y[:, None] - wall[None, :], 0, None)
    np.copyto(canvas.level, (-11.0 - 0.9 * depth + 4.0 * clutter).astype(np.float32), where=below)
    edge = smoothstep((1.0 - np.abs(across)) * 3.0)
    spacing = float(rng.uniform(1.7, 2.6))
    for k in range(4):
        strength = 4.0 * 0.42**k * edge * np.clip(0.8 + curve(rng, len(canvas.x), 16, 0.6), 0.1, None)
        line(canvas, (wall + k * spacing).astype(np.float32), 0.24 + 0.05 * k, strength)


def _rings(canvas: Canvas, lobe: Lobe, rng: np.random.Generator) -> None:
    """Midline section: cartilage rings of the trachea in a row below the isthmus, then air."""
    wall = (lobe.surface + lobe.isthmus_mm * 0.9 + 2.0).astype(np.float32)
    wall = np.full_like(wall, float(wall.max()))
    y = canvas.y[:, None]
    clutter = texture(rng, canvas.level.shape, int(canvas.depth / 1.0), int(canvas.width / 1.3))
    below = y > wall[None, :]
    np.copyto(canvas.level, (-14.0 - 0.8 * np.clip(y - wall[None, :], 0, None) + 4.0 * clutter), where=below)
    canvas.gland &= ~below
    period = float(rng.uniform(3.4, 4.2))
    phase = np.cos(2 * np.pi * (canvas.x + rng.uniform(0, period)) / period)
    ring = (np.abs(y - (wall - 1.0)[None, :]) < 0.9) & (phase > 0.1)[None, :]
    np.copyto(canvas.level, np.float32(-14.0), where=ring & ~canvas.gland)
    for k in range(4):
        strength = np.clip(1.0 - 0.4 * phase + curve(rng, len(canvas.x), 20, 0.7), 0.15, None)
        line(canvas, wall + np.float32(k * 2.0), 0.24, 3.6 * 0.4**k * strength)
