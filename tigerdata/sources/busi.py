"""The BUSI set of breast ultrasound images (Al-Dhabyani et al. 2020, Data in Brief 28:104863): classes and masks.

Layout: `Dataset_BUSI_with_GT/<class>/<class> (<n>).png` with masks `<class> (<n>)_mask.png`, `…_mask_1.png` and so on,
for the classes benign, malignant and normal. The set names no patients, and holds copies of images, some of them in
two classes (Pawlowska et al. 2023, Data in Brief 48:109247): look for near-duplicates before a split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import ImageRecord, SourceSet

FOLDER = "Dataset_BUSI_with_GT"
CLASSES = ("benign", "malignant", "normal")
FILE = re.compile(r"(?P<image>(?P<label>benign|malignant|normal) \((?P<number>\d+)\))(?P<mask>_mask(_\d+)?)?\.png")


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """Read the folder with the three classes, or the one above it; UserError when it holds none of them.

    Several masks of an image are united; the masks of normal images are empty and left out. Files of other names, and
    masks without their image, are counted.
    """
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    folders = [root / label for label in CLASSES if (root / label).is_dir()]
    if not folders:
        raise UserError(f"{path} holds no folder {', '.join(CLASSES)}; give the folder {FOLDER}.")
    given = SourceSet("busi", root)
    images: dict[str, re.Match[str]] = {}
    masks: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        for file in sorted(folder.iterdir()):
            match = FILE.fullmatch(file.name)
            name = f"{folder.name}/{file.name}"
            if match is None or match["label"] != folder.name:
                given.counts["other_file"] += 1
            elif match["mask"]:
                masks[match["image"]].append(name)
            else:
                images[name] = match
    for name, match in sorted(images.items(), key=lambda item: (item[1]["label"], int(item[1]["number"]))):
        drawn = tuple(masks.pop(match["image"], ()))
        given.counts["image_without_mask"] += not drawn
        given.counts["several_masks"] += len(drawn) > 1
        label = match["label"]
        kept = {"nodule": drawn} if drawn and label != "normal" else {}
        given.records.append(ImageRecord(file=name, where=name, label=label, masks=kept))
    given.counts["mask_without_image"] = sum(map(len, masks.values()))
    given.counts["image_without_patient"] = len(given.records)
    return given
