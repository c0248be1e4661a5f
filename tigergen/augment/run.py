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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import read_json, write_json
from tigerdata.progress import Progress
from tigergen.augment import accounts, files, quarantine
from tigergen.augment.gates import Gates, GateSettings
from tigergen.augment.pipe import open_pipe
from tigergen.augment.planfile import check_plan, plan_id, read_plan, write_plan
from tigergen.augment.slots import Slot, Slots, donor_quality
from tigergen.augment.work import (
    WORK,
    Pair,
    Records,
    Work,
    blocks,
    claim,
    in_order,
    is_finished,
    reason_of,
)
from tigergen.model.folder import model_id

# A block is the least that a process claims: so many images, or so many batches where that is more. Four batches,
# because the images that are made again go together at a block's end, in a batch that is seldom full.
BLOCK, BATCHES = 64, 4
# What a file needs on disk beside its pixels: provenance, metadata, records while it is made, manifest.
OVERHEAD_BYTES = 6144


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
    producer: str = files.PRODUCER
    quarantine: Path | None = None

    def fill(self, pending: list[Pair]) -> tuple[Records, dict[int, NDArray[np.uint8]]]:
        """Try (index, attempt) pairs until each index has an accepted image or no attempt is left."""
        records: Records = []
        images: dict[int, NDArray[np.uint8]] = {}
        for made, accepted in self.batches(pending):
            records += made
            images |= accepted
        return in_order(records), images

    def batches(
        self, pending: list[Pair], earlier: Mapping[Pair, dict[str, Any]] | None = None
    ) -> Iterator[tuple[Records, dict[int, NDArray[np.uint8]]]]:
        """As `fill`, batch by batch: the records of a batch and its accepted images by index.

        Which images share a batch depends on the pairs alone, so that a repeated call gives the same bytes. `earlier`:
        records that need not be made again; they are not given out.
        """
        known = earlier or {}
        retry: list[Pair] = []
        while pending:
            chosen, pending = pending[: self.batch], pending[self.batch :]
            slots = [self.slots.at(*pair) for pair in chosen if pair not in known]
            records, images = self._made(slots) if slots else ([], {})
            rejected = {pair for pair in chosen if pair in known and not known[pair]["accepted"]}
            rejected |= {(r["index"], r["attempt"]) for r in records if not r["accepted"]}
            retry += [(k, n + 1) for k, n in chosen if (k, n) in rejected and n + 1 < self.attempts]
            if slots:
                yield records, images
            if not pending:
                pending, retry = retry, []

    def _made(self, slots: list[Slot]) -> tuple[Records, dict[int, NDArray[np.uint8]]]:
        """Sample and judge one batch."""
        pixels = self.sample(slots)
        masks = np.stack([self.donors[s.donor][0] for s in slots])
        verdicts = self.gates.check(
            pixels, [s.donor for s in slots], masks, [s.attributes for s in slots], [s.label for s in slots]
        )
        records, images = [], {}
        for slot, image, verdict in zip(slots, pixels, verdicts, strict=True):
            records.append(self.record(slot, image, verdict.reason, verdict.scores))
            if verdict.reason is None:
                images[slot.index] = image
            elif self.quarantine is not None:
                quarantine.keep(self.quarantine, records[-1], image, self.producer)
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
        content = files.png_bytes(
            image, files.place_in_run(self.slots.id, record["index"], self.model), producer=self.producer
        )
        record["sha256"] = hashlib.sha256(content).hexdigest()
        return content


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """SIGTERM sets the event: the batch in hand is finished and kept. Only a main thread may catch signals."""
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
    keep_rejected: bool = False,
) -> dict[str, Any]:
    """Generate the images of a plan into an ImageFolder with manifest, plan, data card (contract 6 of the design).

    The same call on the same folder continues. Several processes, on one or several machines, may share a folder:
    blocks of images are claimed by file locks, and `shard` (i, N) leaves a process the blocks i, i + N, ... alone.
    Image k is the same whatever the order, the processes or the restarts; bytes are equal for an equal `batch`. SIGTERM
    ends after the batch in hand. `pipe` replaces loading `model_folder` (same call signature).
    `keep_rejected`: keep what the gates reject in a folder beside `out` (`augment.quarantine`).

    Returns counts: complete, accepted, rejected by reason, unfilled, per class, files. Where blocks of other shards are
    missing, or after SIGTERM, `complete` and `interrupted` alone.
    Raises:
        UserError: a plan that cannot be run, a folder that holds another run, too little disk, no file locks.
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
    run = _open_folder(folder, checked, model_id(model), batch, attempts, gates or GateSettings(), files.producer(ws))
    if is_finished(folder):
        shutil.rmtree(folder / WORK, ignore_errors=True)
        return summary(folder)
    maker = _maker(ws, checked, pipe or open_pipe(model), run, batch, attempts, gates, judge, segmenter)
    maker.quarantine = quarantine.folder_of(folder) if keep_rejected else None
    todo = blocks(len(maker.slots), run["block"])
    work = Work(folder, maker, todo, progress)
    _check_disk(folder, len(maker.slots) - work.tally.done, int(maker.pipe.config["image_size"]))
    with _stop_signal() as stop:
        complete = work.until_closed(ws, checked, shard, stop)
    # Whoever leaves last clears away what it brought back by asking for a claim in a finished folder.
    if is_finished(folder):
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return summary(folder) if complete else {"complete": False, "interrupted": stop.is_set(), "folder": str(folder)}


def _open_folder(
    folder: Path, plan: dict[str, Any], model: str, batch: int, attempts: int, settings: GateSettings, producer: str
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
                write_json(folder / "run.json", {**wanted, "block": max(BLOCK, BATCHES * batch), "producer": producer})
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
    held = load_cases(ws, "val", size) if (ws.cases()["split"] == "val").any() else None
    fitted = Gates.fit(train, held, settings, judge, segmenter)
    wanted = {d for row in plan["rows"] for d in row["donors"]}
    donors = {i: layout for i, layout in train.layouts().items() if i in wanted}
    quality = donor_quality(ws.kb, train)
    slots = Slots(plan, {i: quality[i] for i in wanted})
    sampling = dict(plan["sampling"])
    producer = run.get("producer", files.PRODUCER)
    return Maker(pipe, slots, fitted, ws.kb, donors, sampling, run["model_id"], batch, attempts, producer)


def _check_disk(folder: Path, count: int, size: int) -> None:
    """A gray PNG of speckle compresses little: one byte a pixel, and `OVERHEAD_BYTES`."""
    needed, free = count * (size * size + OVERHEAD_BYTES), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{count} images need about {needed / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB free; make room."
        )


def summary(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Counts of a finished run, from its manifest."""
    import pyarrow.parquet as pq

    place = Path(folder)
    per_class: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    asked = before = -1
    count = 0
    # Rows are in the order of the index: the attempts at an image follow each other.
    with pq.ParquetFile(place / "manifest.parquet") as table:
        for batch in table.iter_batches(files.ROWS, columns=["index", "label", "accepted", "reason"]):
            for row in batch.to_pylist():
                asked, count = row["index"], count + (row["index"] != before)
                before = asked
                (per_class if row["accepted"] else rejected)[row["label"] if row["accepted"] else reason_of(row)] += 1
    accepted = per_class.total()
    return {
        "complete": True,
        "folder": str(place),
        "accepted": accepted,
        "per_class": dict(sorted(per_class.items())),
        "rejected": dict(sorted(rejected.items())),
        "unfilled": count - accepted,
        **accounts.of(place),
    }
