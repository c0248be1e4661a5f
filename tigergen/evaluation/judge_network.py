"""The judge's network and the augmentation it learns under."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.short = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, C, h, w] to features."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.short(x))


class JudgeNetwork(nn.Module):
    """Grey image [B, 1, s, s] in [-1, 1] to the logits of all heads [B, sum of values].

    A pixel-unshuffle keeps the finest detail (calcifications are one or two pixels) at a quarter of the positions; the
    mean and the maximum over the image are both read, because a nodule is a small part of a frame.
    """

    def __init__(self, values: Sequence[int], size: int = 64, width: int = 32) -> None:
        super().__init__()
        self.values, self.size, self.width = list(values), size, width
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        widths = [width, width, 2 * width, 4 * width, 4 * width]
        self.blocks = nn.Sequential(
            *(Block(a, b, 1 if k == 0 else 2) for k, (a, b) in enumerate(zip(widths, widths[1:], strict=False)))
        )
        self.out = nn.Linear(2 * widths[-1], sum(values))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all heads, one after the other."""
        features = self.blocks(self.stem(images))
        return self.out(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))

    def heads_of(self, logits: Tensor) -> list[Tensor]:
        """Split logits [B, sum of values] by head."""
        return list(logits.split(self.values, dim=1))


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16: training is then over twice as fast; predictions stay float32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, 1, H, W] with standard deviation `sigma` in pixels."""
    reach = torch.arange(-2.0, 3.0)
    line = torch.exp(-(reach**2) / (2 * sigma**2))
    line = line / line.sum()
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))


def augment(images: Tensor, generator: torch.Generator, mirror: bool = False) -> Tensor:
    """Light changes that leave every attribute as it is: shift, gain, offset, and for some slight blur or noise.

    `mirror`: half of the images are mirrored, for a judge that is not asked which side a nodule lies on. No rotation or
    scaling (aspect, diameter), no strong blur (margin).
    """
    count, _, height, width = images.shape
    row, column = (int(torch.randint(0, 2 * SHIFT + 1, (1,), generator=generator)) for _ in range(2))
    padded = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT), mode="replicate")
    moved = padded[:, :, row : row + height, column : column + width]
    chance = torch.rand((count, 4, 1, 1), generator=generator).unbind(dim=1)
    gain, offset = 0.85 + 0.3 * chance[0][:, None], 0.2 * (chance[1][:, None] - 0.5)
    soft = torch.where(chance[2][:, None] < 0.3, blur(moved, 0.5), moved)
    noise = 0.08 * torch.randn(moved.shape, generator=generator) * chance[3][:, None]
    grainy = soft + noise * (chance[3][:, None] > 0.5)
    if mirror:
        turned = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
        grainy = torch.where(turned, grainy.flip(3), grainy)
    return ((grainy + 1) * gain - 1 + offset).clamp(-1, 1)


SHIFT = 3
