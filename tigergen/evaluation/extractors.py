"""Extractors of features: the ruler of every distance between image sets, always named beside the number.

`texture` needs no weights; a network is any torch module, or a safetensors file whose architecture is named. Nothing is
downloaded, and weights that do not fit their architecture entirely are refused: half-loaded weights measure noise.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from kb.errors import UserError
from tigergen.evaluation.features import EXTRACTOR, TextureSpace

if TYPE_CHECKING:
    from torch import nn

    from tigergen.evaluation.dual_encoder import DualEncoder
    from tigergen.evaluation.judge import Judge

Images = NDArray[np.uint8]
Vectors = NDArray[np.floating]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BATCH = 32


@dataclass(frozen=True)
class Extractor:
    """Images uint8 [N, H, W] to features [N, d], with what a reader must know of it."""

    id: str
    weights_sha256: str
    resize: str
    vectors: Callable[[Images], Vectors]

    def about(self) -> dict[str, str]:
        """What belongs beside every number measured with it."""
        return {"extractor": self.id, "weights_sha256": self.weights_sha256, "resize": self.resize}


def square(image: Images, size: int) -> Images:
    """The central square of a gray image [H, W] as [size, size]: averaged down by area, enlarged linearly."""
    h, w = image.shape
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    cut = np.ascontiguousarray(image[top : top + side, left : left + side])
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (size, size), interpolation=how), np.uint8)


def texture(real: ArrayLike) -> Extractor:
    """Texture features z-scored on these real images [N, H, W]; its hash is that of the scale, which is its weights.

    Raises:
        MetricError: fewer than two images.
    """
    space = TextureSpace.fit(real)
    scale = hashlib.sha256(np.stack([space.mean, space.sd]).astype("<f8").tobytes()).hexdigest()
    return Extractor(f"{EXTRACTOR}, z-scored on the real set", scale, "as the images are", space)


def module(
    network: "nn.Module",
    name: str,
    size: int = 224,
    mean: Sequence[float] = IMAGENET[0],
    sd: Sequence[float] = IMAGENET[1],
    weights_sha256: str | None = None,
) -> Extractor:
    """An extractor of any torch module: what enters its last linear layer, or its output where it has none, [N, d].

    Args: images become float [B, len(mean), size, size], (grey / 255 - mean) / sd; `weights_sha256`: of the file that
    the weights came from, else that of the weights is taken.
    Raises:
        UserError: the module gives no vectors for such images.
    """
    import torch
    from torch import nn

    network = network.eval()
    heads = [m for m in network.modules() if isinstance(m, nn.Linear)]
    middle, spread = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, sd))

    @torch.no_grad()
    def vectors(images: Images) -> Vectors:
        seen: list[Any] = []
        hook = heads[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0])) if heads else None
        out = []
        try:
            for i in range(0, len(images), BATCH):
                grey = torch.from_numpy(np.stack([square(image, size) for image in images[i : i + BATCH]]))
                seen.clear()
                result = network((grey[:, None].float() / 255.0 - middle) / spread)
                out.append((seen[-1] if seen else result).flatten(1).numpy())
        except (RuntimeError, AttributeError) as error:
            raise UserError(f"{name} gives no vectors for {len(mean)} x {size} x {size} images: {error}.") from error
        finally:
            if hook is not None:
                hook.remove()
        return np.concatenate(out)

    if weights_sha256 is None:
        digest = hashlib.sha256()
        for key, value in sorted(network.state_dict().items()):
            digest.update(key.encode() + value.cpu().numpy().tobytes())
        weights_sha256 = digest.hexdigest()
    return Extractor(name, weights_sha256, f"central square, {size} px, area", vectors)


def weights_file(path: str | os.PathLike[str], architecture: str | None = None) -> Extractor:
    """An extractor of a safetensors file of a torchvision classifier, its last linear layer left out.

    `architecture`: name in torchvision, such as resnet50; default: `architecture` in the file's metadata.
    Raises:
        UserError: no such file or architecture, none named, or weights that do not fit it in every tensor.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file
    from torch import nn
    from torchvision import models

    from kb.files import sha256_file

    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no extractor {path}: give `texture`, `judge`, `dual` or a .safetensors file.")
    try:
        with safe_open(file, "pt") as stored:
            named = architecture or (stored.metadata() or {}).get("architecture")
        state = load_file(file)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file: {error}.") from error
    if named is None:
        raise UserError(f"{path} does not say what network it is of; name it with --architecture, such as resnet50.")
    if named not in models.list_models(module=models):
        raise UserError(f"torchvision has no classifier '{named}'; --architecture takes a name such as resnet50.")
    network = models.get_model(named, weights=None)
    heads = [key for key, m in network.named_modules() if isinstance(m, nn.Linear)]
    classes = state[f"{heads[-1]}.weight"].shape[0] if heads and f"{heads[-1]}.weight" in state else None
    if classes not in (None, 1000):
        network = models.get_model(named, weights=None, num_classes=classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {named}: {' '.join(str(error).split())[:200]}.") from error
    return module(network, f"{named}, before the last layer", 299 if "inception" in named else 224,
                  weights_sha256=sha256_file(file))  # fmt: skip


def judge(trained: "Judge", folder: str | os.PathLike[str]) -> Extractor:
    """The features of a judge of attributes (before its heads), loaded from this folder."""
    from kb.files import sha256_file

    digest = sha256_file(Path(folder) / "judge.safetensors")
    return module(
        trained.network, "judge of attributes, before its heads", trained.network.size, (0.5,), (0.5,), digest
    )


def dual(trained: "DualEncoder") -> Extractor:
    """The image vectors, of length 1, of a dual encoder that was read from its folder."""
    side = trained.network.size

    def vectors(images: Images) -> Vectors:
        return trained.image_vectors(np.stack([square(image, side) for image in images]))

    name, digest = trained.about()["extractor"], trained.weights_sha256 or ""
    return Extractor(f"{name}, image vectors", digest, f"central square, {side} px, area", vectors)
