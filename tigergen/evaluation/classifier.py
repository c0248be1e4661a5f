"""The classifier that training sets are compared by: architecture, what it learns under, and its training.

Every training set gets the same architecture, number of iterations, optimiser and seeds, so that a difference is one of
images. Augmentation is part of a training set's recipe (`Variant`) and not of the classifier.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kb.errors import UserError
from tigerdata.progress import Progress
from tigergen.data import content_digest
from tigergen.evaluation.judge import to_input
from tigergen.evaluation.judge_network import JudgeNetwork, computes_bfloat16

Images = NDArray[np.uint8]
BATCH = 32
# Largest learning rate of the one-cycle schedule. At 3e-3 a residual network of torchvision often stays at chance.
RATES = {"small": 3e-3, "resnet18": 1e-3, "resnet50": 1e-3}
ARCHITECTURES = tuple(RATES)


@dataclass(frozen=True)
class Variant:
    """What a classifier is trained on.

    `classical`: mirror, affine, gain; `balanced`: all classes equally often; `generated`: share of generated images in
    the classes that have some; `target_only`: in class 1 alone; `pool`: further real images of the cohort `pool`.
    `mixing`: MixUp or CutMix, a coin a batch; `erasing`: random erasing; `feature_space`: features pushed away from
    those of another image of their class.
    """

    classical: bool
    balanced: bool
    generated: float = 0.0
    target_only: bool = False
    pool: bool = False
    mixing: bool = False
    erasing: bool = False
    feature_space: bool = False


@dataclass(frozen=True)
class Part:
    """Images uint8 [N, s, s], labels int [N] (1 is the target where there are two), patients, and who is generated."""

    images: Images
    y: NDArray[np.int64]
    patients: list[str]
    generated: NDArray[np.bool_]

    def __add__(self, other: "Part") -> "Part":
        return Part(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.y, other.y]),
            self.patients + other.patients,
            np.concatenate([self.generated, other.generated]),
        )

    def digest(self) -> str:
        """Hexadecimal SHA-256 over everything: equal digests train and score equal classifiers."""
        return content_digest(self)


def network(seed: int, size: int, architecture: str = "small", outputs: int = 1) -> Any:
    """A network with fresh weights for grey images [B, 1, s, s]; one logit for two classes, else one a class.

    `small` is the judge's architecture: residual blocks, mean and maximum over the image. A network of six plain
    convolutions learned too slowly to show what images are worth: with 1,000 real images a class it reached an AUROC of
    .71 in 400 iterations, this one .79 in 1,000. `resnet18` and `resnet50` are torchvision's (He et al. 2016), from
    random weights, with a first convolution of one channel.

    Raises:
        UserError: unknown architecture.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(f"there is no architecture '{architecture}'; choose one of {', '.join(ARCHITECTURES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "small":
            return JudgeNetwork([outputs], size)
        from torchvision import models

        model: Any = getattr(models, architecture)(weights=None, num_classes=outputs)
        model.conv1 = nn.Conv2d(1, model.conv1.out_channels, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.size = size
    return model


def last_layer(model: Any) -> nn.Linear:
    """The linear layer that turns features into logits."""
    layer: nn.Linear = model.out if isinstance(model, JudgeNetwork) else model.fc
    return layer


def case_weights(part: Part, variant: Variant) -> NDArray[np.float64]:
    """Probability [N] of each image to be drawn for a place in a batch.

    Within a class, generated images together get their share; between classes the share is even or as counted among
    the real ones.
    """
    weights = np.zeros(len(part.y))
    real = ~part.generated
    labels = np.unique(part.y[real])
    for label in labels:
        share = 1.0 / len(labels) if variant.balanced else float((part.y[real] == label).mean())
        own_real = real & (part.y == label)
        own_made = part.generated & (part.y == label)
        made = variant.generated if own_made.any() and not (variant.target_only and label == 0) else 0.0
        weights[own_real] = share * (1 - made) / max(1, own_real.sum())
        if made:
            weights[own_made] = share * made / own_made.sum()
    return weights / weights.sum()


class FeatureSpace:
    """Feature-space augmentation as a hook before a classifier's last layer.

    Half of the features f of a batch become f + 0.5 (f - g), g those of another image of the class in the batch:
    extrapolation, which DeVries and Taylor (2017, section 3.2) found to help where interpolation does not. Features are
    the classifier's own, as in Kuo et al. (2020).
    """

    strength = 0.5
    share = 0.5

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.labels: Tensor | None = None

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Change the features [B, D] of the batch whose `labels` are set; nothing where they are not."""
        if self.labels is None:
            return None
        features, count = given[0], len(self.labels)
        same = (self.labels[:, None] == self.labels[None]).float()
        same.fill_diagonal_(0)
        alone = same.sum(1) == 0
        same[alone] = 1.0
        other = torch.multinomial(same, 1, generator=self.generator)[:, 0]
        chosen = (torch.rand(count, generator=self.generator) < self.share) & ~alone
        moved = features + self.strength * (features - features[other])
        return (torch.where(chosen[:, None], moved, features),)


def _mixer(classes: int) -> Any:
    """MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019) of torchvision, a coin a batch; labels become shares."""
    from torchvision.transforms import v2

    return v2.RandomChoice([v2.MixUp(alpha=0.4, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)])


def train_classifier(
    part: Part,
    variant: Variant,
    seed: int,
    iterations: int,
    progress: Progress | None = None,
    architecture: str = "small",
) -> Any:
    """Train on batches of 32 with AdamW and a one-cycle rate for a fixed number of iterations; the last weights count.

    Labels are 0 .. K - 1 and each has a real image. Every draw follows from `seed`; the process's own random state
    stays as it was.

    Raises:
        UserError: a class without a real training image, an unknown architecture.
    """
    present = np.unique(part.y[~part.generated])
    if len(present) < 2 or len(present) <= part.y.max():
        raise UserError("the training split holds only one of the two sides; a classifier needs both.")
    classes = len(present)
    model = network(seed, part.images.shape[1], architecture, 1 if classes == 2 else classes)
    model = model.to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torchvision's mixing draws from the process's generator
        _train(model, part, variant, seed, iterations, classes, RATES[architecture], progress)
    return model.eval()


def _train(
    model: Any, part: Part, variant: Variant, seed: int, iterations: int, classes: int, rate: float,
    progress: Progress | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng([seed, 11])
    order = rng.choice(len(part.y), size=(iterations, BATCH), p=case_weights(part, variant))
    changes = _changes(variant, seed)
    mix = _mixer(classes) if variant.mixing else None
    space = FeatureSpace(seed) if variant.feature_space else None
    hook = last_layer(model).register_forward_pre_hook(space) if space is not None else None
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=iterations)
    y, half = torch.from_numpy(part.y), computes_bfloat16()
    model.train()
    for step, rows in enumerate(order):
        images = part.images[rows]
        for change in changes:
            images = change(images)
        x, wanted = to_input(images, model.size), y[rows]
        if space is not None:
            space.labels = wanted
        if mix is not None:
            x, wanted = mix(x, wanted)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(x)
        loss = loss_of(logits.float(), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress is not None and ((step + 1) % 20 == 0 or step + 1 == iterations):
            progress({"stage": "classifier", "step": step + 1, "steps": iterations, "loss": float(loss.detach())})
    if hook is not None:
        hook.remove()


def _changes(variant: Variant, seed: int) -> list[Any]:
    from tigergen.evaluation.classical import Classical, Erasing

    return [kind(seed) for kind, on in ((Classical, variant.classical), (Erasing, variant.erasing)) if on]


def loss_of(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of logits [B, 1] or [B, K] with labels [B] or, after mixing, shares of classes [B, K]."""
    if logits.shape[1] > 1:
        return F.cross_entropy(logits, wanted)
    target = wanted[:, 1] if wanted.dim() == 2 else wanted
    return F.binary_cross_entropy_with_logits(logits[:, 0], target.float())


@torch.no_grad()
def predict(model: Any, images: Images) -> NDArray[np.float64]:
    """Probability of class 1 [N] for a network of one logit, else of every class [N, K]."""
    logits = torch.cat([model(to_input(images[i : i + 256], model.size)) for i in range(0, len(images), 256)])
    if logits.shape[1] == 1:
        return torch.sigmoid(logits[:, 0]).double().numpy()
    return torch.softmax(logits, dim=1).double().numpy()
