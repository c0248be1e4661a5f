"""What a model folder says of itself: the one id that everybody uses, and the real images behind its weights."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kb.files import read_json, sha256_file, write_json

INDEX, RECORD, TRAINED_ON = "model_index.json", "training.json", "trained_on.json"


def model_id(folder: str | os.PathLike[str]) -> str:
    """Sixteen hexadecimal digits over every weight and setting of a model folder: equal models have equal ids.

    Read are `model_index.json` and the parts' own files. Left out is what tells a run and not a model: checkpoints,
    the training record (it holds seconds), the settings of the training (the weights are what came of them) and the
    place where a part was loaded from.
    """
    root, state = Path(folder), hashlib.sha256()
    for path in sorted([*root.glob(INDEX), *root.glob("*/*")]):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".safetensors":
            state.update(f"{name} {sha256_file(path)}\n".encode())
        elif path.suffix == ".json":
            settings = read_json(path)
            if isinstance(settings, dict):
                settings.pop("_name_or_path", None)
                if name == INDEX:
                    settings.pop("settings", None)
            state.update(f"{name} {json.dumps(settings, sort_keys=True)}\n".encode())
    return state.hexdigest()[:16]


def settings(folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The resolved settings behind a model folder, a stage each: {"coarse": preset, "fine": preset}.

    They lie in the model itself (`model_index.json`). A folder from before that knows those of its last stage, from the
    record beside the weights; a folder that no training of ours wrote knows none.
    """
    root = Path(folder)
    index = read_json(root / INDEX) if (root / INDEX).is_file() else {}
    if index.get("settings"):
        return dict(index["settings"])
    record = read_json(root / RECORD) if (root / RECORD).is_file() else {}
    return {record["stage"]: record["preset"]} if "preset" in record else {}


def sampling(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """How the preset of a model's last stage wants images sampled; empty where it leaves that to the defaults."""
    return dict(next((dict(preset.get("sampling") or {}) for preset in reversed(settings(folder).values())), {}))


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
