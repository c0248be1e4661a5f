"""The U-Net in two halves: what leads to the skip connections and the middle, and what turns them into a prediction.

diffusers' `UNet2DConditionModel.forward` is one call. Control is added between the halves, and in fine training the
frozen first half needs no graph, so the halves are called apart here.
"""

from typing import Any, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor


class Features(NamedTuple):
    """Skip connections, finest first, and the middle block's output of a U-Net, or what is to be added to them."""

    skips: tuple[Tensor, ...]
    mid: Tensor


def embed_time(net: Any, timesteps: Tensor, dtype: torch.dtype, text: Tensor) -> Tensor:
    """Time embedding [B, E] of `timesteps` [B]; where the network pools words, those of `text` [B, T, D] are in it."""
    # The sinusoids are always float32, the weights may not be.
    emb = net.time_embedding(net.time_proj(timesteps).to(dtype))
    pool = getattr(net, "add_embedding", None)
    return emb if pool is None else emb + pool(text)


def encode(net: Any, hidden: Tensor, emb: Tensor, text: Tensor, attention: dict[str, Any] | None = None) -> Features:
    """Run down blocks and middle block on `hidden` [B, C, h, w], the output of `conv_in` (plus a condition)."""
    skips: tuple[Tensor, ...] = (hidden,)
    for block in net.down_blocks:
        hidden, outputs = _down(block, hidden, emb, text, attention)
        skips += outputs
    mid = net.mid_block(hidden, emb, encoder_hidden_states=text, cross_attention_kwargs=attention)
    return Features(skips, mid)


def encode_top(
    net: Any, hidden: Tensor, emb: Tensor, text: Tensor, attention: dict[str, Any] | None = None
) -> tuple[Tensor, ...]:
    """Only the first down block of `encode`: the skip connections that the last up block takes, finest first."""
    block = net.down_blocks[0]
    _, outputs = _down(block, hidden, emb, text, attention)
    return (hidden, *outputs[: len(block.resnets)])


def _down(
    block: Any, hidden: Tensor, emb: Tensor, text: Tensor, attention: dict[str, Any] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if getattr(block, "has_cross_attention", False):
        hidden, outputs = block(
            hidden_states=hidden, temb=emb, encoder_hidden_states=text, cross_attention_kwargs=attention
        )
    else:
        hidden, outputs = block(hidden_states=hidden, temb=emb)
    return hidden, tuple(outputs)


def decode(
    unet: UNet2DConditionModel, features: Features, emb: Tensor, text: Tensor, attention: dict[str, Any] | None = None
) -> Tensor:
    """Run up blocks and output layers; returns the prediction [B, C, h, w]."""
    deep = decode_deep(unet, features, emb, text, attention)
    return decode_last(unet, deep, features.skips[: top_skips(unet)], emb, text, attention)


def top_skips(unet: UNet2DConditionModel) -> int:
    """How many skip connections, the finest ones, the last up block takes."""
    last: Any = unet.up_blocks[-1]
    return len(last.resnets)


def decode_deep(
    unet: UNet2DConditionModel, features: Features, emb: Tensor, text: Tensor, attention: dict[str, Any] | None = None
) -> Tensor:
    """All up blocks but the last: what comes from below to the finest level, [B, C, h, w]."""
    skips, hidden = features
    blocks: list[Any] = list(unet.up_blocks)
    for block in blocks[:-1]:
        count = len(block.resnets)
        skips, used = skips[:-count], skips[-count:]
        # Naming the size keeps odd latent sizes exact, where doubling would overshoot.
        hidden = _up(block, hidden, used, emb, text, attention, tuple(skips[-1].shape[2:]))
    return hidden


def decode_last(
    unet: UNet2DConditionModel,
    deep: Tensor,
    skips: tuple[Tensor, ...],
    emb: Tensor,
    text: Tensor,
    attention: dict[str, Any] | None = None,
) -> Tensor:
    """The last up block, on what comes from below and the finest skip connections, and the output layers."""
    hidden = _up(unet.up_blocks[-1], deep, skips, emb, text, attention, None)
    if unet.conv_norm_out is not None:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    return unet.conv_out(hidden)


def _up(
    block: Any,
    hidden: Tensor,
    skips: tuple[Tensor, ...],
    emb: Tensor,
    text: Tensor,
    attention: dict[str, Any] | None,
    size: tuple[int, ...] | None,
) -> Tensor:
    arguments = {"hidden_states": hidden, "temb": emb, "res_hidden_states_tuple": skips, "upsample_size": size}
    if getattr(block, "has_cross_attention", False):
        arguments |= {"encoder_hidden_states": text, "cross_attention_kwargs": attention}
    return block(**arguments)


def add(features: Features, control: Features | None) -> Features:
    """Add control to skip connections and middle, level by level."""
    if control is None:
        return features
    pairs = zip(features.skips, control.skips, strict=True)
    return Features(tuple(skip + extra for skip, extra in pairs), features.mid + control.mid)


def features(unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Features, Tensor]:
    """First half of the U-Net: features and time embedding for `latents` [B, C, h, w] at `timesteps` [B]."""
    emb = embed_time(unet, timesteps, latents.dtype, text)
    return encode(unet, unet.conv_in(latents), emb, text), emb


def predict(
    unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, text: Tensor, control: Features | None = None
) -> Tensor:
    """Noise or v prediction [B, C, h, w], with `control` added to skip connections and middle."""
    own, emb = features(unet, latents, timesteps, text)
    return decode(unet, add(own, control), emb, text)


def skip_channels(net: Any) -> list[int]:
    """Channels of each skip connection of a U-Net's first half, finest first, and of its middle block last."""
    channels = [net.conv_in.out_channels]
    for block in net.down_blocks:
        channels += [resnet.out_channels for resnet in block.resnets]
        if block.downsamplers:
            channels.append(block.resnets[-1].out_channels)
    return [*channels, net.mid_block.resnets[-1].out_channels]
