"""Every format read back by a program that is not ours: counts, labels, pixels and masks are those of the manifest."""

import csv
import io
import json
import tarfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import polygon2mask

from tigerdata.conditions import build
from tigerdata.export import export
from tigerdata.export.formats import FIELDS, FORMATS, Row, writer
from tigergen.data import load_cases

SIZE = 48
COUNTS = {"train": {"benign": 30, "FTC": 16}, "val": {"benign": 6, "FTC": 4}, "test": {"benign": 6, "FTC": 4}}
NAMES = ["FTC", "benign"]  # alphabetical, as Python sorts


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory: pytest.TempPathFactory):
    """Export a format once: its folder and its result."""

    @cache
    def make(format: str) -> tuple[Path, dict]:
        folder = tmp_path_factory.mktemp(format) / "set"
        return folder, export(made[0], folder, made[1], format, SIZE, draft=True)

    return make


@pytest.fixture(scope="module")
def truth(made) -> dict[str, dict]:
    """What every exported image must be: label, split, mask and, where it is real, pixels; by image id."""
    ws, _, table = made
    real, out = ws.cases(), {}
    conditions = {}
    for case in real[real["split"] != "pool"].itertuples():
        image, mask = (np.asarray(Image.open(p).convert("L")) for p in (case.image_path, case.mask_path))
        built = conditions[case.image_id] = build(image, mask > 127, SIZE)
        out[case.image_id] = {"label": case.label, "split": case.split, "mask": built.mask, "image": built.image}
    for case in table.itertuples():
        made_for = {"label": case.label, "split": "train", "mask": conditions[case.mask_image_id].mask}
        out[f"synthetic-{case.index:06d}"] = made_for
    return out


def check(found: dict[str, dict], truth: dict[str, dict]) -> None:
    """What a reader found, by image id, against the truth; it may know fewer things of an image."""
    assert found.keys() == truth.keys()
    for name, one in found.items():
        for what, value in one.items():
            if what in truth[name]:
                np.testing.assert_array_equal(value, truth[name][what], err_msg=f"{what} of {name}")


def listed(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "images.csv").read_text(encoding="utf-8").splitlines()))


def gray(content: bytes | Path) -> np.ndarray:
    image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    assert image.mode == "L"
    return np.asarray(image)


@pytest.mark.parametrize("format", FORMATS)
def test_counts_and_table_are_those_of_the_manifest(format: str, exported, truth) -> None:
    folder, result = exported(format)
    assert result["counts"] == COUNTS and result["images"] == 66 and result["synthetic"] == 20
    rows = listed(folder)
    assert {r["image_id"]: (r["label"], r["split"]) for r in rows} == {
        name: (one["label"], one["split"]) for name, one in truth.items()
    }
    for r in rows:
        assert (folder / r["path"]).is_file()
        assert bool(r["sha256"]) == (not r["member"])
        if not r["member"] and r["synthetic"] == "0":
            np.testing.assert_array_equal(gray(folder / r["path"]), truth[r["image_id"]]["image"])
    assert set(result["lost_fields"]) <= set(FIELDS)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_export_twice_gives_the_same_bytes(format: str, exported, made, tmp_path: Path) -> None:
    first, result = exported(format)
    assert export(made[0], tmp_path / "set", made[1], format, SIZE, draft=True) == result
    a, b = ({p.relative_to(d): p.read_bytes() for p in d.rglob("*") if p.is_file()} for d in (first, tmp_path / "set"))
    assert a.keys() == b.keys() and [str(p) for p in a if a[p] != b[p]] == []


def test_the_page_names_every_format_and_what_it_loses(exported) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.count("|") == 5]
    table = {name: (lost, command) for name, _, lost, command in rows[2:]}
    assert list(table) == list(FORMATS)
    for name, (lost, command) in table.items():
        assert lost == (", ".join(exported(name)[1]["lost_fields"]) or "nothing"), name
        assert f"--format {name} " in command


@pytest.mark.parametrize("format", ["imagefolder", "yolo-cls"])
def test_torchvision_reads_class_folders(format: str, exported, truth) -> None:
    from torchvision.datasets import ImageFolder

    folder, result = exported(format)
    found = {}
    for split in COUNTS:
        data = ImageFolder(str(folder / split))
        assert data.classes == NAMES == (folder / "classes.txt").read_text().split()
        found |= {Path(path).stem: {"label": data.classes[n], "split": split} for path, n in data.samples}
    check(found, truth)
    assert result["lost_fields"] == [f for f in FIELDS if f not in ("label", "split")]


