"""The manifest of an augmented folder: what marks a run as finished, and where every later step starts to read."""

import os
from pathlib import Path

from kb.errors import UserError


def manifest_of(run: str | os.PathLike[str]) -> Path:
    """The manifest of a finished run, one row an attempt; UserError when the run has not come to its end."""
    path = Path(run) / "manifest.parquet"
    if not path.is_file():
        raise UserError(f"{run} is no finished run (it has no {path.name}); run `tigergen augment` to its end.")
    return path


def reason_kind(reason: str) -> str:
    """The reason of a rejected attempt without the particulars of its image, as rejections are counted."""
    return reason.split(" of image")[0]
