"""YOLO segmentation of nodules and glands: the only module that imports ultralytics (AGPL-3.0, extra `yolo`).

The model is built from the YAML that ultralytics ships and trained here from random weights; nothing is downloaded.
ultralytics calls home by default (connection check at import, event log, font and weight downloads): all of it is
switched off before the import, in `_ultralytics`.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import atomic_write, sha256_file
from tigerdata.processes import torch_threads
from tigerdata.progress import Progress
from tigerdata.regions.square import fit, unfit

# Width of yolov8n itself. Half of it halves the time of a step and cost .01 Dice on 400 simulated frames (9 epochs).
WIDTH = 0.25
# Largest batch, and the learning rate that goes with it. A small set gets a smaller batch, at least 4, so that an epoch
# has some 25 steps; the rate goes down with it (8 frames a step at 4e-3 ended at Dice .47 where 16 gave .81).
BATCH = 16
LEARNING_RATE = 4e-3
STEPS_AN_EPOCH = 25
# Below this confidence a detection is no answer. Low, because a frame that is segmented is known to show a nodule.
CONFIDENCE = 0.05
# Smallest outline, in points, that counts as a region: shorter ones are specks of a pixel or two.
MIN_POINTS = 6


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; all of it is written into `segmenter.json`."""

    imgsz: int = 192
    epochs: int = 60
    width: float = WIDTH


def _ultralytics() -> Any:
    """Import ultralytics with every outgoing connection switched off; UserError when it is not installed."""
    # The variables are read once, at import. The settings file goes to a private folder: the user's own stays as it is.
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_VERBOSE"] = "false"
    owner = getattr(os, "getuid", lambda: 0)()  # Windows has no user numbers, and a temporary folder for each user
    os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(tempfile.gettempdir()) / f"tigerdata-yolo-{owner}"))
    # ultralytics replaces `PIL.Image.open` (with one that installs a package when it meets a file that is no image) and
    # `torch.save` for the whole process: other rooms keep the originals.
    image, torch = importlib.import_module("PIL.Image"), importlib.import_module("torch")
    opener, saver = image.open, torch.save
    try:
        ultralytics = importlib.import_module("ultralytics")
    except ImportError as error:
        raise UserError(
            "Segmentation needs the extra 'yolo' (pip install 'tigerdata[yolo]'); or import masks made elsewhere."
        ) from error
    finally:
        vars(image)["open"], vars(torch)["save"] = opener, saver
    ultralytics.settings.update({"sync": False})
    # The data check wants a font for its plots, which are off, and would fetch it.
    data: Any = importlib.import_module("ultralytics.data.utils")
    data.check_font = lambda *args, **kwargs: None
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    return ultralytics


