"""Ultralytics segmentation: `images/train/x.png`, `labels/train/x.txt`, `data.yaml`.

Source of the layout: the page "Instance segmentation datasets" of the Ultralytics documentation. A line is the class's
number and the corners x y of a polygon, as shares of width and height.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tigerdata.export.formats import Row, Written, class_names, put, splits_of, without
from tigerdata.export.shapes import outlines


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write images, labels and `data.yaml`. An empty mask gives an empty label file, which means background.

    `data.yaml` names no `path`: the reader then takes the folder that the file lies in, wherever it is moved to.
    """
    names, places, holes, parts = class_names(rows), {}, 0, 0
    found = splits_of(rows)
    for split, part in found.items():
        for row in part:
            path = f"images/{split}/{row.name}.png"
            put(folder / path, row.png())
            places[row.file] = (path, "")
            mask = row.mask()
            polygons, hollow = outlines(mask)
            holes, parts = holes + hollow, parts + (len(polygons) > 1)
            scale = mask.shape[::-1]
            lines = [
                " ".join([str(names.index(row.facts["label"])), *(f"{v:.6f}" for v in (p / scale).ravel())])
                for p in polygons
            ]
            put(folder / f"labels/{split}/{row.name}.txt", "".join(line + "\n" for line in lines).encode())
    yaml = [f"{split}: images/{split}" for split in found]
    yaml += ["names:", *(f"  {n}: {json.dumps(name, ensure_ascii=False)}" for n, name in enumerate(names))]
    (folder / "data.yaml").write_text("\n".join(yaml) + "\n", encoding="utf-8")
    said = [f"{holes} masks have holes, which a YOLO polygon fills."] if holes else []
    said += [f"{parts} masks have several parts, which become several objects."] if parts else []
    return Written(without("label", "split", "image_id", "mask"), places, said)
