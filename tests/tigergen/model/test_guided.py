"""Guided prediction, step after step: what is remembered changes nothing, what is skipped did nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from torch import Tensor, nn

from kb.errors import UserError
from tigergen.model import TigerPipeline
from tigergen.model.control import Conditions
from tigergen.model.unet import Features, predict
from tigergen.sampling.denoise import Guided
from tigergen.sampling.guidance import guide
from tigergen.sampling.settings import Sampling

B, T, D = 3, 8, 16


@pytest.fixture
def guided(tiger: TigerPipeline) -> Guided:
    """A guided prediction for three images with token weights, from one seed."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    with torch.no_grad():
        fg, bg = tiger.control().embed(draw(B, 1, 16, 16).sigmoid(), draw(B, 1, 16, 16).sigmoid())
        given = Conditions(draw(B, T, D), draw(B, T, D), fg, bg, fg_weights=draw(B, T).exp())
        return Guided(tiger.unet, draw(B, T, D), draw(B, T, D), 2.5, tiger.control(), given)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(B, 4, 8, 8, generator=torch.Generator().manual_seed(6))


def plain(g: Guided, latents: Tensor, timestep: Tensor) -> Tensor:
    """Equation 13 as two calls of the whole U-Net, nothing remembered."""
    times = timestep.expand(len(latents))
    assert g.control is not None and g.conditions is not None
    given = replace(g.conditions, fg_keys=None, bg_keys=None)
    extra, _ = g.control.control(latents, times, given, g.mode)
    without = predict(g.unet, latents, times, g.empty, extra if g.keep_control else None)
    return guide(without, predict(g.unet, latents, times, g.text, extra), g.beta)


def relative(left: Tensor, right: Tensor) -> float:
    return float((left - right).norm() / right.norm())


@contextmanager
def rows_seen(module: nn.Module) -> Iterator[list[int]]:
    """How many images each call of a module saw."""
    seen: list[int] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    yield seen
    handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("mode", ["fused", "sum", "fg", "bg"])
@pytest.mark.parametrize("weighting", ["log", "paper"])
@pytest.mark.parametrize("keep", [False, True])
def test_what_is_computed_once_equals_the_plain_path(guided, latents, mode: str, weighting: str, keep: bool) -> None:
    given = replace(guided.conditions, weighting=weighting)
    g = replace(guided, mode=mode, conditions=given, keep_control=keep)
    for timestep in (torch.tensor(900), torch.tensor(30)):
        assert relative(g(latents, timestep), plain(g, latents, timestep)) < 1e-5


@torch.no_grad()
def test_keys_and_values_of_the_texts_are_computed_once_for_all_steps(guided, latents) -> None:
    g = replace(guided)
    assert g.conditions is not None and g.control is not None
    attentions = [g.unet.mid_block, g.control.fg_encoder.mid_block, g.control.bg_encoder.mid_block]
    for block in attentions:
        with rows_seen(block.attentions[0].transformer_blocks[0].attn2.to_v) as seen:
            g(latents, torch.tensor(900))
        assert seen == []


@torch.no_grad()
def test_nothing_is_remembered_across_calls_of_the_pipeline(tiger: TigerPipeline, cases: dict) -> None:
    settings = {"reuse_control": 2, "reuse_deep": 2, "guidance_interval": (0.3, 0.8)}
    first = tiger(**cases, **settings)
    other = {**cases, "fg": ["benign, cystic"] * 3, "roles": None, "sobels": 255 - cases["sobels"]}
    tiger(**other, **settings)
    assert np.array_equal(tiger(**cases, **settings), first)


