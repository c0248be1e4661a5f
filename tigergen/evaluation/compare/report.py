"""The page and the tables of a comparison: compare.json, CSV, SVG, sample grids and one offline report.html."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.files import atomic_write, write_json
from tigerdata import page
from tigerdata.page import data_uri
from tigergen.baselines.methods import BEST, METHODS
from tigergen.evaluation import svg
from tigergen.evaluation.compare.comparison import Comparison
from tigergen.evaluation.compare.folds import labels_of
from tigergen.evaluation.compare.summary import flat, summarise
from tigergen.evaluation.compare.svg import line_plot, write_svg
from tigergen.evaluation.report import figure, p_value

SHOWN = 8
TABLES = {
    "table.csv": "table", "differences.csv": "differences", "ablations.csv": "ablations", "quality.csv": "quality",
    "curve.csv": "curve", "real-against-generated.csv": "additions", "generators.csv": "generators",
}  # fmt: skip


def write_results(comparison: Comparison, scaled: Sequence[str] = (), budget: float | None = None) -> dict[str, Any]:
    """Write all files of a finished comparison and return its summary with the path of the page as `report`.

    Raises UserError when a stage is missing.
    """
    out = comparison.out
    found = summarise(comparison) | {"scaled": list(scaled), "budget_minutes": budget}
    write_json(out / "compare.json", found)
    for name, key in TABLES.items():
        if found[key]:
            write_csv(out / name, flat(found[key]))
    charts = drawings(found)
    for name, drawing in charts.items():
        write_svg(out / f"{name}.svg", drawing)
    strips = grids(comparison)
    for row in strips:
        _write_png(out / "grids" / f"{row['name']}.png", row["picture"])
    with atomic_write(out / "report.html") as temporary:
        temporary.write_text(render(found, charts, strips), encoding="utf-8")
    return found | {"report": str(out / "report.html")}


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV; columns in the order in which they first come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def drawings(found: dict[str, Any]) -> dict[str, str]:
    """Charts by the name of their file: AUROC of all rows, over the number of images, real against generated."""
    rows = [
        {
            "title": row["title"], "test": row["auroc"]["mean"], "ci": row["auroc"]["ci"],
            "per_seed": row["per_seed"], "accent": row["method"] == BEST, "note": _note(row),
        }
        for row in found["table"]
    ]  # fmt: skip
    out = {"auroc": svg.dot_plot(rows, f"AUROC, {' against '.join(reversed(found['classes']))}")}
    if found["curve"]:
        names = list(dict.fromkeys(row["method"] for row in found["curve"]))
        series = [
            {
                "title": METHODS[name].title, "accent": name == BEST,
                "points": [_at(r, "images") for r in found["curve"] if r["method"] == name],
            }
            for name in names
        ]  # fmt: skip
        out["curve"] = line_plot(series, "generated images, equally many a class")
    if found["additions"]:
        words = {"generated": "Tiger-F, generated", "real": "real"}
        series = [
            {
                "title": title, "accent": kind == "generated",
                "points": [_at(r, "images") for r in found["additions"] if r["kind"] == kind],
            }
            for kind, title in words.items()
        ]  # fmt: skip
        series = [s for s in series if s["points"]]
        out["real-against-generated"] = line_plot(series, f"images of {found['target']} added")
    return out


def _at(row: dict[str, Any], x: str) -> tuple[float, float, float, float]:
    return float(row[x]), row["auroc"], row["ci"][0], row["ci"][1]


def _note(row: dict[str, Any]) -> str:
    made = f"{row['n_generated']:,} generated" if row["n_generated"] else row["recipe"]
    return f"{'Table 3, row ' + row['number'] + '; ' if row['number'] else ''}{made}"


def grids(comparison: Comparison) -> list[dict[str, Any]]:
    """Strips of the first images of each class: real ones, then every method's, of the first fold and seed."""
    data = comparison.data[0]
    labels = labels_of(comparison.settings, data)
    train = data.train
    out = [_strips("real", "Real training images", labels, train.images, np.array(train.labels))]
    for method in (m for m in comparison.rows if m.generates):
        made = comparison.generated(data, method, 0)
        names = np.array(data.classes)[made.y]
        shown = labels if set(labels) <= set(data.classes) else list(data.classes)
        out.append(_strips(method.name, method.title, shown, made.images, names))
    return out


def _strips(
    name: str, title: str, labels: Sequence[str], images: NDArray[np.uint8], own: NDArray[Any]
) -> dict[str, Any]:
    rows = []
    for label in labels:
        chosen = images[np.flatnonzero(own == label)[:SHOWN]]
        blank = np.full((SHOWN - len(chosen), *images.shape[1:]), 128, np.uint8)
        rows.append(np.hstack(list(np.concatenate([chosen, blank]))))
    return {"name": name.replace("/", "_"), "title": title, "labels": list(labels), "picture": np.vstack(rows)}


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def render(found: dict[str, Any], charts: dict[str, str], strips: Sequence[dict[str, Any]]) -> str:
    """The page from the figures; every value is escaped."""
    from markupsafe import Markup

    filters = {
        "figure": figure,
        "signed": lambda v: f"{v:+.3f}".replace("-", "−"),
        "p_value": p_value,
        "title": lambda name: METHODS[name].title,
    }
    facts = {
        **found,
        "charts": {name: Markup(drawing) for name, drawing in charts.items()},
        "strips": [{**row, "uri": data_uri(row["picture"])} for row in strips],
        "best": BEST,
        "told": _told(),
    }
    return page.render("tigergen.evaluation.compare", "page.html", facts, filters)


def _told() -> dict[str, str]:
    """What each generator is told of an image."""
    words = {"pg-gan": "class", "dit": "class", "imagen": "class and features", "sd": "class and features"}
    words |= {"sd-s": "class and features, mask", "sd-c": "class and features, mask, edges"}
    words |= {"tiger-n": "class, mask, edges"}
    return {name: words.get(name, "class and features, mask, edges") for name, m in METHODS.items() if m.generates}
