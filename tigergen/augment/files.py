"""What a run writes: PNG files that say they are synthetic, the manifest, and the metadata table."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kb.files import atomic_write

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("attempt", pa.int32()),
        ("file", pa.string()),
        ("label", pa.string()),
        ("synthetic", pa.bool_()),
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
        ("fg", pa.string()),
        ("bg", pa.string()),
        ("roles", pa.string()),
        ("attributes", pa.string()),
        ("plan_row", pa.int32()),
        ("donor_image_id", pa.string()),
        ("mask_image_id", pa.string()),
        ("seed", pa.int64()),
        ("steps", pa.int32()),
        ("guidance", pa.float64()),
        ("sampler", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("model_id", pa.string()),
        ("plan_id", pa.string()),
        ("scores", pa.string()),
    ]
)


def png_bytes(image: NDArray[np.uint8], facts: Mapping[str, str]) -> bytes:
    """An 8-bit gray PNG with its provenance: IPTC digital source type (XMP) and TigerSynthetic=1 (text)."""
    info = PngInfo()
    info.add_text("TigerSynthetic", "1")
    info.add_text("Software", "tigergen")
    for name, value in sorted(facts.items()):
        info.add_itxt(name, value)
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W] of an image that a run wrote."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def write_manifest(path: Path, records: Iterable[list[dict[str, Any]]]) -> None:
    """Write the manifest, one row an attempt, block by block so that memory stays flat."""
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for block in records:
            if block:
                writer.write_table(pa.Table.from_pylist(block, schema=SCHEMA))


def write_metadata(path: Path, records: Iterable[list[dict[str, Any]]]) -> None:
    """Write `metadata.jsonl` (Hugging Face imagefolder): one line an accepted image, in the order of the index."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for block in records:
            for r in block:
                if r["accepted"]:
                    line = {"file_name": r["file"], "label": r["label"], "synthetic": True, "index": r["index"]}
                    line |= {"fg": r["fg"], "bg": r["bg"], "attributes": r["attributes"], "seed": r["seed"]}
                    file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
