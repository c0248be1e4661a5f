"""Paint a nodule into the canvas: echogenicity, texture, fluid, halo, capsule, calcification, shadow."""

from dataclasses import dataclass

import cv2
import numpy as np

from tigerdata.phantom.nodule import ANGLES, Attributes, Outline, first
from tigerdata.phantom.tissue import Array, Canvas, smoothstep, texture

ECHO_DB = {
    "hyperechoic": 10.0,
    "isoechoic": 0.0,
    "hypoechoic": -9.0,
    "markedly_hypoechoic": -16.5,
    "anechoic": -44.0,
    "mixed_echo": -3.0,
}
FLUID_DB, HALO_DB = -44.0, -34.0
# Room around a nodule that its drawing can change: blurred margins and the coat of parenchyma reach less far.
WINDOW_MM = 3.0


@dataclass
class Window:
    """Bounding window of a nodule in the canvas: slices, polar coordinates and signed distance s (mm, < 0 inside)."""

    rows: slice
    columns: slice
    u: Array
    v: Array
    angle: Array
    s: Array
    q: Array


def window(canvas: Canvas, outline: Outline, centre: tuple[float, float]) -> Window:
    """Cut the window of a nodule centred at `centre` (mm) and compute its distance field."""
    x0, y0 = centre
    half_w, half_h = outline.width_mm / 2 + WINDOW_MM, outline.height_mm / 2 + WINDOW_MM
    columns = np.flatnonzero(np.abs(canvas.x - x0) < half_w)
    rows = np.flatnonzero(np.abs(canvas.y - y0) < half_h)
    box_rows, box_columns = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    u = np.repeat((canvas.x[box_columns] - np.float32(x0))[None, :], len(rows), axis=0)
    v = np.repeat((canvas.y[box_rows] - np.float32(y0))[:, None], len(columns), axis=1)
    rho, angle = cv2.cartToPolar(u, v)
    step = np.minimum((angle * np.float32(ANGLES / (2 * np.pi))).astype(np.int32), ANGLES - 1)
    radius = outline.radius[step]
    return Window(box_rows, box_columns, u, v, angle, rho - radius, rho / radius)


