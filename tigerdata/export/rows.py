"""The rows of an export: each image with its facts, its PNG bytes and its nodule mask, read when a format asks."""

import hashlib
import hmac
import io
import json
import os
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import atomic_write, sha256_file
from tigerdata.export.formats import Row

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Load = Callable[[str, str, int | None], tuple[NDArray[np.uint8], NDArray[np.bool_]]]


def collect(
    ws: Any,
    real: "pd.DataFrame",
    made: "pd.DataFrame | None",
    run: str | os.PathLike[str] | None,
    side: int | None,
    rgb: bool,
) -> list[Row]:
    """The rows of the real cases and of the generated images of a run, sorted by file.

    `side`: pixels of the square that images and masks are brought to by `tigerdata.conditions.build`; None leaves
    real frames as they are. The mask of a generated image is the one that it was made for.
    """
    key, rows = _key(ws), []
    # A frame and its mask are asked for one after the other, and reading them is most of the work. The memory is this
    # export's own: the next one may meet changed files.
    load: Load = lru_cache(maxsize=1)(_load)
    for case in real.to_dict("records"):
        # An image without a patient is a group of its own, as in the split.
        person = case["patient_id"] or f"image {case['image_id']}"
        group = hmac.new(key, str(person).encode(), hashlib.sha256).hexdigest()[:16]
        facts = _facts(case, case["split"], False, group, case["image_id"], case["attributes"])
        where = (case["image_path"], case["mask_path"], side)
        rows.append(
            Row(_file(facts), facts, partial(_real_png, load, where, rgb), partial(_mask, load, where)),
        )
    folder = Path(run or "")
    donors = {} if made is None else {c["image_id"]: c for c in ws.cases().to_dict("records")}
    for case in [] if made is None else made.to_dict("records"):
        name = f"synthetic-{case['index']:06d}"
        facts = _facts(case, "train", True, name, name, json.loads(case["attributes"]))
        png = partial(_made_png, folder / case["file"], case["sha256"], case["width"], side, rgb)
        rows.append(Row(_file(facts), facts, png, partial(_donor_mask, load, donors, case, side)))
    return sorted(rows, key=lambda r: r.file)


def _facts(
    case: Mapping[Any, Any], split: str, synthetic: bool, group: str, image_id: str, attributes: Any
) -> dict[str, Any]:
    facts = {"label": case["label"], "split": split, "synthetic": synthetic, "group": group, "image_id": image_id}
    said = json.dumps(attributes, ensure_ascii=False, sort_keys=True)
    return {**facts, "fg": case["fg"], "bg": case["bg"], "attributes": said}


def _file(facts: Mapping[str, Any]) -> str:
    return f"{facts['split']}/{facts['label']}/{facts['image_id']}.png"


def _key(ws: Any) -> bytes:
    """The workspace's secret for patient groups: it never leaves the workspace, so that ids cannot be tried out."""
    path = ws.path / "export.key"
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(secrets.token_hex(32), encoding="ascii")
        path.chmod(0o600)
    return bytes(path.read_bytes())


def _load(image_path: str, mask_path: str, side: int | None) -> tuple["NDArray[np.uint8]", "NDArray[np.bool_]"]:
    """A clean frame and its mask [H, W], on the square grid of the generated images when `side` is given."""
    import numpy as np
    from PIL import Image

    from tigerdata.conditions import build

    with Image.open(image_path) as opened, Image.open(mask_path) as opened_mask:
        image, mask = np.asarray(opened.convert("L")), np.asarray(opened_mask.convert("L")) > 127
    if side is None:
        return image, mask
    built = build(image, mask, side)
    return built.image, built.mask.astype(bool)


def _mask(load: "Load", where: tuple[str, str, int | None]) -> "NDArray[np.bool_]":
    return load(*where)[1]


def _real_png(load: "Load", where: tuple[str, str, int | None], rgb: bool) -> bytes:
    """The clean frame; no metadata of its file is kept."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(load(*where)[0]).convert("RGB" if rgb else "L").save(buffer, format="PNG")
    return buffer.getvalue()


def _donor_mask(
    load: "Load", donors: Mapping[str, Mapping[Any, Any]], case: Mapping[Any, Any], side: int | None
) -> "NDArray[np.bool_]":
    """The mask that a generated image was made for, built from the real one anew at the size of the export.

    Raises:
        UserError: the workspace has lost that mask.
    """
    donor = donors.get(case["mask_image_id"])
    if donor is None:
        raise UserError(
            f"{case['file']} of the run was made for the nodule mask of image {case['mask_image_id']}, which the "
            "workspace has no more; bring the mask back or choose a format without masks."
        )
    return load(donor["image_path"], donor["mask_path"], side or int(case["width"]))[1]


def _made_png(path: Path, sha256: str, width: int, side: int | None, rgb: bool) -> bytes:
    """A generated file byte for byte, or written anew in another size or with three channels, its provenance kept.

    Raises:
        UserError: the file is not the one in the manifest.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if not path.is_file() or sha256_file(path) != sha256:
        raise UserError(f"{path.name} of the run is missing or was changed after its manifest; generate it again.")
    if side in (None, width) and not rgb:
        return path.read_bytes()
    buffer, info = io.BytesIO(), PngInfo()
    with Image.open(path) as image:
        for name, value in getattr(image, "text", {}).items():
            info.add_itxt(name, value)
        sized = image if side in (None, width) else image.resize((side or width,) * 2, Image.Resampling.BICUBIC)
        (sized.convert("RGB") if rgb else sized).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
