"""Did it help? The rare class's AUROC without and with generated images, over seeds, everything else equal.

Every arm trains the same classifier for the same number of steps with the same seeds; arms differ by their images
alone. What can be chosen is chosen on validation, and the arm with natural frequencies is always there, because a gain
over oversampling only says nothing (`docs/journey.md`).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import atomic_write, read_json, write_json
from tigerdata.progress import Progress
from tigergen.evaluation.classifier import Images, Recipe, predict, train
from tigergen.evaluation.metrics import auroc, delong_test

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace
    from tigergen.data import Cases


@dataclass(frozen=True)
class Arm:
    """One way to train: which images, how they are drawn, and what the report calls it."""

    title: str
    augmented: bool
    balanced: bool = False
    generated: str = ""
    extra_real: bool = False


ARMS = {
    "natural": Arm("natural frequencies, no augmentation", augmented=False),
    "classical": Arm("natural frequencies + classical augmentation", augmented=True),
    "oversampled": Arm("rare class oversampled + classical augmentation", augmented=True, balanced=True),
    "generated": Arm("classical + generated images in every class", augmented=True, generated="every"),
    "target_only": Arm("classical + generated images in the rare class only", augmented=True, generated="target"),
    "real": Arm("classical + further real images of the rare class", augmented=True, balanced=True, extra_real=True),
}
CLASSICAL = ("classical", "oversampled")


def run_arm(
    ws: "Workspace",
    arm: str,
    target: str,
    seeds: Sequence[int] = range(4),
    iterations: int = 400,
    size: int = 64,
    run: str | os.PathLike[str] | None = None,
    other: str = "benign",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and score one arm, `target` against `other`, for each seed; a seed that is done is not done again.

    `run` is an augmented folder (arms with generated images), of which half of each batch's class is drawn. Scores of
    validation and test images are kept in runs/arms of the workspace. Returns AUROC a seed on both.
    Raises UserError for an unknown arm, a class without images in a split, or an arm without its images.
    """
    if arm not in ARMS:
        raise UserError(f"there is no arm '{arm}'; choose one of {', '.join(ARMS)}.")
    from tigergen.data import load_cases

    val, test = (_two(load_cases(ws, split, size), target, other, split) for split in ("val", "test"))
    images, y, chances, content = _training_set(ws, ARMS[arm], target, other, size, run)
    recipe = Recipe(iterations=iterations)
    asked = {"arm": arm, "target": target, "other": other, "recipe": asdict(recipe), "size": size, **content}
    folder = arms_folder(ws) / arm
    out: dict[str, Any] = {"arm": arm, "images": content["images"], "val": [], "test": []}
    for seed in seeds:
        record = folder / f"seed{seed}.json"
        wanted = {**asked, "seed": seed}
        if not (record.exists() and read_json(record)["asked"] == wanted):

            def step(done: int, loss: float, seed: int = seed) -> None:
                if progress is not None:
                    progress({"stage": f"arm {arm}", "step": done, "steps": iterations, "seed": seed, "loss": loss})

            model = train(images, y, chances, ARMS[arm].augmented, seed, recipe, step)
            scores = {name: predict(model, part.images) for name, part in (("val", val), ("test", test))}
            with atomic_write(folder / f"seed{seed}.npz") as temporary:
                np.savez(temporary, **{f"p_{name}": p for name, p in scores.items()})
            figures = {
                name: auroc(_is(part, target), scores[name])["auroc"] for name, part in (("val", val), ("test", test))
            }
            write_json(record, {"asked": wanted, **figures})
        done = read_json(record)
        out["val"].append(done["val"])
        out["test"].append(done["test"])
    return out


def arms_folder(ws: "Workspace") -> Path:
    """Where a workspace keeps the scores of its arms."""
    return ws.path / "runs" / "arms"


def _is(cases: "Cases", target: str) -> NDArray[np.bool_]:
    return np.array([label == target for label in cases.labels])


def _two(cases: "Cases", target: str, other: str, split: str) -> "Cases":
    """Only the two classes that are told apart."""
    for label in (target, other):
        if label not in cases.labels:
            raise UserError(f"the {split} split has no image of '{label}'; arms need both classes there.")
    return cases.select([k for k, label in enumerate(cases.labels) if label in (target, other)])


