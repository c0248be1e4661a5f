"""Run a comparison: measure what stages cost, fit it into a budget if there is one, do the stages, write the page."""

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kb.errors import UserError
from kb.files import read_json, write_json
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigergen.evaluation.compare.comparison import Comparison, open_folder
from tigergen.evaluation.compare.made import BATCH
from tigergen.evaluation.compare.settings import Prices, Settings, scale, stages, total

BUDGET = "budget.json"
# What is measured: enough for a first idea, little enough for a minute at 64 px.
STEPS, CASES, ITERATIONS = 6, 8, 4


def compare(
    ws: Any,
    settings: Settings,
    out: str | os.PathLike[str],
    budget: float | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare methods of augmentation in the folder `out`; the same call goes on.

    `budget`: minutes for one process; settings shrink until the measured prices fit (`settings.scale`), once:
    a continued call keeps what the first one chose. `dry_run`: only the stages with their estimated seconds.

    Returns: the summary (`summary.summarise`) with `report`, or with `dry_run` stages, minutes, scaled,
    settings.
    Raises:
        UserError: another comparison in `out`, a budget too small, and as folds, plans and generators say.
    """
    folder = Path(out)
    said: list[str] = []
    prices: Prices | None = None
    if budget is not None and (folder / BUDGET).is_file():
        settings, said = _kept(folder, settings, budget)
    elif budget is not None or dry_run:
        if budget is not None and budget <= 0:
            raise UserError(f"a budget of {budget:g} minutes is none; give a number above 0.")
        whole = Comparison(ws, settings, folder)
        prices, pool = measure(whole, progress), _pool(whole)
        if budget is not None:
            sizes = max((d.sizes for d in whole.data), key=lambda s: s.real)
            asked = settings
            settings, said = scale(settings, budget, prices, sizes, pool)
            if not dry_run:
                open_folder(folder, settings)
                write_json(
                    folder / BUDGET,
                    {"minutes": budget, "asked": asked.record(), "settings": settings.record(), "scaled": said},
                )
    if dry_run:
        if prices is None:
            prices = measure(Comparison(ws, settings, folder), progress)
        return _estimated(Comparison(ws, settings, folder), prices, said)
    if progress is not None and said:
        progress({"stage": "compare", "warning": "scaled to the budget: " + "; ".join(said)})
    comparison = Comparison(ws, settings, folder, progress)
    comparison.run()
    from tigergen.evaluation.compare.report import write_results

    return write_results(comparison, said, budget)


def _kept(folder: Path, settings: Settings, budget: float) -> tuple[Settings, list[str]]:
    """What an earlier call with this budget chose."""
    stored = read_json(folder / BUDGET)
    if stored["minutes"] != budget or stored["asked"] != settings.record():
        raise UserError(f"{folder} holds a comparison with another budget or other settings; name another folder.")
    return of_record(stored["settings"]), list(stored["scaled"])


def of_record(stored: Mapping[str, Any]) -> Settings:
    """Settings from what :meth:`Settings.record` wrote."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return Settings(**given)


def _pool(comparison: Comparison) -> bool:
    return all("pool" in data.parts for data in comparison.data)


def _estimated(comparison: Comparison, prices: Prices, said: list[str]) -> dict[str, Any]:
    settings, pool = comparison.settings, _pool(comparison)
    sizes = max((d.sizes for d in comparison.data), key=lambda s: s.real)
    return {
        "stages": stages(settings, prices, sizes, pool),
        "minutes": round(total(settings, prices, sizes, pool) / 60, 1),
        "scaled": said,
        "settings": settings.record(),
        "rule": f"{STEPS} steps and {BATCH} images of each generator and {ITERATIONS} iterations of the classifier, "
        "measured on this machine in one process",
    }


def measure(comparison: Comparison, progress: Progress | None = None) -> Prices:
    """Seconds of a step, an image and a classifier's iteration, measured on a few cases in a folder that is removed."""
    from tigergen.baselines.train import open_generator, train_generator
    from tigergen.baselines.work import drawn

    data = comparison.data[0]
    step: dict[str, float] = {}
    image: dict[str, float] = {}
    rows = [m for m in comparison.rows if m.generates]
    with tempfile.TemporaryDirectory(prefix="tiger-compare-") as place, torch_threads(comparison.threads):
        slots = _some_slots(comparison)
        for number, method in enumerate(rows):
            if progress is not None:
                event = {"stage": "measure", "step": number, "steps": len(rows), "what": method.name}
                progress(event)
            work = comparison.work(data, method, 0)
            own = Path(place) / method.training.replace("/", "_")
            few = work.cases.select(_few(work.cases.labels))
            tried = replace(work, cases=few, steps=STEPS, folder=own, coarse=own / "coarse", progress=None)
            record = train_generator(method.model, tried)
            step[method.training] = float(record["seconds"]) / STEPS
            draw = open_generator(method.model, own)
            donors = data.train.layouts()
            sampling = {**slots[1], **method.sampling}
            began = time.monotonic()
            made = list(drawn(draw, slots[0], donors, comparison.ws.kb, sampling, BATCH, comparison.threads))
            image[method.name] = (time.monotonic() - began) / sum(map(len, made))
        return Prices(step, image, _iteration(comparison), _pair(comparison) if rows else 0.0)


def _few(labels: list[str]) -> list[int]:
    """Positions of the first cases of each label."""
    chosen = [n for label in sorted(set(labels)) for n in [k for k, own in enumerate(labels) if own == label][:CASES]]
    return sorted(chosen)


def _some_slots(comparison: Comparison) -> tuple[list[Any], dict[str, Any]]:
    """A batch of images of a small plan, and how it samples."""
    from tigergen.augment.plan import SAMPLING, make_plan
    from tigergen.augment.slots import Slots, donor_quality
    from tigergen.evaluation.compare.folds import labels_of

    data = comparison.data[0]
    labels = labels_of(comparison.settings, data)
    plan = make_plan(data.fold, labels[0], BATCH, labels[1:], 0, combinations=4)
    slots = Slots(plan, donor_quality(comparison.ws.kb, data.train))
    settings = {**SAMPLING, **comparison.preset.get("sampling", {})}
    return [slots.at(k) for k in range(min(BATCH, len(slots)))], settings


def _iteration(comparison: Comparison) -> float:
    from tigergen.evaluation.classifier import train_classifier
    from tigergen.evaluation.compare.comparison import RECIPES
    from tigergen.evaluation.compare.folds import take

    part = comparison.data[0].parts["train"]
    rows = np.concatenate([np.flatnonzero(part.y == label)[:CASES] for label in np.unique(part.y)])
    began = time.monotonic()
    train_classifier(
        take(part, rows.tolist()), RECIPES["basic"], 0, ITERATIONS, architecture=comparison.settings.architecture
    )
    return (time.monotonic() - began) / ITERATIONS


def _pair(comparison: Comparison) -> float:
    """Seconds of one training pair of the dual encoder in all its passes; 0 where none is trained."""
    from tigergen.evaluation.dual_encoder import EPOCHS, LEAST_PAIRS, too_few, train_dual_encoder

    train = comparison.data[0].train
    if too_few(train.fg):
        return 0.0
    # Prompts that differ come first, so that so few pairs are enough to train on at all.
    first = {text: n for n, text in enumerate(train.fg)}
    rows = [*first.values(), *sorted({*range(len(train))} - {*first.values()})][:LEAST_PAIRS]
    began = time.monotonic()
    train_dual_encoder(
        train.images[rows], [train.fg[n] for n in rows], comparison.ws.kb, None, epochs=1,
        size=comparison.encoder_size,
    )  # fmt: skip
    return (time.monotonic() - began) / len(rows) * EPOCHS
