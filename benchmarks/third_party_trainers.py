"""Programs of others on exported folders: each loads or trains, and its counts stand beside those of the manifest.

By default on a small workspace made of arithmetic with 20 generated images; `--workspace` and `--run` take a real one,
such as those of `make demo`. A library that is not installed is named as not run. Nothing is downloaded: Ultralytics
builds its models from the YAML files that it ships.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
SIZE = 64
SPLITS = ("train", "val", "test")
STATED = {"licence": "CC0-1.0", "consent": "none needed", "creator": "A test", "published": "2026-01-01"}
HF_NAMES = {"train": "train", "val": "validation", "test": "test"}
Counts = Counter[tuple[str, str]]
# What switches off the connections, fonts and weights that Ultralytics would fetch.
QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
YOLO = ("imgsz=64", "epochs=1", "batch=16", "device=cpu", "workers=0", "amp=False", "plots=False", "pretrained=False")


def torchvision_training(folder: Path) -> tuple[Counts, str]:
    """ImageFolder and a plain training loop of one epoch."""
    import torch
    from torchvision import datasets, transforms

    steps = transforms.Compose([transforms.Grayscale(), transforms.ToTensor()])
    data = {split: datasets.ImageFolder(str(folder / split), steps) for split in SPLITS if (folder / split).is_dir()}
    torch.manual_seed(0)
    classes = len(data["train"].classes)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
        torch.nn.Linear(128, classes),
    )  # fmt: skip
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-3), []
    for images, labels in torch.utils.data.DataLoader(data["train"], 16, shuffle=True):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    found = Counter((split, part.classes[n]) for split, part in data.items() for n in part.targets)
    return found, f"1 epoch, {len(losses)} steps, loss {losses[-1]:.3f}"


def timm_dataset(folder: Path) -> tuple[Counts, str]:
    """timm's ImageDataset on each split, images decoded."""
    from timm.data import ImageDataset

    found: Counts = Counter()
    for split in SPLITS:
        data = ImageDataset(str(folder / split))
        names = {n: name for name, n in data.reader.class_to_idx.items()}
        found += Counter((split, names[label]) for image, label in data if image.size == (SIZE, SIZE))
    return found, "every image decoded"


def yolo_classify(folder: Path) -> tuple[Counts, str]:
    """`yolo classify train`, one epoch from random weights; the counts are those that it prints."""
    said = _yolo("classify", "yolov8n-cls.yaml", folder)
    sums = {split: int(n) for split, n in re.findall(r"(train|val|test): .*?found (\d+) images", said)}
    return _by_class(folder, sums), f"1 epoch; it found {sums}"


def yolo_segment(folder: Path) -> tuple[Counts, str]:
    """`yolo segment train`, one epoch from random weights on the polygons; the counts are those that it prints."""
    said = _yolo("segment", "yolov8n-seg.yaml", folder / "data.yaml")
    sums = {split: int(n) for split, n in re.findall(r"(train|val): .*?(\d+) images, 0 backgrounds, 0 corrupt", said)}
    return _by_class(folder, sums), f"1 epoch; it read {sums}, none without a nodule, none corrupt"


def _yolo(task: str, model: str, data: Path) -> str:
    # Not imported here: the import alone would write settings into the user's folder.
    if find_spec("ultralytics") is None:
        raise ModuleNotFoundError("ultralytics", name="ultralytics")
    with tempfile.TemporaryDirectory() as home:
        words = [f"data={data}", f"model={model}", f"project={home}", *YOLO]
        code = "from ultralytics.cfg import entrypoint; entrypoint()"
        done = subprocess.run(
            [sys.executable, "-c", code, task, "train", *words],
            env={**os.environ, **QUIET, "YOLO_CONFIG_DIR": home},
            capture_output=True,
            text=True,
            cwd=home,
        )
    if done.returncode:
        raise SystemExit(f"yolo {task} train failed: {done.stderr[-800:]}")
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", done.stdout + done.stderr)


def _by_class(folder: Path, sums: dict[str, int]) -> Counts:
    """Ultralytics prints sums only: where a sum is the table's, so are its classes."""
    table = Counter({k: n for k, n in manifest(folder).items() if k[0] in sums})
    return table if {s: sum(n for (t, _), n in table.items() if t == s) for s in sums} == sums else Counter()


def hf_datasets(folder: Path) -> tuple[Counts, str]:
    """`datasets.load_dataset` on the folder, images decoded."""
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        loaded = datasets.load_dataset(str(folder), cache_dir=cache)
        found: Counts = Counter()
        for split, name in HF_NAMES.items():
            label = loaded[name].features["label"]
            for row in loaded[name]:
                assert row["image"].size == (SIZE, SIZE)
                found[split, row["label"] if isinstance(row["label"], str) else label.int2str(row["label"])] += 1
    return found, f"columns {', '.join(loaded['train'].column_names)}"


def webdataset_loader(folder: Path) -> tuple[Counts, str]:
    """webdataset's own pipeline on the shards of each split, images and masks decoded."""
    import webdataset

    names, found = (folder / "classes.txt").read_text(encoding="utf-8").split("\n"), Counter()
    for split in SPLITS:
        paths = sorted(str(p) for p in folder.glob(f"{split}-*.tar"))
        data = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode("l8")
        for image, mask, label, facts in data.to_tuple("png", "mask.png", "cls", "json"):
            assert image.shape == mask.shape == (SIZE, SIZE) and facts["label"] == names[label]
            found[split, names[label]] += 1
    return found, "images and masks decoded"


