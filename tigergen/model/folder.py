"""What a model folder says of itself: the one id that everybody uses, and the real images behind its weights."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from kb.files import read_json, sha256_file, write_json

TRAINED_ON = "trained_on.json"


def model_id(folder: str | os.PathLike[str]) -> str:
    """Sixteen hexadecimal digits over every weight and setting of a model folder: equal models have equal ids.

    Read are `model_index.json` and the parts' own files. Left out is what tells a run and not a model: checkpoints,
    the training record (it holds seconds) and the place where a part was loaded from.
    """
    root, state = Path(folder), hashlib.sha256()
    for path in sorted([*root.glob("model_index.json"), *root.glob("*/*")]):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".safetensors":
            state.update(f"{name} {sha256_file(path)}\n".encode())
        elif path.suffix == ".json":
            settings = read_json(path)
            if isinstance(settings, dict):
                settings.pop("_name_or_path", None)
            state.update(f"{name} {json.dumps(settings, sort_keys=True)}\n".encode())
    return state.hexdigest()[:16]


def trained_on(folder: str | os.PathLike[str]) -> list[str] | None:
    """Ids of the real images that shaped the model, in its own training or before; None where it does not say.

    Image ids only: a model folder may be handed on, patients stay in the workspace.
    """
    path = Path(folder) / TRAINED_ON
    return list(read_json(path)) if path.is_file() else None


def write_trained_on(folder: str | os.PathLike[str], image_ids: Iterable[str] | None) -> None:
    """Write the record that :func:`trained_on` reads; None, not known, leaves none behind."""
    if image_ids is None:
        (Path(folder) / TRAINED_ON).unlink(missing_ok=True)
    else:
        write_json(Path(folder) / TRAINED_ON, sorted(set(image_ids)))
