"""Adapters change nothing before training and leave a plain U-Net after it; recomputation gives the same gradients."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from kb.errors import UserError
from tigergen.model import TigerPipeline, add_control, build
from tigergen.model.folder import settings
from tigergen.model.lora import add_lora, merge_lora
from tigergen.model.unet import predict
from tigergen.training import checkpoint, stages
from tigergen.training.draws import draw_noise
from tigergen.training.recompute import recompute
from tigergen.training.tasks import coarse_task, fine_task


def a_batch(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    latents, text = torch.randn(2, 16, 4, 4, generator=generator), torch.randn(2, 8, 16, generator=generator)
    return latents, torch.tensor([10, 700]), text


def model(toy: ModuleType) -> TigerPipeline:
    phrases = ["solid", "sonogram transverse", "follicular thyroid carcinoma", "benign nodule"]
    return build(toy.micro(), phrases, seed=1)


def test_adapters_change_nothing_at_first_and_merge_into_the_same_function(toy: ModuleType) -> None:
    unet, plain = model(toy).unet, model(toy).unet
    state = torch.get_rng_state()
    add_lora(unet, rank=2, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(predict(unet, *a_batch()), predict(plain, *a_batch()))
    learning = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    attentions = sum(name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
                     for name, _ in plain.named_parameters())  # fmt: skip
    assert attentions > 10 and len(learning) == 2 * attentions and all("lora" in name for name in learning)
    for parameter in learning.values():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    adapted = predict(unet, *a_batch())
    assert not torch.allclose(adapted, predict(plain, *a_batch()), atol=1e-3)
    merge_lora(unet)
    assert [name for name, _ in unet.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert torch.allclose(predict(unet, *a_batch()), adapted, atol=1e-5)
    # The first adapted weight by hand: W + B A.
    name = next(name for name in learning if "lora_A" in name)
    whole = name.split(".lora_A")[0] + ".weight"
    product = learning[name.replace("lora_A", "lora_B")] @ learning[name]
    expected = dict(plain.named_parameters())[whole] + product
    assert torch.allclose(dict(unet.named_parameters())[whole], expected, atol=1e-6)


def test_a_coarse_run_with_adapters_continues_bit_for_bit_and_leaves_a_plain_folder(
    toy: ModuleType, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small model of our own stands for the base.
    monkeypatch.setattr(stages, "from_base", lambda folder, size: TigerPipeline.from_pretrained(folder))

    class Killed(Exception):
        pass

    def killer(event: dict) -> None:
        if event["step"] == 3:
            raise Killed

    stages.coarse(toy.toy_cases(), toy.micro(), tmp_path / "base", steps=2)
    preset = toy.micro("coarse.method=lora", "coarse.rank=2", "coarse.text_encoder=frozen")
    with pytest.raises(Killed):
        stages.coarse(toy.toy_cases(), preset, tmp_path / "killed", tmp_path / "base", progress=killer)
    state = checkpoint.load_checkpoint(tmp_path / "killed")
    assert state is not None and {min(value.shape) for value in state["parameters"]} == {2}
    for name in ("killed", "whole"):
        stages.coarse(toy.toy_cases(), preset, tmp_path / name, tmp_path / "base")
    first, base, again = (TigerPipeline.from_pretrained(tmp_path / name) for name in ("whole", "base", "killed"))
    same = dict(again.unet.named_parameters())
    for name, value in first.unet.named_parameters():
        assert torch.equal(value, same[name]), name
        adapted = "to_" in name and name.endswith("weight")
        assert torch.equal(value, dict(base.unet.named_parameters())[name]) != adapted, name
    for own, other in zip(first.text_encoder.parameters(), base.text_encoder.parameters(), strict=True):
        assert torch.equal(own, other)
    assert settings(tmp_path / "whole")["coarse"] == preset == first.config["settings"]["coarse"]


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_recomputed_activations_give_the_same_gradients(toy: ModuleType, stage: str) -> None:
    """The text encoder has drop-out in its settings: recomputation must not wake it."""
    found = []
    for again in (False, True):
        pipe = model(toy)
        config = CLIPTextConfig(**{**pipe.text_encoder.config.to_dict(), "attention_dropout": 0.5})
        torch.manual_seed(5)
        pipe.register_modules(text_encoder=CLIPTextModel(config).eval())
        cases = toy.toy_cases(4)
        preset = toy.micro(f"training.gradient_checkpointing={str(again).lower()}")
        if stage == "coarse":
            task = coarse_task(pipe, cases, preset, None)
        else:
            task = fine_task(add_control(pipe), cases, preset, None, [[("solid", "joint")]] * 4, None)
            for zero in task.module.control.fg_encoder.zero_convolutions:
                torch.nn.init.constant_(zero.weight, 0.1)
        noise = draw_noise(0, 0, range(4), task.inputs.latents.shape[1:], 1000, task.dropout)
        calls = counted(task.module.unet.mid_block)
        sum(task.module(**task.inputs.batch(range(4), range(4), noise)).values()).backward()
        found.append(({n: p.grad for n, p in task.module.named_parameters() if p.grad is not None}, calls))
    (plain, once), (recomputed, twice) = found
    assert plain.keys() == recomputed.keys() and len(plain) > 20
    assert [name for name in plain if not torch.equal(plain[name], recomputed[name])] == []
    # The fine stage's first half of the U-Net has no graph, so there is nothing to compute again.
    assert (len(once), len(twice)) == ((1, 2) if stage == "coarse" else (1, 1))


def counted(block: torch.nn.Module) -> list[int]:
    """Grows by one each time the block's first attention runs."""
    calls: list[int] = []
    block.attentions[0].transformer_blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_every_kind_of_part_takes_the_switch(toy: ModuleType) -> None:
    pipe = add_control(model(toy))
    for part in (pipe.unet, pipe.fg_encoder, pipe.text_encoder):
        recompute(part)
        blocks = [block for block in part.modules() if getattr(block, "gradient_checkpointing", False)]
        assert len(blocks) >= 2
        assert not any(m.training for m in part.modules() if isinstance(m, torch.nn.Dropout))


