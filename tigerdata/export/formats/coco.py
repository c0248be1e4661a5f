"""COCO instances: `images/train/x.png` and `annotations/instances_train.json`, the nodule as one instance of its class.

Source of the layout: the page "Data format" of the COCO data set. Ids begin at 1; coordinates are in pixels and pixel
(0, 0) covers 0 <= x, y < 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kb.files import write_json
from tigerdata.export.formats import FIELDS, Row, Written, class_names, png_size, put, splits_of
from tigerdata.export.shapes import box, outlines, run_lengths_of


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write images and annotations. An image whose mask is empty has no annotation and keeps its class in `images`.

    Polygons follow the edges of the mask's pixels, so that nothing is rounded; a mask with a hole, which polygons
    cannot say, is stored as run lengths. The facts of each image stand beside its name, where readers of COCO look
    for nothing.
    """
    names, places, holes = class_names(rows), {}, 0
    categories = [{"id": n, "name": name, "supercategory": "nodule"} for n, name in enumerate(names, 1)]
    for split, part in splits_of(rows).items():
        images: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        for number, row in enumerate(part, 1):
            content = row.png()
            width, height = png_size(content)
            path = f"images/{split}/{row.name}.png"
            put(folder / path, content)
            places[row.file] = (path, "")
            facts = {f: row.facts[f] for f in FIELDS if f != "mask"}
            images.append({"id": number, "file_name": f"{row.name}.png", "width": width, "height": height, **facts})
            mask = row.mask()
            if not mask.any():
                continue
            polygons, hollow = outlines(mask)
            holes += hollow
            shape: Any = [p.ravel().tolist() for p in polygons]
            if hollow:
                shape = {"size": [height, width], "counts": run_lengths_of(mask)}
            one: dict[str, Any] = {
                "id": len(found) + 1,
                "image_id": number,
                "category_id": names.index(row.facts["label"]) + 1,
            }
            one |= {"segmentation": shape, "area": int(mask.sum()), "bbox": list(box(mask)), "iscrowd": 0}
            found.append(one)
        content_of = {"info": {"description": "TigerData"}, "licenses": [], "images": images}
        write_json(
            folder / "annotations" / f"instances_{split}.json",
            {**content_of, "annotations": found, "categories": categories},
        )
    said = [f"{holes} masks have holes and are stored as run lengths instead of polygons."] if holes else []
    return Written(places=places, remarks=said)
