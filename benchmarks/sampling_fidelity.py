"""Speed and fidelity of sampling settings on a trained model, each beside the same reference, case by case."""

import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sampling_share import clock
from torch import Tensor

from tigerdata.prompts import roles
from tigerdata.workspace import Workspace
from tigergen import workshop
from tigergen.data import Cases, load_cases
from tigergen.evaluation.adherence import sobel_correlation
from tigergen.evaluation.features import TextureSpace
from tigergen.evaluation.judge import Judge, hits_by_attribute, visible
from tigergen.evaluation.metric_sets import frechet_distance
from tigergen.model import TigerPipeline, pipeline
from tigergen.model.unet import Features, predict
from tigergen.sampling.denoise import Guided
from tigergen.sampling.guidance import guide

REFERENCE = {"sampler": "ddim", "steps": 50}
BATCH, RESAMPLES, FD_RESAMPLES = 16, 2000, 200


class Plain(Guided):
    """The guided prediction as it was: nothing computed once, both halves at every step."""

    def __post_init__(self) -> None:
        pass

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Prediction [B, C, h, w]."""
        times = timestep.expand(len(latents))
        assert self.control is not None and self.conditions is not None
        extra, _ = self.control.control(latents, times, self.conditions, self.mode)

        def twice(level: Tensor) -> Tensor:
            return torch.cat([level, torch.zeros_like(level)])

        both = Features(tuple(twice(skip) for skip in extra.skips), twice(extra.mid))
        texts = torch.cat([self.text, self.empty])
        predicted = predict(self.unet, torch.cat([latents, latents]), times.repeat(2), texts, both)
        return guide(*reversed(predicted.chunk(2)), self.beta)


@contextmanager
def plain_path():
    """The pipeline samples by `Plain` inside."""
    pipeline.Guided = Plain  # type: ignore[misc]
    try:
        yield
    finally:
        pipeline.Guided = Guided  # type: ignore[misc]


def hit_table(judge: Judge, images: NDArray[np.uint8], cases: Cases) -> tuple[list[str], NDArray[np.float64]]:
    """Attributes and, image by attribute, right (1), wrong (0) or not asked for (NaN)."""
    hits = hits_by_attribute(judge, images, cases.attributes)
    table = np.full((len(images), len(hits)), np.nan)
    for column, (name, right) in enumerate(hits.items()):
        asked = [n for n, row in enumerate(cases.attributes) if name in visible(row, judge.view)]
        table[asked, column] = right
    return list(hits), table


def mean_of(table: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over attributes of the agreement, for each row of resampling `weights` [R, N]."""
    return (weights @ np.nan_to_num(table) / (weights @ ~np.isnan(table))).mean(1)


def draws(count: int, times: int) -> NDArray[np.int64]:
    """Resampled cases [times, count], the same for every setting: differences are paired."""
    return np.random.default_rng(0).integers(0, count, (times, count))


def interval(values: NDArray[np.float64]) -> list[float]:
    """The central 95 %."""
    return [round(float(v), 3) for v in np.percentile(values, [2.5, 97.5])]


class Made:
    """Images of one setting, made batch by batch, with the seconds of each batch."""

    def __init__(self, name: str, settings: Mapping[str, Any], plain: bool = False) -> None:
        self.name, self.settings, self.plain = name, dict(settings), plain
        self.images: list[NDArray[np.uint8]] = []
        self.seconds: list[float] = []

    def batch(self, pipe: TigerPipeline, cases: Cases, said: Sequence[Any], first: int) -> None:
        """Sample the cases from `first`."""
        rows = range(first, min(first + BATCH, len(cases)))
        part = cases.select(rows)
        given = {"roles": [said[k] for k in rows], "seeds": [10_000 + k for k in rows], **self.settings}
        begin = clock()
        if self.plain:
            with plain_path():
                made = pipe(part.fg, part.bg, part.masks, part.sobel, **given)
        else:
            made = pipe(part.fg, part.bg, part.masks, part.sobel, **given)
        self.seconds.append((clock() - begin) / len(rows))
        self.images.append(made)


