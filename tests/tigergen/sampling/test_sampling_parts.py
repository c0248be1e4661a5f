"""Guidance, samplers, noise and the denoising loop against values known beforehand."""

import pytest
import torch
from diffusers import DDIMScheduler

from kb.errors import UserError
from tigergen.model.losses import Objective
from tigergen.model.unet import Features
from tigergen.sampling.denoise import Hold, denoise
from tigergen.sampling.guidance import guide, resolution_weight, weigh_resolutions
from tigergen.sampling.schedulers import SAMPLERS, image_noise, late_timesteps, make_sampler


@pytest.fixture
def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )


def test_equation_13_by_hand() -> None:
    plain, fused = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    assert guide(plain, fused, 2.5).tolist() == [6.0, -8.0]
    assert torch.equal(guide(plain, fused, 1.0), fused) and torch.equal(guide(plain, fused, 0.0), plain)


def test_resolution_weights_fall_from_one_at_the_bottom() -> None:
    assert [resolution_weight(8, rows) for rows in (8, 16, 32, 64)] == [1, 0.5, 0.25, 0.125]
    control = Features((torch.ones(1, 2, 16, 16), torch.ones(1, 2, 8, 8)), torch.ones(1, 2, 4, 4))
    weighed = weigh_resolutions(control)
    assert [level.unique().item() for level in (*weighed.skips, weighed.mid)] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_predictor_is_followed_to_its_image(scheduler: DDIMScheduler, name: str, prediction: str) -> None:
    """With v or noise of one known image, every sampler must end at that image, whatever noise it started from."""
    scheduler.register_to_config(prediction_type=prediction)
    objective = Objective.of(scheduler)
    image = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def perfect(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        alpha = objective.alphas_cumprod[timestep].sqrt()
        sigma = (1 - alpha**2).sqrt()
        noise = (latents - alpha * image) / sigma
        return noise if prediction == "epsilon" else alpha * noise - sigma * image

    sampler = make_sampler(name, scheduler, 10)
    start = image_noise([3], (4, 4, 4))[0]
    end = denoise(perfect, sampler, start, sampler.timesteps)
    assert (end - image).abs().max() < 0.02


def test_noise_of_an_image_depends_on_its_seed_alone() -> None:
    together = image_noise([5, 6, 7], (2, 3), draws=2)
    alone = image_noise([6], (2, 3), draws=2)
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, alone, strict=True))
    assert not torch.equal(together[0], together[1])
    state = torch.random.get_rng_state()
    image_noise([5], (2, 3))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", SAMPLERS)
def test_refinement_takes_the_last_share_of_the_steps(scheduler: DDIMScheduler, name: str) -> None:
    sampler = make_sampler(name, scheduler, 10)
    whole = sampler.timesteps.tolist()
    assert late_timesteps(sampler, 1.0).tolist() == whole
    assert late_timesteps(sampler, 0.3).tolist() == whole[-3:]
    assert late_timesteps(sampler, 0.001).tolist() == whole[-1:]


def test_wrong_names_and_strengths_are_user_errors(scheduler: DDIMScheduler) -> None:
    with pytest.raises(UserError, match="'euler'"):
        make_sampler("euler", scheduler, 10)
    for strength in (0.0, 1.5):
        with pytest.raises(UserError, match="strength"):
            late_timesteps(make_sampler("ddim", scheduler, 10), strength)


def test_what_is_held_is_put_back_at_each_noise_level(scheduler: DDIMScheduler) -> None:
    objective = Objective.of(scheduler)
    known, noise = torch.full((1, 1, 2, 2), 0.5), torch.ones(1, 1, 2, 2)
    where = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    hold = Hold(known, noise, where, objective.noisy)
    latents = torch.full((1, 1, 2, 2), 9.0)
    level = objective.alphas_cumprod[500]
    assert hold(latents, torch.tensor(500))[0, 0, 0, 0].item() == pytest.approx(
        (0.5 * level.sqrt() + (1 - level).sqrt()).item()
    )
    clean = hold(latents, None)[0, 0]
    assert clean.tolist() == [[0.5, 9.0], [9.0, 9.0]]


def test_a_sampler_does_not_change_the_scheduler_it_is_made_from(scheduler: DDIMScheduler) -> None:
    before = dict(scheduler.config)
    make_sampler("dpm++", scheduler, 7)
    assert dict(scheduler.config) == before
