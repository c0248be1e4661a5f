"""A folder of DICOM files, as an archive or a disc gives them: any depth, any names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.sources.records import ImageRecord, SourceSet


def read(path: Path, base: KnowledgeBase, settings: Mapping[str, Any]) -> SourceSet:
    """List every file below `path` but the index of a disc (DICOMDIR) and hidden ones; a single file is a set too.

    Patient, examination, sex and age are in the files' headers and are read with the pixels. Raises UserError when
    the extra `dicom` is not installed, and for a folder without files.
    """
    from tigerdata.images.dicom import need_extra

    need_extra()
    root = path if path.is_dir() else path.parent
    names = sorted(p.relative_to(root) for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())
    names = [n for n in names if n.name.upper() != "DICOMDIR" and not any(part.startswith(".") for part in n.parts)]
    if not names:
        raise UserError(f"{path} holds no file; give a DICOM file or the folder that holds them.")
    return SourceSet("dicom", root, [ImageRecord(file=n.as_posix(), where=n.as_posix()) for n in names])
