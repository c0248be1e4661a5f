"""WebDataset: `train-00000.tar` with the members `KEY.png`, `KEY.mask.png`, `KEY.cls`, `KEY.json` of each image.

Source of the layout: the README of `webdataset`; members of one key lie side by side, the class's number is `.cls`.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from kb.files import write_json
from tigerdata.export.formats import FIELDS, Row, Written, mask_png, shards, splits_of, write_classes


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write the shards of each split, `classes.txt`, and `shards.json` with the number of images of each shard.

    A reader of shards cannot shuffle well by itself, so the images are stored in the order of a hash of their names.
    """
    names, counts, places = write_classes(rows, folder), {}, {}
    for split, part in splits_of(rows).items():
        mixed = sorted(part, key=lambda row: hashlib.sha256(row.file.encode()).digest())
        for k, shard in enumerate(shards(mixed)):
            path = f"{split}-{k:05d}.tar"
            counts[path] = len(shard)
            with tarfile.open(folder / path, "w", format=tarfile.USTAR_FORMAT) as tar:
                for n, row in enumerate(shard):
                    key = f"{k:05d}{n:05d}"
                    facts = {f: row.facts[f] for f in FIELDS if f != "mask"}
                    _add(tar, f"{key}.png", row.png())
                    _add(tar, f"{key}.mask.png", mask_png(row))
                    _add(tar, f"{key}.cls", str(names.index(row.facts["label"])).encode())
                    _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False, sort_keys=True).encode())
                    places[row.file] = (path, f"{key}.png")
    write_json(folder / "shards.json", counts)
    return Written(places=places)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # A new TarInfo has time 0, owner 0 and mode 644: equal images give equal shards.
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
