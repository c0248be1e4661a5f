"""What the gates did in a finished run, from its manifest: scores and rejections a gate, and cells never filled."""

import json
import os
import statistics
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from kb.files import read_json
from tigergen.augment.files import ROWS
from tigergen.augment.measured import REASONS
from tigergen.augment.work import reason_of

# A real data set reaches this share of copies by chance less than once in a thousand runs.
CHANCE = 1e-3


def of(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """`gates`: one row a score with threshold, rule, rejected and median; `copies`; `not_filled`.

    copies: share of the attempts that were rejected as copies, the share of real images of other patients that would
    be, and, in words, whether the generator repeats its training images more often than that (binomial, p < .001).
    not_filled: one row a plan cell with images that no attempt could fill: class, row of the plan, attributes, how many
    are missing of how many, and what they were rejected for. Nothing for a run of before thresholds were measured.
    """
    import pyarrow.parquet as pq

    place = Path(folder)
    used = read_json(place / "gates.json") if (place / "gates.json").is_file() else {}
    if "measured" not in used:
        return {}
    columns = ["index", "accepted", "reason", "scores", "plan_row", "label", "attributes"]
    scores = {name: array("d") for name in REASONS}
    rejected: Counter[str] = Counter()
    asked: Counter[int] = Counter()
    empty: dict[int, dict[str, Any]] = {}
    attempts = 0
    with pq.ParquetFile(place / "manifest.parquet") as table:
        rows = (r for batch in table.iter_batches(ROWS, columns=columns) for r in batch.to_pylist())
        # Rows are in the order of the index: the attempts at an image follow each other.
        for _, tries in groupby(rows, key=lambda r: r["index"]):
            tried = list(tries)
            first, attempts = tried[0], attempts + len(tried)
            asked[first["plan_row"]] += 1
            for r in tried:
                for name, value in json.loads(r["scores"] or "{}").items():
                    if name in scores and isinstance(value, (int, float)):
                        scores[name].append(value)
            reasons = Counter(reason_of(r) for r in tried if not r["accepted"])
            rejected += reasons
            if not any(r["accepted"] for r in tried):
                about = {"label": first["label"], "attributes": json.loads(first["attributes"])}
                cell = empty.setdefault(first["plan_row"], {**about, "missing": 0, "reasons": Counter()})
                cell["missing"] += 1
                cell["reasons"] += reasons
    missing = [
        {"row": row, **cell, "of": asked[row], "reasons": dict(sorted(cell["reasons"].items()))}
        for row, cell in sorted(empty.items())
    ]
    return {
        "gates": _table(used, scores, rejected),
        "copies": _copies(used, rejected, attempts),
        "not_filled": missing,
    }


def _table(used: dict[str, Any], scores: dict[str, Any], rejected: Counter[str]) -> list[dict[str, Any]]:
    """One row a score; technical checks and duplicates, which have no score in the manifest, at either end."""
    broken = sum(n for reason, n in rejected.items() if reason.startswith("technical"))
    rows = [_row("technical", "technical", None, "range of the real training images, widened", broken)]
    equal = {"value": None, "rule": "equal pixels, as they are or mirrored", "above": True}
    for name, reason in REASONS.items():
        found = used["measured"].get(name, equal)
        if name == "donor and inside":
            both = {"donor": used["donor_both"], "inside": used["inside_both"]}
            found = {"value": both, "rule": "fixed: no image may exceed both", "above": True}
        if name == "realism":
            classes = used["realism_by_class"]
            values = {label: t["value"] for label, t in classes.items()}
            one = len(set(values.values())) == 1
            rule = "; ".join(sorted({t["rule"] for t in classes.values()}))
            found = {"value": next(iter(values.values())) if one else values, "rule": rule, "above": True}
        gate = reason.split(":")[0]
        rows.append(_row(name, gate, found["value"], found["rule"], rejected[reason], scores[name], found["above"]))
    return [*rows, _row("duplicate", "duplicate", used["duplicate"], "fixed", rejected["duplicate"])]


def _row(
    score: str, gate: str, threshold: Any, rule: str, rejected: int, scores: Sequence[float] = (), above: bool = True
) -> dict[str, Any]:
    row = {"score": score, "gate": gate, "threshold": threshold, "rejects": "above" if above else "below", "rule": rule}
    median = round(statistics.median(scores), 4) if len(scores) else None
    return {**row, "rejected": rejected, "scored": len(scores), "median": median}


def _copies(used: dict[str, Any], rejected: Counter[str], attempts: int) -> dict[str, Any]:
    """Whether more images were rejected as copies than real images of other patients would be."""
    from scipy.stats import binom

    found = sum(n for reason, n in rejected.items() if reason.startswith("copy"))
    # What each measure rejects of real images; the sum is the most that all of them can.
    by_chance = sum(1 - used[name] for name in ("copy_quantile", "hash_quantile", "texture_quantile"))
    repeats = attempts > 0 and bool(binom.sf(found - 1, attempts, min(1.0, by_chance)) < CHANCE)
    verdict = "the generator repeats its training images" if repeats else "no more than real images of other patients"
    share = round(found / attempts, 4) if attempts else 0.0
    return {
        "attempts": attempts,
        "rejected": found,
        "share": share,
        "by_chance": round(by_chance, 4),
        "verdict": verdict,
    }
