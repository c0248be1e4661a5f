"""The yardstick classifier: six convolutions on 64-pixel frames, a fixed number of steps, classical augmentation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Images = NDArray[np.uint8]
Step = Callable[[int, float], None]

CHANNELS = (16, 32, 32, 64, 64, 96)


@dataclass(frozen=True)
class Recipe:
    """What every arm of a comparison shares: steps, batch, peak learning rate."""

    iterations: int = 400
    batch: int = 32
    lr: float = 3e-3


def network(seed: int) -> nn.Module:
    """Six 3×3 convolutions with batch norm, three poolings, global mean and one output; about 0.13 M weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        width = 1
        for number, channels in enumerate(CHANNELS):
            layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            if number % 2 == 0:
                layers.append(nn.MaxPool2d(2))
            width = channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(width, 1))


def classical(images: Tensor, generator: torch.Generator) -> Tensor:
    """Classical augmentation of a batch [B, 1, H, W] in [-1, 1]: mirror, rotate ±10°, zoom ±10 %, shift ±6 %, gain.

    Every image gets its own draw; the border is repeated, so that no black wedge tells a moved image.
    """
    count = len(images)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, zoom, mirror = draw(-0.175, 0.175), draw(0.9, 1.1), (draw(0, 1) < 0.5).float() * 2 - 1
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = [
        torch.stack([mirror * cos, -sin, draw(-0.12, 0.12)], 1),
        torch.stack([mirror * sin, cos, draw(-0.12, 0.12)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, offset = draw(0.85, 1.15)[:, None, None, None], draw(-0.12, 0.12)[:, None, None, None]
    return (moved * gain + offset).clamp(-1, 1)


def to_tensor(images: Images) -> Tensor:
    """Grey uint8 [N, H, W] as float32 [N, 1, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float()[:, None] / 127.5 - 1


def train(
    images: Images,
    y: NDArray[np.bool_],
    chances: NDArray[np.float64],
    augmented: bool,
    seed: int,
    recipe: Recipe,
    step: Step | None = None,
) -> nn.Module:
    """Train on images uint8 [N, H, W] with labels [N], each drawn with its chance [N] (sum 1).

    AdamW under a one-cycle schedule; everything random comes from `seed`, so that arms differ by their data only.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels, labels, weights = to_tensor(images), torch.from_numpy(y).float(), torch.from_numpy(chances)
    model = network(seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=recipe.iterations)
    for done in range(recipe.iterations):
        rows = torch.multinomial(weights, recipe.batch, replacement=True, generator=generator)
        batch = classical(pixels[rows], generator) if augmented else pixels[rows]
        loss = F.binary_cross_entropy_with_logits(model(batch)[:, 0], labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step is not None:
            step(done + 1, float(loss.detach()))
    return model.eval()


@torch.no_grad()
def predict(model: nn.Module, images: Images, batch: int = 256) -> NDArray[np.float64]:
    """Probability of the positive class for grey images uint8 [N, H, W]."""
    parts = [torch.sigmoid(model(part)[:, 0]) for part in to_tensor(images).split(batch)]
    return torch.cat(parts).double().numpy() if parts else np.zeros(0)