def _training_set(
    ws: "Workspace", arm: Arm, target: str, other: str, size: int, run: str | os.PathLike[str] | None
) -> tuple[Images, NDArray[np.bool_], NDArray[np.float64], dict[str, Any]]:
    """Images, labels, chances of being drawn, and what identifies them."""
    from tigergen.data import load_cases

    real = _two(load_cases(ws, "train", size), target, other, "train")
    images, y = real.images, _is(real, target)
    content: dict[str, Any] = {"real": real.digest()}
    if arm.extra_real:
        pool = load_cases(ws, "pool", size)
        pool = pool.select([k for k, label in enumerate(pool.labels) if label == target])
        if not len(pool):
            raise UserError(f"the pool holds no further real image of '{target}'; leave the arm 'real' out.")
        images, y = np.concatenate([images, pool.images]), np.concatenate([y, np.ones(len(pool), bool)])
        content["pool"] = pool.digest()
    shares = np.ones(len(y))
    if arm.balanced:
        shares = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    if arm.generated:
        made, made_y, identity = _generated(run, target, other, size)
        if arm.generated == "target":
            made, made_y = made[made_y], made_y[made_y]
        # Half of each class's draws are generated, so that being generated says nothing about the class.
        mixed = [np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())]
        for label in (True, False):
            if (made_y == label).any():
                mixed[0] = np.where(y == label, mixed[0] / 2, mixed[0])
        counts = {label: max(int((made_y == label).sum()), 1) for label in (True, False)}
        mixed.append(np.array([0.25 / counts[bool(label)] for label in made_y]))
        images, y, shares = np.concatenate([images, made]), np.concatenate([y, made_y]), np.concatenate(mixed)
        content["generated"] = identity
    content["images"] = {target: int(y.sum()), other: int((~y).sum())}
    return images, y, shares / shares.sum(), content


def _generated(
    run: str | os.PathLike[str] | None, target: str, other: str, size: int
) -> tuple[Images, NDArray[np.bool_], str]:
    """Accepted images of an augmented folder in the two classes, reduced to `size`, and the manifest's hash."""
    import pandas as pd

    from kb.files import sha256_file
    from tigergen.augment.files import read_pixels

    manifest = Path(run or "") / "manifest.parquet"
    if run is None or not manifest.is_file():
        raise UserError("this arm needs a finished augmented folder; name it with --run.")
    rows = pd.read_parquet(manifest)
    rows = rows[rows["accepted"] & rows["label"].isin([target, other])]
    if not (rows["label"] == target).any():
        raise UserError(f"{manifest} holds no accepted image of '{target}'; augment that class first.")
    images = np.stack([_sized(read_pixels(manifest.parent / name), size) for name in rows["file"]])
    return images, (rows["label"] == target).to_numpy(), sha256_file(manifest)


def _sized(image: Images, size: int) -> Images:
    import cv2

    if image.shape == (size, size):
        return image
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def summarise(ws: "Workspace", target: str, size: int = 64, other: str = "benign") -> dict[str, Any]:
    """Table of the arms that are done: AUROC a seed, of the mean score with intervals, and paired differences.

    Intervals: DeLong and a bootstrap over patients, for the mean score over seeds. `against` names the classical arm
    that validation chose; each difference to it is given a seed and with DeLong's paired p.
    Raises UserError when no arm is done.
    """
    from tigergen.data import load_cases

    test = _two(load_cases(ws, "test", size), target, other, "test")
    y = _is(test, target)
    found = [name for name in ARMS if list((arms_folder(ws) / name).glob("seed*.json"))]
    if not found:
        raise UserError(f"{ws.path} has no finished arm; run `tigergen arms` first.")
    scores: dict[str, NDArray[np.float64]] = {}
    table: dict[str, dict[str, Any]] = {}
    for name in found:
        records = sorted((arms_folder(ws) / name).glob("seed*.json"), key=lambda p: int(p.stem[4:]))
        rows: list[Mapping[str, Any]] = [read_json(path) for path in records]
        scores[name] = np.mean([np.load(path.with_suffix(".npz"))["p_test"] for path in records], axis=0)
        each = np.array([row["test"] for row in rows])
        table[name] = {
            "title": ARMS[name].title,
            "images": rows[0]["asked"]["images"],
            "val": float(np.mean([row["val"] for row in rows])),
            "test": [float(value) for value in each],
            "mean": float(each.mean()),
            "sd": float(each.std(ddof=1)) if len(each) > 1 else 0.0,
            "ensemble": auroc(y, scores[name], test.patient_ids),
        }
    classical = max((n for n in found if n in CLASSICAL), key=lambda n: table[n]["val"], default=None)
    for name in found:
        if classical and name != classical and len(table[name]["test"]) == len(table[classical]["test"]):
            paired = np.array(table[name]["test"]) - np.array(table[classical]["test"])
            table[name]["difference"] = {
                "seeds": [float(value) for value in paired],
                "mean": float(paired.mean()),
                "p": delong_test(y, scores[name], scores[classical]),
            }
    return {"target": target, "other": other, "n_test": len(y), "against": classical, "arms": table}
