"""The report: one HTML file that opens anywhere, without network, and says no more than the intervals allow."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from kb.files import atomic_write, read_json
from tigerdata import page
from tigerdata.manifest import manifest_of
from tigerdata.page import data_uri
from tigergen import workshop
from tigergen.evaluation import svg
from tigergen.evaluation.arm_stats import summarise
from tigergen.evaluation.evaluate import gate_counts, read_evaluation

PER_CLASS = 5
PAIRS = 5
VERSIONS = ("tigerdata", "torch", "diffusers", "transformers", "numpy", "albumentations", "duckdb")


def arms_folder(ws: Any, target: str) -> Path:
    """Where a workspace keeps the classifier arms of a target."""
    return ws.path / "runs" / f"arms-{target}"


def write_report(
    ws: Any,
    out: str | os.PathLike[str],
    run: str | os.PathLike[str],
    target: str | None = None,
    arms: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Write `report.html` for a finished run; `workshop.evaluate` is called first where that was not done.

    `target`: default the plan's. `arms`: folder of `arms.run_arm`, default `arms_folder(ws, target)`; without arms the
    report says that nothing was compared.

    Returns: report (path), verdict (sentence), kind, and the figures shown.
    Raises:
        UserError: the run is not finished.
    """
    folder, path = manifest_of(run).parent, Path(out)
    plan = read_json(folder / "plan.json")
    target = target or str(plan["target"])
    measured = read_evaluation(folder) or workshop.evaluate(ws, folder)
    place = Path(arms) if arms is not None else arms_folder(ws, target)
    compared = summarise(place) if (place / "arms.json").is_file() else None
    html = render(gather(ws, folder, plan, target, measured, compared))
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    verdict = compared["verdict"] if compared else _no_verdict()
    figures: dict[str, Any] = {"report": str(path), "verdict": verdict["text"], "kind": verdict["kind"]}
    if compared:
        figures["auroc"] = {a["arm"]: {"mean": a["test"], "ci": a["ci"]} for a in compared["arms"]}
    if measured.get("attributes"):
        figures["attribute_ratio"] = measured["attributes"]["mean_ratio"]
    return figures


def _no_verdict() -> dict[str, str]:
    return {"kind": "unknown", "text": "No classifier was trained, so this report cannot say whether it helps."}


def render(facts: dict[str, Any]) -> str:
    """The page from its facts; every value is escaped."""
    filters = {
        "figure": figure,
        "signed": lambda v: f"{v:+.3f}".replace("-", "−"),
        "p_value": p_value,
        "percent": lambda v: "–" if v is None else f"{100 * v:.0f} %",
    }
    return page.render("tigergen.evaluation", "report.html", facts, filters)


def figure(value: float | None, digits: int = 3) -> str:
    """A number for a table: a true minus sign, no negative zero, a dash for None.

    >>> figure(-0.0001, 2), figure(None), figure(-0.25, 2)
    ('0.00', '–', '−0.25')
    """
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value for a table; one too small for three digits is no zero.

    >>> p_value(0.0704), p_value(0.0004)
    ('0.070', '< 0.001')
    """
    return figure(value) if value >= 0.001 else "< 0.001"


def gather(
    ws: Any, folder: Path, plan: dict[str, Any], target: str, measured: dict[str, Any], compared: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything the template shows."""
    import pandas as pd
    from markupsafe import Markup

    from tigergen.augment.coverage import impossible_pairs
    from tigergen.data import load_cases

    table = pd.read_parquet(manifest_of(folder))
    kept = table[table["accepted"]].reset_index(drop=True)
    train = load_cases(ws, "train", int(kept["width"].iloc[0]))
    real = train.counts()
    made = measured["generated"]
    classes = [{"label": k, "real": real.get(k, 0), "generated": made.get(k, 0)} for k in sorted({*real, *made})]
    rows = [dict(a) for a in (compared or {}).get("arms", [])]
    for a in rows:
        a |= {"accent": a["arm"] == "generated", "note": f"{a['n_train_target']} {target} of {a['n_train']} images"}
    first = kept.iloc[0]
    coverage = shown_coverage(ws.kb, train, kept, plan)
    return {
        "target": target,
        "domain": ws.settings["domain"],
        "verdict": compared["verdict"] if compared else _no_verdict(),
        "arms": rows,
        "compared": compared,
        "arms_svg": Markup(svg.dot_plot(rows, f"AUROC, {target} against {', '.join(compared['reference'])}"))
        if compared
        else "",
        "classes": classes,
        "balance_svg": Markup(svg.balance(classes)),
        "grids": _grids(folder, kept, train, target),
        "pairs": _pairs(folder, kept, train),
        "measured": measured,
        "gates": gate_counts(table),
        "thresholds": read_json(folder / "gates.json"),
        "coverage": coverage,
        "coverage_svg": Markup(svg.coverage([{"label": label, **c["two_way"]} for label, c in coverage.items()])),
        "impossible": impossible_pairs(ws.kb),
        "plan": plan,
        "first": first.to_dict(),
        "command": _command(folder, first),
        "model_id": first["model_id"],
        "plan_id": first["plan_id"],
        "versions": _versions(),
        "meter": lambda value, most=1.0: Markup(svg.meter(value, most)),
    }


