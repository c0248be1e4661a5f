"""One frame from attributes: lay out the neck, draw the nodule, form the image."""

from dataclasses import dataclass

import cv2
import numpy as np

from tigerdata.phantom import anatomy, lesion
from tigerdata.phantom.nodule import Attributes, draw_outline, draw_size, first
from tigerdata.phantom.speckle import Machine, compress, draw_machine, received
from tigerdata.phantom.tissue import Array, Canvas, curve

POLES = ("upper", "middle", "lower", "mid_upper", "mid_lower")


@dataclass(frozen=True)
class Frame:
    """A simulated frame: image uint8 [s, s], nodule mask and gland mask bool [s, s], pixel size and true diameters."""

    image: Array
    mask: Array
    gland: Array
    mm_per_pixel: float
    width_mm: float
    height_mm: float


def render(
    attributes: Attributes,
    plane: str,
    side: str,
    rng: np.random.Generator,
    size: int = 256,
    identity: int | None = None,
    machine: Machine | None = None,
) -> Frame:
    """Render one square frame of `size` pixels.

    attributes: canonical values (missing ones take an inconspicuous default); plane: "transverse", "longitudinal" or
    "oblique"; side: "left", "right" or "isthmus"; rng draws speckle, anatomy and, unless `identity` and `machine` are
    given, the nodule and the scanner. `identity` seeds size and outline, so that frames of one nodule with one
    identity show the same nodule. The mask is the whole nodule, halo, capsule and spicules included.
    """
    machine = machine or draw_machine(rng)
    own = rng.spawn(1)[0] if identity is None else np.random.default_rng([identity, 7])
    width, height = draw_size(attributes, own)
    outline = draw_outline(attributes, width, height, own)
    px = machine.depth_mm / size
    grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(px)
    x = grid if side != "left" or plane != "transverse" else grid[::-1].copy()
    canvas = Canvas(x, grid, px)
    pole = next((p for p in POLES if p in attributes.get("nodule_location", [])), "middle")
    extension = first(attributes, "extension", "absent")
    layout_plane = "transverse" if plane == "transverse" else "longitudinal"
    lobe, site = anatomy.place(canvas, layout_plane, side, pole, extension, outline, rng)
    box = lesion.window(canvas, outline, site.centre)
    inside = np.zeros((size, size), bool)
    inside[box.rows, box.columns] = box.s < 0
    surface, keep = _deform(site, inside, extension, grid)
    coat = np.zeros((size, size), bool)
    coat[box.rows, box.columns] = box.s < (2.0 if extension == "absent" else 1.2)
    coat &= grid[:, None] > surface[None, :]
    lobe.inside |= coat
    anatomy.paint(canvas, lobe, site.layers, layout_plane, rng)
    canvas.gland |= coat
    anatomy.capsule(canvas, surface, keep, rng)
    lesion.paint(canvas, box, outline, attributes, rng)
    canvas.gland |= inside
    image = form(canvas, machine, rng)
    return Frame(image, inside, canvas.gland, px, width, height)


def _deform(site: anatomy.Site, inside: Array, extension: str, grid: Array) -> tuple[Array, Array]:
    """Anterior gland surface [W] in mm with the nodule in place, and the share of the capsule that is left [W]."""
    present = inside.any(axis=0)
    top = np.where(present, grid[np.argmax(inside, axis=0)], np.float32(1e3))
    surface: Array = site.surface
    keep: Array = np.ones(len(grid), np.float32)
    layers = site.layers
    if extension in ("bulging", "abutting_capsule"):
        dome = np.minimum(surface, top - 0.35).astype(np.float32)
        surface = cv2.GaussianBlur(dome[None, :], (0, 0), 3.0)[0]
        surface = np.minimum(surface, top - 0.2)
        layers.strap = np.minimum(layers.strap, surface)
        layers.fat = np.minimum(layers.fat, layers.strap - 0.9)
        layers.skin = np.minimum(layers.skin, layers.fat - 0.4)
    elif extension in ("capsule_disruption", "extrathyroidal"):
        broken = (top < surface + 0.3).astype(np.float32)
        keep = 1.0 - cv2.GaussianBlur(cv2.dilate(broken[None, :], np.ones((1, 9), np.uint8)), (0, 0), 1.5)[0]
    return surface, keep


def form(canvas: Canvas, machine: Machine, rng: np.random.Generator) -> Array:
    """Image uint8 [H, W] of a canvas: speckle, attenuation along the beam, gain drift, noise, log compression."""
    amplitude = cv2.exp(canvas.level * np.float32(np.log(10.0) / 20.0))
    amplitude += canvas.diffuse
    signal, raw = received(amplitude, canvas.mirror, canvas.px_mm, machine, rng)
    loss: Array = np.cumsum(canvas.loss, axis=0, dtype=np.float32)
    np.minimum(loss, 24.0, out=loss)
    loss = cv2.blur(loss, (max(3, int(0.8 / canvas.px_mm)) | 1, 1))
    depth: Array = np.float32(machine.slope_db) * np.clip(canvas.y - 9.0, 0.0, None)
    contact: Array = curve(rng, len(canvas.x), 7, 1.0) + curve(rng, len(canvas.x), 40, 0.6)
    loss = loss + np.add.outer(depth, contact)
    signal *= cv2.exp(loss * np.float32(-np.log(10.0) / 20.0))
    # The scatterers of distant rows serve as electronic noise: they are independent of the signal that they join.
    height = canvas.level.shape[0]
    floor = 10.0 ** (machine.noise_db / 20.0)
    raw *= np.float32(floor)
    signal[:, : height // 2] += raw[:, height - height // 2 :]
    signal[:, height // 2 :] += raw[:, : height - height // 2]
    black = np.abs(canvas.x - canvas.width / 2) > machine.width_mm / 2
    return compress(signal, machine, black)
