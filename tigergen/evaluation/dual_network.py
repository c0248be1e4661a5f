"""The dual encoder's network and its loss: an image and the words that are said of it meet in one space."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tigergen.evaluation.judge_network import JudgeNetwork

# CLIP's first temperature and its floor (Radford et al. 2021, 2.5): 1 / temperature is learned as a logarithm.
FIRST_SCALE, MOST_SCALE = 1 / 0.07, 100.0


class TextTower(nn.Module):
    """A set of phrases, numbers [B, T] with 0 for none, to a unit vector [B, dim].

    Each phrase is an embedding; a learned weight says how much it counts (words that cannot be seen in a frame should
    count little); the order of the phrases is not read, because a prompt has none that means anything.
    """

    def __init__(self, phrases: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(phrases + 1, dim, padding_idx=0)
        self.attention = nn.Linear(dim, 1, bias=False)
        self.project = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, ids: Tensor) -> Tensor:
        """Unit vectors of rows that have at least one phrase."""
        embedded = self.embedding(ids)
        scores = self.attention(embedded).masked_fill((ids == 0)[..., None], float("-inf"))
        return F.normalize(self.project((scores.softmax(dim=1) * embedded).sum(dim=1)), dim=1)


class DualNetwork(nn.Module):
    """Image tower (the judge's network, its last layer the projection), text tower and the learned temperature."""

    def __init__(self, phrases: int, size: int = 64, width: int = 16, dim: int = 64) -> None:
        super().__init__()
        self.phrases, self.size, self.width, self.dim = phrases, size, width, dim
        self.image = JudgeNetwork([dim], size, width)
        self.text = TextTower(phrases, dim)
        # Held as the distance from CLIP's first value: weight decay then pulls towards that one and not towards 1.
        self.log_scale = nn.Parameter(torch.zeros(()))

    @property
    def scale(self) -> Tensor:
        """1 / temperature, at most 100."""
        return (self.log_scale + math.log(FIRST_SCALE)).exp().clamp(max=MOST_SCALE)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor | float, same: Tensor) -> Tensor:
    """Symmetric InfoNCE of B pairs of unit vectors, images and texts [B, d], where several answers may be right.

    With z_ij = scale x_i . t_j: the mean of -sum_j q_ij log softmax_j(z_ij) over images and of the same over texts,
    halved; q_ij = same_ij / sum_j same_ij. With no two equal prompts q is the identity and this is CLIP's loss (Radford
    et al. 2021, figure 3). Prompts made of attributes repeat: as negatives of each other they would be pushed
    apart, so each is a right answer for the other (the targets of UniCL, Yang et al. 2022).

    Args: `same` [B, B], 1 where two prompts say the same (symmetric, 1 on the diagonal).
    """
    logits = scale * images @ texts.T
    target = same / same.sum(dim=1, keepdim=True)
    # `same` is symmetric, so its rows are the targets of the texts too.
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
