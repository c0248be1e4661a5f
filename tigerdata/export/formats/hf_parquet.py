"""Hugging Face Parquet: `data/train-00000-of-00001.parquet`, images and masks inside (`datasets.load_dataset(DIR)`).

An image is the struct {bytes, path} and the features stand in the schema's metadata under the key `huggingface`
(documentation of `datasets`, "Image feature"), so that a reader needs no settings.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tigerdata.export.formats import Row, Written, class_names, mask_png, shards, splits_of
from tigerdata.export.formats.hf import SPLIT_NAMES

# Rows a group: what a viewer reads for one page.
GROUP_ROWS = 100
TEXTS = ("group", "image_id", "fg", "bg", "attributes")


def write(rows: Sequence[Row], folder: Path) -> Written:
    """Write the shards of each split; `label` is the class's number, its name stands in the features."""
    import pyarrow.parquet as pq

    names = class_names(rows)
    places: dict[str, tuple[str, str]] = {}
    found: dict[str, str] = {}
    schema = _schema(names)
    (folder / "data").mkdir()
    for split, part in splits_of(rows).items():
        parts = list(shards(part))
        found[SPLIT_NAMES[split]] = f"data/{SPLIT_NAMES[split]}-*.parquet"
        for k, shard in enumerate(parts):
            path = f"data/{SPLIT_NAMES[split]}-{k:05d}-of-{len(parts):05d}.parquet"
            # PNG does not get smaller by a second compression.
            with pq.ParquetWriter(folder / path, schema, compression="none") as out:
                for start in range(0, len(shard), GROUP_ROWS):
                    out.write_table(_table(shard[start : start + GROUP_ROWS], names, schema))
            places |= {row.file: (path, str(n)) for n, row in enumerate(shard)}
    return Written(places=places, data_files=found)


def _schema(names: Sequence[str]) -> Any:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "label": {"names": list(names), "_type": "ClassLabel"},
        "synthetic": {"dtype": "bool", "_type": "Value"},
        **{name: {"dtype": "string", "_type": "Value"} for name in TEXTS},
    }
    columns = [("image", image), ("mask", image), ("label", pa.int64()), ("synthetic", pa.bool_())]
    return pa.schema(
        [*columns, *((name, pa.string()) for name in TEXTS)],
        metadata={"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)},
    )


def _table(rows: Sequence[Row], names: Sequence[str], schema: Any) -> Any:
    import pyarrow as pa

    content = [
        {
            "image": {"bytes": row.png(), "path": f"{row.name}.png"},
            "mask": {"bytes": mask_png(row), "path": f"{row.name}-mask.png"},
            "label": names.index(row.facts["label"]),
            "synthetic": bool(row.facts["synthetic"]),
            **{name: row.facts[name] for name in TEXTS},
        }
        for row in rows
    ]
    return pa.Table.from_pylist(content, schema=schema)
