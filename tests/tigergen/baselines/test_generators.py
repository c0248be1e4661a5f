"""Every generator of the comparison: what it is told shows in its images, and a killed training ends as another."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kb
from kb.errors import UserError
from kb.files import read_json
from tests.tigergen.training.training_toy import micro, toy_cases
from tigergen.baselines import latent, train
from tigergen.baselines.dit import new_dit
from tigergen.baselines.methods import METHODS
from tigergen.baselines.work import Asked, Work
from tigergen.data import Cases
from tigergen.model.pipeline import TigerPipeline
from tigergen.training.stages import vocabulary_of

SAMPLING = {"steps": 4, "guidance": 1.5, "sampler": "dpm++", "mode": "joint"}
FAST = ["training.ema=0.5", "training.checkpoint_every=2", "coarse.lr=1e-2", "fine.lr=1e-2"]


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


def test_a_gan_draws_the_class_that_it_is_asked_for(tmp_path: Path) -> None:
    cases = told_apart()
    todo = work(tmp_path, cases, 120, "training.balance=1")
    record = train.train_generator("pg-gan", todo)
    assert record["steps"] == 120 and record["trained_on"] == sorted(cases.image_ids)
    images = train.open_generator("pg-gan", todo.folder)(asked(cases, ["FTC"] * 6 + ["benign"] * 6), SAMPLING)
    assert images.shape == (12, 16, 16) and images.dtype == np.uint8
    means = images.mean((1, 2))
    assert means[:6].mean() > means[6:].mean() + 30, means


# What changes the images of each: its words (or label), its mask, its edges.
HEARS = {"pg-gan": "l", "dit": "l", "imagen": "w", "sd": "w", "sd-s": "wm", "sd-c": "wme", "tiger": "wme"}


def changed(wish: Asked, what: str) -> Asked:
    """The same wish with another label, other words, mask or edges."""
    turned = {
        "l": {"labels": wish.labels[::-1]},
        "w": {"fg": wish.fg[::-1]},
        "m": {"masks": wish.masks[:, ::-1].copy()},
        "e": {"sobels": 255 - wish.sobels},
    }
    return replace(wish, **turned[what])


@pytest.mark.parametrize("model", list(HEARS))
def test_it_hears_what_it_is_told_and_a_killed_training_ends_as_another(tmp_path: Path, model: str) -> None:
    cases = toy_cases(8)

    def stop(event: Mapping[str, Any]) -> None:
        if event["step"] == 3 and event["stage"] not in (("coarse", "imagen-1") if model != "sd" else ()):
            raise KeyboardInterrupt

    two_stages = model in ("imagen", "sd-c", "tiger")
    whole, killed = (work(tmp_path / n, cases, 10 if two_stages else 6, coarse_share=0.5) for n in ("whole", "killed"))
    record = train.train_generator(model, whole)
    assert record["trained_on"] == sorted(cases.image_ids) and record["steps"] == whole.steps
    with pytest.raises(KeyboardInterrupt):
        train.train_generator(model, replace(killed, progress=stop))
    assert not (killed.folder / "generator.json").exists()
    train.train_generator(model, killed)
    assert not list(killed.folder.glob("**/checkpoint")), "checkpoints are four times the weights"
    how = {**SAMPLING, "mode": "text"} if model == "sd" else SAMPLING
    wish = asked(cases, ["FTC", "benign"])
    draw, again = (train.open_generator(model, one.folder) for one in (whole, killed))
    images = draw(wish, how)
    np.testing.assert_array_equal(images, again(wish, how))
    for what in "lwme":
        heard = bool((draw(changed(wish, what), how) != images).any())
        assert heard == (what in HEARS[model]), f"{model}, {what}"
    one = Asked(*(getattr(wish, f.name)[1:] for f in fields(Asked)))
    assert np.abs(draw(one, how)[0].astype(int) - images[1]).max() <= 2, "an image depends on its seed, not its batch"


def test_methods_share_the_coarse_stage_and_stages_the_steps(tmp_path: Path) -> None:
    cases = toy_cases(4)
    first = work(tmp_path, cases, 5, coarse_share=0.3)
    assert train.train_generator("tiger", first)["steps"] == 5
    coarse = tmp_path / "coarse" / "training.json"
    stamp, steps = coarse.stat().st_mtime_ns, read_json(coarse)["figures"]["steps"]
    assert steps == 2, "three tenths of the steps, rounded"
    second = train.train_generator("sd-c", replace(first, folder=tmp_path / "second"))
    assert second["steps"] == 5 and coarse.stat().st_mtime_ns == stamp, "trained once, counted for both"


def test_fusion_switched_off_is_the_mean_of_both_encoders(tmp_path: Path) -> None:
    cases = toy_cases(8)
    todo = work(tmp_path, cases, 4, options={"fusion": "sum"})
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
