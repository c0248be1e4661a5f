"""The U-Net's blocks with less kept for the backward pass: the same weights, values and gradients, in less memory.

Autograd keeps the input of each operation. Between two convolutions that is the feature map three times: before the
norm, after it, and after the activation. Norm and activation cost little beside a convolution, so only the first is
kept and the others are made again when their turn comes (Chen et al. 2016, without running a convolution twice). In a
frozen network torch keeps a convolution's input although only weights need it; here it does not. The widest map of a
transformer, eight times its input, is made again as well, by one more matrix product.
"""

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten


class _NormedConvolution(torch.autograd.Function):
    """conv(act(norm(x))); keeps x, and the norm's means and deviations."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        groups: int,
        eps: float,
        padding: int,
        silu: bool,
    ) -> Tensor:
        batch, channels, *sizes = x.shape
        area = sizes[0] * sizes[1]
        x = x.contiguous()
        # Under autocast features come in another precision than the norm's weights, and CUDA's norm wants one for both.
        full = x.to(norm_weight.dtype)
        normed, mean, deviation = aten.native_group_norm(
            full, norm_weight, norm_bias, batch, channels, area, groups, eps
        )
        ctx.save_for_backward(x, norm_weight, norm_bias, mean, deviation, weight)
        ctx.groups, ctx.eps, ctx.padding, ctx.silu, ctx.has_bias = groups, eps, padding, silu, bias is not None
        return F.conv2d(F.silu(normed, inplace=True) if silu else normed, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, mean, deviation, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        (grad,) = grads
        batch, channels, *sizes = x.shape
        area = sizes[0] * sizes[1]
        normed = full = x.to(norm_weight.dtype)
        if ctx.silu or needs[3]:
            normed, *_ = aten.native_group_norm(
                full, norm_weight, norm_bias, batch, channels, area, ctx.groups, ctx.eps
            )
        # Where no weight learns, the values of a convolution's input are not looked at, only its shape.
        given = (F.silu(normed) if ctx.silu and needs[3] else normed).to(grad.dtype)
        mask = [any(needs[:3]), needs[3], needs[4]]
        inner, grad_weight, grad_bias = aten.convolution_backward(
            grad, given, weight.to(grad.dtype), [weight.shape[0]] if ctx.has_bias else None, [1, 1],
            [ctx.padding, ctx.padding], [1, 1], False, [0, 0], 1, mask,
        )  # fmt: skip
        found: list[Tensor | None] = [None, None, None]
        if mask[0]:
            inner = inner.to(full.dtype)
            if ctx.silu:
                inner = aten.silu_backward(inner, normed)
            found = list(
                aten.native_group_norm_backward(
                    inner, full, mean, deviation, norm_weight, batch, channels, area, ctx.groups, list(needs[:3])
                )
            )
            found[0] = _like(found[0], x)
        return (*found, _like(grad_weight, weight), _like(grad_bias, weight), None, None, None, None)


class _GatedFeedForward(torch.autograd.Function):
    """linear2(h · gelu(g)) with the halves (h, g) of linear1(x); keeps x, an eighth of what linear1 makes of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight1, bias1, weight2)
        hidden, gate = F.linear(x, weight1, bias1).chunk(2, dim=-1)
        return F.linear(F.gelu(gate).mul_(hidden), weight2, bias2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, bias1, weight2 = ctx.saved_tensors
        needs = ctx.needs_input_grad
        rows = grads[0].flatten(0, -2)
        # Under autocast the layers ran in another precision than their weights are kept in.
        x, weight1, bias1, cast2 = (tensor.to(rows.dtype) for tensor in (x, weight1, bias1, weight2))
        flat = x.flatten(0, -2)
        hidden, gate = torch.addmm(bias1, flat, weight1.t()).chunk(2, dim=-1)
        opened = F.gelu(gate)
        found: list[Tensor | None] = [None] * 5
        if needs[3]:
            found[3] = rows.t() @ (hidden * opened)
        if needs[4]:
            found[4] = rows.sum(0)
        if any(needs[:3]):
            inner = rows @ cast2
            both = torch.empty(len(rows), 2 * inner.shape[1], dtype=rows.dtype, device=rows.device)
            to_hidden, to_gate = both.chunk(2, dim=-1)
            torch.mul(inner, opened, out=to_hidden)
            to_gate.copy_(aten.gelu_backward(inner.mul_(hidden), gate))
            found[0] = (both @ weight1).view(x.shape) if needs[0] else None
            found[1] = both.t() @ flat if needs[1] else None
            found[2] = both.sum(0) if needs[2] else None
        kept = ctx.saved_tensors
        originals = (kept[0], kept[1], kept[2], kept[3], kept[3])
        return tuple(_like(grad, original) for grad, original in zip(found, originals, strict=True))


def _like(grad: Tensor | None, given: Tensor) -> Tensor | None:
    """A gradient in the precision of what it belongs to."""
    return None if grad is None else grad.to(given.dtype)


def _plain(*layers: nn.Module) -> bool:
    """Whether to leave it to torch, which is so for a layer that an adapter such as LoRA has taken the place of.

    Without a graph nothing is kept anyway, and torch.compile decides by itself what to keep.
    """
    exact = all(type(layer) in (nn.Conv2d, nn.Linear) for layer in layers)
    return torch.compiler.is_compiling() or not torch.is_grad_enabled() or not exact


def normed_convolution(x: Tensor, norm: Any, convolution: Any, silu: bool) -> Tensor:
    """conv(silu(norm(x))), or conv(norm(x)), for x [B, C, h, w] and a convolution of stride 1."""
    if _plain(convolution):
        normed = norm(x)
        return convolution(F.silu(normed) if silu else normed)
    return _NormedConvolution.apply(
        x, norm.weight, norm.bias, convolution.weight, convolution.bias, norm.num_groups, norm.eps,
        convolution.padding[0], silu,
    )  # fmt: skip


class LeanResnet(ResnetBlock2D):
    """diffusers' residual block, apart from its versions that Stable Diffusion does not use."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **options: Any) -> Tensor:
        """Features [B, C, h, w] and time embedding [B, E] to features [B, C', h, w]."""
        hidden = normed_convolution(input_tensor, self.norm1, self.conv1, silu=True)
        # A convolution's result is kept by nobody, so that it can be added to in place.
        hidden += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = normed_convolution(hidden, self.norm2, self.conv2, silu=True)
        hidden += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return hidden


class LeanTransformer(Transformer2DModel):
    """diffusers' transformer whose way in is a norm and a 1 × 1 convolution."""

    def _operate_on_continuous_inputs(self, hidden_states: Tensor) -> tuple[Tensor, int]:
        hidden = normed_convolution(hidden_states, self.norm, self.proj_in, silu=False)
        return hidden.flatten(2).transpose(1, 2).contiguous(), hidden.shape[1]


class LeanFeedForward(FeedForward):
    """diffusers' feed-forward layer with a gated linear unit (GEGLU)."""

    def forward(self, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
        """Tokens [B, N, C] to tokens [B, N, C]."""
        layers: Any = self.net
        first, last = layers[0].proj, layers[2]
        if _plain(first, last):
            return super().forward(hidden_states)
        return _GatedFeedForward.apply(hidden_states, first.weight, first.bias, last.weight, last.bias)


def _is_plain_resnet(block: Any) -> bool:
    return (
        type(block) is ResnetBlock2D
        and block.time_embedding_norm == "default"
        and block.time_emb_proj is not None
        and not (block.up or block.down or block.skip_time_act or block.dropout.p)
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.output_scale_factor == 1
    )


def _has_convolution_in(block: Any) -> bool:
    return type(block) is Transformer2DModel and block.is_input_continuous and not block.use_linear_projection


def _is_plain_gated(block: Any) -> bool:
    return (
        type(block) is FeedForward and len(block.net) == 3 and type(block.net[0]) is GEGLU and not block.net[1].p  # type: ignore[union-attr]
    )


def use_lean_blocks(model: nn.Module) -> None:
    """Let every block inside `model` that can keep less for the backward pass do so; nothing else changes."""
    for block in model.modules():
        if _is_plain_resnet(block):
            block.__class__ = LeanResnet
        elif _has_convolution_in(block):
            block.__class__ = LeanTransformer
        elif _is_plain_gated(block):
            block.__class__ = LeanFeedForward
