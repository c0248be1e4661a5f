"""What the model draws while it trains: the sample grid, and how well its images follow what was asked of them.

Every figure of adherence stands beside the same figure with the conditions of another case: a model that ignores its
conditions gives both alike.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kb.files import atomic_write
from tigergen.data import Cases
from tigergen.model.pipeline import TigerPipeline
from tigergen.model.tokens import Roles

Images = NDArray[np.uint8]
# Figures by name of images uint8 [N, s, s], each measured against what the case at its place asks for.
Measure = Callable[[Images, Cases], Mapping[str, float]]

STEPS = 8
BORDER = 2
EDGES = "edges"
LINE = 14  # px of a line of the caption
FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.35)


def generate(pipe: TigerPipeline, cases: Cases, mode: str, roles: Sequence[Roles] | None = None) -> Images:
    """One image uint8 [N, s, s] for each case.

    The seeds are fixed, so that grids of different steps show the same noise becoming the same nodule.
    """
    return pipe(
        cases.fg, cases.bg, masks=cases.masks, sobels=cases.sobel, roles=roles, steps=STEPS, mode=mode,
        seeds=range(len(cases)),
    )  # fmt: skip


def adherence(images: Images, cases: Cases, edges: bool, measure: Measure | None = None) -> dict[str, dict[str, float]]:
    """How well generated images follow their cases, a figure by name: "value", "shuffled" and, by `measure`, "real".

    `edges`: correlation of the edge map asked for with that of the image. `measure`: further figures, such as those of
    a segmenter and a judge. "shuffled" is the figure against the conditions of another patient's case, "real" that of
    the real image, which is not perfect either where a model does the measuring. What cannot be told is left out.
    """
    against = {"value": (images, cases)}
    if len(cases) > 1:
        against["shuffled"] = (images, cases.select(partners(cases.patient_ids)))
    out: dict[str, dict[str, float]] = {}
    for kind, (seen, asked) in (against | {"real": (cases.images, cases)}).items():
        figures = dict(measure(seen, asked)) if measure is not None else {}
        if edges and kind != "real":  # that of a real image is 1: the map was made from it
            figures = {EDGES: _edges(seen, asked)} | figures
        for name, value in figures.items():
            if np.isfinite(value):
                out.setdefault(name, {})[kind] = round(float(value), 4)
    return {name: kinds for name, kinds in out.items() if "value" in kinds}


def partners(patients: Sequence[str]) -> list[int]:
    """For each case another one, half-way round and of another patient if there is one: neighbours are often alike."""
    count = len(patients)
    ways = [[(number + count // 2 + step) % count for step in range(count)] for number in range(count)]
    return [
        next((other for other in way if patients[other] != patients[number]), way[0])
        for number, way in enumerate(ways)
    ]  # fmt: skip


def in_words(figures: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Each figure as text.

    >>> in_words({"edges": {"value": 0.61, "shuffled": 0.08}})
    {'edges': '.61 (shuffled .08)'}
    """
    out = {}
    for name, kinds in figures.items():
        beside = [f"{kind} {_short(kinds[kind])}" for kind in ("shuffled", "real") if kind in kinds]
        out[name] = _short(kinds["value"]) + (f" ({', '.join(beside)})" if beside else "")
    return out


def draw_grid(path: Path, cases: Cases, images: Images, caption: Sequence[str] = ()) -> None:
    """Write one row a case as PNG, columns mask, Sobel, real, generated, and the caption's lines under them."""
    columns = (cases.masks * np.uint8(255), cases.sobel, cases.images, images)
    rows = np.vstack([np.hstack([_framed(column[row]) for column in columns]) for row in range(len(cases))])
    widest = max([cv2.getTextSize(line, *FONT, 1)[0][0] + 2 * BORDER for line in caption], default=0)
    height, width = rows.shape
    sheet = np.full((height + LINE * len(caption), max(width, widest)), 128, np.uint8)
    sheet[:height, :width] = rows
    for number, line in enumerate(caption, start=1):
        cv2.putText(sheet, line, (BORDER, height + LINE * number - 4), *FONT, 255, 1, cv2.LINE_AA)
    with atomic_write(path) as temporary:
        cv2.imwrite(str(temporary), sheet)


def _edges(images: Images, cases: Cases) -> float:
    from tigergen.evaluation.adherence import sobel_correlation

    found = sobel_correlation(images, cases.masks, cases.sobel)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def _short(value: float) -> str:
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def _framed(image: Images) -> Images:
    return np.pad(image, BORDER, constant_values=128)
