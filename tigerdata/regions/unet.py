"""A small U-Net that outlines a nodule or a gland: trained here, from random weights, on few frames and a CPU.

U-Net: Ronneberger et al. 2015, arXiv 1505.04597. Loss: Dice (Milletari et al. 2016, arXiv 1606.04797) plus binary
cross-entropy. Weights are safetensors; what is needed to use them lies in `segmenter.json` beside them.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import atomic_write, sha256_file
from tigerdata.images.augment import Together
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigerdata.regions.square import fit, unfit

if TYPE_CHECKING:
    import torch
    from torch import nn

# Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the side. Little at 1/2, where a pixel costs most and says least.
WIDTHS = (16, 48, 96, 128, 160)
# Share of the frame below which a part is no region, and half the probability below which nothing is seen at all.
SMALLEST = 2e-4
FAINTEST = 0.025
# Share of the surest part that another part of a gland needs. Between .2 and .5 nothing changed on 62 held-out frames
# (Dice .857); at .05, where a speck of a mask ends, vessels came along (.849).
LOBE = 0.2


def network(widths: Sequence[int] = WIDTHS) -> nn.Module:
    """Grey squares [B, 1, S, S] in 0..1 to logits [B, 1, S, S]; S a multiple of 2 ** len(widths)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        """Two 3x3 convolutions with batch norm, around which the input goes as well."""

        def __init__(self, given: int, made: int, stride: int = 1) -> None:
            super().__init__()
            self.first = nn.Conv2d(given, made, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(made, made, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(made), nn.BatchNorm2d(made)])
            self.past = nn.Conv2d(given, made, 1, stride, bias=False) if stride > 1 or given != made else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.norms[0](self.first(x)))
            return F.relu(self.norms[1](self.second(y)) + self.past(x))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first, *deeper = widths
            # Four neighbours become four channels: nothing is lost, and no convolution runs at the full side.
            self.stem = nn.Sequential(
                nn.PixelUnshuffle(2), nn.Conv2d(4, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
            )
            pairs = list(zip(widths, deeper, strict=False))
            self.down = nn.ModuleList(
                [nn.Sequential(Block(a, b, stride=2), *([Block(b, b)] if n else [])) for n, (a, b) in enumerate(pairs)]
            )
            self.up = nn.ModuleList([Block(a + b, a) for a, b in reversed(pairs[1:])])
            a, b = pairs[0]
            self.last = nn.Sequential(nn.Conv2d(a + b, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU())
            self.head = nn.Conv2d(a, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = [self.stem(x * 2 - 0.5)]
            for down in self.down:
                kept.append(down(kept[-1]))
            y = kept.pop()
            for up in [*self.up, self.last]:
                y = F.interpolate(y, scale_factor=2.0, mode="nearest")
                y = up(torch.cat([kept.pop(), y], dim=1))
            return F.interpolate(self.head(y).float(), scale_factor=2.0, mode="bilinear")

    return UNet()


def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss a frame plus binary cross-entropy, mean over the batch; logits and truth [B, 1, S, S]."""
    import torch
    from torch.nn import functional as F

    soft = torch.sigmoid(logits)
    both, total = (soft * truth).sum((1, 2, 3)), (soft + truth).sum((1, 2, 3))
    return (1 - (2 * both + 1) / (total + 1)).mean() + F.binary_cross_entropy_with_logits(logits, truth)


def _bfloat16() -> bool:
    """Whether the processor computes in bfloat16: 1.9 times as fast as float32 in these convolutions (AMD, AVX-512)."""
    import torch

    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


@contextmanager
def _own_torch(threads: int, seed: int) -> Iterator[None]:
    """Seed torch's generator and set its threads inside the block only."""
    import torch

    with torch_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _tensors(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames in 0..1 and masks of 0 and 1, float32 [B, 1, S, S], channels last."""
    import torch

    images = torch.from_numpy(np.stack([image for image, _ in pairs]).astype(np.float32) / 255)[:, None]
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.float32))[:, None]
    return images.contiguous(memory_format=torch.channels_last), masks


def _follow(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and of batch statistics."""
    import torch

    with torch.no_grad():
        for mean, now in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)


# Steps of a training whose passes nobody set. 3,120 steps on 423 real frames took 16 minutes and reached Dice .78 on
# patients held out; 920 steps on 191 gland frames had not yet learnt the training frames themselves (Dice .88).
STEPS = 3000


def passes(frames: int, batch: int = 8, steps: int = STEPS) -> int:
    """Passes over so many frames that make about `steps` steps, at least one."""
    return max(1, round(steps / max(1, frames // batch)))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; all of it is written into `segmenter.json`."""

    imgsz: int = 192
    epochs: int = 60
    widths: tuple[int, ...] = WIDTHS
    batch: int = 8
    rate: float = 2e-3
    decay: float = 0.02
    ema: float = 0.99


def train(
    frames: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    weights: Path,
    kind: str,
    recipe: Recipe,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    start: str | os.PathLike[str] | None = None,
) -> None:
    """Train on (frame, mask) pairs and write the moving average of the weights, atomically.

    From random weights, or from those of another U-Net file `start` of the same channels: one that outlines nodules
    knows already what ultrasound looks like when it learns glands from few sweeps.

    AdamW under a one-cycle rate (Smith and Topin 2019), frames changed anew each time (`images.augment.Together`),
    bfloat16 where the processor computes with it. No early stopping, so that no held-out frame takes part in the
    choice of weights. Deterministic for a seed, a machine and a number of threads.
    """
    import torch
    from safetensors.torch import save_file

    side = 2 ** len(recipe.widths)
    if recipe.imgsz % side or recipe.imgsz < 2 * side:
        raise UserError(f"A U-Net of {len(recipe.widths)} levels needs a side that is a multiple of {side}, at least"
                        f" {2 * side}, not {recipe.imgsz}; give another --imgsz.")  # fmt: skip
    squares = [
        (fit(image, recipe.imgsz), fit(mask.astype(np.uint8) * np.uint8(255), recipe.imgsz) > 127)
        for image, mask in frames
    ]
    batch = min(recipe.batch, len(squares))
    steps = recipe.epochs * (len(squares) // batch)
    change, order = Together(seed), np.random.default_rng(seed)
    with _own_torch(threads, seed):
        net = network(recipe.widths)
        if start is not None:
            net.load_state_dict(_same_shape(start, recipe.widths).state_dict())
        net = net.to(memory_format=torch.channels_last)
        average = copy.deepcopy(net)
        optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps, pct_start=0.2)
        for step in range(steps):
            if step % (len(squares) // batch) == 0:
                queue = order.permutation(len(squares))
            chosen, queue = queue[:batch], queue[batch:]
            images, truth = _tensors([change(*squares[i]) for i in chosen])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_bfloat16()):
                logits = net(images)
            error = loss(logits.float(), truth)
            optimizer.zero_grad()
            error.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            rate.step()
            _follow(average, net, min(recipe.ema, (1 + step) / (10 + step)))
            if progress:
                progress({"stage": "train segmenter", "step": step + 1, "steps": steps, "loss": float(error.detach())})
    # One entry: safetensors writes several in no fixed order, and the same weights would have another hash.
    told = {"unet": json.dumps({"kind": kind, "imgsz": recipe.imgsz, "widths": list(recipe.widths)})}
    with atomic_write(weights) as temporary:
        save_file({name: value.contiguous() for name, value in average.state_dict().items()}, temporary, metadata=told)


def _read(path: Path) -> tuple[dict[str, Any], nn.Module]:
    """What a weights file says of itself, and its network; UserError when it is missing or no U-Net of this module."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path} does not exist; train one with `tigergen train segmenter`.")
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["unet"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        net = network(told["widths"])
        net.load_state_dict(state)
        return {"kind": told["kind"], "imgsz": int(told["imgsz"]), "widths": told["widths"]}, net
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} holds no U-Net of TigerData; train one again.") from error


def _same_shape(path: str | os.PathLike[str], widths: Sequence[int]) -> nn.Module:
    """The network of a U-Net file, which must have these channels; UserError when it has others."""
    told, net = _read(Path(path))
    if list(told["widths"]) != list(widths):
        raise UserError(f"{path} has the channels {told['widths']}, not {list(widths)}; give the --width it had.")
    return net


class UNetSegmenter:
    """A trained U-Net; implements `regions.segment.Segmenter`."""

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        """Load a weights file (.safetensors). UserError when it is missing or holds no U-Net of this module."""
        import torch

        self.path = Path(weights)
        told, self._net = _read(self.path)
        self.sha256 = sha256_file(self.path)
        self.kind, self._size = told["kind"], told["imgsz"]
        self._net.eval().to(memory_format=torch.channels_last)

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return masks bool [N, H, W] and confidences [N] (mean probability in the mask), 0 where nothing was found.

        The probability is the mean of frame and mirrored frame, in float32 on every machine.
        """
        import torch

        masks = np.zeros(images.shape, dtype=bool)
        scores = np.zeros(len(images), dtype=np.float32)
        for number, image in enumerate(images):
            square = fit(image, self._size)
            # One frame a call: the last bits of a result must not depend on what else was asked.
            pair, _ = _tensors([(s, np.zeros_like(s, dtype=bool)) for s in (square, square[:, ::-1])])
            with torch.inference_mode():
                soft = torch.sigmoid(self._net(pair))[:, 0]
            mean = ((soft[0] + soft[1].flip(1)) / 2).numpy()
            masks[number], scores[number] = outline(unfit(mean, image.shape), one=self.kind == "nodule")
        return masks, scores


def outline(soft: NDArray[np.float32], one: bool) -> tuple[NDArray[np.bool_], float]:
    """Return the mask of a map of probabilities [H, W], and the mean probability in it.

    Cut at one half, or at half the maximum where nothing reaches one half: a frame that is segmented is known to show
    what is looked for, and the confidence says how sure the answer is. Holes are filled. `one`: the part with the
    largest sum alone; else every part that is no speck beside it.
    """
    import cv2

    level = min(0.5, float(soft.max()) / 2)
    contours, _ = cv2.findContours((soft > level).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = [cv2.drawContours(np.zeros(soft.shape, np.uint8), contours, n, 1, -1) > 0 for n in range(len(contours))]
    parts = [part for part in parts if part.mean() > SMALLEST]
    if not parts or level < FAINTEST:
        return np.zeros(soft.shape, dtype=bool), 0.0
    sums = [float(soft[part].sum()) for part in parts]
    kept = [
        part for part, own in zip(parts, sums, strict=True) if own == max(sums) or (not one and own > LOBE * max(sums))
    ]
    mask = np.logical_or.reduce(kept)
    return mask, float(soft[mask].mean())
