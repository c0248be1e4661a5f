"""The work folder of a run: who makes which block, what is made of it so far, and what a kill may have left behind.

A block is claimed by a lock of the kernel (`flock`), so that the claim of a killed process frees itself. After every
batch its images and records are written, and when the last one is, the records become the block's commit file, by a
rename: whatever is missing or damaged is made again, and gives the same bytes.
"""

import fcntl
import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kb.errors import UserError
from kb.files import read_json, write_json
from tigerdata.manifest import reason_kind
from tigerdata.progress import Progress
from tigergen.augment import files

Records = list[dict[str, Any]]
Pair = tuple[int, int]

WORK = ".work"
POLL_S = 0.2
PARTIAL = ".partial-"
IMAGE = re.compile(r"(\d{6,})\.png")


@contextmanager
def claim(path: Path, wait: bool = False, stop: threading.Event | None = None) -> Iterator[bool]:
    """Hold a lock file for the length of the block; yields whether it was got. The kernel frees it on a kill.

    `wait`: until it is free, or until `stop` is set. Raises UserError where the file system has no locks.
    """
    with _opened(path) as file:
        while not (got := _lock(file, path)) and wait and not (stop is not None and stop.is_set()):
            # Asked again and again rather than slept on: a sleep in flock would not hear of SIGTERM.
            (stop or threading.Event()).wait(POLL_S)
        yield got


def _opened(path: Path) -> TextIO:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "a", encoding="utf-8")
        except FileNotFoundError:
            # Another process has just closed the run and taken the work folder away.
            continue


def _lock(file: Any, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"the file system of {path.parent} has no file locks ({error.strerror}); mount it with locks, or generate "
            "into a local folder."
        ) from error
    return True


def blocks(total: int, size: int) -> list[range]:
    """The indices in consecutive blocks: one block is claimed, made and committed as a whole."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def commit_file(folder: Path, number: int) -> Path:
    """Where the records of a finished block lie; the file is the mark that the block is done."""
    return folder / WORK / "blocks" / f"{number:06d}.json"


def is_finished(folder: Path) -> bool:
    """Whether a run is complete: the manifest is written last."""
    return (folder / "manifest.parquet").exists()


class Parts:
    """The batches of a block that are made, one file of records each; the block goes on where they end."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.place = folder / WORK / "parts"
        self._files = sorted(self.place.glob(f"{number:06d}-*.json"))

    def read(self) -> dict[Pair, dict[str, Any]]:
        """Records made so far by (index, attempt)."""
        records = [record for file in self._files for record in read_json(file)]
        return {(r["index"], r["attempt"]): r for r in records}

    def add(self, records: Records) -> None:
        """Keep the records of one more batch, whose images are on disk."""
        self._files.append(self.place / f"{self.number:06d}-{len(self._files):04d}.json")
        write_json(self._files[-1], records)

    def commit(self, records: Records) -> None:
        """Mark the block as done."""
        write_json(commit_file(self.folder, self.number), records)
        for file in self._files:
            file.unlink(missing_ok=True)


class Tally:
    """How far a run is, over all processes and restarts: blocks that others commit are read once each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / WORK / "blocks"
        self.done = 0
        self.counts: Counter[str] = Counter()
        self._known: set[str] = set()

    def update(self) -> None:
        """Count the blocks that were committed since the last call."""
        present = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        for name in sorted(n for n in present - self._known if not n.startswith(PARTIAL)):
            records = read_json(self.folder / name)
            self.done += len({r["index"] for r in records})
            self.counts.update(reason_of(r) for r in records)
            self._known.add(name)


def reason_of(record: dict[str, Any]) -> str:
    """The reason of a rejected attempt without the particulars of this image; "accepted" for an accepted one."""
    return "accepted" if record["accepted"] else reason_kind(record["reason"])


def sweep(folder: Path, labels: Sequence[str]) -> None:
    """Remove the half-written files that killed processes left in a run's folder and its class folders."""
    for place in (folder, *(folder / label for label in labels)):
        for left in place.glob(f"{PARTIAL}*"):
            left.unlink(missing_ok=True)