def test_datasets_reads_parquet_with_masks_and_class_names(exported, truth, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder, result = exported("hf-parquet")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].features["label"].names == NAMES and result["lost_fields"] == []
    found = {}
    for ours, theirs in (("train", "train"), ("val", "validation"), ("test", "test")):
        for row in loaded[theirs]:
            one = {"label": NAMES[row["label"]], "split": ours, "mask": np.asarray(row["mask"]) // 255}
            one |= {} if row["synthetic"] else {"image": np.asarray(row["image"])}
            found[row["image_id"]] = one
            assert isinstance(json.loads(row["attributes"]), dict) and row["fg"]
    check(found, truth)


def test_tar_shards_hold_images_masks_classes_and_facts(exported, truth) -> None:
    folder, result = exported("webdataset")
    found, order = {}, []
    for path, count in json.loads((folder / "shards.json").read_text()).items():
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(folder / path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                assert key not in samples or key == next(reversed(samples)), "members of a key lie side by side"
                samples.setdefault(key, {})[ending] = tar.extractfile(member).read()
        assert len(samples) == count
        for sample in samples.values():
            facts = json.loads(sample["json"])
            assert set(facts) == set(FIELDS) - {"mask"} and path.startswith(facts["split"])
            one = {"label": NAMES[int(sample["cls"])], "split": facts["split"], "mask": gray(sample["mask.png"]) // 255}
            one |= {} if facts["synthetic"] else {"image": gray(sample["png"])}
            found[facts["image_id"]] = one
            order.append(facts["label"])
    check(found, truth)
    assert result["lost_fields"] == [] and order[:46] != sorted(order[:46]), "classes are mixed in a shard"


def filled(polygon: list[float], shape: tuple[int, int]) -> np.ndarray:
    """A flat list x, y, … filled by scikit-image, whose pixel centres lie at whole numbers."""
    return polygon2mask(shape, np.asarray(polygon, float).reshape(-1, 2)[:, ::-1] - 0.5)


def test_coco_polygons_are_the_masks(exported, truth) -> None:
    folder, result = exported("coco")
    found = {}
    for split in COUNTS:
        content = json.loads((folder / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
        names = {c["id"]: c["name"] for c in content["categories"]}
        assert list(names.items()) == [(1, "FTC"), (2, "benign")]
        images = {i["id"]: i for i in content["images"]}
        assert len({a["image_id"] for a in content["annotations"]}) == len(content["annotations"]) == len(images)
        for a in content["annotations"]:
            image = images[a["image_id"]]
            mask = sum(filled(p, (image["height"], image["width"])) for p in a["segmentation"]).astype(np.uint8)
            assert a["area"] == mask.sum() and a["iscrowd"] == 0
            x, y, w, h = a["bbox"]
            assert mask[y : y + h, x : x + w].sum() == mask.sum() and mask[y].any() and mask[:, x + w - 1].any()
            one = {"label": names[a["category_id"]], "split": split, "mask": mask}
            found[image["file_name"].removesuffix(".png")] = one
            assert (folder / "images" / split / image["file_name"]).is_file() and image["label"] == one["label"]
    check(found, truth)
    assert result["lost_fields"] == []


def test_yolo_polygons_are_the_masks(exported, truth) -> None:
    import yaml

    folder, result = exported("yolo")
    settings = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    assert settings["names"] == dict(enumerate(NAMES)) and "path" not in settings
    found = {}
    for split in COUNTS:
        for path in sorted((folder / settings[split]).glob("*.png")):
            lines = (folder / "labels" / split / f"{path.stem}.txt").read_text().splitlines()
            numbers = {line.split()[0] for line in lines}
            assert len(numbers) == 1
            mask = sum(filled([float(v) * SIZE for v in line.split()[1:]], (SIZE, SIZE)) for line in lines)
            found[path.stem] = {"label": NAMES[int(*numbers)], "split": split, "mask": mask.astype(np.uint8)}
    check(found, truth)
    assert result["lost_fields"] == ["synthetic", "group", "fg", "bg", "attributes"]


def test_numpy_reads_medmnist_arrays(exported, truth) -> None:
    folder, result = exported("medmnist")
    info = json.loads((folder / "tiger_48.json").read_text(encoding="utf-8"))
    assert info["label"] == {"0": "FTC", "1": "benign"} and info["n_samples"] == {"train": 46, "val": 10, "test": 10}
    found = {}
    with np.load(folder / "tiger_48.npz") as arrays:
        for r in listed(folder):
            name, n = r["member"].rstrip("]").split("[")
            images, labels = arrays[name], arrays[name.replace("images", "labels")]
            assert images.dtype == labels.dtype == np.uint8 and labels.shape == (len(images), 1)
            one = {"label": info["label"][str(labels[int(n), 0])], "split": name.split("_")[0]}
            found[r["image_id"]] = one | ({"image": images[int(n)]} if r["synthetic"] == "0" else {})
    check(found, truth)


def test_nnunet_has_label_maps_and_our_division(exported, truth) -> None:
    folder, _ = exported("nnunet")
    root = folder / "Dataset001_Tiger"
    settings = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    assert settings["labels"] == {"background": 0, "FTC": 1, "benign": 2} and settings["numTraining"] == 56
    assert settings["file_ending"] == ".png" and settings["channel_names"] == {"0": "ultrasound"}
    fold = json.loads((root / "splits_final.json").read_text())[0]
    split_of = {name: split for split, names in fold.items() for name in names}
    found = {}
    for part in ("Tr", "Ts"):
        for path in sorted((root / f"labels{part}").glob("*.png")):
            values = gray(path)
            (value,) = set(np.unique(values)) - {0}
            one = {"label": NAMES[value - 1], "split": split_of.get(path.stem, "test"), "mask": values > 0}
            assert gray(root / f"images{part}" / f"{path.stem}_0000.png").shape == values.shape
            found[path.stem] = one
    check(found, truth)


def test_masks_of_generated_images_are_those_they_were_made_for(made, truth) -> None:
    """At the run's own size: the arrays that sampling was conditioned on."""
    from tigerdata.export.rows import collect

    ws, run, table = made
    train = load_cases(ws, "train", 64)
    condition = dict(zip(train.image_ids, train.masks, strict=True))
    rows = {r.name: r for r in collect(ws, ws.cases("train"), table, run, 64, False)}
    for case in table.itertuples():
        np.testing.assert_array_equal(rows[f"synthetic-{case.index:06d}"].mask(), condition[case.mask_image_id])


def test_a_nodule_with_a_hole_an_empty_mask_and_a_split_in_parts(tmp_path: Path) -> None:
    """What polygons cannot say is said in another way, or in a remark."""
    masks = {name: np.zeros((20, 30), bool) for name in ("ring", "none", "two")}
    masks["ring"][4:12, 5:15] = True
    masks["ring"][6:9, 8:12] = False
    masks["two"][2:5, 2:5] = masks["two"][10:15, 20:25] = True
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(buffer, format="PNG")
    rows = []
    for name, mask in masks.items():
        facts = {"label": "a", "split": "train", "synthetic": False, "group": name, "image_id": name}
        facts |= {"fg": "", "bg": "", "attributes": "{}"}
        rows.append(Row(f"train/a/{name}.png", facts, buffer.getvalue, lambda mask=mask: mask))
    (tmp_path / "coco").mkdir()
    done = writer("coco")(rows, tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert [a["image_id"] for a in content["annotations"]] == [1, 3] and len(content["images"]) == 3
    ring, two = content["annotations"]
    assert ring["segmentation"]["size"] == [20, 30] and len(two["segmentation"]) == 2 and "1 masks" in done.remarks[0]
    flat = np.repeat(np.arange(len(ring["segmentation"]["counts"])) % 2, ring["segmentation"]["counts"])
    np.testing.assert_array_equal(flat.reshape(30, 20).T, masks["ring"])
    (tmp_path / "yolo").mkdir()
    done = writer("yolo")(rows, tmp_path / "yolo")
    lines = {n: (tmp_path / f"yolo/labels/train/{n}.txt").read_text().splitlines() for n in masks}
    assert Counter({n: len(v) for n, v in lines.items()}) == {"ring": 1, "none": 0, "two": 2}
    assert ["fills" in r for r in done.remarks] == [True, False]
