"""A small CLIP-type dual encoder (Radford et al. 2021) of images and prompts, trained on the real training pairs.

It gives the CLIP score an encoder that reads these prompts, and CMMD a space that was shaped by them. It reads the FG
prompt alone: the BG prompt's words on image quality and plane come from the donor's pixels and layout, so that a
generated image would be praised for what it was handed. How well it tells real held-out pairs from others is measured
with it and belongs beside every figure that it gives.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kb import KnowledgeBase
from kb.errors import UserError
from kb.files import atomic_write, read_json, sha256_file, write_json
from tigerdata.progress import Progress
from tigergen.evaluation.dual_network import DualNetwork, contrastive_loss
from tigergen.evaluation.judge import BATCH, fit, to_input, treated
from tigergen.model.tokens import SEPARATOR, split_phrases

Images = NDArray[np.uint8]
Vectors = NDArray[np.float32]

WEIGHTS, RECORD = "dual_encoder.safetensors", "dual_encoder.json"
# Fewer pairs, or fewer different prompts, teach it nothing that holds on other images.
LEAST_PAIRS, LEAST_PROMPTS = 100, 10
# On 2,030 simulated pairs, 400 held out, chance .10: top1 .75 with 16 passes of width 16; .54 with 4 of width 32, which
# take as long.
EPOCHS, WIDTH = 16, 16
# Held-out prompts among which the right one is to be found.
CHOICES = 10


def too_few(prompts: Sequence[str]) -> str | None:
    """Why these pairs are too few to train on, as a sentence, or None where they are enough."""
    distinct = len({said(prompt) for prompt in prompts})
    if len(prompts) >= LEAST_PAIRS and distinct >= LEAST_PROMPTS:
        return None
    return (
        f"no dual encoder was trained: there are {len(prompts)} image-prompt pairs with {distinct} different prompts "
        f"for training, and {LEAST_PAIRS} with {LEAST_PROMPTS} are the least."
    )


def said(prompt: str) -> frozenset[str]:
    """What a prompt says: its phrases, in no order. Two prompts that say the same are the same text."""
    return frozenset(split_phrases(prompt))


class DualEncoder:
    """A trained encoder. `phrases`: those it knows; `image_ids`: the images it was trained on, where they have ids."""

    def __init__(
        self, network: DualNetwork, phrases: Sequence[str], figures: dict[str, Any], image_ids: Iterable[str] = ()
    ) -> None:
        self.network, self.phrases, self.figures = network.eval(), list(phrases), figures
        self.image_ids = sorted(image_ids)
        self.weights_sha256: str | None = None
        self._number = {phrase: n for n, phrase in enumerate(self.phrases, 1)}

    def about(self) -> dict[str, Any]:
        """What belongs beside every number measured with it."""
        side = self.network.size
        return {
            "extractor": "dual encoder of images and FG prompts",
            "weights_sha256": self.weights_sha256,
            "resize": f"{side} px, area",
        }

    def known(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which prompts [N] have a phrase that it knows; the others have no vector."""
        return np.array([bool(said(prompt) & self._number.keys()) for prompt in prompts], np.bool_)

    def unknown(self, prompts: Sequence[str]) -> dict[str, int]:
        """Phrases that it was not trained on and in how many of these prompts each stands; they are passed over."""
        found = Counter(phrase for prompt in prompts for phrase in said(prompt) - self._number.keys())
        return dict(sorted(found.items()))

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Numbers of the known phrases int64 [N, T], 0 behind the last one."""
        rows = [sorted(self._number[phrase] for phrase in said(p) & self._number.keys()) for p in prompts]
        out = torch.zeros((len(rows), max([len(row) for row in rows] + [1])), dtype=torch.int64)
        for place, row in zip(out, rows, strict=True):
            place[: len(row)] = torch.tensor(row, dtype=torch.int64)
        return out

    @torch.no_grad()
    def image_vectors(self, images: Images) -> Vectors:
        """Unit vectors float32 [N, dim] of grey images uint8 [N, H, W] of any size."""
        parts = [F.normalize(self.network.image(x), dim=1) for x in to_input(images, self.network.size).split(BATCH)]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.network.dim), np.float32)

    @torch.no_grad()
    def text_vectors(self, prompts: Sequence[str]) -> Vectors:
        """Unit vectors float32 [N, dim] of FG prompts; zeros for one of which no phrase is known."""
        out, rows = np.zeros((len(prompts), self.network.dim), np.float32), np.flatnonzero(self.known(prompts))
        if len(rows):
            out[rows] = self.network.text(self.ids([prompts[n] for n in rows.tolist()])).numpy()
        return out

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write dual_encoder.safetensors and, once that is whole, dual_encoder.json into the folder `out`."""
        from safetensors.torch import save_file

        folder = Path(out)
        with atomic_write(folder / WEIGHTS) as temporary:
            save_file({name: value.contiguous() for name, value in self.network.state_dict().items()}, temporary)
        self.weights_sha256 = sha256_file(folder / WEIGHTS)
        shape = {name: getattr(self.network, name) for name in ("size", "width", "dim")}
        about = {"phrases": self.phrases, "figures": self.figures, "image_ids": self.image_ids, **shape}
        write_json(folder / RECORD, about | {"weights_sha256": self.weights_sha256})

    @classmethod
    def load(cls, out: str | os.PathLike[str]) -> "DualEncoder":
        """Read an encoder from a folder; UserError when there is none, or when its two files are of two trainings."""
        from safetensors.torch import load_file

        folder = Path(out)
        if not (folder / RECORD).is_file() or not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds no dual encoder; train one with `tigergen train judge`.")
        about, digest = read_json(folder / RECORD), sha256_file(folder / WEIGHTS)
        if about["weights_sha256"] != digest:
            raise UserError(f"the weights in {folder} are not those of its {RECORD}; run `tigergen train judge` again.")
        network = DualNetwork(len(about["phrases"]), about["size"], about["width"], about["dim"])
        network.load_state_dict(load_file(folder / WEIGHTS))
        made = cls(network, about["phrases"], about["figures"], about["image_ids"])
        made.weights_sha256 = digest
        return made


