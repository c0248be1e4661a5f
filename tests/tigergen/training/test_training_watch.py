"""What is seen of a run while it trains: memorisation, divergence, adherence to conditions, trackers."""

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from accelerate.utils import LoggerType

from kb.errors import UserError
from tigergen.data import Cases
from tigergen.evaluation.adherence import watcher
from tigergen.model.losses import Objective
from tigergen.training import grid, stages
from tigergen.training.draws import seen_images
from tigergen.training.watch import LEAST, Gap, Watch

# Memorisation


def test_the_gap_by_hand() -> None:
    held_out, seen = np.array([2.0, 4.0, 6.0, 12.0]), np.array([1.0, 2.0, 3.0, 6.0])
    exact = Gap.of(held_out, seen)
    assert (exact.ratio, exact.low) == pytest.approx((2.0, 2.0)) and exact.memorised
    # At the limit, what is left of the difference is two of its standard errors: its definition.
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-3):  # a model that knows every training image has next to no loss on them
        held_out, seen = rng.gamma(2, 1, 20), scale * rng.gamma(0.2, 1, 20)
        low = Gap.of(held_out, seen).low
        rest = held_out - low * seen
        assert rest.mean() == pytest.approx(2 * rest.std(ddof=1) / np.sqrt(20))
    assert low > 100
    assert Gap.of(np.array([1.0, -1.0, 1.0, -1.0]), seen[:4]).low == 0  # no held-out loss to speak of


def test_the_noise_levels_are_paired_and_the_interval_holds() -> None:
    """Losses spread a hundredfold over noise levels, images differ by a third: the ratio is found to a few per cent."""
    rng = np.random.default_rng(0)
    levels = np.exp(rng.uniform(-4.6, 0, 64))
    gaps = []
    for _ in range(2000):
        seen, held_out = (levels * np.exp(rng.normal(0, 0.3, 64)) for _ in range(2))
        gaps.append(Gap.of(1.3 * held_out, seen))
    assert np.mean([gap.ratio for gap in gaps]) == pytest.approx(1.3, abs=0.02)
    below = np.mean([gap.low < 1.3 for gap in gaps])  # one-sided, two standard errors: 97.7 %
    assert 0.95 < below < 0.99


def test_healthy_runs_are_not_accused_and_memorising_ones_are_soon() -> None:
    """Forty looks a run; held-out images 5 % harder are healthy, half as hard again is what memorisation looks like."""
    rng = np.random.default_rng(1)
    accused = {1.05: 0, 1.5: 0}
    for harder in accused:
        for _ in range(200):
            seen, held_out = (np.exp(rng.normal(0, 0.3, 64)) for _ in range(2))  # the same images in every look
            for _ in range(40):
                now = seen * np.exp(rng.normal(0, 0.02, 64))
                groups = (losses.reshape(16, 4).mean(axis=1) for losses in (harder * held_out, now))
                if Gap.of(*groups).memorised:
                    accused[harder] += 1
                    break
    assert accused[1.05] <= 4 and accused[1.5] >= 190


def test_a_few_images_give_no_verdict() -> None:
    watch = Watch("fine")
    best, warning = watch.look(1, 1.0, np.full(LEAST - 1, 9.0), np.ones(LEAST - 1))
    assert best and warning is None and "gap" not in watch.shown
    assert watch.look(2, 1.0, np.full(LEAST, 9.0), np.ones(LEAST))[1] is not None


def test_the_warning_comes_once_and_says_what_to_do() -> None:
    watch = Watch("fine")
    assert watch.look(200, 0.02, np.full(64, 0.020), np.full(64, 0.019)) == (True, None)
    best, warning = watch.look(400, 0.01, np.full(64, 0.0202), np.full(64, 0.0106))
    assert not best and warning is not None
    for words in ("step 400", "0.0202", "1.91 times", "fine.steps", "more images", "training.final", "step 200"):
        assert words in warning
    assert watch.look(600, 0.01, np.full(64, 0.0203), np.full(64, 0.0101)) == (False, None)
    assert watch.memorised is not None and watch.memorised["step"] == 400
    again = Watch("fine")
    again.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert again == watch


