"""Small building blocks of tissue maps: smooth random curves and textures, the drawing canvas."""

from dataclasses import dataclass, field

import cv2
import numpy as np

Array = np.ndarray


@dataclass
class Canvas:
    """Maps of one frame before imaging; all float32 [H, W] unless said.

    level: echogenicity in dB relative to parenchyma; diffuse: extra amplitude of scatterers, for rough interfaces;
    mirror: amplitude of coherent echoes (calcium, the smooth part of interfaces);
    loss: one-way extra attenuation in dB added in each pixel and carried to everything below it (negative where fluid
    attenuates less than tissue); gland: bool; x [W] and y [H] are pixel centres in mm, x running from the lateral
    side to the midline in transverse planes whatever the side, so that left and right share one description.
    """

    x: Array
    y: Array
    px_mm: float
    level: Array = field(init=False)
    diffuse: Array = field(init=False)
    mirror: Array = field(init=False)
    loss: Array = field(init=False)
    gland: Array = field(init=False)

    def __post_init__(self) -> None:
        shape = (len(self.y), len(self.x))
        self.level = np.zeros(shape, np.float32)
        self.diffuse = np.zeros(shape, np.float32)
        self.mirror = np.zeros(shape, np.float32)
        self.loss = np.zeros(shape, np.float32)
        self.gland = np.zeros(shape, bool)

    @property
    def width(self) -> float:
        """Width of the frame in mm."""
        return len(self.x) * self.px_mm

    @property
    def depth(self) -> float:
        """Depth of the frame in mm."""
        return len(self.y) * self.px_mm


def curve(rng: np.random.Generator, length: int, knots: int, scale: float) -> Array:
    """Smooth random curve float32 [length] through `knots` normal values of standard deviation `scale`."""
    points = rng.standard_normal((1, knots), dtype=np.float32) * np.float32(scale)
    return cv2.resize(points, (length, 1), interpolation=cv2.INTER_CUBIC)[0]


def texture(rng: np.random.Generator, shape: tuple[int, int], rows: int, columns: int) -> Array:
    """Smooth random field float32 [H, W] of about unit standard deviation with `rows` x `columns` grains."""
    grains = rng.standard_normal((max(2, rows), max(2, columns)), dtype=np.float32)
    return cv2.resize(grains, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) * np.float32(1.2)


def sheared(field_: Array, slope: float) -> Array:
    """A field [H, W] sheared so that its horizontal grains run at `slope` (depth over width)."""
    width = field_.shape[1]
    matrix = np.array([[1.0, 0.0, 0.0], [slope, 1.0, -slope * width / 2]], np.float32)
    return cv2.warpAffine(field_, matrix, field_.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def line(canvas: Canvas, depth: Array, thickness_mm: float, strength: Array | float) -> None:
    """Add an interface at `depth` [W] mm: a thin Gaussian ridge of amplitude `strength` (scalar or [W]).

    Most of it is rough and speckles, a tenth reflects coherently.
    """
    top = max(0, int((float(depth.min()) - 4 * thickness_mm) / canvas.px_mm))
    end = min(len(canvas.y), int((float(depth.max()) + 4 * thickness_mm) / canvas.px_mm) + 1)
    if end <= top:
        return
    distance = (canvas.y[top:end, None] - depth[None, :]) * np.float32(1.0 / thickness_mm)
    ridge = cv2.exp(np.float32(-0.5) * distance * distance) * np.asarray(strength, np.float32)
    canvas.diffuse[top:end] += ridge
    canvas.mirror[top:end] += np.float32(0.10) * ridge


def ellipse(
    canvas: Canvas, centre: tuple[float, float], axes: tuple[float, float], shift: tuple[Array, Array]
) -> Array:
    """Normalised squared distance float32 [H, W] from an ellipse (< 1 inside); `shift` in mm, see `wobble`."""
    u = np.add.outer(shift[0], canvas.x - np.float32(centre[0]))
    v = np.add.outer(canvas.y - np.float32(centre[1]), shift[1])
    u *= np.float32(1.0 / axes[0])
    v *= np.float32(1.0 / axes[1])
    u *= u
    v *= v
    u += v
    return u


def wobble(rng: np.random.Generator, canvas: Canvas, scale: float) -> tuple[Array, Array]:
    """Displacements (mm) along x for each row [H] and along y for each column [W]: no outline is perfect."""
    return curve(rng, len(canvas.y), 7, scale), curve(rng, len(canvas.x), 7, scale)


def smoothstep(value: Array) -> Array:
    """Cubic step from 0 (value <= 0) to 1 (value >= 1)."""
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3.0 - 2.0 * value)
