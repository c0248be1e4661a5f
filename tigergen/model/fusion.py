"""Attentional fusion of the FG- and BG-Encoder's features, one module a level (equations 2-3 and 11-12)."""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from tigergen.model.unet import Features


class FusionLevel(nn.Module):
    """Convex mixture of two feature maps with a learned weight in (0, 1) a position and channel.

    No batch norm: a sample's result never depends on the rest of its batch.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(channels // reduction, 4)
        self.conv1 = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1))
        self.conv2 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1)
        )
        # Features start at zero, so a hidden unit whose bias is negative would be silent, perhaps for good.
        for first in (self.conv1[0], self.conv2[1]):
            nn.init.constant_(first.bias, 0.1)  # type: ignore[arg-type]

    def attention(self, fg: Tensor, bg: Tensor) -> Tensor:
        """M = sigmoid(Conv1(X) + Conv2(X)) with X = F_FG + F_BG (equation 12), [B, C, h, w]."""
        total = fg + bg
        return torch.sigmoid(self.conv1(total) + self.conv2(total))

    def forward(self, fg: Tensor, bg: Tensor) -> Tensor:
        """F_fusion = M F_FG + (1 - M) F_BG (equation 11), [B, C, h, w]."""
        return torch.lerp(bg, fg, self.attention(fg, bg))


class AttentionalFusion(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own models have this clash
    """Fusion of two encoders' features; `channels` of each skip connection, finest first, and of the middle last."""

    @register_to_config
    def __init__(self, channels: Sequence[int], reduction: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList(FusionLevel(count, reduction) for count in channels)

    def forward(self, fg: Features, bg: Features) -> Features:
        """Fuse level by level."""
        pairs = zip(self.levels, (*fg.skips, fg.mid), (*bg.skips, bg.mid), strict=True)
        *skips, mid = (level(left, right) for level, left, right in pairs)
        return Features(tuple(skips), mid)
