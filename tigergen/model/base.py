"""A model folder on disk as the start of training: Stable Diffusion 1.5 or 2.1, or its mere shape without weights."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from kb.errors import UserError
from kb.files import read_json
from tigergen.model.codec import PixelShuffleCodec, block_size
from tigergen.model.pipeline import TigerPipeline, without_bars

BASE_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
# Buffers that older libraries wrote into a checkpoint and newer ones make anew.
IGNORED = ("position_ids",)


@without_bars()
def from_base(folder: str | os.PathLike[str], image_size: int | None = None) -> TigerPipeline:
    """A model from a Stable Diffusion 1.5 or 2.1 folder on disk (diffusers layout, safetensors); nothing is fetched.

    Weights become float32, whatever they were stored as; where a part has half-precision files only (`*.fp16.*`) those
    are read. Other parts of the folder (safety checker, feature extractor) are left alone. `image_size` in pixels, by
    default that of the base. Raises UserError if a part or some of its weights are missing, or if its U-Net needs more
    than a prompt (SDXL).
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    root = _checked(folder)
    unet = _loaded(UNet2DConditionModel, root / "unet", "diffusion_pytorch_model")
    vae = _loaded(AutoencoderKL, root / "vae", "diffusion_pytorch_model")
    text_encoder = _loaded(CLIPTextModel, root / "text_encoder", "model")
    return _assembled(root, CLIPTokenizer, unet, vae, text_encoder, image_size)


@without_bars()
def skeleton(folder: str | os.PathLike[str], image_size: int | None = None) -> TigerPipeline:
    """The model of a base folder or of a Tiger folder after coarse training, with random weights: its shape alone.

    Reads settings and vocabulary, no weights; called under torch's FakeTensorMode it takes no memory.
    """
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

    root = _checked(folder, codec=True)
    kind = PixelShuffleCodec if _autoencoder(root) == PixelShuffleCodec.__name__ else AutoencoderKL
    unet, vae = (
        one.from_config(one.load_config(str(root / part), local_files_only=True))  # type: ignore[attr-defined]
        for one, part in ((UNet2DConditionModel, "unet"), (kind, "vae"))
    )
    text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(str(root / "text_encoder"), local_files_only=True))
    return _assembled(root, AutoTokenizer, unet, vae, text_encoder, image_size)


def check_base(folder: str | os.PathLike[str], preset: Mapping[str, Any]) -> None:
    """Raise UserError, naming the first difference, unless the base folder is of the kind that the preset describes."""
    root = _checked(folder, codec=True)
    model, diffusion = preset["model"], preset["diffusion"]
    unet, scheduler = (read_json(root / name) for name in ("unet/config.json", "scheduler/scheduler_config.json"))
    blocks = read_json(root / "vae" / "config.json")
    factor = blocks.get("factor") or 2 ** (len(blocks.get("block_out_channels", [0])) - 1)
    found = {
        # diffusers' schedulers predict noise unless they say otherwise.
        "diffusion.prediction": (scheduler.get("prediction_type", "epsilon"), diffusion["prediction"]),
        "diffusion.beta_schedule": (scheduler.get("beta_schedule", "linear"), diffusion["beta_schedule"]),
        "diffusion.timesteps": (scheduler.get("num_train_timesteps", 1000), diffusion["timesteps"]),
        "model.unet_channels": (list(unet["block_out_channels"]), list(model["unet_channels"])),
        "model.text_width": (unet["cross_attention_dim"], model["text_width"]),
        "model.pooled_words": (unet.get("addition_embed_type") == "text", model["pooled_words"]),
        "model.downsample": (factor, model["downsample"]),
    }
    for name, (has, wanted) in found.items():
        if has != wanted:
            expected = f" (it starts from {preset['base']})" if preset["base"] else ""
            raise UserError(
                f"Base model {root} is of another kind: {name} is {has!r} there, the preset says {wanted!r}{expected}; "
                f"name another folder or preset, or change the setting."
            )


def _checked(folder: str | os.PathLike[str], codec: bool = False) -> Path:
    """The folder, if its parts are there and of the kinds that we can train; `codec`: ours may take the VAE's place."""
    root = Path(folder)
    missing = [part for part in BASE_PARTS if not (root / part).is_dir()]
    if missing:
        raise UserError(
            f"base model {root} has no folder {missing[0]!r}; give a Stable Diffusion folder in diffusers layout"
        )
    kind = _autoencoder(root)
    if kind != AutoencoderKL.__name__ and not (codec and kind == PixelShuffleCodec.__name__):
        # diffusers would fill an autoencoder of another class with random weights.
        raise UserError(
            f"the autoencoder of base model {root} is a {kind}; give a Stable Diffusion folder, or go on from a Tiger "
            "model by the same `tigergen train` command"
        )
    config = read_json(root / "unet" / "config.json")
    # Our own models pool the prompt's words, which needs nothing else; SDXL's and others' embeddings do.
    if config.get("addition_embed_type") not in (None, "text") or config.get("class_embed_type") is not None:
        raise UserError(f"base model {root} needs more than a prompt (SDXL?); give Stable Diffusion 1.5 or 2.1")
    return root


def _autoencoder(root: Path) -> str:
    return str(read_json(root / "vae" / "config.json").get("_class_name"))


def _loaded(kind: Any, part: Path, stem: str) -> Any:
    """One part with all its weights in float32; the libraries would fill what is missing with random numbers."""
    # Big parts come in several files with an index beside them; half-precision ones carry a mark in their names.
    plain = [part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"]
    half = [*part.glob(f"{stem}*fp16*.safetensors")]
    if not half and not any(path.is_file() for path in plain):
        raise UserError(f"base model part {part} has no {stem}.safetensors; convert its weights to safetensors first")
    model, info = kind.from_pretrained(
        str(part),
        variant=None if any(path.is_file() for path in plain) else "fp16",
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    lost = sorted(key for key in info["missing_keys"] if not key.endswith(IGNORED))
    if lost:
        raise UserError(f"base model part {part} lacks {len(lost)} of its weights, such as {lost[0]}; copy it again")
    # Some libraries keep the precision of the file; training in 16 bits loses small updates.
    return model.float()


def _assembled(root: Path, words: Any, unet: Any, vae: Any, text_encoder: Any, image_size: int | None) -> TigerPipeline:
    tokenizer = words.from_pretrained(str(root / "tokenizer"), local_files_only=True)
    # A tokenizer without a stated length would pad prompts to 10^30 tokens.
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    return TigerPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        # Latents have no bounds: clipping them, which DDIM does unless told otherwise, would spoil every image.
        scheduler=DDIMScheduler.from_pretrained(str(root / "scheduler"), local_files_only=True, clip_sample=False),
        image_size=image_size or unet.config["sample_size"] * block_size(vae),
    )
