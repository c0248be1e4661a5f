"""The sample grid: one row a case with nodule mask, Sobel map, real image and the generated one."""

from pathlib import Path

import cv2
import numpy as np

from kb.files import atomic_write
from tigergen.data import Cases
from tigergen.model.pipeline import TigerPipeline
from tigergen.model.tokens import Roles

STEPS = 8
BORDER = 2


def draw_grid(pipe: TigerPipeline, cases: Cases, path: Path, mode: str, roles: list[Roles] | None = None) -> None:
    """Generate one image for each case and write the grid as PNG; columns mask, Sobel, real, generated.

    The seeds are fixed, so that grids of different steps show the same noise becoming the same nodule.
    """
    images = pipe(
        cases.fg, cases.bg, masks=cases.masks, sobels=cases.sobel, roles=roles, steps=STEPS, mode=mode,
        seeds=range(len(cases)),
    )  # fmt: skip
    columns = (cases.masks * np.uint8(255), cases.sobel, cases.images, images)
    rows = [np.hstack([_framed(column[row]) for column in columns]) for row in range(len(cases))]
    with atomic_write(path) as temporary:
        cv2.imwrite(str(temporary), np.vstack(rows))


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, BORDER, constant_values=128)
