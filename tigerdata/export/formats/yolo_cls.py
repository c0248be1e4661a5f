"""Ultralytics classification: class folders under `train`, `val` and `test`; `data=` names the folder itself.

Source of the layout: the page "Image classification datasets" of the Ultralytics documentation.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tigerdata.export.formats import Row, Written, imagefolder, splits_of


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write the images into class folders, and say what Ultralytics would do without a training or validation part."""
    done = imagefolder.write(rows, folder)
    missing = [split for split in ("train", "val") if split not in splits_of(rows)]
    said = [f"there is no image in {split}: `yolo classify train` needs some." for split in missing]
    return replace(done, remarks=[*done.remarks, *said])
