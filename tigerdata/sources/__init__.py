"""Readers of image sets: each turns one layout into `ImageRecord`s, with descriptors in the vocabulary's words.

A reader is one module with a function `read(path, base, settings) -> SourceSet` and one line of `SOURCES`. Another
distribution adds a reader by an entry point of the group `tigerdata.sources` that names such a module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kb.errors import UserError

if TYPE_CHECKING:
    from tigerdata.sources.records import Reader

SOURCES = {
    "csv": "tigerdata.sources.table",
    "imagefolder": "tigerdata.sources.imagefolder",
    "dicom": "tigerdata.sources.dicom",
    "ddti": "tigerdata.sources.ddti",
    "breast": "tigerdata.sources.breast",
    "busi": "tigerdata.sources.busi",
    "tiger-release": "tigerdata.sources.tiger_release",
    "vindr-pcxr": "tigerdata.sources.vindr_pcxr",
}
GROUP = "tigerdata.sources"


def known_sources() -> dict[str, str]:
    """Name and module of every reader, those of other distributions included; ours cannot be replaced by name."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)} | SOURCES


def reader(name: str) -> Reader:
    """Return the reader of that name; UserError for an unknown name or a module that cannot be used."""
    known = SOURCES if name in SOURCES else known_sources()
    if name not in known:
        raise UserError(f"Unknown image source '{name}'; known: {', '.join(known)}.")
    try:
        found: Reader = importlib.import_module(known[name]).read
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"The reader '{name}' ({known[name]}) cannot be loaded ({error}); update or remove its distribution."
        ) from error
    return found
