"""Losses: known values, where their gradients go, and that training moves every part."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from kb.errors import UserError
from tigergen.model import TigerPipeline, add_control
from tigergen.model.losses import (
    Objective,
    coarse_loss,
    fg_region,
    fine_losses,
    latent_mask,
    masked_mse,
    min_snr_weight,
    signal_to_noise,
)


def test_signal_to_noise_and_min_snr_weights_by_hand() -> None:
    snr = signal_to_noise(torch.tensor([0.5, 0.9, 0.99]))
    assert torch.allclose(snr, torch.tensor([1.0, 9.0, 99.0]), rtol=1e-4)
    assert torch.allclose(min_snr_weight(snr, 5.0, "epsilon"), torch.tensor([1.0, 5 / 9, 5 / 99]), rtol=1e-4)
    assert torch.allclose(min_snr_weight(snr, 5.0, "v_prediction"), torch.tensor([0.5, 0.5, 0.05]), rtol=1e-4)


def test_a_floor_keeps_the_noisiest_steps_in_the_loss() -> None:
    noisy = torch.tensor([0.001, 0.25, 9.0])
    got = min_snr_weight(noisy, 1.0, "v_prediction", floor=0.25)
    assert torch.allclose(got, torch.tensor([0.25 / 1.001, 0.2, 0.1]))
    levels = torch.tensor([0.9, 0.2, 0.0])
    weights = Objective(levels, "v_prediction", 1.0, 0.25).to("cpu").weight(torch.tensor([0, 1, 2]))
    assert torch.allclose(weights, torch.tensor([0.1, 0.2, 0.25]))


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_noise_and_targets_are_those_of_diffusers(prediction: str) -> None:
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
    objective = Objective.of(scheduler)
    clean, noise, times = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 400, 999])
    assert torch.allclose(objective.noisy(clean, noise, times), scheduler.add_noise(clean, noise, times), atol=1e-6)
    expected = noise if prediction == "epsilon" else scheduler.get_velocity(clean, noise, times)
    assert torch.allclose(objective.target(clean, noise, times), expected, atol=1e-6)


def test_another_prediction_type_is_a_user_error() -> None:
    with pytest.raises(UserError, match="'sample'"):
        Objective.of(EulerDiscreteScheduler(prediction_type="sample"))


def test_masked_losses_by_hand_and_their_sum_is_the_ordinary_one() -> None:
    predicted, target = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    region = torch.tensor([1.0, 0.5, 0.0, 0.0]).reshape(1, 1, 2, 2)
    weight = torch.tensor([2.0])
    fg = masked_mse(predicted, target, region, weight)
    bg = masked_mse(predicted, target, 1 - region, weight)
    assert fg.item() == pytest.approx(2 * (1 + 0.5 * 4) / 4)
    assert (fg + bg).item() == pytest.approx(masked_mse(predicted, target, None, weight).item())


def test_mask_in_latent_space_is_the_covered_share_and_a_leak_softens_it() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :1] = 1
    assert latent_mask(mask, (2, 2)).flatten().tolist() == [0.5, 0, 0, 0]
    assert fg_region(torch.tensor([0.0, 1.0]), 0.15).tolist() == pytest.approx([0.15, 1.0])


def fine_batch(pipe: TigerPipeline) -> tuple:
    """Arguments of `fine_losses` after the control."""
    torch.manual_seed(4)
    masks = torch.zeros(3, 1, 16, 16)
    masks[..., 4:10, 5:11] = 1
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    text = torch.randn(3, 8, 16)
    conditions = {
        "fg_text": torch.randn(3, 8, 16),
        "bg_text": torch.randn(3, 8, 16),
        "masks": masks,
        "sobels": torch.rand(3, 1, 16, 16),
        "fg_weights": torch.rand(3, 8) + 0.5,
    }
    return pipe.objective(), clean, noise, torch.tensor([100, 500, 900]), text, conditions


def test_before_training_the_fine_loss_is_the_coarse_loss(coarse: TigerPipeline) -> None:
    add_control(coarse)
    objective, clean, noise, times, text, conditions = fine_batch(coarse)
    fg, bg = fine_losses(coarse.unet, coarse.control(), objective, clean, noise, times, text, conditions)
    assert (fg + bg).item() == pytest.approx(
        coarse_loss(coarse.unet, objective, clean, noise, times, text).item(), rel=1e-5
    )


def test_after_one_update_every_parameter_of_the_control_gets_a_gradient(coarse: TigerPipeline) -> None:
    add_control(coarse)
    coarse.unet.requires_grad_(False)
    control = coarse.control()
    optimiser = torch.optim.AdamW(control.parameters(), lr=1e-2)
    batch = fine_batch(coarse)
    for _ in range(2):
        optimiser.zero_grad()
        sum(fine_losses(coarse.unet, control, *batch)).backward()
        optimiser.step()
    silent = [name for name, p in control.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad is None for p in coarse.unet.parameters())


def test_a_gradient_reaches_every_image_of_the_batch(tiger: TigerPipeline) -> None:
    objective, clean, noise, times, text, conditions = fine_batch(tiger)
    conditions["sobels"].requires_grad_(True)
    conditions["masks"].requires_grad_(True)
    sum(fine_losses(tiger.unet, tiger.control(), objective, clean, noise, times, text, conditions)).backward()
    for name in ("sobels", "masks"):
        assert (conditions[name].grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_own_losses_reach_their_own_encoder_only_and_equal_the_summed_ones(tiger: TigerPipeline) -> None:
    control, batch = tiger.control(), fine_batch(tiger)
    own = fine_losses(tiger.unet, control, *batch, own=True)
    summed = fine_losses(tiger.unet, control, *batch)
    assert [loss.item() for loss in own] == pytest.approx([loss.item() for loss in summed], rel=1e-5)
    for loss, learns, rests in zip(own, ("fg_encoder", "bg_encoder"), ("bg_encoder", "fg_encoder"), strict=True):
        control.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        assert all(p.grad is None for p in getattr(control, rests).parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(control, learns).parameters())
    control.zero_grad(set_to_none=True)
    summed[0].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in control.bg_encoder.parameters())


def test_the_masked_losses_see_their_own_region(tiger: TigerPipeline) -> None:
    objective, clean, noise, times, text, conditions = fine_batch(tiger)
    everywhere = {**conditions, "masks": torch.ones(3, 1, 16, 16)}
    _, bg = fine_losses(tiger.unet, tiger.control(), objective, clean, noise, times, text, everywhere)
    assert bg.item() == 0
    _, leaking = fine_losses(tiger.unet, tiger.control(), objective, clean, noise, times, text, everywhere, leak=0.15)
    assert leaking.item() > 0


def test_in_own_mode_each_encoder_learns_everything_through_its_own_loss_alone(tiger: TigerPipeline) -> None:
    control, batch = tiger.control(), fine_batch(tiger)
    for number, learns in enumerate(("fg_encoder", "bg_encoder")):
        control.zero_grad(set_to_none=True)
        fine_losses(tiger.unet, control, *batch, own=True)[number].backward()
        for part in (getattr(control, learns), control.fusion):
            silent = [name for name, p in part.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert silent == []


def test_a_batch_of_three_is_three_batches_of_one(tiger: TigerPipeline) -> None:
    """Losses of the batch are the means of those of its images, and so are the gradients of every parameter."""
    control = tiger.control()
    objective, clean, noise, times, text, conditions = fine_batch(tiger)
    conditions["keep"] = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])

    def run(rows: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        control.zero_grad(set_to_none=True)
        part = {name: value[rows] for name, value in conditions.items()}
        given = (objective, clean[rows], noise[rows], times[rows], text[rows], part)
        losses = torch.stack(fine_losses(tiger.unet, control, *given))
        losses.sum().backward()
        return losses.detach(), [parameter.grad.clone() for parameter in control.parameters()]

    for part in (tiger.unet, control):
        part.double()
    clean, noise, text = clean.double(), noise.double(), text.double()
    objective = Objective(objective.alphas_cumprod.double(), objective.prediction, objective.gamma)
    conditions = {name: value.double() for name, value in conditions.items()}
    together, gradients = run([0, 1, 2])
    alone = [run([row]) for row in range(3)]
    assert torch.allclose(together, torch.stack([losses for losses, _ in alone]).mean(dim=0), rtol=1e-6, atol=0)
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    for number, gradient in enumerate(gradients):
        expected = torch.stack([parts[number] for _, parts in alone]).mean(dim=0)
        assert float((gradient - expected).abs().max()) < 1e-6 * scale
