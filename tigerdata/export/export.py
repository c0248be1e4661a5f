"""Collect real and generated images, check for leaks, and write them as one data set with card and table."""

import csv
import hashlib
import hmac
import io
import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import atomic_write, read_json, sha256_file, write_json
from tigerdata import card, leaks, splits
from tigerdata.export.formats import Row, writer
from tigerdata.manifest import manifest_of

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")


def export(
    ws: Any,
    out: str | os.PathLike[str],
    run: str | os.PathLike[str] | None = None,
    format: str = "imagefolder",
    size: int | None = None,
    statements: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write the splits train, val and test with real images, and the accepted images of `run` in train only.

    `size`: side in pixels of every image (default: that of the run's images, so that size does not tell real from
    generated; without a run the frames stay as they are). `statements`: licence, consent, collection, contact in the
    owner's words, for the card. The folder appears at once when it is complete; an equal export again is not redone.

    Returns counts by split and class, the checks passed, the fields that the format cannot carry.
    Raises:
        LeakError: contract 7 is broken; nothing is written.
        UserError: unknown format, nothing to export, a run that is not finished, a folder with other content.
    """
    write, folder = writer(format), Path(out)
    real = ws.cases()
    real = real[real["split"].isin(SPLITS)]
    if len(real) == 0:
        raise UserError("there is no image with a split to export; run `tigerdata split` first.")
    made = _accepted(Path(run)) if run is not None else None
    side = size or (int(made["width"].iloc[0]) if made is not None and len(made) else None)
    manifest = _manifest(real, made)
    checks = leaks.check(ws, manifest)
    digest = _digest(manifest, format, side, statements)
    if (folder / "export.json").exists() and read_json(folder / "export.json").get("digest") == digest:
        return read_json(folder / "export.json")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds something else; name a new folder or remove it.")
    rows = _rows(ws, real, made, Path(run) if run is not None else None, side)
    partial_folder = folder.parent / f".partial-{folder.name}"
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    lost = write(rows, partial_folder)
    _write_table(rows, partial_folder / "images.csv")
    counts = _counts(real, made)
    card.write(partial_folder / "README.md", _card(ws, counts, made, run, checks, statements))
    by_split: dict[str, dict[str, int]] = defaultdict(dict)
    for c in counts:
        by_split[c.split][c.label] = c.real + c.synthetic
    result = {
        "folder": folder.name,
        "format": format,
        "size": side,
        "images": len(rows),
        "synthetic": sum(c.synthetic for c in counts),
        "counts": dict(by_split),
        "checks": checks,
        "lost_fields": lost,
        "digest": digest,
    }
    write_json(partial_folder / "export.json", result)
    if folder.exists():
        folder.rmdir()
    os.replace(partial_folder, folder)
    return result


def _accepted(run: Path) -> "pd.DataFrame":
    import pandas as pd

    table = pd.read_parquet(manifest_of(run))
    return table[table["accepted"]].reset_index(drop=True)


def _manifest(real: "pd.DataFrame", made: "pd.DataFrame | None") -> "pd.DataFrame":
    """What the leak query looks at: one row a file, with the workspace's own ids."""
    import pandas as pd

    columns = {"file": real["image_id"], "split": real["split"], "synthetic": False, "image_id": real["image_id"]}
    parts = [pd.DataFrame({**columns, "patient_id": real["patient_id"], "sha256": real["sha256"]})]
    if made is not None:
        shared = ["file", "sha256", "donor_image_id", "mask_image_id", "model_id"]
        parts.append(made[shared].assign(split="train", synthetic=True, image_id=made["file"]))
    return pd.concat(parts, ignore_index=True).reindex(columns=list(leaks.COLUMNS))


def _digest(manifest: "pd.DataFrame", format: str, side: int | None, statements: Mapping[str, str] | None) -> str:
    content = manifest[["file", "split", "sha256"]].astype(str).to_csv(index=False)
    text = json.dumps([format, side, dict(statements or {}), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _key(ws: Any) -> bytes:
    """The workspace's secret for patient groups: it never leaves the workspace, so that ids cannot be tried out."""
    path = ws.path / "export.key"
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(secrets.token_hex(32), encoding="ascii")
        path.chmod(0o600)
    return path.read_bytes()


def _rows(ws: Any, real: "pd.DataFrame", made: "pd.DataFrame | None", run: Path | None, side: int | None) -> list[Row]:
    key, rows = _key(ws), []
    for case in real.to_dict("records"):
        # An image without a patient is a group of its own, as in the split.
        person = case["patient_id"] or f"image {case['image_id']}"
        group = hmac.new(key, str(person).encode(), hashlib.sha256).hexdigest()[:16]
        facts = {"label": case["label"], "split": case["split"], "synthetic": False, "group": group}
        facts |= {"image_id": case["image_id"], "fg": case["fg"], "bg": case["bg"]}
        facts["attributes"] = json.dumps(case["attributes"], ensure_ascii=False, sort_keys=True)
        name = f"{case['split']}/{case['label']}/{case['image_id']}.png"
        rows.append(Row(name, facts, partial(_real_png, case["image_path"], case["mask_path"], side)))
    for case in [] if made is None or run is None else made.to_dict("records"):
        facts = {"label": case["label"], "split": "train", "synthetic": True, "group": f"synthetic-{case['index']:06d}"}
        facts |= {"image_id": f"synthetic-{case['index']:06d}", "fg": case["fg"], "bg": case["bg"]}
        facts["attributes"] = json.dumps(json.loads(case["attributes"]), ensure_ascii=False, sort_keys=True)
        name = f"train/{case['label']}/synthetic-{case['index']:06d}.png"
        rows.append(Row(name, facts, partial(_made_png, run / case["file"], case["sha256"], case["width"], side)))
    return sorted(rows, key=lambda r: r.file)


def _real_png(image_path: str, mask_path: str, side: int | None) -> bytes:
    """The clean frame, on the same square grid as a generated image when `side` is given; no metadata is kept."""
    import numpy as np
    from PIL import Image

    from tigerdata.conditions import build

    with Image.open(image_path) as opened, Image.open(mask_path) as opened_mask:
        image, mask = np.asarray(opened.convert("L")), np.asarray(opened_mask.convert("L")) > 127
    pixels = image if side is None else build(image, mask, side).image
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _made_png(path: Path, sha256: str, width: int, side: int | None) -> bytes:
    """A generated file byte for byte, or resized with its provenance kept.

    Raises:
        UserError: the file is not the one in the manifest.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if not path.is_file() or sha256_file(path) != sha256:
        raise UserError(f"{path.name} of the run is missing or was changed after its manifest; generate it again.")
    if side in (None, width):
        return path.read_bytes()
    buffer, info = io.BytesIO(), PngInfo()
    with Image.open(path) as image:
        for name, value in getattr(image, "text", {}).items():
            info.add_itxt(name, value)
        image.resize((side, side), Image.Resampling.BICUBIC).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def _write_table(rows: list[Row], path: Path) -> None:
    """The lowest common denominator: path, label, split, synthetic, group. Labels come from the vocabulary or a file,
    so a cell that a spreadsheet would run as a formula is quoted."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(("path", "label", "split", "synthetic", "group"))
        for r in rows:
            cells = (r.file, r.facts["label"], r.facts["split"], int(r.facts["synthetic"]), r.facts["group"])
            out.writerow([f"'{c}" if isinstance(c, str) and c[:1] in "=+-@\t\r" else c for c in cells])


def _counts(real: "pd.DataFrame", made: "pd.DataFrame | None") -> list[card.Counts]:
    out = []
    extra = {} if made is None else made["label"].value_counts().to_dict()
    labels = sorted({*real["label"], *extra})
    for split in SPLITS:
        for label in labels:
            part = real[(real["split"] == split) & (real["label"] == label)]
            synthetic = int(extra.get(label, 0)) if split == "train" else 0
            if len(part) or synthetic:
                people = part["patient_id"].nunique() + int((~part["patient_id"].astype(bool)).sum())
                out.append(card.Counts(label, split, len(part), synthetic, people))
    return out


def _card(
    ws: Any, counts: list[card.Counts], made: "pd.DataFrame | None", run: Any, checks: list[str],
    statements: Mapping[str, str] | None,
) -> card.Card:  # fmt: skip
    generator: dict[str, str] = {}
    rejected: dict[str, int] = {}
    if made is not None and len(made):
        import pandas as pd

        first = made.iloc[0]
        generator = {"model": first["model_id"], "plan": first["plan_id"], "sampler": f"{first['sampler']}, "
                     f"{first['steps']} steps, guidance {first['guidance']:g}, mode {first['mode']}"}  # fmt: skip
        every = pd.read_parquet(manifest_of(run), columns=["accepted", "reason"])
        reasons = every[~every["accepted"]]["reason"].str.split(" of image").str[0]
        rejected = {str(k): int(v) for k, v in sorted(reasons.value_counts().items())}
    fields = {
        "label": "class; its folder's name",
        "group": "keyed hash of the patient, for grouped cross-validation",
        "synthetic": "generated by a model",
        "fg, bg": "prompts of nodule and background",
    }
    return card.Card(
        f"TigerData {ws.settings['domain']}", counts, generator, rejected, checks, dict(statements or {}), fields,
        remarks=splits.remarks(ws),
    )  # fmt: skip
