"""The figures of a comparison from its files: tables, curve, real against generated, quality, what each cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kb.errors import UserError
from kb.files import read_json
from tigergen.baselines.methods import BEST, METHODS, Method
from tigergen.evaluation.compare.comparison import WITHOUT, Comparison
from tigergen.evaluation.compare.folds import labels_of
from tigergen.evaluation.compare.quality import COUNTS
from tigergen.evaluation.compare.settings import per_class
from tigergen.evaluation.compare.stats import (
    FIGURES,
    Bootstrap,
    Scored,
    differences,
    summary_row,
    validation_auroc,
)
from tigergen.evaluation.metric_classify import percentile_interval


def summarise(comparison: Comparison) -> dict[str, Any]:
    """All figures of a finished comparison.

    Returns: settings, target, classes, folds, n_test, n_test_target, n_test_patients, table (a row a method),
    differences (Tiger-F minus each other method, Holm over the methods), ablations (the same for what is taken away,
    Holm over them), curve, additions (real against generated), quality, dual_encoders (one a fold), generators (steps,
    seconds, parameters).
    Raises:
        UserError: a stage is missing.
    """
    settings, data = comparison.settings, comparison.data
    positives = data[0].positives
    chosen: dict[str, tuple[str, dict[str, float], list[list[Scored]]]] = {}
    for method in comparison.rows:
        amount = settings.amount if method.generates else None
        tried = {r: _load(comparison, method, r, amount) for r in method.recipes[: settings.recipes]}
        means = {
            recipe: float(np.mean([validation_auroc(one, positives) for own in scored for one in own]))
            for recipe, scored in tried.items()
        }
        best = max(means, key=lambda recipe: means[recipe])
        chosen[method.name] = (best, means, tried[best])
    first = next(iter(chosen.values()))[2]
    bootstrap = Bootstrap([own[0].patients for own in first], settings.seeds, settings.seed)
    found = {name: bootstrap.of(scored, positives) for name, (_, _, scored) in chosen.items()}
    table = [_table_row(comparison, m, *chosen[m.name][:2], summary_row(found[m.name])) for m in comparison.rows]
    rows = [m for m in comparison.rows if m.name != BEST]
    groups: dict[str, list[str]] = {"differences": [], "ablations": []}
    for m in rows:
        if m.group != "real":
            groups["ablations" if m.group == "ablation" else "differences"].append(m.name)
    out: dict[str, Any] = {
        "settings": settings.record(),
        "target": settings.target,
        "classes": list(data[0].classes),
        "folds": len(data),
        "n_test": sum(len(own[0].y_test) for own in first),
        "n_test_target": sum(int((d.parts["test"].y == d.classes.index(settings.target)).sum()) for d in data),
        "n_test_patients": sum(len(np.unique(own[0].patients)) for own in first),
        "n_train": [len(d.parts["train"].y) for d in data],
        "n_train_target": [int((d.parts["train"].y == d.classes.index(settings.target)).sum()) for d in data],
        "table": table,
        "curve": _curve(comparison, bootstrap, positives),
        "additions": _additions(comparison, bootstrap, positives),
        "quality": _quality(comparison),
        "dual_encoders": _encoders(comparison),
        "generators": _generators(comparison),
    }
    for name, others in groups.items():
        out[name] = differences(found, BEST, others) if BEST in found and others else []
    ceiling = [m.name for m in rows if m.group == "real"]
    out["ceiling"] = differences(found, BEST, ceiling) if BEST in found and ceiling else []
    return out | {"verdict": verdict(out)}


def _load(comparison: Comparison, method: Method, recipe: str, amount: float | None) -> list[list[Scored]]:
    seeds = range(comparison.settings.seeds)
    return [
        [Scored.load(comparison.prediction(data, method, recipe, amount, seed)) for seed in seeds]
        for data in comparison.data
    ]


def _table_row(
    comparison: Comparison, method: Method, recipe: str, means: dict[str, float], figures: dict[str, Any]
) -> dict[str, Any]:
    row = {"method": method.name, "title": method.title, "group": method.group, "number": method.number}
    made = [
        per_class(comparison.settings.amount, d.sizes) * len(labels_of(comparison.settings, d)) for d in comparison.data
    ]
    generated = int(np.mean(made)) if method.generates else 0
    return {**row, "recipe": recipe, "validation": means, "n_generated": generated, **figures}


def _point(bootstrap: Bootstrap, scored: Sequence[Sequence[Scored]], positives: Sequence[int]) -> dict[str, Any]:
    values, draws = bootstrap.of(scored, positives)["auroc"]
    return {"auroc": float(values.mean()), "ci": list(percentile_interval(draws))}


def _without(comparison: Comparison, bootstrap: Bootstrap, positives: Sequence[int]) -> dict[str, Any]:
    """Where every curve begins: classical augmentation, balanced, no further image."""
    return _point(bootstrap, _load(comparison, METHODS["basic"], WITHOUT, None), positives)


def _curve(comparison: Comparison, bootstrap: Bootstrap, positives: Sequence[int]) -> list[dict[str, Any]]:
    """AUROC of each drawn method at each amount of generated images; at 0 all are classical augmentation."""
    drawn, settings = comparison.settings.drawn(), comparison.settings
    mean_real = float(np.mean([d.sizes.real for d in comparison.data]))
    out = []
    for amount in sorted({*settings.amounts, settings.amount}) if drawn else []:
        for method in drawn:
            point = (
                _without(comparison, bootstrap, positives)
                if amount == 0.0
                else _point(bootstrap, _load(comparison, method, "generated", amount), positives)
            )
            out.append({"method": method.name, "amount": amount, "images": round(amount * mean_real), **point})
    return out


def _additions(comparison: Comparison, bootstrap: Bootstrap, positives: Sequence[int]) -> list[dict[str, Any]]:
    """As many real as generated images of the target added to the training set (the paper's Fig. 5b).

    Generated ones go into the other classes too, in equal number; the pool may hold the target alone.
    """
    drawn, settings = comparison.settings.drawn(), comparison.settings
    real = [m for m in comparison.rows if m.group == "real"]
    best = next((m for m in drawn if m.name == BEST), None)
    out: list[dict[str, Any]] = []
    if not real or best is None:
        return out
    if 0.0 in settings.amounts:
        point = _without(comparison, bootstrap, positives)
        out += [{"kind": kind, "images": 0, **point} for kind in ("generated", "real")]
    for amount in sorted({*settings.amounts, settings.amount} - {0.0}):
        wanted = [per_class(amount, d.sizes) for d in comparison.data]
        held = [len(d.parts["pool"].y) for d in comparison.data]
        for kind, source in (("generated", (best, "generated")), ("real", (real[0], "real"))):
            # More real images than there are cannot be added: that point would not be a fair one.
            if kind == "generated" or all(w <= h for w, h in zip(wanted, held, strict=True)):
                point = _point(bootstrap, _load(comparison, *source, amount), positives)
                out.append({"kind": kind, "images": round(float(np.mean(wanted))), **point})
    return out


def _quality(comparison: Comparison) -> list[dict[str, Any]]:
    """A row a method and class, mean over folds, with the extractor and the weights of each fold."""
    out = []
    for method in (m for m in comparison.rows if m.generates):
        files = [_quality_of(comparison, data, method) for data in comparison.data]
        weights = {
            "weights_sha256": "; ".join(file["weights_sha256"][:16] for file in files),
            "dual_encoder": "; ".join(str(file["dual_encoder"].get("weights_sha256", "none"))[:16] for file in files),
        }
        for number, label in enumerate(comparison.data[0].classes):
            rows = [file["rows"][number] for file in files]
            row: dict[str, Any] = {"method": method.name, "label": label}
            row |= {name: min(r[name] for r in rows) for name in ("n", *COUNTS)}
            for side, after in (("generated", ""), ("floor", "_floor"), ("real", "_real")):
                for name in rows[0][side]:
                    values = [r[side][name] for r in rows]
                    row[name + after] = None if any(v is None for v in values) else float(np.mean(values))
            out.append(row | {"extractor": files[0]["extractor"]} | weights)
    return out


def _encoders(comparison: Comparison) -> list[dict[str, Any]]:
    """What measured CLIP score and CMMD in each fold, or why nothing did."""
    method = next((m for m in comparison.rows if m.generates), None)
    if method is None:
        return []
    return [
        {"fold": data.fold.number, **_quality_of(comparison, data, method)["dual_encoder"]} for data in comparison.data
    ]


def _quality_of(comparison: Comparison, data: Any, method: Method) -> dict[str, Any]:
    path = comparison.quality_file(data, method)
    if not path.is_file():
        raise UserError(f"{path} is missing; run the comparison again, it continues.")
    found: dict[str, Any] = read_json(path)
    return found


def _generators(comparison: Comparison) -> list[dict[str, Any]]:
    """Steps, seconds and trained parameters of each method's model, mean over folds and seeds, and what it was told."""
    out = []
    cap = comparison.settings.minutes * 60
    for method in (m for m in comparison.rows if m.generates):
        records = [
            read_json(comparison.generator_folder(data, method, seed) / "generator.json")
            for data in comparison.data
            for seed in range(comparison.settings.generator_seeds)
        ]
        seconds = [float(r["seconds"]) for r in records]
        out.append({
            "method": method.name, "steps": records[0]["steps"], "parameters": records[0]["parameters"],
            "seconds": round(float(np.mean(seconds)), 1), "most_seconds": max(seconds),
            "over_cap": bool(cap and max(seconds) > cap), "trainings": len(records),
            "classes": len(labels_of(comparison.settings, comparison.data[0])),
        })  # fmt: skip
    return out


def verdict(found: dict[str, Any]) -> dict[str, Any]:
    """One sentence that the intervals allow: over how many methods Tiger-F stands, and which it is not told from."""
    rows = found["differences"]
    if not rows:
        return {"kind": "unknown", "text": f"{METHODS[BEST].title} was not compared with another method."}
    ranked = sorted(found["table"], key=lambda r: -r["auroc"]["mean"])
    ranked = [r for r in ranked if r["group"] in ("none", "classical", "generated")]
    place = [r["method"] for r in ranked].index(BEST) + 1
    above = [r["method"] for r in rows if r["auroc"]["ci"][0] > 0]
    below = [r["method"] for r in rows if r["auroc"]["ci"][1] < 0]
    open_ = [r["method"] for r in rows if r["method"] not in (*above, *below)]
    own = next(r for r in found["table"] if r["method"] == BEST)
    said = [
        f"Tiger-F has an AUROC of {own['auroc']['mean']:.3f} for {found['target']} "
        f"({own['auroc']['ci'][0]:.3f} to {own['auroc']['ci'][1]:.3f}), place {place} of {len(ranked)}."
    ]
    for names, words in (
        (above, "It is better than"),
        (below, "It is worse than"),
        (open_, "It is not told apart from"),
    ):
        if names:
            said.append(f"{words} {', '.join(names)}.")
    kind = "helps" if above and not open_ and not below else "harms" if below else "not told apart"
    return {"kind": kind, "text": " ".join(said), "place": place, "above": above, "below": below, "open": open_}


def flat(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows for a CSV file: a figure's mean under its name, its interval as _low and _high; lists are left out."""
    out = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            if name in FIGURES and isinstance(value, dict):
                line[name] = value.get("mean", value.get("difference"))
                line[f"{name}_low"], line[f"{name}_high"] = value["ci"]
            elif name == "ci":
                line["low"], line["high"] = value
            elif not isinstance(value, list | dict):
                line[name] = value
        out.append(line)
    return out
