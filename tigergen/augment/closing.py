"""The end of a run: duplicates replaced, then metadata, database rows, data card and, last, the manifest."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kb.files import read_json, sha256_file, write_json
from tigerdata.manifest import reason_kind
from tigergen.augment import files, quarantine
from tigergen.augment.copies import duplicates, fingerprints
from tigergen.augment.planfile import plan_id
from tigergen.augment.prints import Prints
from tigergen.augment.run import Maker
from tigergen.augment.work import WORK, Records, commit_file


def finish(ws: Any, folder: Path, maker: Maker, count: int, plan: dict[str, Any]) -> None:
    """Close a run whose blocks are all made.

    Duplicates are replaced, then metadata, database rows, card and manifest written; each step can be repeated.
    """
    fixes = _repair(folder, maker, count)

    def records() -> Iterator[Records]:
        for number in range(count):
            block = read_json(commit_file(folder, number))
            for r in block:
                if r["accepted"] and str(r["index"]) in fixes:
                    r |= {"accepted": False, "file": None, "sha256": None, "reason": fixes[str(r["index"])]["reason"]}
            block += [r for i in sorted({r["index"] for r in block}) for r in fixes.get(str(i), {}).get("records", [])]
            yield sorted(block, key=lambda r: (r["index"], r["attempt"]))

    files.write_metadata(folder / "metadata.jsonl", records())
    write_json(folder / "gates.json", maker.gates.thresholds())
    write_rows(ws, folder, records(), plan, maker.model)
    write_card(folder, records(), plan, maker.model)
    # The manifest comes last: where it is, the run is complete.
    files.write_manifest(folder / "manifest.parquet", records(), {"gates": maker.gates.thresholds()})
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _repair(folder: Path, maker: Maker, count: int) -> dict[str, Any]:
    """Find accepted images that repeat an earlier one and make others in their place.

    Nothing in the class folders changes until the outcome is stored, so that a kill at any moment leaves either the
    first images or the recorded replacements.
    """
    store = folder / WORK / "repaired.json"
    if not store.exists():
        fixes: dict[str, Any] = {}
        prints, tried = Prints(folder / WORK / "prints.f16", len(maker.slots)), {}
        for number in range(count):
            for r in read_json(commit_file(folder, number)):
                if r["accepted"]:
                    prints[r["index"]] = fingerprints(files.read_pixels(folder / r["file"])[None])[0]
                    tried[r["index"]] = r["attempt"]
        for _ in range(maker.attempts):
            order = prints.order.tolist()
            found = duplicates(prints, maker.gates.settings.duplicate)
            if not found:
                break
            again = []
            for place, first, score in found:
                index = order[place]
                reason = f"duplicate of image {order[first]} (correlation {score:.4f})"
                fix = fixes.setdefault(str(index), {"reason": reason, "records": []})
                for r in fix["records"]:
                    if r["accepted"]:
                        _set_aside(maker, r, reason, folder / WORK / "repair" / f"{index}.png")
                        r |= {"accepted": False, "file": None, "sha256": None, "reason": reason}
                del prints[index]
                again += [(index, tried[index] + 1)] if tried[index] + 1 < maker.attempts else []
            made, images = maker.fill(again)
            for r in made:
                fixes[str(r["index"])]["records"].append(r)
                tried[r["index"]] = r["attempt"]
                if r["accepted"]:
                    image = images[r["index"]]
                    files.write_bytes(folder / WORK / "repair" / f"{r['index']}.png", maker.encode(r, image))
                    prints[r["index"]] = fingerprints(image[None])[0]
        write_json(store, fixes)
    fixes = read_json(store)
    if maker.quarantine is not None:
        for number in range(count):
            for r in read_json(commit_file(folder, number)):
                if r["accepted"] and str(r["index"]) in fixes:
                    _set_aside(maker, r, fixes[str(r["index"])]["reason"], folder / r["file"])
    for index, fix in fixes.items():
        kept = [r for r in fix["records"] if r["accepted"]]
        if kept:
            files.write_bytes(folder / kept[0]["file"], (folder / WORK / "repair" / f"{index}.png").read_bytes())
        else:
            label = maker.slots.at(int(index)).label
            (folder / label / f"{int(index):06d}.png").unlink(missing_ok=True)
    return fixes


def _set_aside(maker: Maker, record: dict[str, Any], reason: str, file: Path) -> None:
    """Copy a duplicate into the quarantine, where the run has one, before another image takes its place.

    After a kill the file may be its replacement already: the record's hash says whose it is.
    """
    if maker.quarantine is not None and file.exists() and sha256_file(file) == record["sha256"]:
        place = quarantine.place(maker.quarantine, record["index"], record["attempt"], reason)
        files.write_bytes(place, file.read_bytes())


def write_rows(ws: Any, folder: Path, records: Iterable[Records], plan: dict[str, Any], model: str) -> None:
    """Write the run into the tables `runs` and `samples`: one row an image of the plan, its last attempt."""
    import pandas as pd

    from kb import store

    run_id = files_id(folder)
    columns = (
        "label",
        "fg",
        "bg",
        "donor_image_id",
        "mask_image_id",
        "seed",
        "model_id",
        "accepted",
        "reason",
        "scores",
    )
    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM samples WHERE run_id = ?", [run_id])
        con.execute("DELETE FROM runs WHERE run_id = ?", [run_id])
        for block in records:
            last = {r["index"]: r for r in block}
            rows = [
                {
                    "run_id": run_id,
                    "sample_index": i,
                    "path": r["file"],
                    "sha256": r["sha256"],
                    **{c: r[c] for c in columns},
                }
                for i, r in sorted(last.items())
            ]
            store.insert(con, "samples", pd.DataFrame(rows))
        settings = json.dumps({"sampling": plan["sampling"], "model_id": model}, sort_keys=True)
        row = {"run_id": run_id, "command": "augment", "settings": settings, "status": "complete"}
        store.insert(con, "runs", pd.DataFrame([row]))


def files_id(folder: Path) -> str:
    """Id of a run: the SHA-256 of its plan, model, gates and block size, the same wherever the folder lies."""
    return sha256_file(folder / "run.json")[:16]


def write_card(folder: Path, records: Iterable[Records], plan: dict[str, Any], model: str) -> None:
    """Write the data card of the generated images alone."""
    from tigerdata.card import Card, Counts, write

    accepted: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for block in records:
        for r in block:
            if r["accepted"]:
                accepted[r["label"]] += 1
            else:
                rejected[reason_kind(r["reason"])] += 1
    write(
        folder / "README.md",
        Card(
            title=f"Generated images, target {plan['target']}",
            counts=[Counts(label, "train", 0, n, 0) for label, n in sorted(accepted.items())],
            generator={
                "model": model,
                "plan": plan_id(plan),
                "sampling": ", ".join(f"{k} {v}" for k, v in sorted(plan["sampling"].items())),
                "donors of masks and edge maps": plan.get("donor_policy", "as listed in plan.json"),
            },
            rejected=dict(sorted(rejected.items())),
        ),
    )
