"""Every generator of the comparison: what it is told shows in its images, and a killed training ends as another."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kb
from kb.errors import UserError
from tests.tigergen.training.training_toy import micro, toy_cases
from tigergen.baselines import latent, train
from tigergen.baselines.dit import new_dit
from tigergen.baselines.methods import METHODS
from tigergen.baselines.work import Asked, Work
from tigergen.data import Cases
from tigergen.model.pipeline import TigerPipeline
from tigergen.training.stages import vocabulary_of

SAMPLING = {"steps": 4, "guidance": 1.5, "sampler": "dpm++", "mode": "joint"}
FAST = ["training.ema=0.5", "training.checkpoint_every=3"]


def told_apart(count: int = 16) -> Cases:
    """Toy cases in which one class is bright and the other dark, so that the label can be read off the mean."""
    cases = toy_cases(count)
    bright = np.array([label == "FTC" for label in cases.labels])
    images = np.where(bright[:, None, None], cases.images // 4 + 180, cases.images // 4 + 20).astype(np.uint8)
    return replace(cases, images=images)


def work(folder: Path, cases: Cases, steps: int, *overrides: str, **more: Any) -> Work:
    base = kb.load("thyroid")
    preset = micro(*FAST, *overrides)
    return Work(cases, preset, steps, 0, folder / "own", vocabulary_of([cases], base), base, folder / "coarse", **more)


def asked(cases: Cases, labels: list[str]) -> Asked:
    rows = [cases.labels.index(label) for label in labels]
    some = cases.select(rows)
    return Asked(labels, some.fg, some.bg, some.masks, some.sobel, [[] for _ in rows], list(range(len(rows))))


@pytest.mark.parametrize(("model", "steps"), [("pg-gan", 160), ("dit", 100), ("imagen", 160), ("sd-s", 80)])
def test_the_class_shows_in_the_images(tmp_path: Path, model: str, steps: int) -> None:
    cases = told_apart()
    todo = work(tmp_path, cases, steps, "training.balance=1", "diffusion.min_snr_gamma=5")
    record = train.train_generator(model, todo)
    assert record["steps"] == steps and record["trained_on"] == sorted(cases.image_ids)
    draw = train.open_generator(model, todo.folder)
    images = draw(asked(cases, ["FTC"] * 6 + ["benign"] * 6), SAMPLING)
    assert images.shape == (12, 16, 16) and images.dtype == np.uint8
    means = images.mean((1, 2))
    assert means[:6].mean() > means[6:].mean() + 30, means


@pytest.mark.parametrize("model", ["pg-gan", "imagen", "sd-s", "sd-c", "tiger"])
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path: Path, model: str) -> None:
    cases = toy_cases(8)

    def stop(event: Mapping[str, Any]) -> None:
        if event["step"] == 4 and event["stage"] not in ("coarse", "imagen-1"):
            raise KeyboardInterrupt

    whole, killed = (work(tmp_path / name, cases, 12) for name in ("whole", "killed"))
    train.train_generator(model, whole)
    with pytest.raises(KeyboardInterrupt):
        train.train_generator(model, replace(killed, progress=stop))
    assert not (killed.folder / "generator.json").exists()
    train.train_generator(model, killed)
    wish = asked(cases, ["FTC", "benign"])
    a, b = (train.open_generator(model, one.folder)(wish, SAMPLING) for one in (whole, killed))
    np.testing.assert_array_equal(a, b)
    assert not list(killed.folder.glob("**/checkpoint")), "checkpoints are four times the weights"


def test_stages_share_the_steps_and_methods_share_the_coarse_stage(tmp_path: Path) -> None:
    cases = toy_cases(8)
    first = work(tmp_path, cases, 10, coarse_share=0.3)
    records = [train.train_generator(m, replace(first, folder=tmp_path / m)) for m in ("tiger", "sd-c", "sd")]
    assert [r["steps"] for r in records] == [10, 10, 10], "the same number of optimiser steps for all"
    stamp = (tmp_path / "coarse" / "training.json").stat().st_mtime_ns
    train.train_generator("tiger", replace(first, folder=tmp_path / "again"))
    assert (tmp_path / "coarse" / "training.json").stat().st_mtime_ns == stamp, "one coarse stage serves all"
    with TigerText(tmp_path / "sd") as words:
        assert words["unet"] != TigerText.weights(tmp_path / "coarse")


class TigerText:
    """The sum of a pipeline's U-Net weights, to tell two models apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> dict[str, float]:
        return {"unet": self.weights(self.folder)}

    def __exit__(self, *_: object) -> None:
        return None

    @staticmethod
    def weights(folder: Path) -> float:
        return float(sum(p.double().abs().sum() for p in TigerPipeline.from_pretrained(folder).unet.parameters()))


