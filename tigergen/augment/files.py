"""What a run writes: PNG files that say they are synthetic, the manifest, and the metadata table."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kb.files import atomic_write
from tigerdata.images.duplicates import pixel_hash

PRODUCER = "tigergen"
# https://cv.iptc.org/newscodes/digitalsourcetype/: made by a model, or with parts of a real image left in it.
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED, COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
XMP = "XML:com.adobe.xmp"
ROWS = 1024

# The namespace TC260 is that of the practice guide for image files to GB 45438-2025.
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" '
    "Iptc4xmpExt:DigitalSourceType={source} TC260:AIGC={aigc}/></rdf:RDF></x:xmpmeta>"
    '<?xpacket end="w"?>'
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


def png_bytes(
    image: NDArray[np.uint8], facts: Mapping[str, str], composite: bool = False, producer: str = PRODUCER
) -> bytes:
    """An 8-bit gray PNG that says where it comes from, in its metadata only: no pixel is marked.

    Written: IPTC digital source type and the implicit label of GB 45438-2025 (`aigc_label`) as XMP, the label as PNG
    text `AIGC` too, `TigerSynthetic` = 1 and `facts` as PNG text. `composite`: refined from a real image, parts of
    which are in it. `producer`: who answers for it.
    """
    info = PngInfo()
    info.add_text("TigerSynthetic", "1")
    info.add_text("Software", "tigergen")
    label = aigc_label(image, producer)
    for name, value in sorted({**facts, "AIGC": label}.items()):
        info.add_itxt(name, value)
    source = quoteattr(SOURCE_TYPES + (COMPOSITE if composite else GENERATED))
    info.add_itxt(XMP, _XMP.format(source=source, aigc=quoteattr(label)))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def place_in_run(plan: str, index: int, model: str) -> dict[str, str]:
    """What an image's file says of its place in a run: with the plan and the model it can be made again."""
    return {"TigerPlan": plan, "TigerIndex": str(index), "TigerModel": model}


def producer(ws: Any) -> str:
    """Who answers for a workspace's images: the owner's own statement, or the name of this program."""
    return str(ws.settings["statements"]["creator"]).strip() or PRODUCER


def aigc_label(image: NDArray[np.uint8], producer: str) -> str:
    """The implicit label for file metadata of GB 45438-2025 as JSON: the seven fields in the order of the standard.

    Label 1: generated. ProduceID: the number of this content, here from its pixels (`pixel_hash`), so that it can be
    checked. The fields of those who spread it are theirs to fill.
    """
    fields = {"Label": "1", "ContentProducer": producer, "ProduceID": pixel_hash(image)[:32], "ReservedCode1": ""}
    return json.dumps(fields | {"ContentPropagator": "", "PropagateID": "", "ReservedCode2": ""}, ensure_ascii=False)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W] of an image that a run wrote."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def write_manifest(path: Path, records: Iterable[list[dict[str, Any]]], about: Mapping[str, Any] | None = None) -> None:
    """Write the manifest, one row an attempt, in groups of about `ROWS` rows so that memory stays flat.

    `about` goes into the file's own metadata, each value as JSON: the thresholds that the scores were held against.
    """
    schema = SCHEMA.with_metadata({key: json.dumps(value, sort_keys=True) for key, value in (about or {}).items()})
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        held: list[dict[str, Any]] = []
        for block in records:
            held += block
            if len(held) >= ROWS:
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
                held = []
        if held:
            writer.write_table(pa.Table.from_pylist(held, schema=schema))


def write_metadata(path: Path, records: Iterable[list[dict[str, Any]]]) -> None:
    """Write `metadata.jsonl` (Hugging Face imagefolder): one line an accepted image, in the order of the index."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for block in records:
            for r in block:
                if r["accepted"]:
                    line = {"file_name": r["file"], "label": r["label"], "synthetic": True, "index": r["index"]}
                    line |= {"fg": r["fg"], "bg": r["bg"], "attributes": r["attributes"], "seed": r["seed"]}
                    file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
