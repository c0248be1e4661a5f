"""The copy check: planted copies found, false alarms on real images, a memorising generator, what each gate costs.

    python benchmarks/copy_check.py FOLDER OUT [--only ddti|breast|simulated|memory|cost ...] [--steps N]

FOLDER holds `ddti/` and `breast/`; the workspace of DDTI is made in OUT once. Images are 64 px.

Planted: 60 copies of each kind, of 15 images in each of four folds. A fold is a quarter of the patients (frames of one
patient, and frames saved again under another, stay together). The other three quarters are the training images; half
of the fold's patients set the thresholds (with training images left out by patient, as the product does), the other
half is asked for false alarms, then the halves change roles. Nothing that is planted or asked sets a threshold. Each
copy is shown twice: as made from another patient's edges, and as made from its own.

Memory: the coarse stage of the preset `tiny` is trained on eight real frames alone and draws 48 images; the index holds
them among all others. Exit code 1 when a bound is missed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tigergen.augment.copies import CopyIndex, Views
from tigergen.augment.gates import Gates, GateSettings
from tigergen.data import Cases, build_conditions
from tigergen.evaluation.features import texture_features

SIDE, FOLDS, EACH = 64, 4, 60
KINDS = ("exact", "flipped", "shifted", "brightened", "zoomed", "re-speckled")
MUST_RECALL, MUST_ALARM, MUST_MS = 0.95, 0.07, 10.0
Image = NDArray[np.uint8]


def moved(image: Image, size: float, right: float, down: float) -> Image:
    """Enlarged about the centre and shifted (pixels); what comes in from beyond is reflected."""
    side = image.shape[0]
    centre = (side - 1) / 2 * (1 - size)
    matrix = np.array([[size, 0, centre + right], [0, size, centre + down]], np.float32)
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def copy(kind: str, image: Image, rng: np.random.Generator) -> Image:
    """A copy of an image that a check must find."""
    side = image.shape[0]
    if kind == "flipped":
        return np.ascontiguousarray(image[:, ::-1])
    if kind == "shifted":
        return moved(image, 1, *rng.uniform(-0.1 * side, 0.1 * side, 2))
    if kind == "zoomed":
        return moved(image, rng.uniform(0.85, 1.15), 0, 0)
    if kind == "brightened":
        return np.clip(image * rng.uniform(1.1, 1.4) + rng.uniform(5, 25), 0, 255).astype(np.uint8)
    if kind == "re-speckled":
        smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.2 * side / 64)
        speckle = cv2.GaussianBlur(rng.rayleigh(0.8, image.shape).astype(np.float32), (0, 0), 0.6 * side / 64)
        return np.clip(smooth * (0.4 + 0.6 * speckle / speckle.mean()), 0, 255).astype(np.uint8)
    return image.copy()


def cases(images: Image, masks: Image, patients: Sequence[Any]) -> Cases:
    """Images as cases of one class without attributes."""
    n = len(images)
    names = [f"i{k}" for k in range(n)]
    blank = [""] * n
    empty: list[dict[str, list[str]]] = [{} for _ in range(n)]
    return Cases(
        images, masks, np.zeros_like(images), blank, blank, ["all"] * n, empty, names, [str(p) for p in patients]
    )


def ddti(folder: Path, out: Path) -> Cases:
    """The frames of DDTI that have a mask; a patient is who shares a patient number or a frame saved again."""
    from segmentation import nodules

    from tigerdata.splits import groups

    ws = nodules(folder, out / "ddti")
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT i.image_id, i.patient_id, coalesce(d.duplicate_group, i.image_id), min(r.path)
               FROM images i JOIN regions r USING (image_id) LEFT JOIN duplicates d USING (image_id)
               WHERE i.rejected IS NULL AND r.kind = 'nodule' GROUP BY ALL ORDER BY i.image_id"""
        ).fetchall()
    who = groups([[("patient", p), ("frame", g)] for _, p, g, _ in rows])
    paths = [str(ws.frame_path(r[0])) for r in rows]
    images, masks, _ = build_conditions(paths, [str(ws.path / r[3]) for r in rows], SIDE)
    return cases(images, masks, who)


def breast(folder: Path) -> Cases:
    """The BrEaST cases, one frame each."""
    masks = sorted((folder / "breast").glob("case*_tumor.png"))
    paths = [m.with_name(m.name.replace("_tumor", "")) for m in masks]
    images, drawn, _ = build_conditions([str(p) for p in paths], [str(m) for m in masks], SIDE)
    return cases(images, drawn, [p.stem for p in paths])


def simulated(n: int = 800) -> Cases:
    """Simulated frames, each of its own patient."""
    from tigerdata.phantom.corpus import uniform_frames

    images, masks, _ = uniform_frames(n, SIDE, 424_242)
    return cases(images, masks, range(n))


