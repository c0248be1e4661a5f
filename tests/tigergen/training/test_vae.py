"""The autoencoder of a model's own: its loss by hand, its scale, and that the coarse stage takes it."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from kb.errors import UserError
from tigergen.model import TigerPipeline
from tigergen.model.codec import images_to_latents
from tigergen.model.folder import model_id, trained_on
from tigergen.model.pipeline import to_pixels
from tigergen.training import presets, stages
from tigergen.training.vae import AutoencoderModule, differences, new_autoencoder

SMALL = ["model.downsample=4", "vae.channels=[8, 8, 8]", "vae.latent_channels=3", "vae.steps=4", "vae.lr=0.005"]


def own(toy: ModuleType, *overrides: str) -> dict:
    smaller = [text for text in toy.MICRO if not text.startswith("model.downsample")]
    return presets.load("base256", [*smaller, *SMALL, "training.precision=fp32", "training.threads=1", *overrides])


class Posterior:
    mean, std = torch.full((1, 1, 1, 2), 2.0), torch.full((1, 1, 1, 2), 3.0)
    var, logvar = std**2, (std**2).log()


class Fixed:
    """An autoencoder that says what the test says."""

    def encode(self, images: torch.Tensor):
        return type("Out", (), {"latent_dist": Posterior()})

    def decode(self, latents: torch.Tensor):
        self.latents = latents
        return type("Out", (), {"sample": torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])})


def test_the_three_losses_by_hand() -> None:
    module = AutoencoderModule(Fixed(), kl_weight=0.1, edge_weight=0.5)  # type: ignore[arg-type]
    images = torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]]])
    losses = module(images, torch.tensor([[[[1.0, -1.0]]]]))
    assert module.vae.latents.flatten().tolist() == [5.0, -1.0]  # mean + std · noise
    assert losses["l1"].item() == pytest.approx((0.5 + 0.5) / 4)
    assert losses["kl"].item() == pytest.approx(0.1 * 0.5 * (4 + 9 - 1 - np.log(9)), rel=1e-6)
    # Down: 0, 0 against .5, .5; across: 1, 1 against .5, .5.
    assert losses["edges"].item() == pytest.approx(0.5 * (0.5 + 0.5))


def test_differences_are_those_of_numpy() -> None:
    image = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    down, across = differences(image)
    assert np.allclose(down, np.diff(image.numpy(), axis=2)) and np.allclose(across, np.diff(image.numpy(), axis=3))


@pytest.fixture(scope="module")
def trained(toy: ModuleType, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    stages.autoencoder(toy.toy_cases(), own(toy, "training.grid_every=4"), folder, held_out=toy.toy_cases(4, seed=9))
    return folder


def test_the_autoencoder_learns_and_its_latents_have_mean_0_and_spread_1(toy: ModuleType, trained: Path) -> None:
    vae = AutoencoderKL.from_pretrained(trained / "vae")
    latents = images_to_latents(vae, to_pixels(toy.toy_cases().images))
    assert latents.mean().item() == pytest.approx(0, abs=1e-4) and latents.std().item() == pytest.approx(1, abs=1e-3)
    images = to_pixels(toy.toy_cases().images)

    def error(one: AutoencoderKL) -> float:
        with torch.no_grad():
            return (one.decode(one.encode(images).latent_dist.mode()).sample - images).abs().mean().item()

    assert error(vae) < 0.9 * error(new_autoencoder(own(toy)))
    assert trained_on(trained) == toy.toy_cases().image_ids and len(model_id(trained)) == 16
    assert [path.name for path in (trained / "grids").iterdir()] == ["vae-000004.png"]


def test_the_coarse_stage_takes_it_and_says_what_is_behind_it(toy: ModuleType, trained: Path, tmp_path: Path) -> None:
    others = toy.toy_cases(4, seed=9)
    stages.coarse(others, own(toy), tmp_path / "coarse", vae=trained, steps=1)
    pipe = TigerPipeline.from_pretrained(tmp_path / "coarse")
    exact = AutoencoderKL.from_pretrained(trained / "vae")
    assert all(torch.equal(a, b) for a, b in zip(pipe.vae.parameters(), exact.parameters(), strict=True))
    assert pipe.vae.config["scaling_factor"] == exact.config["scaling_factor"] != 1
    assert pipe.unet.config["in_channels"] == 3 and pipe(["solid"], [""], mode="text", steps=1).shape == (1, 16, 16)
    assert trained_on(tmp_path / "coarse") == sorted([*toy.toy_cases().image_ids, *others.image_ids])


def test_it_goes_on_where_it_was_and_a_changed_unet_is_no_other_autoencoder(toy: ModuleType, trained: Path) -> None:
    def never(event: dict) -> None:
        raise AssertionError("trained again")

    changed = own(toy, "training.grid_every=4", "model.unet_channels=[16, 16]", "diffusion.prediction=epsilon")
    assert stages.autoencoder(toy.toy_cases(), changed, trained, progress=never)["finished"]
    with pytest.raises(UserError, match="vae.lr"):
        stages.autoencoder(toy.toy_cases(), own(toy, "vae.lr=0.1"), trained)


def test_what_is_missing_is_said(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `tigergen train vae` first"):
        stages.coarse(toy.toy_cases(), own(toy), tmp_path / "out", vae=tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no section \[vae\]"):
        stages.autoencoder(toy.toy_cases(), toy.micro(), tmp_path / "out")
    with pytest.raises(UserError, match="vae.channels has 2 levels"):
        own(toy, "vae.channels=[8, 8]")
    assert not (tmp_path / "out").exists()