def test_fusion_switched_off_is_the_mean_of_both_encoders(tmp_path: Path) -> None:
    cases = toy_cases(8)
    todo = work(tmp_path, cases, 8, options={"fusion": "sum"})
    train.train_generator("tiger", todo)
    fusion = TigerPipeline.from_pretrained(todo.folder).fusion
    assert fusion is not None and all(not p.any() for p in fusion.parameters()), "nothing in it has learned"
    level = fusion.levels[0]
    a, b = torch.randn(2, 1, level.conv1[0].in_channels, 4, 4)
    torch.testing.assert_close(level(a, b), (a + b) / 2)


def test_controlnet_begins_as_the_unet_and_copies_its_weights(tmp_path: Path) -> None:
    cases = toy_cases(4)
    todo = work(tmp_path, cases, 4, "model.pooled_words=true")
    train.train_generator("sd", todo)
    pipe = TigerPipeline.from_pretrained(todo.folder)
    control = latent.new_controlnet(pipe.unet, 4)
    pool = control.add_embedding.pool
    assert pool.num_heads == pipe.unet.add_embedding.pool.num_heads, "diffusers forgets this number"
    latents, times = torch.randn(2, 16, 4, 4), torch.tensor([10, 700])
    text, condition = torch.randn(2, 8, 16), torch.rand(2, 2, 16, 16)
    with torch.no_grad():
        both = latent.controlled(pipe.unet, control, latents, times, text, condition)
        alone = pipe.unet(latents, times, text, added_cond_kwargs={}).sample
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-4)


def test_mask_channels_lose_nothing() -> None:
    masks = np.random.default_rng(0).integers(0, 2, (3, 16, 16), dtype=np.uint8)
    back = torch.nn.functional.pixel_shuffle(latent.mask_channels(masks, 4), 4)[:, 0]
    np.testing.assert_array_equal((back > 0).numpy(), masks > 0)


def test_dit_is_as_large_as_asked_and_starts_at_zero() -> None:
    for weights in (300_000, 3_000_000):
        model = new_dit(16, 16, 3, weights, 0)
        assert 0.7 < sum(p.numel() for p in model.parameters()) / weights < 1.4
    out = model(torch.randn(2, 16, 16, 16), torch.tensor([1, 900]), torch.tensor([0, 3]), return_dict=False)[0]
    assert not out.any()


def test_a_base_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    todo = work(tmp_path, toy_cases(4), 4)
    other = {**todo.preset, "base": "Stable Diffusion 1.5"}
    with pytest.raises(UserError, match="from random weights"):
        train.train_generator("sd", replace(todo, preset=other))


def test_methods_that_differ_in_the_plan_only_share_a_model() -> None:
    keys = {name: m.training for name, m in METHODS.items() if m.generates}
    shared = {name for name, key in keys.items() if key == keys["tiger-f"]}
    assert shared == {"tiger-f", "tiger-f/fg", "tiger-f/bg", "tiger-f/sequential", "tiger-f/observed"}
    assert len({keys[n] for n in ("tiger-f", "tiger-n", "tiger-f/unweighted", "tiger-f/sum")}) == 4
    assert set(m.model for m in METHODS.values() if m.model) == set(train.TRAINERS)
