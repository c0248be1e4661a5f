"""Does it help a classifier? One small network, one recipe, several training sets ("arms"), several seeds.

All arms share architecture, number of iterations, optimiser and seeds; they differ in the images only. The test split
is predicted and stored, never chosen on: the setting of an arm is chosen on the validation split. Each (variant, seed)
is one file, so that arms can run at different times and a killed run continues.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kb.errors import UserError
from kb.files import atomic_write, write_json
from tigerdata.manifest import manifest_of
from tigerdata.progress import Progress
from tigergen.data import Cases, load_cases
from tigergen.evaluation.classifier import Part, Variant, predict, train_classifier

ARMS: dict[str, dict[str, Variant]] = {
    "natural": {"natural": Variant(classical=False, balanced=False)},
    "classical": {
        "classical-natural": Variant(classical=True, balanced=False),
        "classical-balanced": Variant(classical=True, balanced=True),
    },
    "generated": {"generated-half": Variant(classical=True, balanced=True, generated=0.5)},
    "target-only": {"target-only": Variant(classical=True, balanced=True, generated=0.5, target_only=True)},
    "real": {"real": Variant(classical=True, balanced=True, pool=True)},
}


def select_part(cases: Cases, target: str, reference: Sequence[str]) -> Part:
    """Real images of the two sides among the cases of a split."""
    keep = [n for n, label in enumerate(cases.labels) if label == target or label in reference]
    chosen = cases.select(keep)
    y = np.array([label == target for label in chosen.labels], np.int64)
    return Part(chosen.images, y, chosen.patient_ids, np.zeros(len(keep), bool))


def load_generated(run: str | os.PathLike[str], target: str, reference: Sequence[str]) -> Part:
    """Accepted images of a finished run, of the two sides.

    Raises:
        UserError: the run is not finished, or holds no image of the target.
    """
    import pandas as pd

    from tigergen.augment.files import read_pixels

    folder = Path(run)
    table = pd.read_parquet(manifest_of(folder), columns=["file", "label", "accepted"])
    table = table[table["accepted"] & table["label"].isin([target, *reference])]
    if not (table["label"] == target).any():
        raise UserError(f"{folder} holds no accepted image of {target}; plan for this class.")
    images = np.stack([read_pixels(folder / f) for f in table["file"]])
    y = (table["label"] == target).to_numpy().astype(np.int64)
    return Part(images, y, [f"generated-{n}" for n in range(len(y))], np.ones(len(y), bool))


def sides(labels: Sequence[str], target: str, reference: Sequence[str] | None) -> tuple[str, ...]:
    """The reference classes: as given, else benign where it exists, else every other class among the test `labels`.

    Raises:
        UserError: no test image of the target or of the reference.
    """
    present = set(labels)
    chosen = (
        tuple(reference) if reference else (("benign",) if "benign" in present else tuple(sorted(present - {target})))
    )
    if target not in present or not set(chosen) & present:
        raise UserError(f"the test split needs images of {target} and of {', '.join(chosen) or 'another class'}.")
    return chosen


def run_arm(
    ws: Any,
    arm: str,
    target: str,
    out: str | os.PathLike[str],
    seeds: int = 4,
    iterations: int = 400,
    size: int = 64,
    run: str | os.PathLike[str] | None = None,
    reference: Sequence[str] | None = None,
    shard: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and store every variant and seed of one arm; files made with the same settings and images are kept.

    `shard` (i, N) trains the seeds i, i + N, ... only, so that several processes share an arm.

    Writes `<out>/<variant>/seed-<n>.npz` (labels, probabilities and patients of val and test) and `<out>/arms.json`.
    Returns the mean AUROC of the variants on validation and the number of files.

    Raises:
        UserError: unknown arm, the arm's images are missing (no run, no pool), a split with one class only.
    """
    from tigergen.evaluation.arm_stats import validation_means

    if arm not in ARMS:
        raise UserError(f"there is no arm '{arm}'; choose one of {', '.join(ARMS)}.")
    if seeds < 1 or iterations < 2:
        raise UserError(f"{seeds} seeds and {iterations} iterations were asked for; use at least 1 and 2.")
    folder, cases = Path(out), {split: load_cases(ws, split, size) for split in ("train", "val", "test")}
    against = sides(cases["test"].labels, target, reference)
    parts = {split: select_part(own, target, against) for split, own in cases.items()}
    extra = _extra(ws, arm, target, against, size, run)
    training = parts["train"] + extra if extra is not None else parts["train"]
    if training.images.shape[1] != size:
        raise UserError(f"images of {training.images.shape[1]} pixels were given and {size} asked for; use one size.")
    settings = {"target": target, "reference": list(against), "iterations": iterations, "size": size}
    write_json(folder / "arms.json", settings)
    # Another split, other masks (they move the crop) or other generated images are another experiment.
    seen = [training.digest(), parts["val"].digest(), parts["test"].digest()]
    key = f"{sorted(settings.items())} {seen}"
    for name, variant in ARMS[arm].items():
        for seed in range(shard[0], seeds, shard[1]):
            path = folder / name / f"seed-{seed}.npz"
            if path.exists() and str(np.load(path)["key"]) == key:
                continue
            model = train_classifier(training, variant, seed, iterations, progress)
            stored: dict[str, Any] = {"key": key, "n_train": len(training.y), "n_target": int(training.y.sum())}
            for split in ("val", "test"):
                p = parts[split]
                stored |= {f"y_{split}": p.y, f"p_{split}": predict(model, p.images)}
                stored[f"patients_{split}"] = np.array(p.patients)
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **stored)
    means = validation_means(folder, list(ARMS[arm]))
    return {"arm": arm, "validation": means, "seeds": seeds, "folder": str(folder)}


def _extra(
    ws: Any, arm: str, target: str, against: Sequence[str], size: int, run: str | os.PathLike[str] | None
) -> Part | None:
    """The images that an arm adds to the training split."""
    if arm in ("generated", "target-only"):
        if run is None:
            raise UserError(f"the arm '{arm}' needs a run of `tigergen augment`; name it with --run.")
        return load_generated(run, target, against)
    if arm == "real":
        if not (ws.cases()["split"] == "pool").any():
            raise UserError("the arm 'real' needs further real images in the split 'pool', and there are none.")
        return select_part(load_cases(ws, "pool", size), target, against)
    return None
