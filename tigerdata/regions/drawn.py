"""The regions that an image set brings along with an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tigerdata.images.frames import Refused, inside, read_mask
from tigerdata.regions.masks import without_bands
from tigerdata.regions.outlines import fill
from tigerdata.sources.records import ImageRecord


def draw(
    root: Path, record: ImageRecord, shape: tuple[int, int], max_megapixels: float
) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Return the region of each kind, bool [H, W] of the file, and a code for each drawing that is left out.

    The mask files and outlines of a kind are united; strips along a border are taken off (`masks.without_bands`).
    """
    found: dict[str, NDArray[np.bool_]] = {}
    codes: list[str] = []

    def unite(kind: str, mask: NDArray[np.bool_]) -> None:
        found[kind] = found[kind] | mask if kind in found else mask

    for kind, names in record.masks.items():
        for name in names:
            try:
                mask, band = without_bands(read_mask(inside(root, name), shape, record.mask_channel, max_megapixels))
                if band:
                    codes.append(f"{kind.upper()}_MASK:BORDER_BAND")  # the rest of the mask is taken
                if mask.any():
                    unite(kind, mask)
            except Refused as error:
                codes.append(f"{kind.upper()}_MASK:{error.code}")
    for kind, outlines in record.outlines.items():
        mask = fill(outlines, shape)
        if mask.any():
            unite(kind, mask)
        else:
            codes.append(f"{kind.upper()}_OUTLINE:OUTSIDE_IMAGE")
    return found, codes
