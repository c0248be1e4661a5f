"""A judge of attributes: one small network, one softmax head an attribute, trained on real (or simulated) images.

It measures whether a generated image shows what its prompt asks for. It sees the image alone: no mask and no prompt,
which would tell it the answer for outline attributes. Its own limits (accuracy on unseen real images, and under slight
blur and noise) are measured with it and belong beside every figure that it gives.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kb import KnowledgeBase
from kb.errors import UserError
from kb.files import atomic_write, read_json, write_json
from tigerdata.progress import Progress
from tigergen.evaluation.judge_network import JudgeNetwork, augment, blur, computes_bfloat16

Attributes = Mapping[str, Sequence[str]]
Images = NDArray[np.uint8]

BATCH = 64
# "values": what the attributes say, single-valued ones only; "phantom": what can be seen in a simulated frame.
VIEWS = ("values", "phantom")


class Judge:
    """A trained judge; `heads` holds the values of each attribute in the order of its probabilities."""

    def __init__(self, network: JudgeNetwork, heads: Mapping[str, list[str]], view: str, figures: dict[str, Any]):
        self.network, self.heads, self.view, self.figures = network.eval(), dict(heads), view, figures

    @torch.no_grad()
    def predict(self, images: Images) -> dict[str, tuple[list[str], NDArray[np.float32]]]:
        """Values and probabilities [N, V] of every attribute for grey images uint8 [N, H, W] of any size."""
        chunks = [
            torch.cat([F.softmax(part, dim=1) for part in self.network.heads_of(self.network(chunk))], dim=1)
            for chunk in to_input(images, self.network.size).split(BATCH)
        ]
        together = (
            torch.cat(chunks).numpy() if chunks else np.zeros((0, sum(map(len, self.heads.values()))), np.float32)
        )
        edges = np.cumsum([len(values) for values in self.heads.values()])[:-1]
        parts = np.split(together, edges, axis=1)
        return {name: (values, part) for (name, values), part in zip(self.heads.items(), parts, strict=True)}

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write judge.safetensors and judge.json into the folder `out`."""
        from safetensors.torch import save_file

        folder = Path(out)
        with atomic_write(folder / "judge.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in self.network.state_dict().items()}, temporary)
        about = {"heads": list(self.heads.items()), "view": self.view, "figures": self.figures}
        write_json(folder / "judge.json", about | {"size": self.network.size, "width": self.network.width})

    @classmethod
    def load(cls, out: str | os.PathLike[str]) -> "Judge":
        """Read a judge from a folder; UserError when there is none."""
        from safetensors.torch import load_file

        folder = Path(out)
        if not (folder / "judge.json").is_file() or not (folder / "judge.safetensors").is_file():
            raise UserError(f"{folder} holds no judge; train one with `tigergen train judge`.")
        about = read_json(folder / "judge.json")
        heads = {name: list(values) for name, values in about["heads"]}
        network = JudgeNetwork([len(values) for values in heads.values()], about["size"], about["width"])
        network.load_state_dict(load_file(folder / "judge.safetensors"))
        return cls(network, heads, about["view"], about["figures"])


def train_judge(
    images: Images,
    attributes: Sequence[Attributes],
    knowledge: KnowledgeBase,
    out: str | os.PathLike[str],
    view: str = "values",
    held_out: tuple[Images, Sequence[Attributes]] | None = None,
    epochs: int = 8,
    seed: int = 0,
    size: int = 64,
    width: int = 32,
    progress: Progress | None = None,
) -> Judge:
    """Train a judge on real images uint8 [N, H, W] and their attributes, measure it on `held_out`, save it at `out`.

    An image without an attribute does not count in the loss of that head; an attribute with fewer than two values in
    the training set gets no head. `view`: `values` takes what the attributes say (an image with several values of one
    attribute does not count for it), `phantom` what can be seen in a simulated frame (`tigerdata.phantom.visible`).
    Figures (accuracy on the held-out images, also after blur and noise) are kept in the judge. Raises UserError
    without images or without any attribute that has two values.
    """
    seen = [visible(row, view) for row in attributes]
    heads = _heads(seen, knowledge)
    if len(images) == 0 or len(images) != len(attributes) or not heads:
        raise UserError(
            f"A judge needs images with attributes of at least two values; given are {len(images)} images, "
            f"{len(attributes)} rows of attributes and {len(heads)} such attributes."
        )
    targets = torch.from_numpy(_targets(seen, heads))
    pixels = to_input(images, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = JudgeNetwork([len(values) for values in heads.values()], size, width)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return head_loss(network.heads_of(logits), targets[rows])

    fit(network, network, pixels, loss, epochs, seed, "nodule_location" not in heads, progress)
    judge = Judge(network, heads, view, {"trained_on": len(images), "epochs": epochs})
    if held_out is not None:
        judge.figures |= measure(judge, *held_out)
    judge.save(out)
    return judge


def fit(
    network: nn.Module,
    seeing: JudgeNetwork,
    pixels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    epochs: int,
    seed: int,
    mirror: bool,
    progress: Progress | None,
    stage: str = "judge",
) -> None:
    """Train `network`, whose part `seeing` (or all of it) reads lightly changed images of `pixels` [N, 1, s, s].

    `loss`: of what `seeing` gives for a batch, float32 [B, K], and of its rows [B] among the N.
    """
    generator = torch.Generator().manual_seed(seed)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    steps = epochs * -(-len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps, pct_start=0.2)
    step, half = 0, computes_bfloat16()
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels), generator=generator).split(BATCH):
            batch = augment(pixels[rows], generator, mirror).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found = seeing(batch)
            value = loss(found.float(), rows)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if progress is not None:
                progress({"stage": stage, "step": step, "steps": steps, "loss": round(float(value.detach()), 4)})
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def head_loss(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Sum over heads of the mean cross-entropy of images that have the attribute; `targets` [B, heads], -1: none."""
    losses = []
    for number, head in enumerate(logits):
        known = (targets[:, number] >= 0).sum().clamp(min=1)
        losses.append(F.cross_entropy(head, targets[:, number], ignore_index=-1, reduction="sum") / known)
    return torch.stack(losses).sum()


def visible(attributes: Attributes, view: str) -> dict[str, str]:
    """What a judge of this view is asked for: attribute -> one value."""
    if view == "phantom":
        from tigerdata.phantom.visible import shown

        return shown(attributes)
    if view != "values":
        raise UserError(f"A judge has no view '{view}'; choose one of {', '.join(VIEWS)}.")
    return {name: values[0] for name, values in attributes.items() if len(values) == 1}


def agreement(judge: Judge, images: Images, attributes: Sequence[Attributes]) -> dict[str, float]:
    """Share of images whose most probable value is the asked one, by attribute that some image has.

    Images uint8 [N, H, W]; values that the judge has never seen count as wrong.
    """
    return {name: float(hits.mean()) for name, hits in hits_by_attribute(judge, images, attributes).items()}


def hits_by_attribute(judge: Judge, images: Images, attributes: Sequence[Attributes]) -> dict[str, NDArray[np.bool_]]:
    """For each attribute, right or wrong for those images that have it (what an interval is computed from)."""
    seen = [visible(row, judge.view) for row in attributes]
    hits = {}
    for name, (values, probability) in judge.predict(images).items():
        rows = [number for number, row in enumerate(seen) if name in row]
        said = probability[rows].argmax(axis=1)
        if rows:
            hits[name] = np.array([values[k] == seen[row][name] for k, row in zip(said, rows, strict=True)])
    return hits


def measure(judge: Judge, images: Images, attributes: Sequence[Attributes]) -> dict[str, Any]:
    """Accuracy on unseen real images as they are, and after slight blur (in px) and noise (in units of 127.5 levels).

    A generated image is a little blurred or noisy: where the judge breaks on real images so treated, its verdict on
    generated ones says little.
    """
    plain = agreement(judge, images, attributes)
    figures: dict[str, Any] = {"held_out": len(images), "accuracy": plain, "mean": _mean(plain), "robustness": {}}
    for name, changed in treated(images).items():
        seen = agreement(judge, changed, attributes)
        figures["robustness"][name] = {"mean": _mean(seen), **seen}
    return figures


def treated(images: Images) -> dict[str, Images]:
    """Images uint8 [N, H, W] after slight blur (in px) and noise (in units of 127.5 levels), by what was done."""
    rng = np.random.default_rng(0)
    pixels = images.astype(np.float32)
    changed = {
        "blur 0.4 px": blur(torch.from_numpy(pixels)[:, None], 0.4)[:, 0].numpy(),
        "blur 0.6 px": blur(torch.from_numpy(pixels)[:, None], 0.6)[:, 0].numpy(),
        "noise 0.06": pixels + rng.normal(0, 0.06 * 127.5, pixels.shape),
        "noise 0.10": pixels + rng.normal(0, 0.10 * 127.5, pixels.shape),
    }
    return {name: values.round().clip(0, 255).astype(np.uint8) for name, values in changed.items()}


def to_input(images: Images, size: int) -> Tensor:
    """Grey images uint8 [N, H, W] as float32 [N, 1, size, size] in [-1, 1], reduced by area."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()[:, None] / 127.5 - 1
    return pixels if pixels.shape[-2:] == (size, size) else F.interpolate(pixels, size=(size, size), mode="area")


def _heads(seen: Sequence[Mapping[str, str]], knowledge: KnowledgeBase) -> dict[str, list[str]]:
    """Attributes with two values or more, in the order of the knowledge base."""
    heads = {}
    for name, attribute in knowledge.attributes.items():
        present = {row[name] for row in seen if name in row}
        if len(present) > 1:
            known = [value for value in attribute.values if value in present]
            heads[name] = [*known, *sorted(present.difference(known))]
    return heads


def _targets(seen: Sequence[Mapping[str, str]], heads: Mapping[str, list[str]]) -> NDArray[np.int64]:
    return np.array(
        [[values.index(row[name]) if name in row else -1 for name, values in heads.items()] for row in seen],
        dtype=np.int64,
    )


def _mean(figures: Mapping[str, float]) -> float:
    return float(np.mean(list(figures.values()))) if figures else float("nan")
