"""Quarantine: rejected images, kept for a look, sorted by reason.

The folder lies beside the run's and never in it: a trainer that reads the run as one folder a class would take it for
a class, and an export reads the run's manifest, in which a rejected image has no file.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tigerdata.manifest import reason_kind
from tigergen.augment import files


def folder_of(run: Path) -> Path:
    """Where the rejected images of a run lie: `NAME-quarantine` beside the folder NAME."""
    return run.with_name(f"{run.name}-quarantine")


def place(folder: Path, index: int, attempt: int, reason: str) -> Path:
    """`REASON/INDEX-ATTEMPT.png`; the reason in letters that every file system takes."""
    slug = re.sub(r"[^a-z0-9]+", "-", reason_kind(reason).lower()).strip("-")
    return folder / slug / f"{index:06d}-{attempt}.png"


def keep(folder: Path, record: Mapping[str, Any], image: NDArray[np.uint8], producer: str) -> None:
    """Write a rejected image uint8 [s, s] with its reason and scores as PNG text."""
    facts = {name: str(record[name]) for name in ("label", "fg", "bg", "reason", "scores")}
    facts = {f"Tiger{name.capitalize()}": value for name, value in facts.items()}
    path = place(folder, record["index"], record["attempt"], record["reason"])
    files.write_bytes(path, files.png_bytes(image, {"TigerPlan": record["plan_id"], **facts}, producer=producer))
