"""Folders with structure, settings and key names of published Stable Diffusion models; random weights, any width."""

import json
from math import gcd
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PHRASES = ("solid", "irregular margin", "transverse plane", "left side", "no halo")

# The settings as published, what only tells library versions left out. `divide`: of every width, for small copies.
UNET: dict[str, Any] = {
    "act_fn": "silu", "center_input_sample": False, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
VAE: dict[str, Any] = {
    "act_fn": "silu", "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4,
    "layers_per_block": 2, "out_channels": 3, "sample_size": 512, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "initializer_factor": 1.0,
    "initializer_range": 0.02, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
    "pad_token_id": 1, "projection_dim": 512, "vocab_size": 49408,
}  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "1.5": {
        "unet": {"attention_head_dim": 8, "cross_attention_dim": 768},
        "text": {"hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                 "num_hidden_layers": 12},
        "scheduler": {"_class_name": "PNDMScheduler"},
        "pad": "<|endoftext|>",
    },
    "2.1": {
        "unet": {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True,
                 "dual_cross_attention": False, "only_cross_attention": False, "upcast_attention": True,
                 "sample_size": 96},
        "text": {"hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
                 "num_hidden_layers": 23},
        "scheduler": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
        "pad": "!",
    },
}  # fmt: skip


def write(root: Path, kind: str, divide: int = 1, fp16: bool = False, old_names: bool = True) -> Path:
    """Write a folder of `kind` ("1.5" or "2.1") with every width divided by `divide`; returns it.

    `fp16`: half-precision files with that mark in their names, and no others. `old_names`: text encoder and autoencoder
    with the names of weights that the published files have, which newer libraries have given up.
    """
    settings = KINDS[kind]
    torch.manual_seed(0)
    _write_words(root / "tokenizer", settings["pad"])
    widths = [width // divide for width in (320, 640, 1280, 1280)]
    # Groups, heads and pixels stay what they are as long as the widths allow.
    unet = {**UNET, **settings["unet"], "block_out_channels": widths, "norm_num_groups": gcd(32, *widths)}
    unet["cross_attention_dim"] //= divide
    if divide > 1:
        heads = settings["unet"]["attention_head_dim"]
        unet["attention_head_dim"] = 2 if isinstance(heads, int) else [1, 2, 2, 2]
        unet["sample_size"] = 8
    net = UNet2DConditionModel(**unet)
    _save(
        root / "unet",
        "diffusion_pytorch_model",
        net.state_dict(),
        {"_class_name": "UNet2DConditionModel", **unet},
        fp16,
    )
    del net
    blocks = [max(width // divide, 4) for width in (128, 256, 512, 512)]
    vae = {**VAE, "block_out_channels": blocks, "norm_num_groups": gcd(32, *blocks)}
    codec = AutoencoderKL(**vae)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"} if old_names else {}
    weights = {_renamed(name, names): value for name, value in codec.state_dict().items()}
    _save(root / "vae", "diffusion_pytorch_model", weights, {"_class_name": "AutoencoderKL", **vae}, fp16)
    text = {**TEXT, **settings["text"]}
    if divide > 1:
        text |= {"hidden_size": unet["cross_attention_dim"], "intermediate_size": 2 * unet["cross_attention_dim"],
                 "num_attention_heads": 1, "num_hidden_layers": 2, "vocab_size": 600}  # fmt: skip
    words = CLIPTextModel(CLIPTextConfig(**text))
    plain = {name.removeprefix("text_model."): value for name, value in words.state_dict().items()}
    plain["embeddings.position_ids"] = torch.arange(77)[None]
    prefix = "text_model." if old_names else ""
    stored = {f"{prefix}{name}": value for name, value in plain.items() if old_names or "position_ids" not in name}
    _save(root / "text_encoder", "model", stored, {"architectures": ["CLIPTextModel"], **text}, fp16)
    _json(root / "scheduler" / "scheduler_config.json", {**SCHEDULER, **settings["scheduler"]})
    # What a download brings along and a generator of ultrasound images has no use for.
    for extra, file in (("safety_checker", "config.json"), ("feature_extractor", "preprocessor_config.json")):
        _json(root / extra / file, {"architectures": ["StableDiffusionSafetyChecker"]})
    (root / "safety_checker" / "model.safetensors").write_bytes(b"not read")
    index = {name: ["diffusers", "X"] for name in ("unet", "vae", "scheduler")}
    index |= {name: ["transformers", "X"] for name in ("text_encoder", "tokenizer", "feature_extractor")}
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    _json(root / "model_index.json", {"_class_name": "StableDiffusionPipeline", **index})
    return root


def _renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = name.replace(f".{new}.", f".{old}.") if "attentions" in name else name
    return name


def _write_words(folder: Path, pad: str) -> None:
    """A byte-pair vocabulary in CLIP's two files: every byte, its end-of-word form, and merges of a few phrases."""
    # CLIP's byte alphabet: printable characters first; what the phrases need is among them.
    alphabet = [chr(code) for code in range(33, 127)]
    merges = ["s o", "l i", "li d</w>", "so lid</w>", "i r", "ir r", "m a", "ma r", "g i", "n o</w>", "h a", "ha l"]
    pieces = [*alphabet, *(f"{one}</w>" for one in alphabet), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    _json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    _json(folder / "special_tokens_map.json", {**special, "pad_token": pad})
    config = {**special, "pad_token": pad, "add_prefix_space": False, "do_lower_case": True, "errors": "replace"}
    _json(folder / "tokenizer_config.json", {**config, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})


def _save(folder: Path, stem: str, weights: dict[str, torch.Tensor], config: dict[str, Any], fp16: bool) -> None:
    _json(folder / "config.json", config)
    if fp16:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    kept = {name: value.contiguous() for name, value in weights.items()}
    save_file(kept, folder / f"{stem}{'.fp16' if fp16 else ''}.safetensors", metadata={"format": "pt"})


def _json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight of one part of a folder by the name it has there."""
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}
