"""MedMNIST: `tiger_64.npz` with `train_images`, `train_labels`, … and `tiger_64.json`, what the package's INFO says.

Source of the layout: the README of `medmnist` ("npz", uint8, images [N, H, W] or [N, H, W, 3], labels [N, 1]); a
file of 28 pixels has no size in its name.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import write_json
from tigerdata.export.formats import SPLITS, Row, Written, png_size, splits_of, without, write_classes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write the arrays one image after the other, so that memory does not grow with their number.

    Raises:
        UserError: the images are not of one size, or there are more classes than a uint8 can number.
    """
    import numpy as np

    names, found = write_classes(rows, folder), splits_of(rows)
    side = png_size(rows[0].png())
    shape = pixels(rows[0]).shape
    if len(names) > 256:
        raise UserError(f"medmnist numbers classes in one byte and there are {len(names)}; choose another format.")
    stem = "tiger" if side == (28, 28) else f"tiger_{side[0]}"
    places = {}
    # As `numpy.savez` writes it, but streamed; a ZipInfo has a fixed date, so equal arrays give equal files.
    with zipfile.ZipFile(folder / f"{stem}.npz", "w", zipfile.ZIP_STORED) as file:
        for split in SPLITS:
            part = found.get(split, [])
            with _member(file, f"{split}_images", (len(part), *shape)) as out:
                for n, row in enumerate(part):
                    image = pixels(row)
                    if image.shape != shape:
                        raise UserError("medmnist needs images of one size; give --size.")
                    out.write(image.tobytes())
                    places[row.file] = (f"{stem}.npz", f"{split}_images[{n}]")
            with _member(file, f"{split}_labels", (len(part), 1)) as out:
                out.write(np.array([names.index(row.facts["label"]) for row in part], np.uint8).tobytes())
    info: dict[str, Any] = {"python_class": "Tiger", "task": "binary-class" if len(names) == 2 else "multi-class"}
    info |= {"label": {str(n): name for n, name in enumerate(names)}, "n_channels": 1 if len(shape) == 2 else 3}
    info |= {"description": "see README.md", "license": "see README.md"}
    write_json(folder / f"{stem}.json", {**info, "n_samples": {s: len(found.get(s, [])) for s in SPLITS}})
    return Written(without("label", "split"), places, marked=False)


def pixels(row: Row) -> "NDArray[np.uint8]":
    """The image, uint8 [H, W] or [H, W, 3]."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(row.png())) as image:
        return np.asarray(image)


def _member(file: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Any:
    """An open member of the npz with its header written; `shape` is that of the uint8 array to come."""
    import numpy as np

    out = file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out
