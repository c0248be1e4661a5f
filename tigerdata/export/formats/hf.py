"""Hugging Face imagefolder: class folders and one `metadata.jsonl` a split (`datasets.load_dataset("imagefolder")`).

Source of the layout: the page "Create an image dataset" of the documentation of `datasets`; the key is `file_name`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tigerdata.export.formats import Row, Written, put, splits_of

CARRIED = ("label", "synthetic", "group", "image_id", "fg", "bg", "attributes")
# What Hugging Face calls our splits.
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write images and metadata. A mask beside an image would be taken for a further image, so masks are left out."""
    for row in rows:
        put(folder / row.file, row.png())
    for split, part in splits_of(rows).items():
        lines = [{"file_name": row.file.split("/", 1)[1], **{f: row.facts[f] for f in CARRIED}} for row in part]
        text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines)
        put(folder / split / "metadata.jsonl", text.encode())
    return Written(["mask"])
