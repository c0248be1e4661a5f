"""Equations 8 to 10 against numbers worked out by hand and against a plain loop."""

import math

import pytest
import torch
from diffusers.models.attention_processor import Attention

from kb.errors import UserError
from tigergen.model.weighting import check_mode, phrase_weights, use_weighted_attention


def test_rare_terms_weigh_more_than_common_ones() -> None:
    weights = phrase_weights(
        [("a", "particular"), ("b", "joint"), ("c", "joint"), ("d", "common")], {"b": 0.05, "c": 0.4}
    )
    assert weights["a"] > weights["b"] > weights["c"] > weights["d"]


def test_unknown_mode_is_a_user_error() -> None:
    with pytest.raises(UserError, match="'loud'"):
        check_mode("loud")


def plain_attention(attn: Attention, hidden: torch.Tensor, text: torch.Tensor, weights: torch.Tensor, mode: str):
    """Equation 8 by loops over images, heads, queries and tokens, in float64."""
    queries, keys, values = attn.to_q(hidden), attn.to_k(text), attn.to_v(text)
    dim = queries.shape[-1] // attn.heads
    out = torch.zeros_like(queries)
    for image in range(len(hidden)):
        for head in range(attn.heads):
            part = slice(head * dim, (head + 1) * dim)
            for query in range(hidden.shape[1]):
                logits = []
                for token in range(text.shape[1]):
                    logit = sum(queries[image, query, part] * keys[image, token, part]) / math.sqrt(dim)
                    weight = weights[image, token]
                    logits.append(logit * weight if mode == "paper" else logit + math.log(weight))
                powers = [math.exp(logit) for logit in logits]
                out[image, query, part] = sum(
                    power / sum(powers) * values[image, token, part] for token, power in enumerate(powers)
                )
    return attn.to_out[0](out)


@pytest.mark.parametrize("mode", ["paper", "log"])
def test_equation_8_equals_a_plain_loop(mode: str) -> None:
    torch.manual_seed(0)
    attn = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4).double()
    use_weighted_attention(attn)
    hidden, text = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 6).double()
    weights = torch.tensor([[1.0, 3.1, 0.6335], [1.0, 1.5121, 1.0]]).double()
    with torch.no_grad():
        fast = attn(hidden, text, token_weights=weights, weighting=mode)
        assert torch.allclose(fast, plain_attention(attn, hidden, text, weights, mode), atol=1e-6)
        assert not torch.allclose(fast, attn(hidden, text), atol=1e-3)


def test_without_weights_it_is_diffusers_own_attention() -> None:
    torch.manual_seed(0)
    attn = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4)
    hidden, text = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    expected = attn(hidden, text)
    use_weighted_attention(attn)
    assert torch.allclose(attn(hidden, text), expected, atol=1e-6)
    off = attn(hidden, text, token_weights=torch.full((2, 3), 9.0), weighting="off")
    assert torch.allclose(off, expected, atol=1e-6)


def test_self_attention_ignores_token_weights() -> None:
    torch.manual_seed(0)
    attn = Attention(query_dim=8, heads=2, dim_head=4)
    use_weighted_attention(attn)
    hidden = torch.randn(2, 5, 8)
    assert torch.equal(attn(hidden, token_weights=torch.full((2, 3), 9.0)), attn(hidden))


def test_log_mode_multiplies_the_attention_itself_and_paper_mode_can_lower_it() -> None:
    """Two tokens with a negative logit for the weighted one: emphasis must raise its share; `paper` lowers it."""
    attn = Attention(query_dim=1, cross_attention_dim=1, heads=1, dim_head=1, bias=False).double()
    use_weighted_attention(attn)
    for layer in (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0]):
        torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(attn.to_out[0].bias)
    hidden, text = torch.ones(1, 1, 1).double(), torch.tensor([[[-1.0], [0.0]]]).double()
    weights = torch.tensor([[3.0, 1.0]]).double()
    share = {
        mode: -attn(hidden, text, token_weights=weights, weighting=mode).item() for mode in ("off", "log", "paper")
    }
    assert share["off"] == pytest.approx(1 / (1 + math.e))
    assert share["log"] == pytest.approx(3 / (3 + math.e))
    assert share["paper"] == pytest.approx(1 / (1 + math.e**3))