@torch.no_grad()
def test_halves_that_do_nothing_do_not_run(guided, latents) -> None:
    early, late = torch.tensor(900), torch.tensor(100)
    assert guided.control is not None
    encoders = guided.control.fg_encoder
    cases = [
        (replace(guided), early, [2 * B], [B]),
        (replace(guided, beta=1.0), early, [B], [B]),
        (replace(guided, beta=0.0), early, [B], []),
        (replace(guided, interval=(0.3, 0.8)), early, [B], [B]),
        (replace(guided, interval=(0.3, 0.95)), early, [2 * B], [B]),
        (replace(guided, interval=(0.3, 0.95)), late, [B], [B]),
    ]
    for g, timestep, unet, control in cases:
        with rows_seen(g.unet.conv_in) as halves, rows_seen(encoders.conv_in) as controlled:
            result = g(latents, timestep)
        assert halves == unet and controlled == control
        guides = g.beta != 1 and g.interval[0] <= int(timestep) / 1000 <= g.interval[1]
        expected = plain(replace(g, beta=g.beta if guides else 1.0), latents, timestep)
        assert relative(result, expected) < 1e-5


@torch.no_grad()
def test_with_the_control_kept_the_model_without_words_still_has_it(guided, latents) -> None:
    g = replace(guided, beta=0.0, keep_control=True)
    assert relative(g(latents, torch.tensor(500)), plain(g, latents, torch.tensor(500))) < 1e-5


@torch.no_grad()
def test_reused_features_of_the_same_input_are_those_computed_afresh(guided, latents) -> None:
    """Known answer: on equal latents at an equal time, deep features and control of before are the right ones."""
    g = replace(guided, reuse_deep=2, reuse_control=3)
    timestep = torch.tensor(700)
    expected = plain(guided, latents, timestep)
    middle, encoder = g.unet.mid_block.resnets[0], guided.control.bg_encoder.conv_in
    with rows_seen(middle) as deep, rows_seen(encoder) as control:
        for _ in range(6):
            assert relative(g(latents, timestep), expected) < 1e-5
    assert deep == [2 * B] * 3 and control == [B] * 2
    changed = g(latents, timestep), g(latents + 1, timestep)
    assert relative(changed[1], plain(guided, latents + 1, timestep)) > 1e-3, "an old feature leaves its trace"


@torch.no_grad()
def test_reuse_starts_afresh_when_the_half_that_is_needed_was_not_kept(guided, latents) -> None:
    """From an unguided into a guided step there are no deep features of the unguided half; the other way there are."""
    g = replace(guided, reuse_deep=4, interval=(0.2, 0.6))
    with rows_seen(g.unet.mid_block.resnets[0]) as deep:
        for timestep in (900, 500, 400, 100):
            g(latents, torch.tensor(timestep))
    assert deep == [B, 2 * B]


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_interval": (0.2, 0.7)},
        {"reuse_control": 2, "reuse_deep": 2},
        {"negative": ["cystic", "", "benign"]},
        {"sampler": "unipc", "mode": "sum"},
    ],
)
def test_image_k_does_not_depend_on_its_batch_whatever_saves_time(tiger, cases: dict, settings: dict) -> None:
    together = tiger(**cases, **settings)
    for k in range(B):
        row = {n: v if n == "steps" else v[k : k + 1] for n, v in (cases | settings).items() if n not in SHARED}
        alone = tiger(**row, **{n: v for n, v in settings.items() if n in SHARED})
        assert np.abs(together[k : k + 1].astype(int) - alone).max() <= 1


SHARED = ("guidance_interval", "reuse_control", "reuse_deep", "sampler", "mode")


def test_settings_that_reach_everywhere_equal_the_default(tiger: TigerPipeline, cases: dict) -> None:
    base = tiger(**cases)
    assert np.array_equal(tiger(**cases, guidance_interval=(0.0, 1.0), reuse_control=1, negative=""), base)
    assert np.array_equal(tiger(**cases, guidance_interval=(0.0, 0.0)), tiger(**cases, guidance=1.0))
    once = {**cases, "steps": 1}
    assert np.array_equal(tiger(**once, reuse_control=5, reuse_deep=5), tiger(**once))


def test_a_negative_prompt_takes_the_place_of_the_empty_one(tiger: TigerPipeline, cases: dict) -> None:
    tiger.text_encoder.final_layer_norm.weight.data *= 8  # random text states hardly differ
    # Guidance between two equal predictions is none, however strong.
    text = {**cases, "mode": "text", "bg": [""] * 3, "roles": None}
    same = tiger(**text, guidance=7.0, negative=cases["fg"])
    assert np.abs(same.astype(int) - tiger(**text, guidance=1.0)).max() <= 1
    for_all, each = (
        tiger(**cases, guidance=7.0, negative="cystic"),
        tiger(**cases, guidance=7.0, negative=["cystic"] * 3),
    )
    assert np.array_equal(for_all, each) and not np.array_equal(for_all, tiger(**cases, guidance=7.0))


