"""Collect real and generated images, check for leaks, and write them as one data set with card and table."""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.files import read_json, sha256_file, write_json
from tigerdata import card, leaks
from tigerdata.export import croissant, facts
from tigerdata.export.choice import accepted, capped
from tigerdata.export.formats import SPLITS, Row, writer
from tigerdata.export.rows import collect
from tigerdata.export.sheet import recorded, sheet
from tigerdata.export.table import count, write_lineage, write_table

if TYPE_CHECKING:
    import pandas as pd

# Part of the digest: raise it when an equal request would no longer give equal files.
VERSION = 3


def export(
    ws: Any,
    out: str | os.PathLike[str],
    run: str | os.PathLike[str] | None = None,
    format: str = "imagefolder",
    size: int | None = None,
    statements: Mapping[str, str] | None = None,
    *,
    ratio: float | None = None,
    rgb: bool = False,
    draft: bool = False,
) -> dict[str, Any]:
    """Write the splits train, val and test with real images, and the accepted images of `run` in train only.

    `format`: a name of `tigerdata.export.formats.FORMATS`, or one that another package adds. `size`: side in pixels of
    every image (default: that of the run's images, so that size does not tell real from generated; without a run the
    frames stay as they are). `ratio`: at most so many generated images a real training image of the class. `rgb`:
    three equal channels instead of one. `statements`: the owner's words for the card (`card.STATEMENTS`), over those
    of the table `statements` in tiger.toml; licence and consent are asked for unless it is a `draft`.

    The folder appears at once when it is complete; an equal export again is not redone. Beside the format's files it
    holds images.csv, lineage.parquet, README.md (data card), croissant.json and export.json, which is what is returned:
    counts by split and class, the checks passed, the fields that the format cannot carry, remarks.
    Raises:
        LeakError: contract 7 is broken; nothing is written.
        UsageError: unknown format.
        UserError: nothing to export, a run that is not finished, a folder with other content, statements missing.
    """
    write, folder = writer(format), Path(out)
    said = _statements(ws, statements, draft)
    real = ws.cases()
    real = real[real["split"].isin(SPLITS)]
    if len(real) == 0:
        raise UserError("there is no image with a split to export; run `tigerdata split` first.")
    for case in real.itertuples():
        if not (Path(case.image_path).is_file() and Path(case.mask_path).is_file()):
            raise UserError(f"image {case.image_id} has lost its frame or mask in the workspace; ingest it again.")
    every = accepted(Path(run)) if run is not None else None
    side = size or (int(every["width"].iloc[0]) if every is not None and len(every) else None)
    made = capped(every, real, ratio) if every is not None and ratio is not None else every
    checks = leaks.check(ws, _manifest(real, made, run))
    rows = collect(ws, real, made, run, side, rgb)
    settings = {"format": format, "size": side, "channels": 3 if rgb else 1, "ratio": ratio, "draft": draft}
    known = recorded(ws, real, made, run)
    digest = _digest(rows, [*real["sha256"], *real["mask_path"].map(sha256_file)], made, settings, [said, known])
    earlier: dict[str, Any] = read_json(folder / "export.json") if (folder / "export.json").exists() else {}
    if earlier.get("digest") == digest:
        return earlier
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds something else; name a new folder or remove it.")
    counts = count(real, made)
    result = {
        "folder": folder.name,
        **settings,
        "images": len(rows),
        "synthetic": sum(c.synthetic for c in counts),
        "over_ratio": (0 if every is None else len(every)) - (0 if made is None else len(made)),
        "counts": _by_split(counts),
        "checks": checks,
        "digest": digest,
    }
    partial_folder = folder.parent / f".partial-{folder.name}"
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        done = write(rows, partial_folder)
        write_table(rows, partial_folder, done.places)
        write_lineage(rows, made, partial_folder, done.places, facts.gated(run))
        about = sheet(ws, counts, known, checks, said, done, settings)
        card.write(partial_folder / "README.md", about)
        croissant.write(partial_folder, about)
        result |= {"lost_fields": list(done.lost), "remarks": list(done.remarks)}
        write_json(partial_folder / "export.json", result)
        if folder.exists():
            folder.rmdir()
        os.replace(partial_folder, folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return result


def _statements(ws: Any, given: Mapping[str, str] | None, draft: bool) -> dict[str, str]:
    """The owner's words, given here or in tiger.toml; a UserError names what is missing."""
    unknown = sorted(set(given or {}) - set(card.STATEMENTS))
    if unknown:
        raise UserError(f"the data card has no statement '{unknown[0]}'; it has {', '.join(card.STATEMENTS)}.")
    said = {name: (given or {}).get(name) or ws.settings["statements"][name] for name in card.STATEMENTS}
    missing = [name for name in card.REQUIRED if not said[name].strip()]
    if missing and not draft:
        options = " and ".join(f"--{name}" for name in missing)
        raise UserError(
            f"the data card has no {' and no '.join(missing)} statement; give {options} (or write the table "
            "[statements] of tiger.toml), or --draft for a folder that is not passed on."
        )
    return {name: text for name, text in said.items() if text.strip()}


def _manifest(
    real: "pd.DataFrame", made: "pd.DataFrame | None", run: str | os.PathLike[str] | None = None
) -> "pd.DataFrame":
    """What the leak query looks at: one row a file, with the workspace's own ids."""
    import pandas as pd

    columns = {"file": real["image_id"], "split": real["split"], "synthetic": False, "image_id": real["image_id"]}
    parts = [pd.DataFrame({**columns, "patient_id": real["patient_id"], "sha256": real["sha256"]})]
    if made is not None:
        part = made.reindex(columns=[*leaks.COLUMNS, *leaks.OPTIONAL])
        sources = _prompt_sources(run)
        # The manifest counts the rows of the plan from 1.
        named = [sources[n - 1] if 0 < n <= len(sources) else None for n in made["plan_row"]]
        part = part.assign(split="train", synthetic=True, image_id=made["file"])
        parts.append(part.assign(prompt_source=pd.Series(named, index=part.index, dtype=object)))
    return pd.concat(parts, ignore_index=True).reindex(columns=[*leaks.COLUMNS, *leaks.OPTIONAL])


def _prompt_sources(run: str | os.PathLike[str] | None) -> list[str | None]:
    """Where the prompt of each row of a run's plan comes from, as the plan says."""
    path = Path(run or "") / "plan.json"
    return [row.get("source") for row in read_json(path)["rows"]] if path.is_file() else []


def _digest(
    rows: Sequence[Row], hashes: Sequence[str], made: "pd.DataFrame | None", settings: Mapping[str, Any],
    card_of: Sequence[Mapping[str, Any]],
) -> str:  # fmt: skip
    """A hash of everything that the files depend on: facts, pixels, masks, settings, what the card says."""
    pixels = [*hashes, *([] if made is None else [*made["sha256"], *made["mask_image_id"]])]
    content = [VERSION, settings, card_of, [row.facts for row in rows], pixels]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _by_split(counts: Sequence[card.Counts]) -> dict[str, dict[str, int]]:
    by_split: dict[str, dict[str, int]] = defaultdict(dict)
    for c in counts:
        by_split[c.split][c.label] = c.real + c.synthetic
    return dict(by_split)