def mend(folder: Path, labels: Sequence[str], todo: Sequence[range]) -> list[int]:
    """Make class folders and committed blocks agree; returns the blocks that must be made again.

    A killed process can leave images that no record speaks of: they are removed. A power cut can lose the content of
    files whose names are there: their block is no longer committed. Not to be called once duplicates were replaced,
    because the blocks do not know of that.
    """
    kept = np.zeros(todo[-1].stop if todo else 0, dtype=bool)
    again = []
    for number in range(len(todo)):
        try:
            accepted = [r for r in read_json(commit_file(folder, number)) if r["accepted"]]
            whole = all(_hash(folder / r["file"]) == r["sha256"] for r in accepted)
        except (FileNotFoundError, ValueError):
            whole = False
        if whole:
            kept[[r["index"] for r in accepted]] = True
        else:
            commit_file(folder, number).unlink(missing_ok=True)
            again.append(number)
    for label in labels:
        for entry in os.scandir(folder / label) if (folder / label).is_dir() else ():
            match = IMAGE.fullmatch(entry.name)
            if match is not None and not (int(match[1]) < len(kept) and kept[int(match[1])]):
                Path(entry.path).unlink(missing_ok=True)
    return again


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_order(records: Iterable[dict[str, Any]]) -> Records:
    """Records by index and attempt, whatever the batches they were made in."""
    return sorted(records, key=lambda r: (r["index"], r["attempt"]))


class Work:
    """One process's work on a run's folder."""

    def __init__(self, folder: Path, maker: Any, todo: list[range], progress: Progress | None) -> None:
        self.folder, self.maker, self.todo, self.progress = folder, maker, todo, progress
        self.tally = Tally(folder)
        self.tally.update()
        self.before, self.started = self.tally.done, time.monotonic()
        self._told: tuple[int, Counter[str]] | None = None

    def until_closed(self, ws: Any, plan: dict[str, Any], shard: tuple[int, int], stop: threading.Event) -> bool:
        """Make the shard's blocks and, when all blocks are made, close the run; whether it is closed."""
        from tigergen.augment.closing import finish

        mine = [n for n in range(len(self.todo)) if n % shard[1] == shard[0]]
        while not is_finished(self.folder):
            if not self._make(mine, stop) or not all(
                commit_file(self.folder, n).exists() for n in range(len(self.todo))
            ):
                break
            with claim(self.folder / WORK / "finish.lock", wait=True, stop=stop) as got:
                if not got:
                    break
                if is_finished(self.folder):
                    continue
                labels = sorted({row["label"] for row in plan["rows"]})
                sweep(self.folder, labels)
                # Once duplicates are being replaced, the class folders are ahead of the blocks.
                replaced = (self.folder / WORK / "repaired.json").exists()
                mine = [] if replaced else mend(self.folder, labels, self.todo)
                if not mine:
                    finish(ws, self.folder, self.maker, len(self.todo), plan)
        return is_finished(self.folder)

    def _make(self, numbers: list[int], stop: threading.Event) -> bool:
        """Make every block of these that nobody has made; False when it was stopped before.

        Blocks in other hands are waited for: their process may be killed, and its claim is free then.
        """
        left = numbers
        while left and not is_finished(self.folder):
            left = [number for number in left if not self._block(number, stop)]
            if stop.is_set():
                return False
            if left:
                stop.wait(POLL_S)
        return True

    def _block(self, number: int, stop: threading.Event) -> bool:
        """Make a block; whether it is made, by this process or another."""
        done = commit_file(self.folder, number)
        if stop.is_set() or done.exists():
            return done.exists()
        with claim(self.folder / WORK / "claims" / f"{number:06d}.lock") as got:
            if not got or done.exists() or is_finished(self.folder):
                return got
            parts = Parts(self.folder, number)
            known = parts.read()
            for records, images in self.maker.batches([(k, 0) for k in self.todo[number]], dict(known)):
                # Where locks do not hold, another process may have made this block: its files stay as they are.
                if done.exists() or is_finished(self.folder):
                    return True
                for record in records:
                    if record["accepted"]:
                        content = self.maker.encode(record, images[record["index"]])
                        files.write_bytes(self.folder / record["file"], content)
                parts.add(records)
                known |= {(r["index"], r["attempt"]): r for r in records}
                self._tell(known.values())
                if stop.is_set():
                    return False
            parts.commit(in_order(known.values()))
        self._tell()
        return True

    def _tell(self, in_hand: Iterable[dict[str, Any]] = ()) -> None:
        """Report what all processes have made, and at what rate since this one began."""
        if self.progress is None:
            return
        self.tally.update()
        counts = self.tally.counts + Counter(reason_of(r) for r in in_hand)
        done, total = self.tally.done + sum(1 for r in in_hand if r["accepted"]), self.todo[-1].stop
        if (done, counts) == self._told:
            return
        self._told = (done, counts)
        rate = (done - self.before) / max(time.monotonic() - self.started, 1e-9)
        reasons = {reason: n for reason, n in counts.most_common() if reason != "accepted"}
        event = {"stage": "augment", "step": done, "steps": total, "accepted": counts["accepted"]}
        event |= {"rejected": sum(reasons.values())}
        event |= {"for": ", ".join(f"{reason} {n}" for reason, n in reasons.items())} if reasons else {}
        self.progress({**event, "images_per_s": rate, "eta_s": round((total - done) / rate) if rate > 0 else None})