def train_dual_encoder(
    images: Images,
    prompts: Sequence[str],
    knowledge: KnowledgeBase,
    out: str | os.PathLike[str] | None,
    held_out: tuple[Images, Sequence[str]] | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    size: int = 64,
    width: int = WIDTH,
    dim: int = 64,
    image_ids: Iterable[str] = (),
    progress: Progress | None = None,
) -> DualEncoder:
    """Train on real images uint8 [N, H, W] and their FG prompts, measure on `held_out`, save at `out` (None: nowhere).

    Images are changed as lightly as the judge's, and mirrored unless a prompt says where the nodule lies. Raises
    UserError for too few pairs (`too_few`).
    """
    if len(images) != len(prompts):
        raise UserError(f"{len(images)} images and {len(prompts)} prompts do not pair up.")
    reason = too_few(prompts)
    if reason is not None:
        raise UserError(reason)
    sets = [said(prompt) for prompt in prompts]
    phrases = sorted(frozenset[str]().union(*sets))
    place = {one: n for n, one in enumerate(dict.fromkeys(sets))}
    keys = torch.tensor([place[one] for one in sets])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DualNetwork(len(phrases), size, width, dim)
    encoder = DualEncoder(network, phrases, {"trained_on": len(images), "prompts": len(place)}, image_ids)
    ids = encoder.ids(prompts)

    def loss(found: Tensor, rows: Tensor) -> Tensor:
        same = (keys[rows][:, None] == keys[rows][None]).float()
        return contrastive_loss(F.normalize(found, dim=1), network.text(ids[rows]), network.scale, same)

    sides = _places(knowledge) & set(phrases)
    fit(network, network.image, to_input(images, size), loss, epochs, seed, not sides, progress, "dual encoder")
    encoder.figures |= {"epochs": epochs, "temperature": round(1 / float(network.scale.detach()), 4)}
    if held_out is not None:
        encoder.figures |= measure(encoder, *held_out)
    if out is not None:
        encoder.save(out)
    return encoder


