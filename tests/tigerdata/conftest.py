"""Small workspaces with drawn frames: an ellipse on noise, one or more images a patient."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tigerdata.images.ingest import ingest_images
from tigerdata.workspace import Workspace


def draw(seed: int, shape: tuple[int, int] = (64, 80)) -> tuple[np.ndarray, np.ndarray]:
    """A dark ellipse on smoothed noise, uint8, and its mask, bool; coarse enough a texture that no two look alike."""
    rng = np.random.default_rng(seed)
    height, width = shape
    noise = cv2.GaussianBlur(rng.normal(110, 60, shape).astype(np.float32), (0, 0), 1.0)
    mask = np.zeros(shape, np.uint8)
    centre = (int(rng.integers(width // 3, 2 * width // 3)), int(rng.integers(height // 3, 2 * height // 3)))
    axes = (int(rng.integers(width // 8, width // 5)), int(rng.integers(height // 8, height // 5)))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    noise += cv2.GaussianBlur(rng.normal(0, 240, shape).astype(np.float32), (0, 0), 4.0)
    image = np.clip(noise * np.where(mask, 0.35, 1.0), 0, 255).astype(np.uint8)
    return image, mask.astype(bool)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", settings={"privacy": {"ids": "kept"}})


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """Write drawn images and an images.csv with the given rows (dicts; `file` and `mask_file` are filled in)."""

    def write(rows: list[dict[str, str]], folder: str = "set", masks: bool = True) -> Path:
        root = tmp_path / folder
        (root / "masks").mkdir(parents=True)
        columns = ["file", "mask_file", *dict.fromkeys(k for row in rows for k in row)]
        lines = [",".join(columns)]
        for number, row in enumerate(rows):
            image, mask = draw(number)
            cv2.imwrite(str(root / f"{number:03d}.png"), image)
            cv2.imwrite(str(root / "masks" / f"{number:03d}.png"), mask.astype(np.uint8) * 255)
            own = {"file": f"{number:03d}.png", "mask_file": f"masks/{number:03d}.png" if masks else "", **row}
            lines.append(",".join(own.get(c, "") for c in columns))
        (root / "images.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root

    return write


@pytest.fixture
def small_ws(ws: Workspace, listed: Callable[..., Path]) -> Workspace:
    """Twelve patients, two images each, of two classes, ingested."""
    rows = [
        {
            "patient_id": f"P{k // 2}",
            "exam_id": f"E{k // 2}",
            "label": "PTC" if k % 8 < 2 else "benign",
            "plane": "transverse",
        }
        for k in range(24)
    ]
    ingest_images(ws, listed(rows))
    return ws
