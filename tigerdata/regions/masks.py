"""Region masks of the workspace: one PNG and one row an image and kind, with flags for what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.images.frames import write_gray

if TYPE_CHECKING:
    import duckdb

    from tigerdata.workspace import Workspace

KINDS = ("nodule", "gland")
# Share of the frame below which a nodule is hardly drawn, and above which a mask is rather the frame itself.
TINY = 0.002
LARGE = 0.6
# A part of a mask below this share of the largest one is a speck, not a second nodule and no part of a gland.
SPECK = 0.05
# A strip along the whole border, at most this share of the frame thick, is a line of a drawing tool and no organ: three
# of the seven masks of the Tiger release have one, 11 or 12 pixels thick.
BAND = 0.04


def flags(mask: NDArray[np.bool_]) -> list[str]:
    """Return what deserves a look in a mask [H, W]: empty, tiny, large, touches_border, several_parts."""
    import cv2

    share = float(mask.mean())
    if share == 0:
        return ["empty"]
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1]
    found = {
        "tiny": share < TINY,
        "large": share > LARGE,
        "touches_border": bool(border.any()),
        "several_parts": areas.size > 1 and areas[1] > SPECK * areas[0],
    }
    return [name for name, holds in found.items() if holds]


def without_bands(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], bool]:
    """Return the mask [H, W] without strips along a whole border that touch nothing else, and whether it had one."""
    import cv2

    height, width = mask.shape
    edges = (mask[0].all(), mask[-1].all(), mask[:, 0].all(), mask[:, -1].all())
    if not any(edges):
        return mask, False
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    sizes = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    across = (sizes[:, 0] == width) & (sizes[:, 1] <= BAND * height)
    down = (sizes[:, 1] == height) & (sizes[:, 0] <= BAND * width)
    bands = 1 + np.flatnonzero(across | down)
    return mask & ~np.isin(parts, bands), bands.size > 0


def save(
    ws: Workspace, image_id: str, kind: str, mask: NDArray[np.bool_], origin: str, score: float | None = None
) -> dict[str, Any]:
    """Write the mask [H, W] as a PNG of 0 and 255 below the workspace and return its row of the table `regions`.

    `area` is the share of the frame, `origin` says who drew the mask, `flags` are joined by commas.
    """
    path = f"regions/{image_id}.{kind}.png"
    write_gray(ws.path / path, mask.astype(np.uint8) * np.uint8(255))
    return {
        "region_id": f"{image_id}.{kind}",
        "image_id": image_id,
        "kind": kind,
        "path": path,
        "origin": origin,
        "area": float(mask.mean()),
        "score": score,
        "flags": ",".join(flags(mask)),
    }


def insert(con: duckdb.DuckDBPyConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows made by `save`; a region that the image already has of that kind is replaced."""
    import pandas as pd

    from kb import store

    if rows:
        frame = pd.DataFrame(list(rows)).astype({"score": "float64"})
        con.executemany("DELETE FROM regions WHERE region_id = ?", [[r["region_id"]] for r in rows])
        store.insert(con, "regions", frame)


def load(ws: Workspace, path: str) -> NDArray[np.bool_]:
    """Return a mask, bool [H, W], by its path in the table `regions`; UserError when its file is gone."""
    import cv2

    levels = cv2.imread(str(ws.path / path), cv2.IMREAD_GRAYSCALE)
    if levels is None:
        raise UserError(f"The mask {path} of the workspace is missing or damaged; import or segment it again.")
    return np.asarray(levels) > 127
