"""What a model folder is, told from its files: one id for training, sampling, manifests and the database."""

import hashlib
import json
import os
from pathlib import Path

from kb.files import read_json, sha256_file


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