def shown_coverage(base: Any, train: Any, kept: Any, plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One- and two-way coverage a class: real training images before, accepted ones after (`augment.coverage`).

    What was accepted is counted and not what was planned; `planned` is the plan's own figure where it has one.
    """
    from tigergen.augment.coverage import coverage, factor

    out = {}
    for label in sorted({*train.labels, *kept["label"]}):
        real = [a for a, own in zip(train.attributes, train.labels, strict=True) if own == label]
        made = kept[kept["label"] == label]["attributes"].value_counts().sort_index()
        found = coverage(base, real, [json.loads(text) for text in made.index], [int(n) for n in made])
        planned = plan.get("coverage", {}).get(label, {}).get("two_way", {})
        found["two_way"] |= {"factor": factor(found["two_way"]), "allowed": planned.get("allowed")}
        found["two_way"]["planned"] = planned.get("after")
        out[label] = found
    return out


def _command(folder: Path, row: Any) -> str:
    """The call that makes one image of the run again: its index in the plan decides prompt, donor and noise."""
    call = f"remake('WORKSPACE', {folder.name!r}, {int(row['index'])}, {int(row['attempt'])}, 'again.png')"
    return f'python -c "from tigergen.augment.one import remake; print({call})"'


def _versions() -> dict[str, str]:
    out = {}
    for name in VERSIONS:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def _grids(folder: Path, kept: Any, train: Any, target: str) -> list[dict[str, Any]]:
    """For each class, the target first: donor, mask, edge map and generated image of a few evenly spaced indices."""
    from tigergen.augment.files import read_pixels

    place = {i: n for n, i in enumerate(train.image_ids)}
    out = []
    for label in sorted(set(kept["label"]), key=lambda v: (v != target, v)):
        own = kept[kept["label"] == label]
        chosen = own.iloc[np.unique(np.linspace(0, len(own) - 1, PER_CLASS).astype(int))]
        cells = []
        for r in chosen.to_dict("records"):
            n = place[r["donor_image_id"]]
            cells.append({
                "donor": data_uri(train.images[n]),
                "mask": data_uri(train.masks[n] * np.uint8(255)),
                "sobel": data_uri(train.sobel[n]),
                "made": data_uri(read_pixels(folder / r["file"])),
                "file": r["file"], "fg": r["fg"], "bg": r["bg"],
                "particular": [p for p, role in json.loads(r["roles"]) if role == "particular"],
            })  # fmt: skip
        out.append({"label": label, "cells": cells, "count": len(own)})
    return out


def _pairs(folder: Path, kept: Any, train: Any) -> list[dict[str, Any]]:
    """The accepted images that resemble a real training image most, beside that image."""
    from tigergen.augment.files import read_pixels

    place = {i: n for n, i in enumerate(train.image_ids)}
    scores = [json.loads(s) for s in kept["scores"]]
    order = sorted(range(len(kept)), key=lambda n: -scores[n]["nearest"])[:PAIRS]
    return [
        {
            "made": data_uri(read_pixels(folder / kept["file"].iloc[n])),
            "real": data_uri(train.images[place[scores[n]["nearest_id"]]]),
            "score": scores[n]["nearest"],
            "file": kept["file"].iloc[n],
        }
        for n in order
    ]