class YoloSegmenter:
    """A trained YOLO segmentation model; implements `regions.segment.Segmenter`."""

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        """Load a weights file (.pt). UserError when it is missing.

        A .pt file is a pickle: load only files that you made or trust.
        """
        self.path = Path(weights)
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist; train one with `tigergen train segmenter`.")
        self.sha256 = sha256_file(self.path)
        ultralytics = _ultralytics()
        with _contained():
            self._model = ultralytics.YOLO(str(self.path), task="segment")
        self._size = int(self._model.overrides["imgsz"])
        # A file of the user's own may name its class anything: then it outlines nodules, one a frame.
        self.kind = "gland" if "gland" in self._model.names.values() else "nodule"

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return masks bool [N, H, W] and confidences [N], 0 where nothing was found.

        Of nodules the best one; of a gland every part that is at least half as sure as the best: a lobe each.
        """
        masks = np.zeros(images.shape, dtype=bool)
        scores = np.zeros(len(images), dtype=np.float32)
        for number, image in enumerate(images):
            small = fit(image, self._size)
            # One frame a call: in a batch the result of one would depend on the sizes of the others.
            with _contained():
                result = self._model.predict(
                    small[:, :, None],
                    imgsz=self._size,
                    conf=CONFIDENCE,
                    device="cpu",
                    retina_masks=True,
                    verbose=False,
                )[0]
            if result.masks is None or not len(result.boxes):
                continue
            sure = result.boxes.conf.cpu().numpy()
            parts = result.masks.data.cpu().numpy().astype(np.float32)
            kept = sure >= sure.max() / 2 if self.kind == "gland" else np.arange(len(sure)) == sure.argmax()
            masks[number] = unfit(parts[kept].max(axis=0), image.shape) > 0.5
            scores[number] = float(sure.max()) if masks[number].any() else 0.0
        return masks, scores


def outlines(mask: NDArray[np.bool_]) -> list[str]:
    """Return a mask [H, W] as lines of a YOLO label file: class 0 and the outline, relative to the padded square."""
    import cv2

    side = max(mask.shape)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lines = []
    for contour in contours:
        points = (np.asarray(contour).reshape(-1, 2) + 0.5) / side
        if len(points) >= MIN_POINTS:
            lines.append("0 " + " ".join(f"{x:.5f} {y:.5f}" for x, y in points))
    return lines


def train(
    frames: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    weights: Path,
    kind: str,
    recipe: Recipe,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train from random weights on (frame, mask) pairs and write the last epoch's weights, atomically.

    Deterministic for a seed, a machine and a number of threads: one process, no loader workers. No early stopping, so
    that no held-out frame takes part in the choice of weights.
    """
    import cv2

    ultralytics = _ultralytics()
    with tempfile.TemporaryDirectory(prefix="tigerdata-yolo-") as name, _contained(threads):
        folder = Path(name)
        for part in ("images", "labels"):
            (folder / part / "train").mkdir(parents=True)
        for number, (image, mask) in enumerate(frames):
            cv2.imwrite(str(folder / "images" / "train" / f"{number:06d}.png"), fit(image, recipe.imgsz))
            (folder / "labels" / "train" / f"{number:06d}.txt").write_text("\n".join(outlines(mask)) + "\n")
        data = folder / "data.yaml"
        # ultralytics insists on a validation list even where validation is off.
        data.write_text(
            f"path: {folder}\ntrain: images/train\nval: images/train\nnc: 1\nnames: [{kind}]\nchannels: 1\n"
        )
        model = ultralytics.YOLO(str(_model_file(ultralytics, folder, recipe.width)), task="segment")
        if progress:
            done = {"epoch": 0}

            def report(trainer: Any) -> None:
                done["epoch"] += 1
                progress({"stage": "train segmenter", "step": done["epoch"], "steps": recipe.epochs})

            model.add_callback("on_train_epoch_end", report)
        batch = min(BATCH, max(4, len(frames) // STEPS_AN_EPOCH))
        model.train(
            data=str(data), project=str(folder), name="run", exist_ok=True, imgsz=recipe.imgsz, epochs=recipe.epochs,
            seed=seed, batch=batch, nbs=batch, optimizer="AdamW", lr0=LEARNING_RATE * batch / BATCH, lrf=0.05,
            warmup_epochs=1.0, device="cpu", workers=0, deterministic=True, amp=False, cache="ram", mask_ratio=2,
            # A neck has an up and a depth: no mosaic, no flips up, small shifts. Grey frames have no hue.
            mosaic=0.0, close_mosaic=0, degrees=15.0, scale=0.35, translate=0.1, hsv_h=0.0, hsv_s=0.0, hsv_v=0.3,
            augmentations=[], val=False, plots=False, verbose=False, patience=0,
        )  # fmt: skip
        with atomic_write(weights) as temporary:
            temporary.write_bytes((folder / "run" / "weights" / "last.pt").read_bytes())


@contextmanager
def _contained(threads: int = 0) -> Iterator[None]:
    """Undo what ultralytics does to the whole process: it seeds three global generators, sets determinism, prints."""
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with torch_threads(threads), redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _model_file(ultralytics: Any, folder: Path, width: float) -> Path:
    """Write ultralytics' own yolov8-seg.yaml with a width; the file's name picks its scale 'n'."""
    import yaml

    source = Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8-seg.yaml"
    model = yaml.safe_load(source.read_text(encoding="utf-8"))
    depth, _, channels = model["scales"]["n"]
    model["scales"] = {"n": [depth, width, channels]}
    path = folder / "yolov8n-seg.yaml"
    path.write_text(yaml.safe_dump(model), encoding="utf-8")
    return path
