"""Run a plan: every image addressed by its index, gated, written with its provenance, and continued after a kill."""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import read_json, write_json
from tigerdata.progress import Progress
from tigergen.augment import files
from tigergen.augment.gates import Gates, GateSettings
from tigergen.augment.planfile import check_plan, plan_id, read_plan, write_plan
from tigergen.augment.slots import Slot, Slots, blocks, claim, donor_quality
from tigergen.model.folder import model_id

Records = list[dict[str, Any]]
BLOCK = 32
WORK = ".work"


@dataclass
class Maker:
    """Makes images of a plan: samples batches, applies the gates, retries what was rejected."""

    pipe: Any
    slots: Slots
    gates: Gates
    base: Any
    donors: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    sampling: dict[str, Any]
    model: str
    batch: int
    attempts: int
    seen: Counter[str] = field(default_factory=Counter)

    def fill(self, pending: list[tuple[int, int]]) -> tuple[Records, dict[int, NDArray[np.uint8]]]:
        """Try (index, attempt) pairs until each index has an accepted image or no attempt is left.

        Which images share a batch depends on the pairs alone, so that a repeated call gives the same bytes.
        """
        records, images, retry = [], {}, []
        while pending:
            slots = [self.slots.at(*pair) for pair in pending[: self.batch]]
            pending = pending[self.batch :]
            pixels = self.sample(slots)
            masks = np.stack([self.donors[s.donor][0] for s in slots])
            verdicts = self.gates.check(pixels, [s.donor for s in slots], masks, [s.attributes for s in slots])
            for slot, image, verdict in zip(slots, pixels, verdicts, strict=True):
                records.append(self.record(slot, image, verdict.reason, verdict.scores))
                self.seen[verdict.reason or "accepted"] += 1
                if verdict.reason is None:
                    images[slot.index] = image
                elif slot.attempt + 1 < self.attempts:
                    retry.append((slot.index, slot.attempt + 1))
            if not pending:
                pending, retry = retry, []
        records.sort(key=lambda r: (r["index"], r["attempt"]))
        return records, images

    def _roles(self, slot: Slot) -> list[tuple[str, str]]:
        """Roles as in training: seen from the image's own class."""
        from tigerdata.prompts import roles

        return roles(self.base, slot.label, slot.fg)

    def sample(self, slots: list[Slot]) -> NDArray[np.uint8]:
        """The images uint8 [B, s, s] of these attempts, as the model makes them."""
        settings = {k: v for k, v in self.sampling.items() if k != "quality"}
        return self.pipe(
            [s.fg for s in slots],
            [s.bg for s in slots],
            np.stack([self.donors[s.donor][0] for s in slots]),
            np.stack([self.donors[s.donor][1] for s in slots]),
            roles=[self._roles(s) for s in slots],
            seeds=[s.seed for s in slots],
            **settings,
        )

    def record(self, slot: Slot, image: NDArray[np.uint8], reason: str | None, scores: Any) -> dict[str, Any]:
        """The manifest's row of one attempt."""
        sampling = {name: self.sampling[name] for name in ("steps", "guidance", "sampler", "mode")}
        return {
            "index": slot.index,
            "attempt": slot.attempt,
            "file": f"{slot.label}/{slot.index:06d}.png" if reason is None else None,
            "label": slot.label,
            "synthetic": True,
            "accepted": reason is None,
            "reason": reason,
            "fg": slot.fg,
            "bg": slot.bg,
            "roles": json.dumps(self._roles(slot), ensure_ascii=False),
            "attributes": json.dumps(slot.attributes, ensure_ascii=False),
            "plan_row": slot.row,
            "donor_image_id": slot.donor,
            "mask_image_id": slot.donor,
            "seed": slot.seed,
            **sampling,
            "width": image.shape[1],
            "height": image.shape[0],
            "sha256": None,
            "model_id": self.model,
            "plan_id": self.slots.id,
            "scores": json.dumps(scores, sort_keys=True),
        }

    def encode(self, record: dict[str, Any], image: NDArray[np.uint8]) -> bytes:
        """The PNG of an accepted image; its hash goes into the record."""
        facts = {"TigerPlan": self.slots.id, "TigerIndex": str(record["index"]), "TigerModel": self.model}
        content = files.png_bytes(image, facts)
        record["sha256"] = hashlib.sha256(content).hexdigest()
        return content


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """SIGTERM sets the event: the block in hand is finished and closed. Only a main thread may catch signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def augment(
    ws: Any,
    plan: str | os.PathLike[str] | Mapping[str, Any],
    model_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    shard: tuple[int, int] = (0, 1),
    batch: int = 16,
    progress: Progress | None = None,
    *,
    gates: GateSettings | None = None,
    attempts: int = 4,
    judge: Any = None,
    segmenter: Any = None,
    pipe: Any = None,
) -> dict[str, Any]:
    """Generate the images of a plan into an ImageFolder with manifest, plan, data card (contract 6 of the design).

    The same call on the same folder continues; several processes may share a folder, either all with the default shard
    or each with its `shard` (i, N). Image k is the same whatever the order or the restarts; bytes are equal for an
    equal `batch`. SIGTERM ends after the block in hand. `pipe` replaces loading `model_folder` (same call signature).

    Returns counts: complete, accepted, rejected by reason, unfilled, per class, files.
    Raises:
        UserError: a plan that cannot be run, a folder that holds another run, too little disk.
    """
    checked = read_plan(plan, ws) if isinstance(plan, (str, os.PathLike)) else dict(plan)
    check_plan(checked, ws)
    folder, model = Path(out), Path(model_folder)
    if not 0 <= shard[0] < shard[1] or batch < 1 or attempts < 1:
        raise UserError(
            f"shard {shard[0]}/{shard[1]}, batch {batch}, attempts {attempts}: use i/N with 0 <= i < N and 1+."
        )
    if pipe is None and not (model / "model_index.json").is_file():
        raise UserError(f"{model} is no model folder (it has no model_index.json); train one with `tigergen train`.")
    run = _open_folder(folder, checked, model_id(model), batch, attempts, gates or GateSettings())
    if (folder / "manifest.parquet").exists():
        return summary(folder)
    from tigergen.augment.closing import finish

    if pipe is None:
        from tigergen.model import TigerPipeline

        pipe = TigerPipeline.from_pretrained(model)
    maker = _maker(ws, checked, pipe, run, batch, attempts, gates, judge, segmenter)
    _check_disk(folder, len(maker.slots), int(pipe.config["image_size"]))
    todo = blocks(len(maker.slots), run["block"])
    with _stop_signal() as stop:
        _work(folder, maker, todo, shard, stop, progress)
    if (
        any(not commit_file(folder, n).exists() for n in range(len(todo)))
        and not (folder / "manifest.parquet").exists()
    ):
        return {"complete": False, "interrupted": stop.is_set(), "folder": str(folder)}
    with claim(folder / WORK / "finish.lock", wait=True):
        if not (folder / "manifest.parquet").exists():
            finish(ws, folder, maker, len(todo), checked)
    return summary(folder)


def _open_folder(
    folder: Path, plan: dict[str, Any], model: str, batch: int, attempts: int, settings: GateSettings
) -> dict[str, Any]:
    """Create the run's folder or check that it is this run's; returns its stored settings."""
    wanted = {"plan_id": plan_id(plan), "model_id": model, "attempts": attempts, "gates": asdict(settings)}
    if not (folder / "run.json").exists():
        if folder.exists() and not (folder / WORK).exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no run; name a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        with claim(folder / WORK / "open.lock", wait=True):
            if not (folder / "run.json").exists():
                write_plan(folder / "plan.json", plan)
                write_json(folder / "run.json", {**wanted, "block": max(BLOCK, batch)})
    run = read_json(folder / "run.json")
    for name, value in wanted.items():
        if run[name] != value:
            raise UserError(f"{folder} holds a run with another {name.removesuffix('_id')}; name a new folder.")
    return run


def _maker(
    ws: Any, plan: dict[str, Any], pipe: Any, run: dict[str, Any], batch: int, attempts: int,
    settings: GateSettings | None, judge: Any, segmenter: Any,
) -> Maker:  # fmt: skip
    from tigergen.data import load_cases

    size = int(pipe.config["image_size"])
    train = load_cases(ws, "train", size)
    held = load_cases(ws, "val", size).images if (ws.cases()["split"] == "val").any() else train.images[:0]
    fitted = Gates.fit(train.images, train.image_ids, train.patient_ids, held, settings, judge, segmenter)
    wanted = {d for row in plan["rows"] for d in row["donors"]}
    donors = {i: (train.masks[n], train.sobel[n]) for n, i in enumerate(train.image_ids) if i in wanted}
    quality = donor_quality(ws.kb, train)
    slots = Slots(plan, {i: quality[i] for i in wanted})
    sampling = dict(plan["sampling"])
    return Maker(pipe, slots, fitted, ws.kb, donors, sampling, run["model_id"], batch, attempts)


def _check_disk(folder: Path, count: int, size: int) -> None:
    """A gray PNG of speckle compresses little: one byte a pixel and two kilobytes of manifest and provenance."""
    needed, free = count * (size * size + 2048), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{count} images need about {needed / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB free; make room."
        )


def commit_file(folder: Path, number: int) -> Path:
    """Where the records of a finished block lie; the file is the mark that the block is done."""
    return folder / WORK / "blocks" / f"{number:06d}.json"


def _work(
    folder: Path,
    maker: Maker,
    todo: list[range],
    shard: tuple[int, int],
    stop: threading.Event,
    progress: Progress | None,
) -> None:
    """Make every block of this shard that nobody else makes or has made."""
    for number, indices in enumerate(todo):
        if number % shard[1] != shard[0]:
            continue
        if stop.is_set():
            return
        with claim(folder / WORK / "claims" / f"{number:06d}.lock") as free:
            # A finished folder has no work folder any more: looking first keeps it finished.
            if free and not (folder / "manifest.parquet").exists() and not commit_file(folder, number).exists():
                records, images = maker.fill([(k, 0) for k in indices])
                for record in records:
                    if record["accepted"]:
                        files.write_bytes(folder / record["file"], maker.encode(record, images[record["index"]]))
                write_json(commit_file(folder, number), records)
        if progress is not None:
            rejected = {k: v for k, v in sorted(maker.seen.items()) if k != "accepted"}
            event = {
                "stage": "augment",
                "step": indices.stop,
                "steps": todo[-1].stop,
                "accepted": maker.seen["accepted"],
            }
            progress({**event, "rejected": sum(rejected.values())})


def summary(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Counts of a finished run, from its manifest."""
    import pyarrow.parquet as pq

    place = Path(folder)
    table = pq.read_table(place / "manifest.parquet", columns=["index", "label", "accepted", "reason"])
    rows = list(zip(*(table[c].to_pylist() for c in ("index", "label", "accepted", "reason")), strict=True))
    filled = {i for i, _, ok, _ in rows if ok}
    reasons = Counter(reason.split(" of image")[0] for _, _, ok, reason in rows if not ok)
    return {
        "complete": True,
        "folder": str(place),
        "accepted": len(filled),
        "per_class": dict(sorted(Counter(label for _, label, ok, _ in rows if ok).items())),
        "rejected": dict(sorted(reasons.items())),
        "unfilled": len({i for i, *_ in rows} - filled),
    }
