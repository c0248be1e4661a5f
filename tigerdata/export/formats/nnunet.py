"""nnU-Net v2: `Dataset001_Tiger/` with `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs`, `dataset.json`.

Source of the layout: "dataset_format.md" of nnU-Net v2. The exported folder is what `nnUNet_raw` names; PNG files are
read by `NaturalImage2DIO`.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from kb.errors import UserError
from kb.files import write_json
from tigerdata.export.formats import Row, Written, class_names, put, splits_of, without

NAME = "Dataset001_Tiger"
# PNG colour type 2 of the header's tenth byte: three channels.
RGB = 2


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write images and label maps: 0 is background, n the n-th class in alphabetical order.

    Training and validation lie together, as nnU-Net has it; `splits_final.json` holds our division, which keeps
    patients apart: copy it into the preprocessed folder, or nnU-Net draws folds by image.

    Raises:
        UserError: more classes than a label map of one byte can number.
    """
    from PIL import Image

    names, places, found = class_names(rows), {}, splits_of(rows)
    if len(names) > 255:
        raise UserError(f"nnunet numbers classes in one byte and there are {len(names)}; choose another format.")
    coloured = False
    for split, part in found.items():
        to = "Ts" if split == "test" else "Tr"
        for row in part:
            content = row.png()
            coloured = content[25] == RGB
            path = f"{NAME}/images{to}/{row.name}_0000.png"
            put(folder / path, content)
            places[row.file] = (path, "")
            buffer = io.BytesIO()
            labels = row.mask().astype("uint8") * (names.index(row.facts["label"]) + 1)
            Image.fromarray(labels).save(buffer, format="PNG")
            put(folder / f"{NAME}/labels{to}/{row.name}.png", buffer.getvalue())
    channels = ("red", "green", "blue") if coloured else ("ultrasound",)
    content_of = {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": {"background": 0, **{name: n for n, name in enumerate(names, 1)}},
        "numTraining": sum(len(found.get(split, [])) for split in ("train", "val")),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    write_json(folder / NAME / "dataset.json", content_of)
    fold = {split: [row.name for row in found.get(split, [])] for split in ("train", "val")}
    write_json(folder / NAME / "splits_final.json", [fold])
    said = ["copy splits_final.json into nnU-Net's preprocessed folder, or its folds mix the images of a patient."]
    return Written(without("label", "split", "image_id", "mask"), places, said)
