"""PG-GAN (Karras et al. 2018): generator and critic that grow together, from 4 pixels to the whole image.

Section 2: a new resolution fades in over a smooth transition. Section 3: the critic sees the deviation within its
batch. Section 4: equalised learning rate and pixel-wise normalisation. Table 2 (appendix A) gives the layers. The class
enters the generator beside the latent vector and the critic by projection (Miyato and Koyama 2018).
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST = 4


class Equalised(nn.Module):
    """A convolution or linear layer whose weights are N(0, 1) and scaled by He's constant at every call (eq. 4.1)."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, gain: float = sqrt(2.0)) -> None:
        super().__init__()
        nn.init.normal_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        self.layer, self.scale = layer, gain / sqrt(layer.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        """The layer with scaled weights."""
        weight = self.layer.weight * self.scale
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, self.layer.bias)
        return F.conv2d(x, weight, self.layer.bias, padding=self.layer.padding)  # type: ignore[arg-type]


def conv(inner: int, outer: int, kernel: int = 3, gain: float = sqrt(2.0)) -> Equalised:
    """An equalised convolution that keeps the size."""
    return Equalised(nn.Conv2d(inner, outer, kernel, padding=kernel // 2), gain)


def linear(inner: int, outer: int, gain: float = sqrt(2.0)) -> Equalised:
    """An equalised linear layer."""
    return Equalised(nn.Linear(inner, outer), gain)


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x² + 1e-8) (eq. 4.2)."""
    return x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-8)


def with_deviation(x: Tensor) -> Tensor:
    """One more channel: the mean standard deviation of the features over the batch (section 3)."""
    deviation = torch.sqrt(x.var(0, unbiased=False) + 1e-8).mean()
    return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)


def widths(size: int, width: int) -> list[int]:
    """Channels at 4, 8, ... `size` pixels: `width` up to 16 pixels, then half as many at each doubling."""
    out, side = [], FIRST
    while side <= size:
        out.append(max(8, width if side <= 16 else width * 16 // side))
        side *= 2
    return out


class Generator(nn.Module):
    """Latent vectors [B, D] and classes [B] to images [B, 1, r, r], r = 4 · 2^level; `alpha` fades a level in."""

    def __init__(self, size: int, classes: int, width: int = 128, latent: int = 64) -> None:
        super().__init__()
        channels = widths(size, width)
        self.latent = latent
        self.classes = nn.Embedding(classes, latent)
        self.first = linear(2 * latent, channels[0] * FIRST**2, gain=sqrt(2.0) / 4)
        self.start = conv(channels[0], channels[0])
        pairs = list(zip(channels, channels[1:], strict=False))
        self.blocks = nn.ModuleList(nn.ModuleList([conv(a, b), conv(b, b)]) for a, b in pairs)
        self.to_pixels = nn.ModuleList(conv(c, 1, 1, gain=1.0) for c in channels)

    def forward(self, z: Tensor, classes: Tensor, level: int, alpha: float = 1.0) -> Tensor:
        """Images in about [-1, 1]."""
        told = torch.cat([pixel_norm(z), pixel_norm(self.classes(classes))], 1)
        x = pixel_norm(F.leaky_relu(self.first(told).unflatten(1, (-1, FIRST, FIRST)), 0.2))
        x = pixel_norm(F.leaky_relu(self.start(x), 0.2))
        before = x
        for block in list(self.blocks)[:level]:
            before, x = x, F.interpolate(x, scale_factor=2)
            for layer in block:  # type: ignore[attr-defined]
                x = pixel_norm(F.leaky_relu(layer(x), 0.2))
        image: Tensor = self.to_pixels[level](x)
        if level and alpha < 1.0:
            old = F.interpolate(self.to_pixels[level - 1](before), scale_factor=2)
            image = torch.lerp(old, image, alpha)
        return image


class Critic(nn.Module):
    """Images [B, 1, r, r] and classes [B] to scores [B], higher for real; the generator's layers backwards."""

    def __init__(self, size: int, classes: int, width: int = 128) -> None:
        super().__init__()
        channels = widths(size, width)
        self.from_pixels = nn.ModuleList(conv(1, c, 1) for c in channels)
        pairs = list(zip(channels, channels[1:], strict=False))
        self.blocks = nn.ModuleList(nn.ModuleList([conv(b, b), conv(b, a)]) for a, b in pairs)
        self.last = conv(channels[0] + 1, channels[0])
        self.flat = linear(channels[0] * FIRST**2, channels[0])
        self.score = linear(channels[0], 1, gain=1.0)
        self.classes = nn.Embedding(classes, channels[0])
        nn.init.normal_(self.classes.weight, std=1 / sqrt(channels[0]))

    def forward(self, images: Tensor, classes: Tensor, level: int, alpha: float = 1.0) -> Tensor:
        """Scores of images at `level`."""
        x = F.leaky_relu(self.from_pixels[level](images), 0.2)
        for number in range(level, 0, -1):
            for layer in self.blocks[number - 1]:  # type: ignore[attr-defined]
                x = F.leaky_relu(layer(x), 0.2)
            x = F.avg_pool2d(x, 2)
            if number == level and alpha < 1.0:
                small = F.leaky_relu(self.from_pixels[level - 1](F.avg_pool2d(images, 2)), 0.2)
                x = torch.lerp(small, x, alpha)
        x = F.leaky_relu(self.last(with_deviation(x)), 0.2)
        x = F.leaky_relu(self.flat(x.flatten(1)), 0.2)
        score: Tensor = self.score(x)[:, 0] + (self.classes(classes) * x).sum(1)
        return score


def growth(step: int, steps: int, levels: int) -> tuple[int, float]:
    """Level and alpha of a step: each level has an equal share of the steps, the last one two; half of it fades in.

    >>> [growth(s, 12, 2) for s in (0, 3, 4, 9)]
    [(0, 1.0), (0, 1.0), (1, 0.5), (1, 1.0)]
    """
    share = steps / (levels + 1) if levels > 1 else float(steps)
    level = min(int(step / share), levels - 1)
    if level == 0:
        return 0, 1.0
    return level, min(1.0, (step + 1 - level * share) / (share / 2))
