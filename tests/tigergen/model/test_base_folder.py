"""A folder with the structure of Stable Diffusion 1.5, random and tiny, becomes a Tiger model."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from kb.errors import UserError
from tigergen.model import TigerPipeline, add_control, build, from_base
from tigergen.model.assemble import DIFFUSION, MODEL
from tigergen.model.base import check_base, skeleton
from tigergen.training.presets import DiffusionSettings, ModelSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    ).save_pretrained(root / "unet")  # fmt: skip
    AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(root / "vae")  # fmt: skip
    letters = "abcdefghijklmnopqrstuvwxyz,"
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (root / "words").mkdir()
    (root / "words/vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (root / "words/merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(root / "words/vocab.json"), str(root / "words/merges.txt"), model_max_length=40
    ).save_pretrained(root / "tokenizer")  # fmt: skip
    CLIPTextModel(
        CLIPTextConfig(vocab_size=len(pieces), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                       num_attention_heads=2, max_position_embeddings=40)
    ).save_pretrained(root / "text_encoder")  # fmt: skip
    # SD 1.5 ships PNDM; its noise schedule is what counts.
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True,
                  steps_offset=1).save_pretrained(root / "scheduler")  # fmt: skip
    return root


def test_base_folder_becomes_a_tiger_model_that_samples_and_reloads(base, tmp_path) -> None:
    pipe = add_control(from_base(base))
    assert pipe.config["image_size"] == 64 and pipe.scheduler.config["prediction_type"] == "epsilon"
    original = UNet2DConditionModel.from_pretrained(base / "unet")
    for encoder in (pipe.fg_encoder, pipe.bg_encoder):
        assert torch.equal(encoder.mid_block.resnets[0].conv1.weight, original.mid_block.resnets[0].conv1.weight)
    rng = np.random.default_rng(0)
    masks, sobels = np.zeros((1, 64, 64), np.uint8), rng.integers(0, 256, (1, 64, 64), dtype=np.uint8)
    masks[:, 20:40, 20:40] = 1
    arguments = {"fg": ["solid"], "bg": ["left"], "masks": masks, "sobels": sobels, "steps": 2}
    roles = [[("solid", "particular")]]
    images = pipe(**arguments, roles=roles)
    assert images.shape == (1, 64, 64) and np.array_equal(images, pipe(**arguments, roles=roles, mode="text"))
    pipe.save_pretrained(tmp_path)
    assert np.array_equal(TigerPipeline.from_pretrained(tmp_path)(**arguments), images)


def test_noise_schedule_of_the_base_is_kept(base) -> None:
    expected = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    assert torch.allclose(from_base(base).objective().alphas_cumprod, expected)


def test_loading_saving_and_sampling_draw_no_bars_and_leave_those_of_others(
    base, tmp_path, capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for log in (diffusers_logging, transformers_logging):
        log.enable_progress_bar()
    CLIPTextModel.from_pretrained(base / "text_encoder")
    assert "it/s" in capfd.readouterr().err, "transformers draws a bar by itself, or this test sees nothing"
    from_base(base).save_pretrained(tmp_path)
    TigerPipeline.from_pretrained(tmp_path)(["solid"], ["left"], mode="text", steps=2)
    assert "it/s" not in capfd.readouterr().err
    assert diffusers_logging.is_progress_bar_enabled() and transformers_logging.is_progress_bar_enabled()


def test_a_missing_part_is_a_user_error(base, tmp_path) -> None:
    with pytest.raises(UserError, match="'unet'"):
        from_base(tmp_path)


def test_a_trained_autoencoder_takes_the_place_of_the_codec(base) -> None:
    vae = AutoencoderKL.from_pretrained(base / "vae")
    preset = {"model": {"autoencoder": "kl", "downsample": 8, "unet_channels": [8, 16], "attention_heads": 2}}
    pipe = build(preset, ["solid", "left"], vae=vae)
    assert pipe.unet.config["in_channels"] == 4
    assert pipe(["solid"], ["left"], mode="text", steps=1).shape == (1, 64, 64)
    with pytest.raises(UserError, match="trained autoencoder"):
        build(preset, ["solid"])


def test_pooled_words_of_our_own_models_are_taken_and_missing_ones_told(base, tmp_path) -> None:
    preset = {"model": {**MODEL, "unet_channels": [8, 16], "attention_heads": 2, "pooled_words": True}}
    build(preset, ["solid"], images=np.zeros((1, 64, 64), np.uint8)).save_pretrained(tmp_path)
    assert skeleton(tmp_path).unet.add_embedding is not None
    wanted = {**preset, "diffusion": DIFFUSION, "base": ""}
    check_base(tmp_path, wanted)
    with pytest.raises(UserError, match=r"model.pooled_words is True there, the preset says False"):
        check_base(tmp_path, {**wanted, "model": {**preset["model"], "pooled_words": False}})


def test_a_folder_whose_autoencoder_is_another_class_is_refused(base, tmp_path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "PixelShuffleCodec"}))
    with pytest.raises(UserError, match="is a PixelShuffleCodec"):
        from_base(folder)


def test_the_defaults_of_a_model_are_those_of_its_settings() -> None:
    settings = ModelSettings().model_dump(), DiffusionSettings().model_dump()
    assert settings[0] == MODEL
    assert {k: v for k, v in settings[1].items() if k in DIFFUSION} == DIFFUSION
