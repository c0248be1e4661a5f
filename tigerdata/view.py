"""The gallery: every image with its outlines, Sobel map and prompt, and filters, in one HTML file to look at."""

from __future__ import annotations

import json
import os
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import atomic_write
from tigerdata import page
from tigerdata.check import CHECKS
from tigerdata.progress import Progress

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

# Side of a thumbnail in pixels, and its WebP quality: three of them make about 20 KB an image (speckle).
SIDE, QUALITY = 224, 60
COLOURS = {"gland": (64, 190, 214), "nodule": (255, 138, 40)}
KINDS = {"class": "label", "split": "split", "plane": "plane"}


def view(
    ws: Workspace,
    out: str | os.PathLike[str],
    label: str | None = None,
    flag: str | None = None,
    split: str | None = None,
    limit: int = 500,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a gallery of the accepted images to `out`, one HTML file that needs no network, and return its facts.

    `label`, `flag` (a check's name) and `split` (a part of the split 'default') choose images; of more than `limit`,
    `limit` are taken evenly. The page's own filters offer class, part, plane, attribute values and flags. Returns
    `gallery` (path), `images`, `of` (how many were chosen from) and `bytes`. Raises UserError when no image is left,
    for an unknown flag, and for a limit below 1.
    """
    if flag is not None and flag not in CHECKS:
        raise UserError(f"There is no check '{flag}'; the checks are {', '.join(CHECKS)}.")
    if limit < 1:
        raise UserError(f"A gallery of {limit} images shows nothing; give --limit 1 or more.")
    rows, checked = _rows(ws)
    if flag is not None and not checked:
        raise UserError(f"{ws.path} was not checked yet, so no image has the flag '{flag}'; run `tigerdata check`.")
    chosen = [
        row
        for row in rows
        if (label is None or row["label"] == label)
        and (split is None or row["split"] == split)
        and (flag is None or row[f"is_{flag}"])
    ]
    if not chosen:
        raise UserError(f"None of the {len(rows)} images in {ws.path} is of that choice; choose less narrowly.")
    picked = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, limit).astype(int))]
    cards = []
    for number, row in enumerate(picked, 1):
        cards.append(_card(ws, row))
        if progress:
            progress({"stage": "view", "step": number, "steps": len(picked)})
    from markupsafe import Markup

    script = files("tigerdata").joinpath("gallery.js").read_text(encoding="utf-8")
    facts = {
        "domain": ws.settings["domain"] if "/" not in ws.settings["domain"] else "own vocabulary",
        "cards": cards,
        "total": len(chosen),
        "checked": checked,
        "colours": COLOURS,
        "filters": _filters(cards),
        "script": Markup(script),
        "script_source": Markup(page.script_source(script)),
    }
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(page.render("tigerdata", "gallery.html", facts), encoding="utf-8")
    return {"gallery": str(path), "images": len(cards), "of": len(chosen), "bytes": path.stat().st_size}


def _rows(ws: Workspace) -> tuple[list[dict[str, Any]], bool]:
    """Everything that the cards show, one dict an image by id, and whether a check was run."""
    with ws.connect(read_only=True) as con:
        found = con.execute(
            """SELECT i.image_id, i.width, i.height, i.plane, coalesce(p.label, i.label, '') AS label, p.fg, p.bg,
                      p.attributes, s.split, n.path AS nodule, n.origin, n.flags, g.path AS gland,
                      c.* EXCLUDE (image_id)
               FROM images i LEFT JOIN prompts p USING (image_id)
               LEFT JOIN regions n ON n.image_id = i.image_id AND n.kind = 'nodule'
               LEFT JOIN regions g ON g.image_id = i.image_id AND g.kind = 'gland'
               LEFT JOIN splits s ON s.image_id = i.image_id AND s.name = 'default'
               LEFT JOIN checks c ON c.image_id = i.image_id
               WHERE i.rejected IS NULL ORDER BY i.image_id"""
        )
        names = [column[0] for column in found.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    if not rows:
        raise UserError(f"{ws.path} holds no images; run `tigerdata ingest images` first.")
    for row in rows:
        row["attributes"] = json.loads(row["attributes"] or "{}")
        row["plane"] = row["plane"] or next(iter(row["attributes"].get("sonogram_direction", [])), None)
    return rows, any(row["truncated_score"] is not None for row in rows)


def _card(ws: Workspace, row: dict[str, Any]) -> dict[str, Any]:
    flags = [{"name": n, "score": row[f"{n}_score"], "detail": ""} for n in CHECKS if row[f"is_{n}"]]
    for one in flags:
        one["detail"] = {"disagreement": row["disagrees_on"], "mask": row["mask_flags"]}.get(one["name"]) or ""
    drawn = [f for f in (row["mask_flags"] or row["flags"] or "").split(",") if f]
    if not any(one["name"] == "mask" for one in flags):
        flags += [{"name": f"mask {f}", "score": None, "detail": ""} for f in drawn]
    tokens = [f"{kind}:{row[column]}" for kind, column in KINDS.items() if row[column]]
    tokens += [f"{a}:{value}" for a, values in row["attributes"].items() for value in values]
    tokens += [f"flag:{one['name']}" for one in flags]
    return row | _pictures(ws, row) | {
        "flags": flags,
        "chips": [row[name] for name in ("split", "plane") if row[name]],
        "tokens": json.dumps(tokens, ensure_ascii=False),
    }  # fmt: skip


def _pictures(ws: Workspace, row: dict[str, Any]) -> dict[str, str | None]:
    """Thumbnails as data: addresses: the whole frame, the frame with its outlines, and what the BG-Encoder is given."""
    from tigerdata import conditions
    from tigerdata.images.frames import read_clean
    from tigerdata.regions import masks

    try:
        frame = read_clean(ws, row["image_id"])
    except UserError:
        blank = page.data_uri(np.zeros((8, 8), np.uint8))
        return {"frame": blank, "outlined": None, "sobel": blank}
    found: dict[str, NDArray[np.bool_]] = {}
    for kind in COLOURS:
        try:
            mask = masks.load(ws, row[kind]) if row[kind] else None
        except UserError:
            mask = None
        if mask is not None and mask.shape == frame.shape:
            found[kind] = mask
    sobel = conditions.build(frame, found.get("nodule", np.zeros(frame.shape, bool)), SIDE).sobel
    small = _reduced(frame)
    return {
        "frame": page.data_uri(small, "WEBP", QUALITY),
        "outlined": page.data_uri(_outlined(small, found), "WEBP", QUALITY) if found else None,
        "sobel": page.data_uri(sobel, "WEBP", QUALITY),
    }


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    scale = SIDE / max(image.shape)
    shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


def _outlined(frame: NDArray[np.uint8], found: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Return the grey thumbnail in RGB with the outline of each mask in its colour."""
    import cv2

    colour = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    for kind, line in COLOURS.items():
        if kind in found:
            small = _reduced(found[kind].astype(np.uint8) * np.uint8(255)) > 127
            outlines, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(colour, outlines, -1, line, 1, cv2.LINE_AA)
    return np.asarray(colour, dtype=np.uint8)


def _filters(cards: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Filter -> group -> options, each with its token and the number of images that have it."""
    counts = Counter(token for card in cards for token in set(json.loads(card["tokens"])))
    out: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for token in sorted(counts):
        kind, _, value = token.partition(":")
        name, group = (kind, "") if kind in (*KINDS, "flag") else ("attribute", kind)
        out.setdefault(name, {}).setdefault(group, []).append({"token": token, "text": value, "count": counts[token]})
    return {name: out[name] for name in (*KINDS, "attribute", "flag") if name in out}
