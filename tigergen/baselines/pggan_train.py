"""Training of PG-GAN by WGAN-GP with drift (Karras et al. 2018, section 2 and appendix A.1), and drawing from it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from kb.errors import UserError
from kb.files import atomic_write, read_json
from tigerdata.processes import torch_threads
from tigergen.baselines.pggan import FIRST, Critic, Generator, growth
from tigergen.baselines.work import RECORD, Asked, Images, Work, finish
from tigergen.model.pipeline import to_pixels
from tigergen.sampling.schedulers import image_noise
from tigergen.training.checkpoint import load_checkpoint, save_checkpoint
from tigergen.training.draws import Order, class_weights
from tigergen.training.ema import Ema

RATE, BETAS = 1e-3, (0.0, 0.99)
PENALTY, DRIFT = 10.0, 1e-3
WEIGHTS = "generator.safetensors"
STREAM = 77


def penalty(
    critic: Critic, real: Tensor, fake: Tensor, classes: Tensor, level: int, alpha: float, mix: Tensor
) -> Tensor:
    """Gradient penalty (|grad| - 1)² between real and generated images (Gulrajani et al. 2017, eq. 3)."""
    between = torch.lerp(real, fake, mix).requires_grad_(True)
    score = critic(between, classes, level, alpha).sum()
    (gradient,) = torch.autograd.grad(score, between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def shown(images: Tensor, level: int, alpha: float) -> Tensor:
    """Real images at the resolution of a level, faded from the level before as the generator's are."""
    side = FIRST << level
    small = F.adaptive_avg_pool2d(images, side)
    if level and alpha < 1.0:
        small = torch.lerp(F.interpolate(F.avg_pool2d(small, 2), scale_factor=2), small, alpha)
    return small


def width_of(work: Work) -> int:
    """Channels up to 16 pixels: twice those of the U-Net's first level, which makes a step as dear as one of the U-Net
    at the preset tiny."""
    return 2 * int(work.preset["model"]["unet_channels"][0])


class _Gan:
    """Both networks, their optimisers and the averaged generator."""

    def __init__(self, work: Work) -> None:
        size, classes, width = work.cases.size, len(work.labels), width_of(work)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed)
            self.generator, self.critic = Generator(size, classes, width), Critic(size, classes, width)
        self.ema = Ema(list(self.generator.parameters()), work.preset["training"]["ema"])
        nets: tuple[nn.Module, ...] = (self.generator, self.critic)
        self.optimisers = [torch.optim.Adam(net.parameters(), RATE, BETAS, eps=1e-8) for net in nets]
        self.levels = (size // FIRST).bit_length()

    def step(self, real: Tensor, classes: Tensor, level: int, alpha: float, rng: np.random.Generator) -> Tensor:
        """One step of the critic, then one of the generator; returns the critic's estimate of their distance."""
        count = len(real)

        def noise() -> Tensor:
            return torch.from_numpy(rng.standard_normal((count, self.generator.latent), dtype=np.float32))

        fake = self.generator(noise(), classes, level, alpha).detach()
        mix = torch.from_numpy(rng.random((count, 1, 1, 1), dtype=np.float32))
        on_real, on_fake = (self.critic(x, classes, level, alpha) for x in (real, fake))
        loss = on_fake.mean() - on_real.mean() + DRIFT * (on_real**2).mean()
        loss = loss + PENALTY * penalty(self.critic, real, fake, classes, level, alpha, mix)
        self._update(1, loss)
        self._update(0, -self.critic(self.generator(noise(), classes, level, alpha), classes, level, alpha).mean())
        self.ema.update()
        return (on_real.mean() - on_fake.mean()).detach()

    def _update(self, number: int, loss: Tensor) -> None:
        self.optimisers[number].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[number].step()

    def state(self, step: int) -> dict[str, Any]:
        nets = [{k: v.detach() for k, v in net.state_dict().items()} for net in (self.generator, self.critic)]
        return {"step": step, "nets": nets, "optimisers": [o.state_dict() for o in self.optimisers],
                "ema": self.ema.state_dict()}  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> int:
        for net, stored in zip((self.generator, self.critic), state["nets"], strict=True):
            net.load_state_dict(stored)
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        self.ema.load_state_dict(state["ema"])
        return int(state["step"])


def train_pg_gan(work: Work) -> dict[str, Any]:
    """One step is an update of the critic and one of the generator, on a batch of the preset's size.

    Every draw follows from seed and step, so that a killed run ends as an uninterrupted one. Raises UserError for sides
    that are no power of two, and when a loss stops being finite.
    """
    size, batch = work.cases.size, work.preset["training"]["batch"]
    if size < 2 * FIRST or size & (size - 1):
        raise UserError(f"PG-GAN doubles its images from {FIRST} pixels, and {size} is no power of two from 8 on.")
    with torch_threads(work.training["threads"]):
        gan = _Gan(work)
        pixels = to_pixels(work.cases.images)
        numbers = torch.tensor([work.labels.index(label) for label in work.cases.labels])
        order = Order(class_weights(work.cases.labels, work.preset["training"]["balance"]), work.seed)
        state = load_checkpoint(work.folder)
        first = gan.restore(state) if state is not None else 0
        started = time.monotonic()
        for step in range(first, work.steps):
            level, alpha = growth(step, work.steps, gan.levels)
            rows = order.indices(step, batch)
            rng = np.random.default_rng([work.seed, STREAM, step])
            distance = gan.step(shown(pixels[rows], level, alpha), numbers[rows], level, alpha, rng)
            if not torch.isfinite(distance):
                raise UserError(
                    f"PG-GAN's loss is not finite in step {step}; train it with another seed or fewer steps."
                )
            if (step + 1) % work.training["checkpoint_every"] == 0 and step + 1 < work.steps:
                save_checkpoint(work.folder, gan.state(step + 1), 1)
            if work.progress is not None:
                event = {"stage": "pg-gan", "step": step + 1, "steps": work.steps, "pixels": FIRST << level}
                work.progress(event | {"distance": float(distance)})
        seconds = (time.monotonic() - started) * work.steps / max(1, work.steps - first)
        gan.ema.copy_to_parameters()
    facts = {"width": width_of(work), "size": size}
    work.folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(work.folder / WEIGHTS) as temporary:
        weights = {name: value.detach().contiguous() for name, value in gan.generator.state_dict().items()}
        save_file(weights, temporary)
    count = sum(p.numel() for net in (gan.generator, gan.critic) for p in net.parameters())
    return finish(work, {"steps": work.steps, "seconds": round(seconds, 2), "parameters": count, **facts})


def open_pg_gan(folder: Path) -> Any:
    """Draws from class and seed; prompt, mask and edges are not looked at, and sampling settings mean nothing here."""
    record = read_json(folder / RECORD)
    labels = record["labels"]
    generator = Generator(record["size"], len(labels), record["width"]).eval()
    generator.load_state_dict(load_file(folder / WEIGHTS))
    level = (record["size"] // FIRST).bit_length() - 1

    @torch.no_grad()
    def draw(asked: Asked, sampling: Mapping[str, Any]) -> Images:
        (z,) = image_noise(asked.seeds, (generator.latent,))
        images = generator(z, torch.tensor([labels.index(label) for label in asked.labels]), level)[:, 0]
        pixels: Images = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        return pixels

    return draw