def test_held_out_images_are_measured_in_groups_and_each_counts_once(toy: ModuleType) -> None:
    from tigergen.model.assemble import build
    from tigergen.training.tasks import coarse_task

    pipe = build(toy.micro(), ["benign nodule", "follicular thyroid carcinoma", "solid", "sonogram transverse"], 0)
    losses = {}
    for count in (3, 35, 64):
        preset = toy.micro(f"training.held_out_images={count}")
        task = coarse_task(pipe, toy.toy_cases(), preset, toy.toy_cases(64, seed=4))
        seen: list[torch.Tensor] = []

        def loss(clean: torch.Tensor, timesteps: torch.Tensor, kept: list = seen, **_: Any) -> Any:
            kept.append(timesteps)
            return {"coarse": clean.mean() + timesteps.double().mean()}

        losses[count] = dataclasses.replace(task, module=SimpleNamespace(forward=loss)).held_out()
        half = torch.cat(seen[: len(seen) // 2])
        assert torch.equal(half, torch.cat(seen[len(seen) // 2 :]))  # the same noise levels for both
        assert len(half) == (34 if count == 35 else count) and len(set(half.tolist())) == len(half)
    assert [len(losses[count][0]) for count in (3, 35, 64)] == [3, 17, 16]


def test_training_images_are_measured_again_when_there_are_few() -> None:
    assert sorted(seen_images(0, 4, 8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    many = seen_images(0, 1000, 64)
    assert len(set(many)) == 64 and many == seen_images(0, 1000, 64) != seen_images(1, 1000, 64)


def speckle(toy: ModuleType, count: int, seed: int) -> Cases:
    """Images of smooth noise, each its own."""
    rng = np.random.default_rng(seed)
    cases = toy.toy_cases(count, seed=seed)
    images = np.stack([cv2.GaussianBlur(rng.normal(0, 1, (16, 16)), (0, 0), 2) for _ in range(count)])
    return Cases(**{**vars(cases), "images": (128 + 400 * images).clip(0, 255).astype(np.uint8)})


class Knows(torch.nn.Module):
    """The best denoiser there is for a finite set of images: the mean of those images, weighted by how well each fits.

    p(x_i | x_t) is proportional to exp(-|x_t - alpha x_i|^2 / 2 sigma^2). Given the training images, this is a model
    that has learned them by heart; given many others of the same kind, one that knows what such images look like.
    """

    def __init__(self, known: torch.Tensor, objective: Objective) -> None:
        super().__init__()
        self.known, self.objective = known, objective
        self.idle = torch.nn.Parameter(torch.zeros(1))

    def forward(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, **_: Any) -> Any:
        level = self.objective.alphas_cumprod[timesteps][:, None, None, None]
        alpha, sigma = level.sqrt(), (1 - level).sqrt()
        noisy = self.objective.noisy(clean, noise, timesteps)
        distance = ((noisy[:, None] - alpha[:, None] * self.known[None]) ** 2).sum(dim=(2, 3, 4))
        share = torch.softmax(-distance / (2 * sigma.flatten()[:, None] ** 2), dim=1)
        image = torch.einsum("bk,kchw->bchw", share, self.known)
        error = (alpha * noisy - image) / sigma - self.objective.target(clean, noise, timesteps)
        return {
            "coarse": ((error**2).mean(dim=(1, 2, 3)) * self.objective.weight(timesteps)).mean() + 0 * self.idle.sum()
        }


def test_a_planted_memoriser_of_eight_images_is_caught_and_one_that_knows_others_is_not(
    toy: ModuleType, tmp_path: Path
) -> None:
    from tigergen.model.assemble import build
    from tigergen.training.loop import train
    from tigergen.training.tasks import coarse_task

    preset = toy.micro("training.held_out_every=1")
    eight, many, unseen = (speckle(toy, count, seed) for seed, count in ((2, 8), (3, 800), (1, 32)))
    pipe = build(preset, ["benign nodule", "follicular thyroid carcinoma", "solid", "sonogram transverse"], 0,
                 images=many.images)  # fmt: skip

    def run(name: str, known: Cases) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        task = coarse_task(pipe, eight, preset, unseen)
        module = Knows(pipe.to_latents(known.images), pipe.objective(1.0))
        task = dataclasses.replace(
            task, module=module, groups=[{"name": "idle", "params": [module.idle], "lr": 1e-3}]
        )  # fmt: skip
        events: list[dict[str, Any]] = []
        return train(task, preset["training"], 3, tmp_path / name, progress=events.append), events

    figures, events = run("heart", eight)
    warnings = [event["warning"] for event in events if "warning" in event]
    assert len(warnings) == 1 and "by heart: at step 1 " in warnings[0]
    assert figures["memorised"]["step"] == 1 and figures["memorised"]["gap_low"] > 1.2
    assert events[-1]["memorises_since"] == 1
    rows = [json.loads(line) for line in (tmp_path / "heart" / "stats.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["gap_low"] > 1.2 and row["seen"] < row["held_out"] for row in rows)
    figures, events = run("kind", many)
    assert figures["memorised"] is None and not [event for event in events if "warning" in event]
    assert figures["best_step"] == 1


# Divergence


def test_own_losses_that_diverge_are_stopped_and_calm_ones_are_not(
    toy: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    """Without a single look at held-out images: the paper's separate updates diverge before the first one."""
    monkeypatch.setattr("tigergen.training.loop.WINDOW", 5)
    cases = toy.toy_cases()
    stages.coarse(cases, toy.micro(), tmp_path / "coarse", steps=10)
    wild = toy.micro("fine.loss=own", "fine.lr=0.9", "training.clip=0.0", "training.warmup=15")
    with pytest.raises(UserError, match=r"Stage fine has diverged: at step \d+ the training loss .*Lower fine\.lr"):
        stages.fine(tmp_path / "coarse", cases, wild, tmp_path / "wild", steps=30)
    calm = toy.micro("fine.loss=own", "fine.leak=0.15")
    record = stages.fine(tmp_path / "coarse", cases, calm, tmp_path / "calm", steps=15)
    assert record["finished"]


def test_the_training_loss_alone_tells_of_divergence_and_the_held_out_loss_alone_does_not() -> None:
    watch = Watch("fine")
    for step, loss in ((50, 0.4), (100, 0.2), (150, 0.39)):
        watch.check(step, loss, None)
    with pytest.raises(UserError, match="at step 200 the training loss is 0.41, its best was 0.2"):
        watch.check(200, 0.41, None)
    # A model that memorises: the held-out loss doubles, the training loss does not.
    watch = Watch("fine", lowest_held_out=0.2, lowest_loss=0.2)
    watch.check(200, 0.1, 0.9)


# Adherence


def test_partners_are_other_patients_and_not_the_neighbour() -> None:
    assert grid.partners(list("aabbcc")) == [3, 4, 5, 0, 1, 2]
    assert grid.partners(list("aaab")) == [3, 3, 3, 1]
    assert grid.partners(list("aaaa")) == [2, 3, 0, 1]
    assert grid.partners(["a"]) == [0]


def spotted(count: int) -> Cases:
    """Frames with bright lines at places of their own outside the nodule, and their edge maps."""
    from tigerdata.conditions import build

    rng = np.random.default_rng(0)
    images = rng.integers(60, 80, (count, 48, 48), dtype=np.uint8)
    masks = np.zeros_like(images)
    masks[:, 18:30, 18:30] = 1
    for image in images:
        for row in rng.choice([3, 7, 11, 36, 40, 44], 2, replace=False):
            image[row : row + 2] = 220
        for column in rng.choice([3, 7, 11, 36, 40, 44], 2, replace=False):
            image[:, column : column + 2] = 220
    built = [build(image, mask > 0, 48) for image, mask in zip(images, masks, strict=True)]
    names = [str(number) for number in range(count)]
    return Cases(
        images=np.stack([one.image for one in built]), masks=np.stack([one.mask for one in built]),
        sobel=np.stack([one.sobel for one in built]), fg=["solid"] * count, bg=["left"] * count, labels=names,
        attributes=[{"composition": ["solid" if number % 2 else "cystic"]} for number in range(count)],
        image_ids=names, patient_ids=names,
    )  # fmt: skip


def test_a_model_that_follows_and_one_that_ignores_are_told_apart() -> None:
    cases = spotted(8)
    follows = grid.adherence(cases.images, cases, edges=True)["edges"]
    assert follows["value"] > 0.95 and follows["shuffled"] < 0.5
    ignores = grid.adherence(np.roll(cases.images, 3, axis=0), cases, edges=True)["edges"]
    assert abs(ignores["value"] - ignores["shuffled"]) < 0.15 and ignores["value"] < 0.5
    blank = grid.adherence(np.full_like(cases.images, 90), cases, edges=True)
    assert blank == {}  # no edges at all: nothing to correlate


class ThresholdSegmenter:
    """Finds what was painted at exactly 255."""

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images == 255, np.ones(len(images))


def test_the_figures_of_a_segmenter_stand_beside_shuffled_and_real_ones() -> None:
    cases = spotted(4)
    masks = np.zeros((4, 48, 48), np.uint8)
    for number in range(4):
        masks[number, 8 * number : 8 * number + 8, 10:20] = 1
    cases = Cases(**{**vars(cases), "masks": masks, "images": np.where(masks, 255, 10).astype(np.uint8)})
    images = cases.images.copy()
    images[:, :, 15:][masks[:, :, 15:] > 0] = 0  # half of each nodule is drawn
    figures = grid.adherence(images, cases, edges=False, measure=watcher(ThresholdSegmenter()))
    assert figures == {"mask IoU": {"value": 0.5, "shuffled": 0.0, "real": 1.0}}
    assert grid.in_words(figures) == {"mask IoU": ".50 (shuffled .00, real 1.00)"}
    assert watcher() is None
    assert grid.in_words({"a": {"value": -0.5}, "b": {"value": 10.0}}) == {"a": "-.50", "b": "10.00"}


def test_the_figures_of_a_judge_are_means_over_attributes(monkeypatch) -> None:
    from tigergen.evaluation import judge

    cases = spotted(4)
    asked: list[Any] = []

    def agreement(who: Any, images: np.ndarray, attributes: Any) -> dict[str, float]:
        asked.append([row["composition"][0] for row in attributes])
        return {"composition": 0.5, "shape": 1.0}

    monkeypatch.setattr(judge, "agreement", agreement)
    figures = grid.adherence(cases.images, cases, edges=False, measure=watcher(judge=SimpleNamespace()))
    assert figures["attributes"] == {"value": 0.75, "shuffled": 0.75, "real": 0.75}
    assert asked[0] == ["cystic", "solid"] * 2 and asked[1] == ["cystic", "solid"] * 2 and len(asked) == 3


def test_grid_figures_reach_line_statistics_record_and_caption(toy: ModuleType, tmp_path: Path) -> None:
    cases, unseen = toy.toy_cases(), toy.toy_cases(6, seed=5)
    stages.coarse(cases, toy.micro(), tmp_path / "coarse", held_out=unseen)
    preset = toy.micro("training.grid_every=3", "training.grid_images=2", "training.adherence_images=4")
    events: list[dict[str, Any]] = []
    counted: list[int] = []

    def measure(images: np.ndarray, asked: Cases) -> dict[str, float]:
        counted.append(len(images))
        return {"mask IoU": 0.25, "nothing": float("nan")}

    record = stages.fine(
        tmp_path / "coarse", cases, preset, tmp_path / "fine", held_out=unseen, measure=measure, progress=events.append
    )  # fmt: skip
    assert counted == [4] * 6  # two grids, each measured against its own, other and with the real images
    figures = record["figures"]["adherence"]
    assert figures["step"] == 6 and figures["mask IoU"] == {"value": 0.25, "shuffled": 0.25, "real": 0.25}
    assert set(figures["edges"]) == {"value", "shuffled"} and "nothing" not in figures
    assert events[2]["mask IoU"] == ".25 (shuffled .25, real .25)" and "shuffled" in events[-1]["edges"]
    assert "edges" not in events[1]
    rows = [json.loads(line) for line in (tmp_path / "fine" / "stats.jsonl").read_text().splitlines()]
    assert [(row["step"], row["adherence"]["step"]) for row in rows] == [(3, 3), (6, 6)]
    sheet = cv2.imread(str(tmp_path / "fine" / "grids" / "fine-000006.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape[0] == 2 * 20 + 2 * grid.LINE and sheet.shape[1] > 4 * 20
    under = sheet[40:]
    assert (under > 200).sum() > 50 and under[:, -grid.BORDER :].max() <= 130  # written, and nothing cut off


# Trackers


def test_a_missing_tracker_is_one_sentence(toy: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tigergen.training.loop.is_tensorboard_available", lambda: False)
    with pytest.raises(UserError, match=r"training\.tracker = 'tensorboard' needs the package .*pip install"):
        stages.coarse(toy.toy_cases(), toy.micro("training.tracker=tensorboard"), tmp_path)


def test_a_tracker_gets_every_number_of_the_statistics(toy: ModuleType, tmp_path: Path, monkeypatch) -> None:
    """TensorBoard's writer stands in, so that the package need not be installed; the rest is accelerate's own."""
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, **_: Any) -> None:
            assert Path(folder) == tmp_path / "logs"

        def add_scalar(self, name: str, value: float, global_step: int, **_: Any) -> None:
            written.append((name, value, global_step))

        def flush(self) -> None: ...

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr(torch.utils, "tensorboard", fake, raising=False)
    monkeypatch.setattr("tigergen.training.loop.is_tensorboard_available", lambda: True)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.TENSORBOARD])
    preset = toy.micro("training.tracker=tensorboard", "training.held_out_every=3")
    stages.coarse(toy.toy_cases(), preset, tmp_path, held_out=toy.toy_cases(8, seed=5))
    told = {(name, step): value for name, value, step in written}
    rows = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert told["held_out", 3] == rows[0]["held_out"] and told["loss", 6] == rows[1]["loss"]
    assert ("gap", 6) in told and written[-1][0] == "closed"