def test_the_record_tells_modes_apart_and_marks_composites(tiger: TigerPipeline) -> None:
    tiger.register_to_config(weighting="paper")
    new, refined = tiger.settings().record(), tiger.settings(refined=True, mode="sequential").record()
    assert (new["task"], new["composite"], new["strength"], new["mode"]) == ("diversify", False, None, "joint")
    assert (refined["task"], refined["composite"], refined["strength"]) == ("refine", True, 0.5)
    assert refined["mode"] == "sequential" and new["weighting"] == "paper" and new["steps"] == Sampling().steps
    assert tiger.settings(weighting="off").record()["weighting"] == "off"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"reuse_deep": 0}, "reuse_deep is 0"),
        ({"guidance_interval": (0.8, 0.2)}, r"guidance_interval is \(0.8, 0.2\)"),
        ({"negative": ["cystic"]}, "1 of negative"),
        ({"strength": 0.5}, "no real image"),
        ({"negative": "purple"}, "'purple'"),
    ],
)
def test_settings_that_mean_nothing_are_user_errors(tiger, cases: dict, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiger(**{**cases, **settings})


def test_compiled_blocks_and_channels_last_give_the_same_images(tiger: TigerPipeline, cases: dict) -> None:
    """Traced as for any compiler, run without one: what is compiled must be the whole of each block."""
    once = {**cases, "steps": 1, "guidance": 1.0, "mode": "text"}
    expected = tiger(**once)
    blocks = len(tiger.unet.down_blocks) + 1
    traced: list[int] = []

    def compiler(graph, inputs):
        traced.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    got = tiger.prepare(compiler=compiler, channels_last=True)(**once)
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert len(traced) >= 2 * blocks - 1, "down, middle and up blocks"
    assert all(block._compiled_call_impl is not None for block in tiger.bg_encoder.down_blocks)
    assert tiger.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_the_plain_sum_is_what_diffusers_multi_controlnet_gives(tiger: TigerPipeline, latents: Tensor) -> None:
    """The same weights in two of diffusers' ControlNets, their features added to the same U-Net."""
    generator = torch.Generator().manual_seed(9)
    nets, pictures, embedded = [], [], []
    for encoder in (tiger.fg_encoder, tiger.bg_encoder):
        net = ControlNetModel.from_unet(tiger.unet, conditioning_embedding_out_channels=(4, 8)).eval()
        for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            getattr(net, name).load_state_dict(getattr(encoder, name).state_dict())
        for own, zero in zip(
            [*net.controlnet_down_blocks, net.controlnet_mid_block], encoder.zero_convolutions, strict=True
        ):
            own.load_state_dict(zero.state_dict())
        net.controlnet_cond_embedding.conv_out.weight.normal_(generator=generator)
        nets.append(net)
        pictures.append(torch.rand(B, 3, 16, 16, generator=generator))
        embedded.append(net.controlnet_cond_embedding(pictures[-1]))
    text, empty = torch.randn(2, B, T, D, generator=generator)
    times = torch.full((B,), 400)
    skips, mid = MultiControlNetModel(nets)(latents, times, text, pictures, [1.0, 1.0], return_dict=False)
    fused = tiger.unet(latents, times, text, down_block_additional_residuals=skips, mid_block_additional_residual=mid)
    expected = guide(tiger.unet(latents, times, empty).sample, fused.sample, 3.0)
    g = Guided(tiger.unet, text, empty, 3.0, tiger.control(), Conditions(text, text, *embedded), mode="sum")
    assert relative(g(latents, torch.tensor(400)), expected) < 1e-5
    control, _ = tiger.control().control(latents, times, g.conditions, "sum")
    assert isinstance(control, Features) and relative(control.mid, mid) < 1e-5
