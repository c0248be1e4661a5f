"""A small workspace made of arithmetic: enough cases to plan, gate, export and evaluate without a trained model."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

import kb
from kb import store
from kb.files import sha256_file
from tigerdata.prompts import compose
from tigerdata.workspace import Workspace

SIZE = 64
QUALITY = ("definition", "detail", "brightness")


def frame(seed: int, patient: int = 0, bright: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A speckled frame uint8 [64, 64] with the layers of its patient and an elliptic nodule, and the mask."""
    own, rng = np.random.default_rng([7, patient]), np.random.default_rng([8, seed])
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    field = cv2.GaussianBlur(own.normal(size=(SIZE, SIZE)), (0, 0), 6)
    image = 0.45 + 1.4 * field + 0.15 * np.sin(y / own.uniform(3, 9) + own.uniform(0, 6))
    cx, cy, a, b = rng.uniform(22, 42), rng.uniform(22, 42), rng.uniform(8, 13), rng.uniform(7, 11)
    mask = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
    image[mask] = 0.18 + 0.5 * cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)), (0, 0), 2)[mask]
    speckle = cv2.GaussianBlur(rng.rayleigh(0.8, (SIZE, SIZE)), (0, 0), 0.6)
    pixels = np.clip(255 * bright * np.clip(image, 0.05, 1) * (0.4 + 0.6 * speckle), 0, 255)
    return pixels.astype(np.uint8), mask


def attributes(label: str, rng: np.random.Generator) -> dict[str, list[str]]:
    malignant = label == "FTC"
    return {
        "composition": ["solid"],
        "echogenicity": ["hypoechoic" if rng.random() < (0.8 if malignant else 0.3) else "isoechoic"],
        "shape": ["irregular" if rng.random() < (0.7 if malignant else 0.2) else "regular"],
        "aspect": [str(rng.choice(["wider_than_tall", "oval"]))],
        "nodule_location": [str(rng.choice(["left", "right"])), str(rng.choice(["upper", "lower"]))],
        "sonogram_direction": [str(rng.choice(["transverse", "longitudinal"]))],
    }


def make_workspace(path: Path, counts: dict[str, dict[str, int]]) -> Workspace:
    """A workspace with `counts[split][label]` images, one or two a patient, its tables filled."""
    ws = Workspace.create(path)
    base = kb.load("thyroid")
    rng = np.random.default_rng(3)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("images", "regions", "prompts", "splits")}
    number = patient = 0
    for split, labels in counts.items():
        for label, n in labels.items():
            for k in range(n):
                patient += k % 2 == 0
                number += 1
                pixels, mask = frame(number, patient)
                raw = ws.path / "images" / f"raw-{number}.png"
                cv2.imwrite(str(raw), pixels)
                digest = sha256_file(raw)
                image_id = digest[:16]
                raw.rename(ws.frame_path(image_id))
                cv2.imwrite(str(ws.path / "regions" / f"{image_id}-nodule.png"), mask.astype(np.uint8) * 255)
                said = attributes(label, rng)
                quality = [base.quality[q][int(rng.integers(len(base.quality[q])))] for q in QUALITY]
                prompt = compose(base, label, said, quality)
                who = {"image_id": image_id, "patient_id": f"P{patient:03d}"}
                plane = said["sonogram_direction"][0]
                image = {**who, "sha256": digest, "path": str(ws.frame_path(image_id)), "width": SIZE, "height": SIZE}
                rows["images"].append({**image, "plane": plane, "label": label, "cohort": split, "source": "test"})
                region = {"region_id": f"{image_id}-n", "image_id": image_id, "kind": "nodule", "origin": "imported"}
                rows["regions"].append({**region, "path": f"regions/{image_id}-nodule.png"})
                spoken = {"image_id": image_id, "label": label, "fg": prompt.fg, "bg": prompt.bg}
                rows["prompts"].append({**spoken, "attributes": json.dumps(said)})
                rows["splits"].append({**who, "name": "default", "split": split})
    with ws.connect() as con:
        for table, content in rows.items():
            store.insert(con, table, pd.DataFrame(content))
    return ws


def enter_model(ws: Workspace, model_id: str, *others: str) -> None:
    """Enter a generator that was trained on today's training split and on `others`."""
    seen = json.dumps([*ws.cases("train")["image_id"], *others])
    with ws.connect() as con:
        row = {"model_id": model_id, "kind": "fine", "path": "models/fine", "trained_on": seen}
        store.insert(con, "models", pd.DataFrame([row]), replace=True)


def model_stub(folder: Path) -> Path:
    """Make `folder/model`, which passes for a model's folder where a `FakePipe` draws in its place."""
    model = folder / "model"
    model.mkdir()
    (model / "model_index.json").write_text("{}")
    return model


class FakePipe:
    """Draws a frame from each seed alone, with the call signature of TigerPipeline; `calls` counts images."""

    def __init__(self, size: int = SIZE) -> None:
        self.config = {"image_size": size}
        self.calls = 0

    def __call__(self, fg: list[str], bg: list[str], masks: Any, sobels: Any, roles: Any, seeds: list[int], **_: Any):
        assert len(fg) == len(bg) == len(masks) == len(sobels) == len(roles) == len(seeds)
        self.calls += len(fg)
        return np.stack([frame(seed % 2**31, 500 + seed % 9973)[0] for seed in seeds])