def asked(gates: Gates, images: Image, masks: Image, donors: Sequence[str]) -> list[str | None]:
    """The reason to reject each image, None for a pass."""
    n = len(images)
    return [v.reason for v in gates.check(images, donors, masks, [{}] * n, ["all"] * n)]


def planted(name: str, real: Cases, seed: int = 0) -> bool:
    """Print recall by kind and false alarms; True when both bounds hold."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(sorted(set(real.patient_ids)))
    place = {str(p): k % (2 * FOLDS) for k, p in enumerate(people)}
    part = np.array([place[p] for p in real.patient_ids])
    found = {(kind, donor): [] for kind in KINDS for donor in ("other", "own")}  # type: ignore[var-annotated]
    passed: Counter[str] = Counter()
    limits = []
    for fold in range(FOLDS):
        train = real.select(np.flatnonzero(part // 2 != fold))
        for half in range(2):
            held, test = (real.select(np.flatnonzero(part == 2 * fold + k)) for k in (half, 1 - half))
            gates = Gates.fit(train, held)
            limits.append(gates.copy_threshold)
            donors = [train.image_ids[k] for k in rng.integers(0, len(train), len(test))]
            for reason in asked(gates, test.images, test.masks, donors):
                passed[(reason or "passed").split(":")[0]] += 1
        picked = rng.permutation(len(train))[: EACH // FOLDS]
        strangers = [
            next(i for i in rng.permutation(len(train)) if train.patient_ids[i] != train.patient_ids[k]) for k in picked
        ]
        for kind in KINDS:
            images = np.stack([copy(kind, train.images[k], rng) for k in picked])
            for donor, whose in (("other", strangers), ("own", picked)):
                reasons = asked(gates, images, train.masks[picked], [train.image_ids[k] for k in whose])
                found[kind, donor] += [str(r).startswith("copy") for r in reasons]
    total = passed.total()
    print(f"{name}: {len(real)} images of {len(people)} patients, {total} asked; correlation thresholds "
          f"{min(limits):.3f} to {max(limits):.3f}")  # fmt: skip
    for kind in KINDS:
        other, own = np.mean(found[kind, "other"]), np.mean(found[kind, "own"])
        print(
            f"  {kind:12} {len(found[kind, 'other'])} copies: found {other:.3f}, with its original as donor {own:.3f}"
        )
    recall = {d: float(np.mean([found[kind, d] for kind in KINDS])) for d in ("other", "own")}
    alarm = passed["copy"] / total
    others = {k: n for k, n in passed.items() if k not in ("copy", "passed")}
    print(f"  recall {recall['other']:.3f} (own donor {recall['own']:.3f}), false alarms {alarm:.3f}; others: {others}")
    return min(recall.values()) >= MUST_RECALL and alarm <= MUST_ALARM


def organs(sets: dict[str, Cases]) -> None:
    """Print which share of noise, flat patches and images of other sets the realism and technical gates reject."""
    rng = np.random.default_rng(1)
    flat = np.stack([cv2.resize(rng.integers(60, 120, (2, 2)).astype(np.uint8), (SIDE, SIDE)) for _ in range(60)])
    odd = {
        "constant": np.full((10, SIDE, SIDE), 90, np.uint8),
        "smooth patches": flat,
        "white noise": rng.integers(0, 256, (60, SIDE, SIDE)).astype(np.uint8),
        "bare speckle": np.clip(60 * rng.rayleigh(1, (60, SIDE, SIDE)), 0, 255).astype(np.uint8),
    }
    for name, real in sets.items():
        people = sorted(set(real.patient_ids))
        held = np.array([people.index(p) % 4 == 0 for p in real.patient_ids])
        gates = Gates.fit(real.select(np.flatnonzero(~held)), real.select(np.flatnonzero(held)))
        shares = {}
        for label, images in {**odd, **{k: v.images[:100] for k, v in sets.items() if k != name}}.items():
            reasons = asked(gates, images, np.zeros_like(images), [""] * len(images))
            shares[label] = round(float(np.mean([str(r).startswith(("realism", "technical")) for r in reasons])), 3)
        print(f"{name}: rejected by realism or as technically broken (threshold {gates.by_class['all'].value}, "
              f"{gates.by_class['all'].rule}): {json.dumps(shares)}")  # fmt: skip


def memory(real: Cases, steps: int) -> bool:
    """Train on eight images alone and print how much of what the model draws is caught."""
    from tigergen.model import TigerPipeline
    from tigergen.training import presets, stages

    rng = np.random.default_rng(5)
    people = sorted(set(real.patient_ids))
    held = np.array([people.index(p) % 4 == 0 for p in real.patient_ids])
    train = real.select(np.flatnonzero(~held))
    eight = rng.permutation(len(train))[:8]
    few = train.select(eight)
    words = ["benign nodule", "solid", "cystic", "round", "oval", "left", "right", "upper"]
    few = replace(few, fg=words, bg=["sonogram"] * 8)
    quick = [f"coarse.steps={steps}", "training.ema=0.98", "training.held_out_every=0", "training.grid_every=0"]
    preset = presets.load("tiny", [*quick, "training.prompt_dropout=0.05", "training.final=last"])
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        stages.coarse(few, preset, Path(folder) / "model")
        spent = time.process_time() - begin
        pipe = TigerPipeline.from_pretrained(Path(folder) / "model")
        order = np.arange(48) % 8
        drawn = pipe([words[k] for k in order], ["sonogram"] * 48, mode="text", seeds=list(range(48)))
    gates = Gates.fit(train, real.select(np.flatnonzero(held)), GateSettings(realism_quantile=None))
    donors = [train.image_ids[k] for k in rng.integers(0, len(train), 48)]
    verdicts = gates.check(drawn, donors, np.zeros_like(drawn), [{}] * 48, ["all"] * 48)
    caught = np.array([str(v.reason).startswith("copy") for v in verdicts])
    right = np.array([v.scores["nearest_id"] in few.image_ids for v in verdicts])
    median = float(np.median([v.scores["nearest"] for v in verdicts]))
    print(f"memory: {steps} steps on 8 of {len(train)} images ({spent:.0f} s of the processor), 48 images drawn")
    print(f"  {caught.mean():.3f} caught as copies, {(caught & right).sum()} of them named one of the eight; median "
          f"correlation {median:.3f}, threshold {gates.copy_threshold:.3f}")  # fmt: skip
    return bool(caught.mean() >= MUST_RECALL)


def cost(real: Cases) -> bool:
    """Print the milliseconds an image that each gate takes against 800 real images, one thread's processor time."""
    index = CopyIndex(real.images, real.image_ids, real.patient_ids)
    gates = Gates.fit(real, None)
    queries, skip = real.images[:64], np.zeros(len(real), bool)
    donor = [real.image_ids[-1]] * len(queries)

    def taken(function: Any) -> float:
        times = []
        for _ in range(3):
            begin = time.process_time()
            function()
            times.append((time.process_time() - begin) / len(queries) * 1e3)
        return float(np.median(times))

    parts = {
        "technical": taken(lambda: [gates.limits.reason(q) for q in queries]),
        "copy: views": taken(lambda: [Views.of(q) for q in queries]),
        "copy: views and search": taken(lambda: [index.nearest(Views.of(q), skip) for q in queries]),
        "copy: equal pixels, hash": taken(lambda: [(index.exact(q), index.hash_distance(q, skip)) for q in queries]),
        "texture (copy and realism)": taken(lambda: [texture_features(q) for q in np.split(queries, 4)]),
        "all but judge and segmenter": taken(
            lambda: [asked(gates, q, np.ones_like(q), donor[:16]) for q in np.split(queries, 4)]
        ),
    }
    from tigergen.evaluation.judge import Judge
    from tigergen.workshop import SHIPPED_JUDGE

    judge = Judge.load(SHIPPED_JUDGE)
    parts["attributes: judge"] = taken(lambda: [judge.predict(q) for q in np.split(queries, 4)])
    print(
        f"cost against {len(real)} real images, ms an image in batches of 16: "
        + json.dumps({k: round(v, 2) for k, v in parts.items()})
    )
    return parts["all but judge and segmenter"] + parts["attributes: judge"] <= MUST_MS


def main() -> None:
    """Run what was asked for; exit code 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=("ddti", "breast", "simulated", "organs", "memory", "cost"))
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    todo = options.only or ["ddti", "breast", "simulated", "organs", "memory", "cost"]
    makers = {
        "ddti": lambda: ddti(options.folder, options.out),
        "breast": lambda: breast(options.folder),
        "simulated": simulated,
    }
    needs = {"organs": ("ddti", "breast", "simulated"), "memory": ("ddti",), "cost": ("simulated",)}
    wanted = {name for task in todo for name in needs.get(task, (task,))}
    sets = {name: make() for name, make in makers.items() if name in wanted}
    good = [planted(name, sets[name]) for name in todo if name in makers]
    if "organs" in todo:
        organs(sets)
    good += [memory(sets["ddti"], options.steps)] if "memory" in todo else []
    good += [cost(sets["simulated"])] if "cost" in todo else []
    print("verdict:", "all bounds hold" if all(good) else "a bound is missed")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
