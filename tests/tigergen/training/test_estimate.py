"""What a dry run says beside what is so: parameters, operations, memory, and that nothing is written."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sd_folder import write
from kb.errors import UserError
from tests.proof_corpus import make_workspace
from tigergen import workshop
from tigergen.model import add_control, build
from tigergen.training import estimate, presets
from tigergen.training.draws import draw_noise
from tigergen.training.tasks import fine_task

PHRASES = ["solid", "follicular thyroid carcinoma", "benign nodule", "sonogram transverse"]


def found(toy: ModuleType, stage: str, *overrides: str, **options) -> dict:
    return estimate.estimate(stage, toy.micro(*overrides), PHRASES, images=100, **options)


def test_parameters_and_operations_are_those_of_the_real_model(toy: ModuleType) -> None:
    said = found(toy, "fine", short_step_s=0)
    pipe = add_control(build(toy.micro(), PHRASES))
    task = fine_task(pipe, toy.toy_cases(4), toy.micro(), None, [[]] * 4, None)
    for name, part in said["parameters"].items():
        sizes = [(p.numel(), p.requires_grad) for p in getattr(pipe, name).parameters()]
        assert part["trained"] == sum(size for size, learns in sizes if learns), name
        assert part["frozen"] == sum(size for size, learns in sizes if not learns), name
    assert said["parameters"]["unet"]["trained"] and said["parameters"]["unet"]["frozen"]
    noise = draw_noise(0, 0, range(4), task.inputs.latents.shape[1:], 1000, task.dropout)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        sum(task.module(**task.inputs.batch(range(4), range(4), noise)).values()).backward()
    assert said["gmac_per_step"] == pytest.approx(counter.get_total_flops() / 2e9, rel=0.05)


def test_memory_by_purpose(toy: ModuleType) -> None:
    said = found(toy, "fine", "training.batch=8", short_step_s=0)
    trained = 4 * sum(part["trained"] for part in said["parameters"].values())
    frozen = 4 * sum(part["frozen"] for part in said["parameters"].values())
    memory = said["memory_bytes"]
    assert (memory["weights"], memory["gradients"], memory["adamw"]) == (trained + frozen, trained, 2 * trained)
    assert memory["average"] == trained and memory["total"] == sum(v for k, v in memory.items() if k != "total")
    # Images, masks, edges as bytes, the last two as numbers too, latents of 16 × 4 × 4 numbers.
    assert memory["cases"] == 100 * (3 * 256 + 2 * 4 * 256 + 4 * 256)
    assert found(toy, "fine", "training.ema=0.0", short_step_s=0)["memory_bytes"]["average"] == 0


def test_what_lives_at_once_by_hand() -> None:
    weight = torch.nn.Parameter(torch.ones(100, 100))
    x = torch.ones(50, 100)
    with estimate._Live(iter([weight, x])) as live:
        y = (x @ weight).relu()  # the product is free once relu has read it
        assert (live.now, live.peak) == (4 * 5000, 4 * 10000)
        z = y.view(5000).view(50, 100)  # no bytes of its own
        assert live.now == 4 * 5000
        del y, z
        assert live.now == 0
    assert torch.equal(x, torch.ones(50, 100))


def test_recomputation_accumulation_and_adapters_take_less(toy: ModuleType) -> None:
    big = ["model.image_size=64", "model.unet_channels=[32, 64]", "training.batch=8"]
    plain = found(toy, "coarse", *big, short_step_s=0)["memory_bytes"]
    again = found(toy, "coarse", *big, "training.gradient_checkpointing=true", short_step_s=0)["memory_bytes"]
    passes = found(toy, "coarse", *big, "training.accumulation=4", short_step_s=0)
    adapters = found(toy, "coarse", *big, "coarse.method=lora", "coarse.text_encoder=frozen", short_step_s=0)
    assert again["activations"] < 0.8 * plain["activations"]
    assert passes["memory_bytes"]["activations"] < 0.6 * plain["activations"]
    assert passes["gmac_per_step"] == pytest.approx(
        found(toy, "coarse", *big, short_step_s=0)["gmac_per_step"], rel=0.01
    )
    assert adapters["memory_bytes"]["adamw"] < 0.2 * plain["adamw"]
    assert adapters["parameters"]["text_encoder"]["trained"] == 0


def test_time_is_measured_where_steps_are_short_and_scaled_where_they_are_not(toy: ModuleType) -> None:
    short, long = found(toy, "coarse"), found(toy, "coarse", short_step_s=0)
    assert short["time_rule"].startswith("measured: the median of 5 real steps") and 0 < short["seconds_per_step"] < 5
    assert long["time_rule"].startswith("scaled: ") and "GMAC/s" in long["time_rule"]
    rate = estimate.matmul_rate(torch.device("cpu"), side=128)
    assert 1e8 < rate < 1e14
    lines = estimate.in_words(long)
    assert lines["unet"].endswith("trained") and lines["memory"].startswith(
        f"{long['memory_bytes']['total'] / 1e9:.2f}"
    )


def test_a_published_shape_is_counted_without_its_weights(tmp_path: Path) -> None:
    """Of the folder settings and vocabulary alone are read: here there are no weights."""
    root = write(tmp_path / "sd", "2.1", 40)
    for file in root.glob("*/*.safetensors"):
        file.unlink()
    settings = presets.load("paper", ["model.image_size=64"])
    said = estimate.estimate("coarse", settings, PHRASES, folder=root, short_step_s=0)
    assert said["parameters"]["unet"]["trained"] > 0 and said["parameters"]["text_encoder"]["trained"] == 0
    assert said["steps"] == 8000


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    ws = make_workspace(
        tmp_path / "ws", {"train": {"benign": 4, "FTC": 4}, "val": {"benign": 2}, "test": {"benign": 2}}
    )

    def state() -> dict[str, float]:
        return {str(path): path.stat().st_mtime for path in sorted(ws.path.rglob("*"))}

    before = state()
    small = ["model.image_size=64", "vae.channels=[8, 8, 8, 8]", "model.unet_channels=[8, 16]", "training.batch=2"]
    for stage in ("vae", "coarse", "fine"):
        said = workshop.dry_run(ws, stage, "base256", small)
        assert said["images"] == 8 and said["settings"]["vae"]["channels"] == [8, 8, 8, 8]
        assert presets.written(said["settings"]).startswith("description = ")
    assert state() == before
    with pytest.raises(UserError, match="--base FOLDER"):
        workshop.dry_run(ws, "coarse", "paper")
    with pytest.raises(UserError, match="no finished coarse model"):
        workshop.dry_run(ws, "fine", "sd15")
    with pytest.raises(UserError, match=r"no section \[vae\]"):
        workshop.dry_run(ws, "vae", "tiny")
