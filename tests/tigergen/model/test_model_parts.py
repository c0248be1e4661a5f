"""Codec, U-Net halves, encoders, fusion and control."""

import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from kb.errors import UserError
from tests.tigergen.model.conftest import PHRASES, PRESET
from tigergen.model import AttentionalFusion, PixelShuffleCodec, TigerPipeline
from tigergen.model.assemble import add_control, build
from tigergen.model.codec import block_size, images_to_latents, latents_to_images
from tigergen.model.control import Conditions
from tigergen.model.encoders import ConditionEmbedding
from tigergen.model.fusion import FusionLevel
from tigergen.model.unet import Features, features, predict, skip_channels


def given(pipe: TigerPipeline, batch: int = 2, **more) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    """Noisy latents, timesteps and conditions from one seed."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    latents = torch.randn(batch, 4, 8, 8, generator=generator)
    fg, bg = pipe.control().embed(draw(batch, 1, 16, 16), draw(batch, 1, 16, 16))
    conditions = Conditions(draw(batch, 8, 16), draw(batch, 8, 16), fg, bg, **more)
    return latents, torch.tensor([10, 900, 500][:batch]), conditions


def levels(control: Features) -> list[torch.Tensor]:
    return [*control.skips, control.mid]


# Codec


def test_codec_is_lossless_and_has_the_shapes_of_an_autoencoder() -> None:
    codec = PixelShuffleCodec(in_channels=1, factor=4, latent_channels=16)
    image = torch.rand(2, 1, 32, 24) * 2 - 1
    latents = codec.encode(image).latent_dist.mode()
    assert latents.shape == (2, 16, 8, 6) and codec.config.latent_channels == 16
    assert torch.equal(codec.encode(image).latent_dist.sample(), latents)
    assert torch.equal(codec.decode(latents).sample, image)


def test_latents_of_the_fixed_codec_have_the_mean_and_spread_that_were_asked_for() -> None:
    images = np.random.default_rng(0).gamma(4.0, 20.0, (6, 32, 32)).clip(0, 255).astype(np.uint8)
    pipe = build({"model": {"latent_sd": 0.5, "image_size": 32}}, ["solid"], images=images)
    latents = pipe.to_latents(images)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-5) and float(latents.std()) == pytest.approx(0.5, rel=1e-4)
    assert np.array_equal(pipe.to_images(latents), images)
    raw = build({"model": {"latent_sd": 0.0, "image_size": 32}}, ["solid"], images=images)
    assert raw.vae.config["scaling_factor"] == 1 and raw.vae.config["shift_factor"] == 0
    flat = build({"model": {"image_size": 32}}, ["solid"], images=np.full((2, 32, 32), 7, np.uint8))
    assert flat.vae.config["scaling_factor"] == 1


def test_codec_keeps_each_block_together() -> None:
    codec = PixelShuffleCodec(1, 2, 4)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert codec.encode(image).latent_dist.mode()[0, :, 0, 1].tolist() == [2, 3, 6, 7]


def test_scale_and_shift_of_a_codec_are_undone_on_the_way_back() -> None:
    codec = PixelShuffleCodec(1, 2, 4, scaling_factor=2.0, shift_factor=-0.4)
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    latents = images_to_latents(codec, images)
    assert torch.allclose(latents, 2 * (F.pixel_unshuffle(images, 2) + 0.4))
    assert torch.allclose(latents_to_images(codec, latents), images, atol=1e-6)


def test_codec_refuses_channels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="= 16"):
        PixelShuffleCodec(1, 4, 8)


def test_grey_images_fit_a_colour_autoencoder() -> None:
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
    )  # fmt: skip
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    latents = images_to_latents(vae, images)
    assert block_size(vae) == 2 and latents.shape == (2, 4, 8, 8)
    assert torch.allclose(latents, 0.5 * vae.encode(images.repeat(1, 3, 1, 1)).latent_dist.mode())
    assert latents_to_images(vae, latents).shape == (2, 1, 16, 16)


# U-Net in two halves


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9)])
def test_the_two_halves_equal_the_whole_unet(coarse: TigerPipeline, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    latents, text, times = torch.randn(2, 4, *size), torch.randn(2, 8, 16), torch.tensor([3, 700])
    with torch.no_grad():
        raw, _ = features(coarse.unet, latents, times, text)
        extra = Features(tuple(torch.randn_like(skip) for skip in raw.skips), torch.randn_like(raw.mid))
        whole = coarse.unet(
            latents, times, text, down_block_additional_residuals=extra.skips, mid_block_additional_residual=extra.mid
        ).sample
        assert torch.allclose(predict(coarse.unet, latents, times, text, extra), whole, atol=1e-5)
        assert [level.shape[1] for level in levels(raw)] == skip_channels(coarse.unet)


# Encoders


def test_levels_without_heads_attend_to_no_words() -> None:
    plain = {"model": {**PRESET["model"], "unet_channels": [8, 8, 16], "attention_heads": [0, 2, 2]}}
    pipe = add_control(build(plain, PHRASES, seed=1))
    for net in (pipe.unet, pipe.fg_encoder, pipe.bg_encoder):
        assert [getattr(block, "has_cross_attention", False) for block in net.down_blocks] == [False, True, True]
    assert [block.has_cross_attention for block in pipe.unet.up_blocks[:2]] == [True, True]
    assert not getattr(pipe.unet.up_blocks[2], "has_cross_attention", False)
    texts = pipe.text_states(["solid", "cystic"])
    latents, times = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1), torch.tensor([5, 5])
    own, _ = features(pipe.unet, latents, times, texts)
    # The skips of the first level are those of the noisy latents alone; below it the words are heard.
    assert torch.equal(own.skips[1][0], own.skips[1][1]) and not torch.equal(own.mid[0], own.mid[1])
    whole = pipe.unet(latents, times, encoder_hidden_states=texts).sample
    torch.testing.assert_close(predict(pipe.unet, latents, times, texts), whole)


def test_pooled_words_reach_levels_without_attention_and_every_part_of_the_model(cases: dict) -> None:
    pooled = {"model": {**PRESET["model"], "attention_heads": [0, 2], "pooled_words": True}}
    pipe = add_control(build(pooled, PHRASES, seed=1))
    texts = pipe.text_states(["solid", "cystic"])
    latents, times = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1), torch.tensor([5, 5])
    own, _ = features(pipe.unet, latents, times, texts)
    assert not torch.equal(own.skips[1][0], own.skips[1][1])
    whole = pipe.unet(latents, times, encoder_hidden_states=texts).sample  # diffusers' own forward
    torch.testing.assert_close(predict(pipe.unet, latents, times, texts), whole)
    for encoder in (pipe.fg_encoder, pipe.bg_encoder):
        for zero in encoder.zero_convolutions:
            torch.nn.init.dirac_(zero.weight)
        got = encoder(latents, times, texts, torch.zeros(2, 8, 8, 8))
        for left, right in zip(levels(own), levels(got), strict=True):
            torch.testing.assert_close(left, right)
    batch = pipe(**cases)
    one = {key: value[1:2] if isinstance(value, list | np.ndarray) else value for key, value in cases.items()}
    np.testing.assert_array_equal(batch[1:2], pipe(**one))


def test_encoder_starts_as_a_copy_of_the_unet(tiger: TigerPipeline) -> None:
    latents, times, c = given(tiger)
    encoder = copy.deepcopy(tiger.fg_encoder)
    for zero in encoder.zero_convolutions:
        torch.nn.init.dirac_(zero.weight)
        torch.nn.init.zeros_(zero.bias)
    with torch.no_grad():
        own, _ = features(tiger.unet, latents, times, c.fg_text)
        got = encoder(latents, times, c.fg_text, torch.zeros_like(c.fg))
    for left, right in zip(levels(own), levels(got), strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_condition_embedding_separates_what_averaging_would_merge() -> None:
    """Two conditions that differ by one pixel moved inside a block: a strided average could not tell them apart."""
    torch.manual_seed(0)
    embedding = ConditionEmbedding(1, 8, 4)
    first, second = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    first[..., 4, 4] = second[..., 6, 7] = 1
    assert embedding(first).shape == (1, 8, 4, 4)
    assert (embedding(first) - embedding(second)).abs().max() > 1e-3
    assert F.avg_pool2d(first, 4).equal(F.avg_pool2d(second, 4))


def test_fg_text_weights_change_the_fg_encoder_only(tiger: TigerPipeline) -> None:
    latents, times, plain = given(tiger)
    _, _, weighted = given(tiger, fg_weights=torch.tensor([[1.0, 3.1, 0.63, 1, 1, 1, 1, 1]] * 2))
    control = tiger.control()
    with torch.no_grad():
        for mode, same in (("fg", False), ("bg", True)):
            a, b = control.control(latents, times, plain, mode)[0], control.control(latents, times, weighted, mode)[0]
            assert torch.equal(a.mid, b.mid) is same


# Fusion


def test_fusion_equals_equations_11_and_12_written_out() -> None:
    torch.manual_seed(0)
    level = FusionLevel(8).double()
    fg, bg = torch.randn(2, 8, 3, 3).double(), torch.randn(2, 8, 3, 3).double()
    weights = [
        parameter.squeeze(-1).squeeze(-1) if parameter.ndim == 4 else parameter for parameter in level.parameters()
    ]
    w1, b1, w2, b2, g1, c1, g2, c2 = weights
    with torch.no_grad():
        got = level(fg, bg)
        for image in range(2):
            pooled = (fg + bg)[image].mean(dim=(1, 2))
            around = g2 @ torch.relu(g1 @ pooled + c1) + c2
            for row in range(3):
                for column in range(3):
                    total = (fg + bg)[image, :, row, column]
                    share = torch.sigmoid(w2 @ torch.relu(w1 @ total + b1) + b2 + around)
                    expected = share * fg[image, :, row, column] + (1 - share) * bg[image, :, row, column]
                    assert torch.allclose(got[image, :, row, column], expected, atol=1e-12)


def test_fusion_lies_between_its_inputs_and_treats_each_image_alone() -> None:
    torch.manual_seed(0)
    fusion = AttentionalFusion([8, 16])
    fg, bg = (Features((torch.randn(3, 8, 4, 4),), torch.randn(3, 16, 2, 2)) for _ in range(2))
    fused = fusion(fg, bg)
    for out, left, right in zip(levels(fused), levels(fg), levels(bg), strict=True):
        assert (out >= torch.minimum(left, right) - 1e-6).all() and (out <= torch.maximum(left, right) + 1e-6).all()
    one = fusion(*(Features(tuple(skip[2:] for skip in side.skips), side.mid[2:]) for side in (fg, bg)))
    assert torch.allclose(one.mid, fused.mid[2:], atol=1e-6) and torch.allclose(
        one.skips[0], fused.skips[0][2:], atol=1e-6
    )


# Control


def test_before_training_the_control_is_exactly_zero(coarse: TigerPipeline) -> None:
    from tigergen.model import add_control

    add_control(coarse)
    latents, times, conditions = given(coarse)
    for mode in ("fused", "sum", "fg", "bg"):
        fused, _ = coarse.control().control(latents, times, conditions, mode)
        assert all(level.eq(0).all() for level in levels(fused))


def test_single_branches_are_the_fusion_with_the_other_at_zero(tiger: TigerPipeline) -> None:
    latents, times, both = given(tiger)
    control = tiger.control()
    with torch.no_grad():
        for mode, keep in (("fg", [1.0, 0.0]), ("bg", [0.0, 1.0])):
            _, _, dropped = given(tiger, keep=torch.tensor([keep, keep]))
            alone, _ = control.control(latents, times, both, mode)
            for left, right in zip(levels(alone), levels(control.control(latents, times, dropped)[0]), strict=True):
                assert torch.allclose(left, right, atol=1e-6)


def test_a_dropped_branch_changes_its_own_image_only(tiger: TigerPipeline) -> None:
    latents, times, both = given(tiger)
    _, _, dropped = given(tiger, keep=torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    with torch.no_grad():
        whole, part = (tiger.control().control(latents, times, c)[0].mid for c in (both, dropped))
    assert torch.equal(whole[0], part[0]) and not torch.allclose(whole[1], part[1])


def test_unknown_control_mode_is_a_user_error(tiger: TigerPipeline) -> None:
    with pytest.raises(UserError, match="'both'"):
        tiger.control().control(*given(tiger), "both")