def test_an_average_without_decay_keeps_no_second_copy(toy: ModuleType, tmp_path) -> None:
    from tigergen.training.ema import Ema

    parameter = torch.nn.Parameter(torch.ones(3))
    average = Ema([parameter], 0.0)
    parameter.data += 1
    average.update()
    assert average.shadow[0] is parameter and average.state_dict()["shadow"][0].tolist() == [2, 2, 2]
    with average.applied():
        assert parameter.tolist() == [2, 2, 2]


def test_a_record_from_before_a_setting_existed_is_still_that_of_the_same_run(toy: ModuleType, tmp_path) -> None:
    from kb.files import read_json, write_json

    stages.coarse(toy.toy_cases(), toy.micro(), tmp_path, steps=1)
    record = read_json(tmp_path / "training.json")
    young = ("coarse.method", "coarse.rank", "coarse.text_encoder")
    record["identity"] = {key: value for key, value in record["identity"].items() if key not in young}
    write_json(tmp_path / "training.json", record)

    def never(event: dict) -> None:
        raise AssertionError("trained again")

    assert stages.coarse(toy.toy_cases(), toy.micro(), tmp_path, steps=1, progress=never)["finished"]
    with pytest.raises(UserError, match="coarse.method"):
        stages.coarse(toy.toy_cases(), toy.micro("coarse.method=lora"), tmp_path, steps=1)


def test_steps_of_other_sizes_do_not_change_the_cached_latents(toy: ModuleType, monkeypatch) -> None:
    from tigergen.training import inputs

    make: Callable = inputs.cached_latents
    whole = make(model(toy), toy.toy_cases())
    monkeypatch.setattr(inputs, "CHUNK_SIDE", 4)
    assert inputs.chunk(16) == 4 and inputs.chunk(512) == 1
    assert torch.equal(make(model(toy), toy.toy_cases()), whole)
