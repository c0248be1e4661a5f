"""Batches of a stage; what does not change during training is computed once: latents, prompts, text states."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from kb.weights import term_frequency
from tigergen.data import Cases
from tigergen.model.pipeline import TigerPipeline, to_conditions
from tigergen.model.tokens import Roles, encode, join_prompts, split_phrases
from tigergen.training.draws import Noise

CHUNK = 64  # images at once where nothing is learned, of so many pixels as these have:
CHUNK_SIDE = 128


class Inputs(Protocol):
    """Cases of one stage as arguments of its module."""

    cases: Cases
    latents: Tensor
    branches: int

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """Arguments for the images `indices` of a step whose global batch is `whole`."""
        ...


def chunk(side: int) -> int:
    """How many images of `side` px to take at once, so that big ones need no more memory than many small ones."""
    return max(1, min(CHUNK, CHUNK * CHUNK_SIDE**2 // side**2))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into evaluation (no drop-out) for the block; afterwards each is as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@torch.no_grad()
def cached_latents(pipe: TigerPipeline, cases: Cases) -> Tensor:
    """Latents [N, C, h, w] of all images, on the CPU; a trained autoencoder gives its mode, not a sample."""
    size = chunk(cases.size)
    parts = [cases.images[start : start + size] for start in range(0, len(cases), size)]
    with evaluating(pipe.vae):
        return torch.cat([pipe.to_latents(part).float().cpu() for part in parts])


class Prompts:
    """Prompts by number, each distinct one tokenised once; number 0 is the empty prompt (a dropped one)."""

    def __init__(self, tokenizer: object, prompts: Sequence[str]) -> None:
        unique = list(dict.fromkeys(["", *prompts]))
        place = {prompt: number for number, prompt in enumerate(unique)}
        self.numbers = np.array([place[prompt] for prompt in prompts], dtype=np.int64)
        self.ids = encode(tokenizer, unique).ids

    def chosen(self, indices: Sequence[int], dropped: np.ndarray) -> list[int]:
        """Numbers of the prompts of these images, 0 where the prompt is dropped (bool [B])."""
        return np.where(dropped, 0, self.numbers[list(indices)]).tolist()


class TextStates:
    """Text states of a frozen text encoder, each distinct prompt computed once, when it is first asked for."""

    def __init__(self, pipe: TigerPipeline, prompts: Prompts) -> None:
        self.encoder, self.device, self.prompts = pipe.text_encoder, pipe.device, prompts
        self.known: dict[int, Tensor] = {}

    @torch.no_grad()
    def of(self, numbers: Sequence[int]) -> Tensor:
        """States [B, T, D] of prompts by number."""
        for number in numbers:
            if number not in self.known:
                # One at a time: the states of a prompt must not depend, in their last bits, on who asks with it.
                ids = self.prompts.ids[[number]].to(self.device)
                with evaluating(self.encoder):
                    self.known[number] = self.encoder(ids).last_hidden_state[0].cpu()
        return torch.stack([self.known[number] for number in numbers]).to(self.device)


class CoarseInputs:
    """Latents and whole prompts; one branch of drop-out, the prompt. A frozen text encoder's states are cached."""

    branches = 1

    def __init__(self, pipe: TigerPipeline, cases: Cases) -> None:
        self.cases, self.device = cases, pipe.device
        self.latents = cached_latents(pipe, cases)
        self.prompts = Prompts(pipe.tokenizer, _whole(cases))
        learns = any(parameter.requires_grad for parameter in pipe.text_encoder.parameters())
        self.states = None if learns else TextStates(pipe, self.prompts)

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `Inputs`."""
        chosen = self.prompts.chosen(indices, noise.dropped[:, 0])
        return {
            "clean": self.latents[list(indices)].to(self.device),
            "noise": noise.noise.to(self.device),
            "timesteps": noise.timesteps.to(self.device),
            "text": self.states.of(chosen) if self.states is not None else self.prompts.ids[chosen].to(self.device),
        }


class FineInputs:
    """Latents, text states of the whole, FG and BG prompt, masks, Sobel maps and token weights.

    Branches of drop-out: the three prompts, then the FG- and the BG-Encoder. `roles`: (phrase, role) pairs of each FG
    prompt, or None for weights of 1.
    """

    branches = 5

    def __init__(self, pipe: TigerPipeline, cases: Cases, weighting: str, roles: Sequence[Roles] | None) -> None:
        self.cases, self.device, self.tokenizer = cases, pipe.device, pipe.tokenizer
        self.weighting, self.roles = weighting, roles
        self.latents = cached_latents(pipe, cases)
        self.prompts = [Prompts(pipe.tokenizer, prompts) for prompts in (_whole(cases), cases.fg, cases.bg)]
        self.states = [TextStates(pipe, prompts) for prompts in self.prompts]

    def batch(self, indices: Sequence[int], whole: Sequence[int], noise: Noise) -> dict[str, Any]:
        """See `Inputs`."""
        rows = list(indices)
        # Made per batch: as float32 the maps of all images would take four times the memory of the images.
        masks, sobels = to_conditions(self.cases.masks[rows], self.cases.sobel[rows])
        text, fg_text, bg_text = (
            states.of(prompts.chosen(rows, noise.dropped[:, branch]))
            for branch, (states, prompts) in enumerate(zip(self.states, self.prompts, strict=True))
        )
        return {
            "clean": self.latents[rows].to(self.device),
            "noise": noise.noise.to(self.device),
            "timesteps": noise.timesteps.to(self.device),
            "text": text,
            "conditions": {
                "fg_text": fg_text,
                "bg_text": bg_text,
                "masks": masks.to(self.device),
                "sobels": sobels.to(self.device),
                "fg_weights": self._weights(rows, whole, noise.dropped[:, 1]),
                "weighting": self.weighting,
                "keep": _keep(noise.dropped[:, 3:]).to(self.device),
            },
        }

    def _weights(self, rows: Sequence[int], whole: Sequence[int], dropped: np.ndarray) -> Tensor | None:
        """Token weights [B, T] of equations 9 and 10; tau is counted over the FG phrases of the whole batch."""
        if self.roles is None or self.weighting == "off":
            return None
        tau = term_frequency([split_phrases(self.cases.fg[index]) for index in whole])
        prompts = ["" if drop else self.cases.fg[row] for row, drop in zip(rows, dropped, strict=True)]
        return encode(self.tokenizer, prompts, [self.roles[row] for row in rows], tau).weights.to(self.device)


def _whole(cases: Cases) -> list[str]:
    return [join_prompts(fg, bg) for fg, bg in zip(cases.fg, cases.bg, strict=True)]


def _keep(off: np.ndarray) -> Tensor:
    """Factors [B, 2] of the two encoders from the draws which to switch off [B, 2]; never both at once."""
    off = off & ~off.all(axis=1, keepdims=True)
    return torch.from_numpy(~off).float()
