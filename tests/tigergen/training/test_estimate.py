"""What a dry run says beside what is so: parameters, operations, memory, and that nothing is written."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sd_folder import weights_of, write
from kb.errors import UserError
from tests.proof_corpus import make_workspace
from tigergen import workshop
from tigergen.model import add_control, build
from tigergen.training import estimate, presets
from tigergen.training.draws import draw_noise
from tigergen.training.tasks import fine_task

PHRASES = ["solid", "follicular thyroid carcinoma", "benign nodule", "sonogram transverse"]


BIG = ("model.image_size=64", "model.unet_channels=[16, 32]", "model.attention_heads=4", "training.batch=8")


def found(toy: ModuleType, stage: str, *overrides: str, **options) -> dict:
    return estimate.estimate(stage, toy.micro(*overrides), PHRASES, images=100, **options)


@pytest.fixture(scope="module")
def fine(toy: ModuleType) -> dict:
    return found(toy, "fine", short_step_s=0)


def test_parameters_and_operations_are_those_of_the_real_model(toy: ModuleType, fine: dict) -> None:
    pipe = add_control(build(toy.micro(), PHRASES))
    task = fine_task(pipe, toy.toy_cases(4), toy.micro(), None, [[]] * 4, None)
    for name, part in fine["parameters"].items():
        sizes = [(p.numel(), p.requires_grad) for p in getattr(pipe, name).parameters()]
        assert part["trained"] == sum(size for size, learns in sizes if learns), name
        assert part["frozen"] == sum(size for size, learns in sizes if not learns), name
    assert fine["parameters"]["unet"]["trained"] and fine["parameters"]["unet"]["frozen"]
    noise = draw_noise(0, 0, range(4), task.inputs.latents.shape[1:], 1000, task.dropout)
    # Attention by plain matrix products, which torch's own formulas count.
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        sum(task.module(**task.inputs.batch(range(4), range(4), noise)).values()).backward()
    assert fine["gmac_per_step"] == pytest.approx(counter.get_total_flops() / 2e9, rel=0.05)


def test_memory_by_purpose(fine: dict) -> None:
    trained = 4 * sum(part["trained"] for part in fine["parameters"].values())
    frozen = 4 * sum(part["frozen"] for part in fine["parameters"].values())
    memory = fine["memory_bytes"]
    assert (memory["weights"], memory["gradients"], memory["adamw"]) == (trained + frozen, trained, 2 * trained)
    assert memory["average"] == trained and memory["total"] == sum(v for k, v in memory.items() if k != "total")
    # Images, masks, edges as bytes, latents of 16 × 4 × 4 numbers.
    assert memory["cases"] == 100 * (3 * 256 + 4 * 256)


def test_what_lives_at_once_by_hand() -> None:
    weight = torch.nn.Parameter(torch.ones(100, 100))
    x = torch.ones(50, 100)
    with estimate._Live(iter([weight, x])) as live:
        y = (x @ weight).relu()
        assert (live.now, live.peak) == (4 * 5000, 4 * 10000)  # relu keeps its result, the product is free again
        z = y.view(5000).view(50, 100)  # no bytes of its own
        assert live.now == 4 * 5000
        del y, z
        assert live.now == 0


def test_recomputation_accumulation_and_adapters_take_less(toy: ModuleType) -> None:
    plain = found(toy, "coarse", *BIG, short_step_s=0)
    again = found(toy, "coarse", *BIG, "training.gradient_checkpointing=true", "training.ema=0.0", short_step_s=0)
    adapters = found(
        toy,
        "coarse",
        *BIG,
        "coarse.method=lora",
        "coarse.text_encoder=frozen",
        "training.accumulation=4",
        short_step_s=0,
    )
    was, recomputed, low = (one["memory_bytes"] for one in (plain, again, adapters))
    assert recomputed["activations"] < 0.95 * was["activations"] and recomputed["average"] == 0 < was["average"]
    assert again["gmac_per_step"] > 1.2 * plain["gmac_per_step"]
    assert low["activations"] < 0.6 * was["activations"] and low["adamw"] < 0.3 * was["adamw"]
    assert adapters["parameters"]["text_encoder"]["trained"] == 0 < adapters["parameters"]["unet"]["trained"]


def test_time_is_measured_where_steps_are_short_and_scaled_where_they_are_not(toy: ModuleType, fine: dict) -> None:
    short = found(toy, "coarse", short_step_s=600)
    assert short["time_rule"].startswith("measured: the median of 5 real steps") and 0 < short["seconds_per_step"] < 60
    assert fine["time_rule"].startswith("scaled: ") and "GMAC/s" in fine["time_rule"]
    assert 1e7 < estimate.matmul_rate(torch.device("cpu"), side=128) < 1e14
    lines = estimate.in_words(fine)
    assert "trained" in lines["fusion"] and lines["memory"].startswith(f"{fine['memory_bytes']['total'] / 1e9:.2f} GB")


def test_a_shape_is_read_without_its_weights(tmp_path: Path) -> None:
    root = write(tmp_path / "sd", "2.1", 40)
    sizes = {part: sum(v.numel() for v in weights_of(root / part).values()) for part in ("unet", "vae")}
    for file in root.glob("*/*.safetensors"):
        file.unlink()
    model = estimate._model("coarse", presets.load("paper", ["coarse.method=full"]), PHRASES, root, "meta")
    assert {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in sizes} == sizes
    assert not any(p.requires_grad for p in model.text_encoder.parameters()) and model.tokenizer.pad_token == "!"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    ws = make_workspace(
        tmp_path / "ws", {"train": {"benign": 4, "FTC": 4}, "val": {"benign": 2}, "test": {"benign": 2}}
    )

    def state() -> dict[str, float]:
        return {str(path): path.stat().st_mtime for path in sorted(ws.path.rglob("*"))}

    before = state()
    small = ["model.image_size=16", "model.unet_channels=[8, 16]", "model.attention_heads=2", "training.batch=2"]
    said = workshop.dry_run(ws, "coarse", "tiny", small)
    assert said["images"] == 8 and said["settings"]["training"]["batch"] == 2
    assert presets.written(said["settings"]).startswith("description = ")
    own = ["vae.channels=[8, 8, 8, 8]", "model.image_size=16", "training.batch=2"]
    assert set(workshop.dry_run(ws, "vae", "base256", own)["parameters"]) == {"vae"}
    assert state() == before
    with pytest.raises(UserError, match="--base FOLDER"):
        workshop.dry_run(ws, "coarse", "paper")
    with pytest.raises(UserError, match="no finished coarse model"):
        workshop.dry_run(ws, "fine", "sd15")
    with pytest.raises(UserError, match=r"no section \[vae\]"):
        workshop.dry_run(ws, "vae", "tiny")