def paint(canvas: Canvas, box: Window, outline: Outline, attributes: Attributes, rng: np.random.Generator) -> None:
    """Paint all foreground attributes of a nodule; `attributes` are canonical values."""
    composition = first(attributes, "composition", "solid")
    echo = first(attributes, "echogenicity", "anechoic" if composition == "cystic" else "isoechoic")
    margin = attributes.get("margin", ["clear"])
    level = canvas.level[box.rows, box.columns]
    diffuse = canvas.diffuse[box.rows, box.columns]
    mirror = canvas.mirror[box.rows, box.columns]
    loss = canvas.loss[box.rows, box.columns]
    inner, fluid = _interior(canvas, box, outline, attributes, composition, echo, rng)
    _halo(inner, box, outline, first(attributes, "halo", "absent"), "encapsulated" in margin, rng)
    sharp = "unclear" not in margin
    s = box.s
    if not sharp:
        s = s + 0.25 * texture(rng, s.shape, s.shape[0] // 14 + 2, s.shape[1] // 14 + 2)
    width = 0.25 if sharp else min(4.4, 0.28 * outline.width_mm + 1.2)
    alpha = smoothstep(0.5 - s / width)
    outside = 1.0 - smoothstep(0.5 - box.s / 0.4)
    mirror *= outside
    diffuse *= outside
    level += alpha * (inner - level)
    loss -= fluid * np.float32(0.55 * canvas.px_mm)
    if sharp:
        _interfaces(box, diffuse, loss, outline, canvas.px_mm, "encapsulated" in margin, rng)
    _calcify(canvas, box, outline, attributes, rng)


def _interior(
    canvas: Canvas,
    box: Window,
    outline: Outline,
    attributes: Attributes,
    composition: str,
    echo: str,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Level in dB inside the nodule and the map of fluid (bool), float32 and bool of the window's shape."""
    shape = box.s.shape
    height, width = shape[0] * canvas.px_mm, shape[1] * canvas.px_mm
    base = ECHO_DB["isoechoic" if echo == "anechoic" and composition != "cystic" else echo]
    if composition == "predominantly_cystic":
        base = max(base, 0.0)  # a dark solid part could not be told from the fluid around it
    inner = np.full(shape, base, np.float32)
    textures = attributes.get("echotexture", [])
    fluid = np.zeros(shape, bool)
    if composition == "cystic":
        return inner, box.q < 1.0
    if echo == "mixed_echo":
        turn = rng.uniform(0, 2 * np.pi)
        across = (box.u * np.cos(turn) + box.v * np.sin(turn)) / (0.5 * outline.width_mm) + 0.3 * texture(
            rng, shape, 4, 4
        )
        inner += np.where(across > 0.0, np.float32(11.0), np.float32(-11.0))
    if composition == "spongiform":
        cells = _honeycomb(box, 1.9, rng)
        fluid = cells & (box.q < 0.93)
        inner += 3.0
    if "heterogeneous" in textures and composition != "spongiform":
        patches = texture(rng, shape, int(height / 1.7), int(width / 1.9))
        inner += np.clip(7.0 * patches, -9.0, 8.0)
    if "nodule_in_nodule" in textures:
        centre = _inside_point(outline, rng, 0.22)
        core = 0.14 * (outline.width_mm + outline.height_mm) + 0.5
        inner_r = np.hypot(box.u - centre[0], box.v - centre[1]) / core
        lighter = 6.0 if base < 3.0 else -6.0
        inner_r[box.s > -0.7] = 9.0
        inner += np.where(inner_r < 1.0, np.float32(lighter), 0.0) - 11.0 * np.exp(-((inner_r - 1.12) ** 2) / 0.012)
    if "trabecular" in textures:
        tilt = rng.uniform(-0.6, 0.6)
        stripes = np.sin((box.v + tilt * box.u) * (2 * np.pi / 2.6) + 1.2 * texture(rng, shape, 5, 5))
        inner += 6.5 * stripes
    if "high_echogenic_foci" in textures:
        for _ in range(5):
            x, y = _inside_point(outline, rng, 0.65)
            inner += 9.0 * np.exp(-((box.u - x) ** 2 + (box.v - y) ** 2) / 0.9)
    fluid |= _cavities(box, outline, composition, textures, first(attributes, "halo", "absent"), rng)
    inner[fluid] = FLUID_DB
    if composition != "spongiform" and fluid.any():
        wall = cv2.morphologyEx(fluid.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        inner[wall] = max(base + 4.0, 2.0)  # the smooth wall of a cavity is a good reflector
    return inner, fluid


def _cavities(
    box: Window, outline: Outline, composition: str, textures: list[str], halo: str, rng: np.random.Generator
) -> Array:
    """Cystic spaces: one large cavity by composition, several small ones by echotexture."""
    shares = {"predominantly_solid": 0.36, "mixed_cystic_solid": 0.52, "predominantly_cystic": 0.70}
    cavity = np.zeros(box.s.shape, bool)
    scale = (outline.width_mm + outline.height_mm) / 2
    if composition in shares:
        turn = rng.uniform(0, 2 * np.pi)
        wave = 0.14 * texture(rng, box.s.shape, 4, 4)
        across = (box.u * np.cos(turn) + box.v * np.sin(turn)) / (0.25 * (outline.width_mm + outline.height_mm)) + wave
        inside = box.s < (-0.09 * scale if halo == "absent" else -1.9)
        if inside.any():
            cut = np.quantile(across[inside][::7], 1.0 - shares[composition])
            cavity = inside & (across > cut)
    spots: list[tuple[float, float, float]] = []
    if "cystic_change" in textures:
        for k in range(4):
            angle = 1.57 * k + rng.uniform(-0.4, 0.4)
            r = rng.uniform(0.2, 0.27) * scale
            spots.append((r * np.cos(angle), r * np.sin(angle), max(0.8, rng.uniform(0.075, 0.11) * scale)))
    if "botryoid" in textures:
        step = max(1.3, 0.16 * scale)
        spots += [(i * step + (j % 2) * step / 2, j * step * 0.87, 0.42 * step) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for x, y, r in spots:
        cavity |= ((box.u - x) ** 2 + (box.v - y) ** 2 < r * r) & (box.q < 0.92)
    return cavity


def _honeycomb(box: Window, cell_mm: float, rng: np.random.Generator) -> Array:
    """Cells of fluid between thin septa on a warped hexagonal grid."""
    shape = box.s.shape
    x = box.u + 0.35 * texture(rng, shape, 6, 6)
    y = box.v + 0.35 * texture(rng, shape, 6, 6)
    k = np.float32(2 * np.pi / cell_mm)
    wave = np.cos(k * x) + np.cos(k * (0.5 * x + 0.866 * y)) + np.cos(k * (0.5 * x - 0.866 * y))
    return wave > -0.35


def _halo(inner: Array, box: Window, outline: Outline, kind: str, capsule: bool, rng: np.random.Generator) -> None:
    """Hypoechoic ring just inside the outline (callipers include it); changes `inner` in place."""
    if kind == "absent":
        return
    thin = 1.3 + 0.02 * outline.width_mm
    outer = -0.75 if capsule else 0.3
    phase = rng.uniform(0, 2 * np.pi)
    if kind == "unevenly_thick":
        thick = min(5.0, 0.42 * min(outline.width_mm, outline.height_mm))
        wave = 0.5 + 0.5 * np.sin(box.angle + phase)
        width = thin * 0.7 + (thick - thin * 0.7) * wave**1.2
    else:
        width = np.full(box.s.shape, thin * (1.35 if kind == "interrupted" else 1.0), np.float32)
    ring = (box.s > outer - 0.3 - width) & (box.s < outer)
    if kind == "interrupted":
        ring &= np.sin(2 * box.angle + phase) < 0.0
    inner[ring] = np.minimum(inner[ring], HALO_DB)


def _interfaces(
    box: Window, diffuse: Array, loss: Array, outline: Outline, px_mm: float, capsule: bool, rng: np.random.Generator
) -> None:
    """Echo of a sharp border where it faces the beam, refraction shadows at its lateral edges, bright capsule."""
    facing = np.abs(np.sin(box.angle))
    if capsule:
        diffuse += 4.6 * np.exp(-((box.s + 0.3) ** 2) / (2 * 0.28**2)) * (0.65 + 0.35 * facing)
    else:
        diffuse += 2.0 * np.exp(-((box.s - 0.1) ** 2) / (2 * 0.17**2)) * (0.4 + 0.6 * facing**2)
    edge = np.abs(np.abs(box.u) - 0.47 * outline.width_mm)
    loss += np.where((edge < 0.55) & (np.abs(box.v) < 1.5), np.float32(1.3 * px_mm), 0.0)


def _inside_point(outline: Outline, rng: np.random.Generator, reach: float) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    radius = float(outline.radius[int(angle / (2 * np.pi) * ANGLES) % ANGLES]) * reach * np.sqrt(rng.uniform(0.05, 1.0))
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def _calcify(canvas: Canvas, box: Window, outline: Outline, attributes: Attributes, rng: np.random.Generator) -> None:
    """Add bright calcium or colloid echoes and their shadows or tails."""
    diffuse = canvas.diffuse[box.rows, box.columns]
    mirror = canvas.mirror[box.rows, box.columns]
    loss = canvas.loss[box.rows, box.columns]
    px = canvas.px_mm
    small = min(outline.width_mm, outline.height_mm)
    for kind in attributes.get("calcification", []):
        if kind == "microcalcification":
            for x, y in _spread(outline, 6 + int(small > 10) * 3, 0.68, rng):
                _dot(mirror, box, x, y, 0.20, 0.20, rng.uniform(9, 14))
        elif kind == "comet_tail":
            for x, y in _spread(outline, 2 + int(small > 10), 0.5, rng):
                for k in range(6):
                    _dot(mirror, box, x, y - 1.0 + 0.62 * k, 0.30 * 0.86**k, 0.14, 9.0 * 0.80**k)
        elif kind in ("macrocalcification", "calcification_unspecified"):
            shadow = 20.0 if kind == "macrocalcification" else 7.0
            size = float(np.clip(0.30 * small, 2.4, 4.8))
            x, y = _inside_point(outline, rng, 0.35)
            y -= 0.12 * small
            bend = (box.u - x) ** 2 * (0.25 / size)
            across = np.clip(1.0 - ((box.u - x) / (size / 2)) ** 2, 0.0, 1.0)
            bend += 0.35 * texture(rng, box.s.shape, 2, int(size * 8))[:1]
            clumps = np.clip(0.8 + 0.6 * texture(rng, box.s.shape, box.s.shape[0] // 5, box.s.shape[1] // 5), 0.2, None)
            body = np.sqrt(across) * np.exp(-((box.v - y - bend) ** 2) / (2 * 0.42**2)) * clumps
            diffuse += 9.0 * body
            mirror += 3.5 * body
            loss += np.minimum(1.0, 2.0 * across) * (np.abs(box.v - y - bend - 0.8) < 0.5) * np.float32(shadow * px)
        elif kind == "rim_calcification":
            gap = rng.uniform(0, 2 * np.pi)
            within = 0.7 if first(attributes, "halo", "absent") == "absent" else 2.0
            shell = np.exp(-((box.s + within) ** 2) / (2 * 0.32**2)) * (np.cos(box.angle - gap) < 0.9)
            shell *= 0.45 + 0.55 * np.abs(np.sin(box.angle))
            diffuse += 7.0 * shell
            mirror += 2.5 * shell
            loss += (shell > 0.3) * np.float32(7.0 * px)


def _spread(outline: Outline, count: int, reach: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Points inside the outline, about evenly spread, so that a count stays a count in a small frame."""
    points = []
    turn = rng.uniform(0, 2 * np.pi)
    for k in range(count):
        angle = turn + k * 2.399963 + rng.uniform(-0.25, 0.25)  # golden angle
        share = reach * np.sqrt((k + rng.uniform(0.4, 0.9)) / count)
        radius = float(outline.radius[int(angle / (2 * np.pi) * ANGLES) % ANGLES]) * share
        points.append((float(radius * np.cos(angle)), float(radius * np.sin(angle))))
    return points


def _dot(mirror: Array, box: Window, x: float, y: float, wide: float, tall: float, strength: float) -> None:
    """Add a Gaussian echo of half-widths `wide` and `tall` (mm) at (x, y) relative to the nodule centre."""
    columns = np.flatnonzero(np.abs(box.u[0] - x) < 4 * wide)
    rows = np.flatnonzero(np.abs(box.v[:, 0] - y) < 4 * tall)
    if not len(columns) or not len(rows):
        return
    part = np.ix_(rows, columns)
    across = np.exp(-((box.u[0, columns] - x) ** 2) / (2 * wide**2))
    along = np.exp(-((box.v[rows, 0] - y) ** 2) / (2 * tall**2))
    mirror[part] += np.float32(strength) * along[:, None] * across[None, :]
