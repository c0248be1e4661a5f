"""Token weights of the FG-Encoder's cross-attention (equations 8 to 10): rare words count more.

Two modes: `paper` multiplies the logits by W, as printed; `log` adds log W, which multiplies the unnormalised
attention itself. With `paper`, a token whose logit is negative loses attention when its weight exceeds 1.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from kb.errors import UserError
from kb.weights import A, B, delta, omega

MODES = ("log", "paper", "off")
# Keys and values of a prompt, each [B, heads, T, d], of every cross-attention of a model in the order of its modules.
TextKeys = list[tuple[Tensor, Tensor]]


def phrase_weights(
    roles: Iterable[tuple[str, str]], tau: Mapping[str, float] | None = None, a: float = A, b: float = B
) -> dict[str, float]:
    """Weight of each phrase of one FG prompt from its (phrase, role) pairs (equations 9 and 10).

    A joint phrase that `tau` does not hold has never been seen: its frequency is 0.
    """
    frequency = tau or {}
    return {phrase: omega(delta(role, frequency.get(phrase, 0.0)), a, b) for phrase, role in roles}


def check_mode(mode: str) -> str:
    """Return `mode` if it is a weighting mode, else raise UserError."""
    if mode not in MODES:
        raise UserError(f"weighting {mode!r} is unknown; choose one of {', '.join(MODES)}")
    return mode


class WeightedAttention:
    """Attention processor for diffusers' `Attention` that applies token weights to cross-attention (equation 8).

    Weights [B, T] arrive through `cross_attention_kwargs={"token_weights": W, "weighting": mode}`. Self-attention, and
    cross-attention without weights, are plain scaled dot-product attention. W is one factor a token, the same for
    every query, hence W (Q Kᵀ) = Q (W K)ᵀ: `paper` scales the keys, `log` is an additive bias. With
    `text_keys` among the arguments, keys and values are the ones at the `place` of this cross-attention.
    """

    def __init__(self, place: int = 0) -> None:
        self.place = place

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        token_weights: Tensor | None = None,
        weighting: str = "log",
        text_keys: TextKeys | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend from [B, N, C] to itself or to `encoder_hidden_states` [B, T, D]; returns [B, N, C]."""
        is_cross = encoder_hidden_states is not None
        query = _heads(attn, attn.to_q(hidden_states))
        if is_cross and text_keys is not None:
            key, value = text_keys[self.place]
        else:
            key, value = keys_and_values(
                attn, hidden_states if encoder_hidden_states is None else encoder_hidden_states
            )
        bias = attention_mask
        if is_cross and token_weights is not None and weighting != "off":
            weights = token_weights.to(key.dtype)
            if weighting == "paper":
                key = key * weights[:, None, :, None]
            else:
                bias = weights.log()[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))


def keys_and_values(attn: Attention, source: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [B, heads, T, d] of `source` [B, T, D] for one attention."""
    return _heads(attn, attn.to_k(source)), _heads(attn, attn.to_v(source))


def text_keys(model: nn.Module, text: Tensor) -> TextKeys:
    """Keys and values of `text` [B, T, D] for every cross-attention of `model`: the same at every sampling step.

    `model` must use weighted attention (`use_weighted_attention`), which reads them by place.
    """
    return [keys_and_values(attn, text) for attn in _attentions(model) if attn.is_cross_attention]


def use_weighted_attention(model: nn.Module) -> None:
    """Give every `Attention` inside `model` the weighted processor."""
    place = 0
    for attn in _attentions(model):
        attn.set_processor(WeightedAttention(place))  # type: ignore[arg-type]
        place += attn.is_cross_attention


def _attentions(model: nn.Module) -> list[Attention]:
    return [module for module in model.modules() if isinstance(module, Attention)]


def _heads(attn: Attention, states: Tensor) -> Tensor:
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
