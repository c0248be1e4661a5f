"""Low-rank adapters of the U-Net's attention (LoRA, Hu et al. 2021), by peft; merged into the weights at the end."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

# Queries, keys, values and output of self- and cross-attention: what diffusers' own LoRA training adapts.
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")


def add_lora(unet: UNet2DConditionModel, rank: int, seed: int = 0) -> UNet2DConditionModel:
    """Freeze `unet` and give every attention in it adapters of this rank, the only weights left to train.

    W x becomes W x + B A x with A [rank, in] random and B [out, rank] zero: nothing changes before training. The scale
    is 1 (alpha = rank). The same seed gives the same A; the global random state is left as it was.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=True, target_modules=list(ADAPTED)))
    return unet


def merge_lora(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Add B A to each weight and take the adapters out: a plain U-Net again, with the names of any other."""
    unet.fuse_lora()
    unet.unload_lora()
    return unet
