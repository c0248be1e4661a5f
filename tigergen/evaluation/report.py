"""The report: one HTML file in English and Chinese that opens anywhere, and says no more than the intervals allow."""

import json
import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

from kb.errors import UserError
from kb.files import atomic_write, read_json
from tigerdata import page
from tigerdata.card import software
from tigerdata.manifest import manifest_of
from tigergen import workshop
from tigergen.evaluation import report_views as views
from tigergen.evaluation import svg
from tigergen.evaluation.arm_stats import summarise
from tigergen.evaluation.evaluate import gate_counts, read_evaluation


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
    report says that nothing was compared, and without held-out images (val, test) that no distance was measured.

    Returns: report (path), verdict (sentence), kind, and the figures shown.
    Raises:
        UserError: the run is not finished or has no accepted image.
    """
    folder, path = manifest_of(run).parent, Path(out)
    plan = read_json(folder / "plan.json")
    target = target or str(plan["target"])
    measured = read_evaluation(folder) or _measured(ws, folder)
    place = Path(arms) if arms is not None else arms_folder(ws, target)
    compared = summarise(place) if (place / "arms.json").is_file() else None
    html = render(gather(ws, folder, plan, target, measured, compared))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    verdict = compared["verdict"] if compared else _no_verdict()
    figures: dict[str, Any] = {"report": str(path), "verdict": verdict["text"], "kind": verdict["kind"]}
    if compared:
        figures["auroc"] = {a["arm"]: {"mean": a["test"], "ci": a["ci"]} for a in compared["arms"]}
    if measured.get("attributes"):
        figures["attribute_ratio"] = measured["attributes"]["mean_ratio"]
    return figures


def _measured(ws: Any, folder: Path) -> dict[str, Any]:
    """The evaluation of a run, or, where there is no held-out image to measure against, its counts alone."""
    if set(ws.cases()["split"]) & {"val", "test"}:
        return workshop.evaluate(ws, folder)
    import pandas as pd

    table = pd.read_parquet(manifest_of(folder))
    made = table[table["accepted"]]["label"].value_counts().to_dict()
    return {"generated": dict(sorted(made.items())), "gates": gate_counts(table)}


def _no_verdict() -> dict[str, str]:
    return {"kind": "unknown", "text": "No classifier was trained, so this report cannot say whether it helps."}


def catalogue() -> dict[str, str]:
    """English sentence of the report -> Chinese one."""
    text = files("tigergen.evaluation").joinpath("report_zh.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def render(facts: dict[str, Any]) -> str:
    """The page from its facts; every value is escaped."""
    filters = {
        "figure": figure,
        "signed": lambda v: f"{v:+.3f}".replace("-", "−"),
        "p_value": p_value,
        "percent": lambda v: "–" if v is None else f"{100 * v:.0f} %",
        "thousands": lambda v: "–" if v is None else f"{v:,}",
    }
    return page.render("tigergen.evaluation", "report.html", facts, filters, catalogue())


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
    if len(kept) == 0:
        raise UserError(f"{folder} has no accepted image to report on; see its README for what the gates rejected.")
    side = int(kept["width"].iloc[0])
    train, names = load_cases(ws, "train", side), _names(ws.kb)
    pictures = views.Pictures(folder, train)
    real, made = train.counts(), measured["generated"]
    classes = [{"label": k, "real": real.get(k, 0), "generated": made.get(k, 0)} for k in sorted({*real, *made})]
    rows = _arm_rows(compared, target)
    gates, thresholds = gate_counts(table), _stored(folder / "gates.json")
    coverage = shown_coverage(ws.kb, train, kept, plan)
    verdict, first = compared["verdict"] if compared else _no_verdict(), kept.iloc[0]
    return {
        "target": target,
        "domain": Path(ws.settings["domain"]).stem,
        "verdict": verdict,
        "verdict_text": _both(verdict["text"], chinese_verdict(compared)),
        "arms": rows,
        "compared": compared,
        "arms_svg": Markup(svg.dot_plot(rows, f"AUROC: {target} / {', '.join(compared['reference'])}"))
        if compared
        else "",
        "classes": classes,
        "balance_svg": Markup(svg.balance(classes)),
        "heat": views.heat(ws.kb, train, kept, names),
        "grids": views.grids(pictures, kept, target),
        "by_attribute": views.by_attribute(pictures, ws.kb, kept, target, names),
        "shrunk": side > views.GRID_SIDE,
        "pairs": views.pairs(pictures, kept),
        "measured": measured,
        "treated": _treated(measured),
        "gates": gates,
        "gate_rows": views.gate_rows(gates["rejected"], thresholds),
        "scores": views.score_rows(kept),
        "unfilled": views.unfilled(table),
        "thresholds": thresholds,
        "settings": [(name, views.shown(value)) for name, value in views.flat(thresholds).items()],
        "coverage": coverage,
        "one_way_svg": Markup(svg.coverage([{"label": label, **c["one_way"]} for label, c in coverage.items()])),
        "coverage_svg": Markup(svg.coverage([{"label": label, **c["two_way"]} for label, c in coverage.items()])),
        "impossible": impossible_pairs(ws.kb),
        "plan": plan,
        "first": first.to_dict(),
        "command": _command(folder, first),
        "model_id": first["model_id"],
        "plan_id": first["plan_id"],
        "basis": views.basis(ws),
        "versions": software(),
        "meter": lambda value, most=1.0: Markup(svg.meter(value, most)),
    }


def _stored(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _both(english: str, chinese: str | None) -> Any:
    return page.bilingual({english: chinese} if chinese else {})(english)


def _names(base: Any) -> Any:
    """A function from an attribute, or a value of one, to its name in both languages; values as prompts say them."""
    translated = catalogue()

    def name(attribute: str, value: str | None = None) -> Any:
        if value is None:
            english = attribute.replace("_", " ")
            return _both(english, translated.get(english))
        known = base.attributes[attribute].values[value]
        chinese = translated.get(known.phrase) or (views.plain_chinese(known.zh[0]) if known.zh else None)
        return _both(known.phrase, chinese)

    return name


def _arm_rows(compared: dict[str, Any] | None, target: str) -> list[dict[str, Any]]:
    """The arms with what the chart says of them, in both languages."""
    translated, rows = catalogue(), [dict(a) for a in (compared or {}).get("arms", [])]
    for a in rows:
        n, of = a["n_train_target"], a["n_train"]
        a |= {"accent": a["arm"] == "generated", "title": (a["title"], translated.get(a["title"], a["title"]))}
        a["note"] = (f"{n} {target} of {of} images", f"{of} 张图像中 {target} {n} 张")
    return rows


def chinese_verdict(compared: dict[str, Any] | None) -> str | None:
    """The sentence of `arm_stats.verdict` in Chinese, from the same figures; None where there is none to say."""
    if compared is None or "difference" not in compared["verdict"]:
        return catalogue().get((compared or {"verdict": _no_verdict()})["verdict"]["text"])
    verdict, values = compared["verdict"], {a["arm"]: a["test"] for a in compared["arms"]}
    words = {"helps": "生成图像有帮助", "harms": "生成图像有害"}.get(verdict["kind"], "生成图像与经典扩增无法区分优劣")
    low, high = verdict["ci"]
    return (
        f"{words}：{compared['target']} 的 AUROC 在各类均加入生成图像时为 {values['generated']:.3f}，仅用经典扩增时为 "
        f"{values['classical']:.3f}；差值 {verdict['difference']:+.3f}（95 % 区间 {low:+.3f} 至 {high:+.3f}；"
        f"{compared['seeds']} 个种子，{compared['n_test_patients']} 名患者）。"
    )


def _treated(measured: dict[str, Any]) -> str:
    """The judge's accuracy on treated real images, one after the other."""
    found = measured.get("attributes", {}).get("judge", {}).get("robustness") or {}
    return "; ".join(f"{name}: {figure(row['mean'], 2)}" for name, row in found.items())


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
    which = f"--run {shlex.quote(folder.name)} --index {int(row['index'])} --attempt {int(row['attempt'])}"
    return f"tigergen sample {which} --out again.png -w WORKSPACE"
