"""Class folders, `train/FTC/x.png`: torchvision's `ImageFolder`, timm's `ImageDataset`, Keras' directory loader.

Source of the layout: the documentation of `torchvision.datasets.ImageFolder`.
"""

from collections.abc import Sequence
from pathlib import Path

from tigerdata.export.formats import Row, Written, put, splits_of, without, write_classes


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write the images into class folders. Classes are numbered alphabetically (`classes.txt`)."""
    for row in rows:
        put(folder / row.file, row.png())
    write_classes(rows, folder)
    return Written(without("label", "split"), remarks=absent(rows))


def absent(rows: Sequence[Row]) -> list[str]:
    """A remark on each class that a split lacks: a loader that numbers the folders it finds numbers others there."""
    names = {str(row.facts["label"]) for row in rows}
    return [
        f"{split} has no image of {', '.join(missing)}: a loader that numbers the folders it finds gives the classes "
        f"other numbers there than in train; take the numbers from classes.txt."
        for split, part in splits_of(rows).items()
        if (missing := sorted(names - {str(row.facts["label"]) for row in part}))
    ]