def chosen_cases(ws: Workspace, size: int, count: int) -> Cases:
    """Held-out cases (test, then validation part) in an order drawn once."""
    both = [load_cases(ws, part, size) for part in ("test", "val")]
    order = np.random.default_rng(1).permutation(len(both[0]))[:count]
    more = np.random.default_rng(2).permutation(len(both[1]))[: max(count - len(order), 0)]
    first, second = both[0].select(order), both[1].select(more)
    joined = {}
    for name in Cases.__dataclass_fields__:
        a, b = getattr(first, name), getattr(second, name)
        joined[name] = np.concatenate([a, b]) if isinstance(a, np.ndarray) else [*a, *b]
    return Cases(**joined)


def compare_settings(
    workspace: str, count: int, tries: Sequence[Mapping[str, Any]], tune: Any = None, plain: bool = True
) -> list[dict[str, Any]]:
    """Sample the same held-out cases with each of `tries` and with the reference, in turn batch by batch.

    The first row is the reference DDIM 50 on the path as it was (`plain`) or as it is. Each further row: images a
    second as ratio of medians to the first, agreement with the prompt by the shipped judge (mean over attributes, in
    percent), texture Fréchet distance to held-out real images, Sobel correlation, and the paired differences to the
    first with 95 % bootstrap intervals. Seeds and donors are equal: image k differs by the settings alone.
    """
    ws = Workspace.open(workspace)
    pipe = TigerPipeline.from_pretrained(workshop.model_folder(ws, workshop.FINE))
    size = int(pipe.config["image_size"])
    cases = chosen_cases(ws, size, count)
    train = load_cases(ws, "train", size)
    said = [roles(ws.kb, label, fg) for label, fg in zip(cases.labels, cases.fg, strict=True)]
    reference = Made("DDIM 50, guided at each step" + (", plain path" if plain else ""), REFERENCE, plain)
    made = [reference, *(Made(json.dumps(one), one) for one in tries)]
    if tune is not None:
        tune(pipe)
    for one in made:  # the first call pays for what is set up once
        one.batch(pipe, cases.select(range(min(2, len(cases)))), said, 0)
        one.images, one.seconds = [], []
    for first in range(0, len(cases), BATCH):
        for one in made:
            one.batch(pipe, cases, said, first)
    judge, space = Judge.load(workshop.SHIPPED_JUDGE), TextureSpace.fit(train.images)
    real = space(load_cases(ws, "val", size).images)
    resampled = draws(len(cases), RESAMPLES)
    weights = np.stack([np.bincount(row, minlength=len(cases)) for row in resampled]).astype(float)
    rows: list[dict[str, Any]] = []
    for one in [Made("real images of the cases", {}), *made]:
        images = np.concatenate(one.images) if one.images else cases.images
        names, table = hit_table(judge, images, cases)
        features = space(images)
        row = {
            "name": one.name,
            "s_per_image": round(statistics.median(one.seconds), 4) if one.seconds else None,
            "agreement": 100 * mean_of(table, np.ones((1, len(cases))))[0],
            "fd": frechet_distance(features, real),
            "sobel": float(np.nanmean(sobel_correlation(images, cases.masks, cases.sobel))),
            "by_attribute": {
                n: round(100 * float(v), 1) for n, v in zip(names, np.nanmean(table, axis=0), strict=True)
            },
            "_agreements": 100 * mean_of(table, weights),
            "_fds": np.array([frechet_distance(features[r], real) for r in resampled[:FD_RESAMPLES]]),
        }
        rows.append(row)
    base = rows[1]
    for row in rows:
        if row["s_per_image"]:
            row["speed"] = round(base["s_per_image"] / row["s_per_image"], 2)
        row["agreement_minus_first"] = round(row["agreement"] - base["agreement"], 2)
        row["agreement_interval"] = interval(row["_agreements"] - base["_agreements"])
        row["fd_minus_first"] = round(row["fd"] - base["fd"], 2)
        row["fd_interval"] = interval(row["_fds"] - base["_fds"])
    for row in rows:
        del row["_agreements"], row["_fds"]
        row |= {name: round(row[name], 2) for name in ("agreement", "fd", "sobel")}
    return rows