def medmnist_loader(folder: Path) -> tuple[Counts, str]:
    """The package's own MedMNIST2D class, told of the set by the JSON beside the arrays."""
    from medmnist import info
    from medmnist.dataset import MedMNIST2D

    info.INFO["tiger"] = json.loads((folder / f"tiger_{SIZE}.json").read_text(encoding="utf-8"))
    names = info.INFO["tiger"]["label"]
    kind = type("Tiger", (MedMNIST2D,), {"flag": "tiger"})
    found: Counts = Counter()
    for split in SPLITS:
        data = kind(split=split, root=str(folder), size=SIZE)
        found += Counter((split, names[str(int(data[k][1][0]))]) for k in range(len(data)))
    return found, "MedMNIST2D"


def coco_api(folder: Path) -> tuple[Counts, str]:
    """pycocotools: annotations of each split, every mask drawn."""
    from pycocotools.coco import COCO

    found, pixels, off = Counter(), 0, 0
    for split in SPLITS:
        coco = COCO(str(folder / "annotations" / f"instances_{split}.json"))
        for one in coco.loadAnns(coco.getAnnIds()):
            found[split, coco.loadCats(one["category_id"])[0]["name"]] += 1
            pixels, off = pixels + one["area"], off + abs(int(coco.annToMask(one).sum()) - one["area"])
    return found, f"masks drawn: areas differ by {off} of {pixels} pixels"


def croissant(folder: Path) -> tuple[Counts, str]:
    """MLCommons' reader: the file is checked and its records are read."""
    import mlcroissant

    data = mlcroissant.Dataset(str(folder / "croissant.json"))
    found = Counter((r["images/split"].decode(), r["images/label"].decode()) for r in data.records("images"))
    issues = data.metadata.ctx.issues
    return found, f"{len(issues.errors)} errors, {len(issues.warnings)} warnings"


def nnunet(folder: Path) -> tuple[Counts, str]:
    """nnU-Net's own check of a raw data set."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(folder / "Dataset001_Tiger"), num_processes=1)
    return manifest(folder), "verify_dataset_integrity passed"


READERS: list[tuple[str, str, str, Callable[[Path], tuple[Counts, str]]]] = [
    ("torchvision", "ImageFolder + training loop", "imagefolder", torchvision_training),
    ("timm", "ImageDataset", "imagefolder", timm_dataset),
    ("ultralytics", "yolo classify train", "yolo-cls", yolo_classify),
    ("ultralytics", "yolo segment train", "yolo", yolo_segment),
    ("datasets", "load_dataset", "hf", hf_datasets),
    ("datasets", "load_dataset", "hf-parquet", hf_datasets),
    ("webdataset", "WebDataset", "webdataset", webdataset_loader),
    ("medmnist", "MedMNIST2D", "medmnist", medmnist_loader),
    ("pycocotools", "COCO", "coco", coco_api),
    ("nnunetv2", "verify_dataset_integrity", "nnunet", nnunet),
    ("mlcroissant", "Dataset", "imagefolder", croissant),
]


def release(library: str) -> str:
    """The installed version."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def manifest(folder: Path) -> Counts:
    """Images by split and class, from the export's result."""
    result = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    return Counter({(split, label): n for split, part in result["counts"].items() for label, n in part.items()})


def arithmetic_workspace(folder: Path) -> tuple[Any, Path]:
    """The workspace of the project's own tests: drawn frames, and a run of a generator that draws too."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import pandas as pd

    from tests.proof_corpus import FakePipe, enter_model, make_workspace
    from tigergen.augment.plan import make_plan
    from tigergen.augment.run import augment

    counts = {"train": {"benign": 20, "FTC": 6}, "val": {"benign": 6, "FTC": 4}, "test": {"benign": 6, "FTC": 4}}
    ws, model = make_workspace(folder / "ws", counts), folder / "model"
    model.mkdir()
    (model / "model_index.json").write_text("{}", encoding="utf-8")
    augment(ws, make_plan(ws, "FTC", 10, seed=1, rare_below=10), model, folder / "run", pipe=FakePipe())
    enter_model(ws, pd.read_parquet(folder / "run" / "manifest.parquet")["model_id"][0])
    return ws, folder / "run"


def main() -> None:
    """Run; exit code 1 when a program counts other images than the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of libraries.")
    options = parser.parse_args()
    from tigerdata.export import export
    from tigerdata.workspace import Workspace

    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        ws, run = arithmetic_workspace(Path(name)) if options.workspace is None else (None, options.run)
        ws = ws or Workspace.open(options.workspace)
        for library, what, format, read in READERS:
            if options.only and library not in options.only:
                continue
            folder = Path(name) / format
            export(ws, folder, run, format, SIZE, STATED)
            begin = time.monotonic()
            try:
                found, said = read(folder)
            except ModuleNotFoundError as missing:
                print(f"{library} {what} on {format}: not run ({missing.name} is not installed)", flush=True)
                continue
            true = manifest(folder)
            true = Counter({k: n for k, n in true.items() if k[0] in {split for split, _ in found}})
            same = bool(found) and found == true
            wrong += not same
            shown = ", ".join(f"{s} {c} {found[s, c]}/{n}" for (s, c), n in sorted(true.items()))
            verdict = f"equal: {shown}" if same else f"NOT EQUAL: {found} and not {true}"
            name_of = f"{library} {release(library)} {what} on {format}"
            print(f"{name_of}: {verdict}; {said}; {time.monotonic() - begin:.0f} s", flush=True)
    if wrong:
        raise SystemExit(f"{wrong} programs count other images than the manifest")


if __name__ == "__main__":
    main()