def _places(knowledge: KnowledgeBase) -> set[str]:
    """Phrases that say where a nodule lies; a mirrored image would give them the lie."""
    location = knowledge.attributes.get("nodule_location")
    return {value.phrase for value in location.values.values()} if location else set()


def measure(encoder: DualEncoder, images: Images, prompts: Sequence[str]) -> dict[str, Any]:
    """How it does on unseen real pairs: retrieval with its chance, cosine of the pairs and of shuffled ones.

    The cosine is also given after slight blur and noise (`judge.treated`): where it falls there, a low CLIP score of
    generated images may be their softness and not their words. Prompts without any known phrase are left out.

    Returns: held_out (pairs), unknown_phrases, and, where there are two different prompts or more, those of
    `retrieval`, cosine, cosine_shuffled and cosine_treated.
    """
    rows = np.flatnonzero(encoder.known(prompts))
    texts, own = _distinct(encoder, [prompts[n] for n in rows.tolist()])
    out: dict[str, Any] = {"held_out": len(rows), "unknown_phrases": encoder.unknown(prompts)}
    if len(texts) < 2:
        return out
    similarity = encoder.image_vectors(images[rows]) @ texts.T
    counts = np.bincount(own, minlength=len(texts))
    others = np.tile(counts.astype(np.float64), (len(rows), 1))
    others[np.arange(len(rows)), own] = 0
    shuffled = (similarity * others).sum(1) / others.sum(1)
    out |= retrieval(similarity, own)
    out |= {"cosine": _own_mean(similarity, own), "cosine_shuffled": float(shuffled.mean())}
    changed = treated(images[rows])
    out["cosine_treated"] = {
        name: _own_mean(encoder.image_vectors(other) @ texts.T, own) for name, other in changed.items()
    }
    return out


def _distinct(encoder: DualEncoder, prompts: Sequence[str]) -> tuple[Vectors, NDArray[np.intp]]:
    """Vectors [M, dim] of what is said at all, and which of them each prompt [N] says.

    What counts is what it reads: prompts that differ in unknown phrases alone are one text to it.
    """
    read = [said(prompt) & set(encoder.phrases) for prompt in prompts]
    place = {one: n for n, one in enumerate(dict.fromkeys(read))}
    texts = encoder.text_vectors([SEPARATOR.join(sorted(one)) for one in place])
    return texts, np.array([place[one] for one in read], np.intp)


def _own_mean(similarity: NDArray[np.float32], own: NDArray[np.intp]) -> float:
    return float(similarity[np.arange(len(own)), own].mean())


def retrieval(similarity: NDArray[np.floating], own: NDArray[np.intp], of: int = CHOICES) -> dict[str, float]:
    """Does an image find its prompt among different ones? From similarities [N, M] and the right column of each row.

    `top1`: probability that the right prompt is first among itself and `of` - 1 others drawn from the rest, over all
    draws: prod_t (M - 1 - b - t) / (M - 1 - t), t < of - 1, b the number of prompts that are at least as near (a tie
    counts against it). `median_rank` of the right one among all M. Each with what chance gives.
    """
    n, m = similarity.shape
    better = (similarity >= similarity[np.arange(n), own][:, None]).sum(1) - 1
    among = min(of, m)
    drawn = np.arange(among - 1)
    first = np.prod(np.clip(m - 1 - better[:, None] - drawn, 0, None) / (m - 1 - drawn), axis=1)
    return {
        "top1": float(first.mean()), "top1_of": among, "top1_chance": 1 / among,
        "median_rank": float(np.median(better + 1)), "median_rank_of": m, "median_rank_chance": (m + 1) / 2,
    }  # fmt: skip
