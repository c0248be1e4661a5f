"""Blocks that keep less for the backward pass: the same values and gradients, and indeed less kept."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from tigergen.model.lean import LeanFeedForward, LeanResnet, LeanTransformer, use_lean_blocks
from tigergen.model.unet import predict


def unet(linear: bool = False) -> UNet2DConditionModel:
    torch.manual_seed(0)
    net = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=2, use_linear_projection=linear,
    )  # fmt: skip
    return net.double()


def run(net: UNet2DConditionModel) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor | None], int]:
    """Prediction, gradient of the latents, gradients of the weights, and bytes that autograd kept."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64).requires_grad_(True)
    text = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        predicted = predict(net, latents, torch.tensor([3, 700]), text)
    for parameter in net.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    (predicted**2).mean().backward()
    assert latents.grad is not None
    return predicted.detach(), latents.grad, {name: p.grad for name, p in net.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("linear", [False, True])
def test_lean_blocks_give_the_same_values_and_gradients_and_keep_less(frozen: bool, linear: bool) -> None:
    plain, lean = unet(linear), unet(linear)
    use_lean_blocks(lean)
    for net in (plain, lean):
        net.requires_grad_(not frozen)
    assert list(plain.state_dict()) == list(lean.state_dict())
    expected, found = run(plain), run(lean)
    assert torch.allclose(expected[0], found[0], rtol=1e-10, atol=1e-12)
    assert torch.allclose(expected[1], found[1], rtol=1e-8, atol=1e-14)
    for name, gradient in expected[2].items():
        other = found[2][name]
        assert (gradient is None) == (other is None) == frozen, name
        if gradient is not None and other is not None:
            assert torch.allclose(gradient, other, rtol=1e-8, atol=1e-14), name
    assert found[3] < (0.6 if frozen else 0.65) * expected[3]


def test_every_block_of_the_kinds_it_knows_is_changed_and_others_are_left() -> None:
    net = unet()
    use_lean_blocks(net)
    kinds = [type(block) for block in net.modules()]
    assert kinds.count(LeanResnet) == 8 and kinds.count(LeanTransformer) == kinds.count(LeanFeedForward) == 4
    shifted = UNet2DConditionModel(
        block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, layers_per_block=1,
        up_block_types=("UpBlock2D",) * 2, resnet_time_scale_shift="scale_shift", attention_head_dim=2,
    )  # fmt: skip
    use_lean_blocks(shifted)
    assert LeanResnet not in [type(block) for block in shifted.modules()]


def test_one_frozen_weight_among_learning_ones_gets_no_gradient() -> None:
    net = unet()
    use_lean_blocks(net)
    still = net.down_blocks[0].resnets[0].conv1.weight.requires_grad_(False)
    gradients = run(net)[2]
    assert still.grad is None and all(
        g is not None for name, g in gradients.items() if "resnets.0.conv1.weight" not in name
    )


def test_bf16_autocast_works_and_gives_gradients_in_the_weights_precision() -> None:
    net = unet().float()
    use_lean_blocks(net)
    text, latents = torch.randn(2, 5, 12), torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = (predict(net, latents, torch.tensor([3, 700]), text) ** 2).mean()
    loss.backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters()
    )


def test_a_layer_that_an_adapter_replaced_is_left_to_torch() -> None:
    class Adapted(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    net = unet()
    use_lean_blocks(net)
    layer = next(block for block in net.modules() if isinstance(block, LeanFeedForward))
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    before = layer(x)
    layer.net[2].__class__ = Adapted
    assert torch.allclose(layer(x), before + 1)
