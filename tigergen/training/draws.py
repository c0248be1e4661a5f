"""What chance decides in a training step, as a function of (seed, step, position in the global batch).

Nothing here has a state: a run that was killed, or one spread over several processes, draws what an uninterrupted run
in one process draws.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Names of the independent streams of random numbers.
ORDER, NOISE, HELD_OUT, SEEN, MODULES, TIMES = range(6)
GOLDEN = (5**0.5 - 1) / 2


def class_weights(labels: Sequence[str], balance: float) -> NDArray[np.float64]:
    """Relative chance [N] of each image: (size of its class)^-balance, mean 1.

    Balance 0 draws images as they come, 1 draws the classes equally often; with 0.5, an image of a class of 30 is drawn
    √(1000/30) = 5.8 times as often as one of a class of 1000.
    """
    counts = Counter(labels)
    weights = np.array([counts[label] ** -balance for label in labels], dtype=np.float64)
    return weights / weights.mean()


class Order:
    """An endless order of images: epochs in which image i comes floor(w_i) or ceil(w_i) times, on average w_i."""

    def __init__(self, weights: NDArray[np.float64], seed: int) -> None:
        self.weights = weights / weights.mean()
        self.seed = seed
        self._epoch = -1
        self._images: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def indices(self, step: int, batch: int) -> list[int]:
        """Return the images of the global batch of this step (counted from 0)."""
        first = step * batch
        return [self._at(position) for position in range(first, first + batch)]

    def _at(self, position: int) -> int:
        # Systematic sampling keeps every epoch's length at exactly N, so that a position names its epoch.
        epoch, place = divmod(position, len(self.weights))
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, ORDER, epoch])
            start = rng.random()
            edges = np.cumsum(self.weights) + start
            edges[-1] = len(self.weights) + start  # the rounding of the sum must not lose an image
            times = np.diff(np.floor(edges), prepend=0.0).astype(np.int64)
            self._images = rng.permutation(np.repeat(np.arange(len(self.weights)), times))
            self._epoch = epoch
        return int(self._images[place])


@dataclass(frozen=True)
class Noise:
    """Noise [B, ...], timesteps [B] and, for each branch, whether it is dropped: bool [B, branches]."""

    noise: Tensor
    timesteps: Tensor
    dropped: NDArray[np.bool_]


def draw_noise(
    seed: int, step: int, positions: Sequence[int], shape: Sequence[int], timesteps: int, dropout: Sequence[float]
) -> Noise:
    """Draw noise, timesteps in [0, timesteps) and drop-outs for these positions of a step's global batch.

    `dropout` holds the chance of each branch. Every position has its own generator, so that neither the number of
    processes nor that of accumulation passes matters. The timesteps of a batch are spread over the schedule: steps of
    the golden ratio from a random start, so that each is uniform and no batch is noisy or clean throughout (Kingma et
    al. 2021 spread them evenly, which would need the size of the batch).
    """
    noise, times, dropped = [], [], []
    start = np.random.default_rng([seed, TIMES, step]).random()
    for position in positions:
        generator = torch.Generator().manual_seed(_mix(seed, NOISE, step, position))
        noise.append(torch.randn(tuple(shape), generator=generator))
        times.append(int((start + position * GOLDEN) % 1.0 * timesteps))
        dropped.append((torch.rand(len(dropout), generator=generator) < torch.tensor(dropout)).numpy())
    return Noise(torch.stack(noise), torch.tensor(times), np.stack(dropped))


def held_out_noise(seed: int, count: int, shape: Sequence[int], timesteps: int) -> tuple[Tensor, Tensor]:
    """Return fixed noise [count, ...] and timesteps [count], spread evenly, for the held-out loss."""
    generator = torch.Generator().manual_seed(_mix(seed, HELD_OUT, 0, 0))
    noise = torch.randn((count, *shape), generator=generator)
    return noise, (torch.arange(count) * timesteps + timesteps // 2) // count


def seen_images(seed: int, images: int, count: int) -> list[int]:
    """Which `count` of the training images are measured beside the held-out ones; each again when there are fewer."""
    order = np.random.default_rng([seed, SEEN]).permutation(images)
    return [int(index) for index in np.resize(order, count)]


@contextmanager
def module_draws(device: torch.device, seed: int, step: int, position: int) -> Iterator[None]:
    """Let what modules draw by themselves (a base may hold drop-out) follow from (seed, step, position) in the block.

    The random state of the process is the same afterwards as before, so it needs no place in a checkpoint.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_mix(seed, MODULES, step, position))
        yield


def _mix(*parts: int) -> int:
    """Mix integers into one 63-bit seed."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))
