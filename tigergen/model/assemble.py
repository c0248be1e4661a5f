"""Make a Tiger model from random weights, and give any model its encoders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from kb.errors import UserError
from tigergen.model.codec import PixelShuffleCodec, block_size, standardisation
from tigergen.model.encoders import ControlEncoder
from tigergen.model.fusion import AttentionalFusion
from tigergen.model.pipeline import TigerPipeline, to_pixels
from tigergen.model.tokens import phrase_tokenizer
from tigergen.model.unet import skip_channels

# What a preset that leaves keys out gets: a test compares it with the settings that `tigergen.training.presets` checks.
MODEL: dict[str, Any] = {
    "image_size": 64,
    "autoencoder": "unshuffle",
    "downsample": 4,
    "latent_sd": 0.5,
    "unet_channels": [48, 64, 96],
    "layers_per_block": 1,
    "attention_heads": 4,
    "text_width": 128,
    "text_layers": 1,
    "text_heads": 4,
    "text_length": 32,
    "pooled_words": False,
}
DIFFUSION: dict[str, Any] = {"prediction": "v_prediction", "beta_schedule": "squaredcos_cap_v2", "timesteps": 1000}


def build(
    preset: Mapping[str, Any],
    phrases: Sequence[str],
    seed: int = 0,
    vae: AutoencoderKL | None = None,
    images: np.ndarray | None = None,
) -> TigerPipeline:
    """A new model with random weights: codec, U-Net, text encoder over `phrases`; `add_control` adds the encoders.

    `preset` holds the sections `model` and `diffusion` (keys and defaults: `MODEL`, `DIFFUSION`; other sections are
    not read), `phrases` every phrase and class label that a prompt may hold. `vae`: a trained autoencoder, needed for
    `model.autoencoder = "kl"`. `images` uint8 [N, H, W]: training images, by which the fixed codec standardises its
    latents (`model.latent_sd`); without them latents are the pixels themselves. The same seed gives the same weights;
    the global random state is left as it was.
    """
    model, diffusion = {**MODEL, **preset.get("model", {})}, {**DIFFUSION, **preset.get("diffusion", {})}
    codec = _codec(model, vae, images)
    tokenizer = phrase_tokenizer(phrases, model["text_length"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**_unet_config(model, codec))
        text_encoder = _text_encoder(model, tokenizer)
    return TigerPipeline(
        vae=codec,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(
            num_train_timesteps=diffusion["timesteps"],
            beta_schedule=diffusion["beta_schedule"],
            prediction_type=diffusion["prediction"],
            clip_sample=False,
            timestep_spacing="trailing",
        ),
        image_size=model["image_size"],
    )


def _codec(
    model: Mapping[str, Any], vae: AutoencoderKL | None, images: np.ndarray | None
) -> PixelShuffleCodec | AutoencoderKL:
    factor = model["downsample"]
    if model["autoencoder"] == "unshuffle":
        scale, shift = (1.0, 0.0)
        if images is not None and model["latent_sd"]:
            scale, shift = standardisation(to_pixels(images), model["latent_sd"])
        return PixelShuffleCodec(1, factor, factor**2, scaling_factor=scale, shift_factor=shift)
    if vae is None or block_size(vae) != factor:
        raise UserError(
            f"model.autoencoder is {model['autoencoder']!r}, which needs a trained autoencoder of {factor} px a "
            "latent position; run `tigergen train vae`, start from a base model folder or use 'unshuffle'"
        )
    return vae


def _text_encoder(model: Mapping[str, Any], tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder: Any = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=model["text_width"],
            intermediate_size=2 * model["text_width"],
            num_hidden_layers=model["text_layers"],
            num_attention_heads=model["text_heads"],
            max_position_embeddings=model["text_length"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # CLIP's start values (0.02) are made for 12 layers of 512: here phrases would hardly differ for hundreds of steps.
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=0.5)
    return encoder


def _unet_config(model: Mapping[str, Any], codec: Any) -> dict[str, Any]:
    channels = tuple(model["unet_channels"])
    heads = model["attention_heads"]
    each = [heads] * len(channels) if isinstance(heads, int) else list(heads)
    attends = ["CrossAttn" if count else "" for count in each]
    return {
        "sample_size": model["image_size"] // model["downsample"],
        "in_channels": codec.config["latent_channels"],
        "out_channels": codec.config["latent_channels"],
        "block_out_channels": channels,
        "layers_per_block": model["layers_per_block"],
        "down_block_types": tuple(f"{kind}DownBlock2D" for kind in attends),
        "up_block_types": tuple(f"{kind}UpBlock2D" for kind in reversed(attends)),
        # diffusers takes the number of heads under this name, and one for levels that have none.
        "attention_head_dim": tuple(max(count, 1) for count in each),
        "norm_num_groups": norm_groups(channels),
        "cross_attention_dim": model["text_width"],
        # All words in one vector, beside cross-attention: every block of the network hears it, at every level.
        "addition_embed_type": "text" if model["pooled_words"] else None,
        "addition_embed_type_num_heads": model["text_heads"],
    }


def norm_groups(channels: Sequence[int]) -> int:
    """Most groups of a group norm, 32 or fewer, that share the channels of every level equally."""
    return next(groups for groups in (32, 16, 8, 4, 2, 1) if not any(count % groups for count in channels))


def add_control(pipe: TigerPipeline, seed: int = 0) -> TigerPipeline:
    """Give `pipe` an FG- and a BG-Encoder copied from its U-Net, and their fusion; returns the same pipeline.

    Before any training its images are those of the U-Net alone (zero convolutions).
    """
    factor = block_size(pipe.vae)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe.register_modules(
            fg_encoder=ControlEncoder.from_unet(pipe.unet, factor).eval(),
            bg_encoder=ControlEncoder.from_unet(pipe.unet, factor).eval(),
            fusion=AttentionalFusion(skip_channels(pipe.unet)).to(pipe.device).eval(),
        )
    return pipe
