"""An attribute sweep: one prompt with each value of one attribute, everything else fixed, side by side on a sheet."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kb.errors import UserError
from tigergen.augment import files
from tigergen.augment.asked import Asked
from tigergen.augment.coverage import contradiction
from tigergen.augment.layout import Layout
from tigergen.augment.one import Studio, prepare

# Pixels of the sheet: the least side at which an image is shown, the space around it, a line of text.
SHOWN, GAP, LINE = 192, 8, 18
PAPER, INK, FAINT = 255, 20, 110


def grid(
    studio: Studio,
    out: str | os.PathLike[str],
    attribute: str,
    values: Sequence[str] | None = None,
    asked: Asked | None = None,
    donor: str | None = None,
    mask: str | os.PathLike[str] | None = None,
    seed: int = 0,
    n: int = 1,
) -> dict[str, Any]:
    """Draw a prompt once with each value of `attribute`, with the same noise, mask and edges; write sheet and files.

    `values`: default, all of the vocabulary. What contradicts the rest of the prompt is left out and said. `asked`:
    default, the donor's own prompt. `n`: rows of the sheet, with the seeds `seed`, `seed` + 1, ... Files: the sheet at
    `out`, the images beside it in a folder of its name, `VALUE-SEED.png`.

    Returns sheet, files by value, left out, prompts, donor, seeds, sampling settings and model.
    Raises:
        UserError: an attribute or value that the vocabulary lacks, nothing left to draw, see `one.sample`.
    """
    base = studio.ws.kb
    if attribute not in base.attributes:
        raise UserError(f"attribute '{attribute}' is not in the vocabulary; it has {', '.join(base.attributes)}.")
    chosen = list(values) if values else list(base.attributes[attribute].values)
    strange = [v for v in chosen if v not in base.attributes[attribute].values]
    if strange:
        known = ", ".join(base.attributes[attribute].values)
        raise UserError(f"'{strange[0]}' is no value of {attribute}; it has {known}.")
    layout, asked = prepare(studio, asked, donor, mask, seed)
    asks = {value: asked.changed(base, attribute, [value]) for value in chosen}
    against = {value: contradiction(base, one.attributes) for value, one in asks.items()}
    left_out = {value: reason for value, reason in against.items() if reason is not None}
    asks = {value: one for value, one in asks.items() if value not in left_out}
    if not asks:
        raise UserError(f"no value of {attribute} goes with the rest of the prompt: {next(iter(left_out.values()))}")
    seeds = [seed + k for k in range(n)]
    pairs = [(value, own) for own in seeds for value in asks]
    images = studio.draw([asks[value] for value, _ in pairs], layout, [own for _, own in pairs])
    path = Path(out)
    places: dict[str, list[str]] = {value: [] for value in asks}
    for (value, own), image in zip(pairs, images, strict=True):
        place = path.with_suffix("") / f"{value}-{own}.png"
        files.write_bytes(place, studio.png(image, asks[value], own))
        places[value].append(str(place))
    title = [
        f"{attribute.replace('_', ' ')}, everything else fixed: generated images, not patients",
        f"class {asked.label}   donor {layout.donor}   model {studio.model}   "
        + "   ".join(f"{k} {studio.sampling[k]}" for k in ("steps", "guidance", "sampler", "mode")),
    ]
    drawn = images.reshape(n, len(asks), *images.shape[1:])
    content = sheet(drawn, layout, [v.replace("_", " ") for v in asks], [f"seed {own}" for own in seeds], title)
    facts = {"TigerModel": studio.model, "TigerAttribute": attribute}
    # The donor's frame is on the sheet.
    files.write_bytes(path, files.png_bytes(content, facts, composite=True, producer=files.producer(studio.ws)))
    return {
        "sheet": str(path),
        "files": places,
        "left_out": left_out,
        **asked.told(),
        **layout.told(),
        "seeds": seeds,
        "sampling": studio.sampling,
        "model_id": studio.model,
    }


def sheet(
    images: NDArray[np.uint8], layout: Layout, columns: Sequence[str], rows: Sequence[str], title: Sequence[str]
) -> NDArray[np.uint8]:
    """A captioned sheet uint8 [H, W] of images [R, C, s, s], the donor and its conditions in front of the first row.

    Small images are enlarged by whole factors, so that each of their pixels stays a square.
    """
    factor = max(1, -(-SHOWN // images.shape[-1]))
    side, font = images.shape[-1] * factor, ImageFont.load_default(size=13)
    given = {"donor": layout.image, "mask": layout.mask * np.uint8(255), "edges": layout.sobel}
    heads = [*given, *columns]
    wrapped = [_wrapped(head, side, font) for head in heads]
    lines = max(len(w) for w in wrapped)
    top = LINE * len(title) + GAP + LINE * lines
    width = GAP + len(heads) * (side + GAP)
    height = top + len(rows) * (side + LINE + GAP)
    paper = Image.new("L", (max(width, *(int(font.getlength(t)) + 2 * GAP for t in title)), height), PAPER)
    pen = ImageDraw.Draw(paper)
    for k, said in enumerate(title):
        pen.text((GAP, 2 + k * LINE), said, fill=INK if k == 0 else FAINT, font=font)
    for c, text in enumerate(wrapped):
        x = GAP + c * (side + GAP)
        for k, line in enumerate(text):
            pen.text((x, top - LINE * (len(text) - k)), line, fill=INK, font=font)
        for r in range(len(rows)):
            y = top + r * (side + LINE + GAP)
            if c < len(given):
                if r == 0:
                    _paste(paper, list(given.values())[c], x, y, factor)
                continue
            _paste(paper, images[r, c - len(given)], x, y, factor)
            if c == len(given):
                pen.text((x, y + side + 1), rows[r], fill=FAINT, font=font)
    return np.asarray(paper)


def _paste(paper: Image.Image, image: NDArray[np.uint8], x: int, y: int, factor: int) -> None:
    size = (image.shape[1] * factor, image.shape[0] * factor)
    paper.paste(Image.fromarray(image).resize(size, Image.Resampling.NEAREST), (x, y))


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """Words in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
