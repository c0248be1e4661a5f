"""Two image sets against each other: planted defects leave the floor, and each number says what it rests on."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model
from typer.testing import CliRunner

from kb.errors import UserError
from tests.proof_corpus import frame
from tigerdata.workspace import Workspace
from tigergen import workshop
from tigergen.commands import gen_app
from tigergen.evaluation import extractors, image_sets
from tigergen.evaluation.judge import Judge
from tigergen.evaluation.judge_network import JudgeNetwork
from tigergen.evaluation.real_fake import DIRECTIONS, measure_folders, outlined

N = 48


def write(folder: Path, images: list[np.ndarray], labels: list[str] | None = None) -> Path:
    for n, image in enumerate(images):
        place = folder / (labels[n] if labels else "")
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{n:03}.png"), image)
    return folder


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [frame(n, n)[0] for n in range(4 * N)]


@pytest.fixture(scope="module")
def real(frames, tmp_path_factory) -> Path:
    """Two classes; one row a file and a patient of two images in the table beside them."""
    folder = write(tmp_path_factory.mktemp("real"), frames[: 2 * N])
    rows = {"path": [f"{n:03}.png" for n in range(2 * N)], "label": ["a", "b"] * N,
            "group": [n // 4 for n in range(2 * N)]}  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return folder


def by_metric(found: dict, label: str = "all") -> dict[str, dict]:
    return {row["metric"]: row for row in found["rows"] if row["class"] == label}


def test_new_real_images_are_no_further_off_than_the_floor(real, frames, tmp_path) -> None:
    made = write(tmp_path / "f", [*frames[2 * N : 4 * N], *[frames[0] // 4] * 30], ["a", "b"] * N + ["c"] * 30)
    found = measure_folders(real, made, repeats=8)
    assert found["classes_left_out"] == ["c"]
    assert {row["class"] for row in found["rows"]} == {"all", "a", "b"}
    assert found["halves_by"] == "patient" and found["size"] == 64 and found["dimensions"] == 52
    rows = by_metric(found)
    assert rows["kernel_distance"]["n"] == N and rows["frechet_distance"]["note"].startswith("too few")
    means = [row["worse_than_floor"] for row in rows.values() if row["worse_than_floor"] is not None]
    assert 0.05 < np.mean(means) < 0.95
    low, high = rows["coverage"]["floor_range"]
    assert low - 0.15 <= rows["coverage"]["generated"] <= high + 0.15


def test_blur_and_one_repeated_image_fall_out_of_the_floor(real, frames, tmp_path) -> None:
    soft = [cv2.GaussianBlur(image, (0, 0), 1.5) for image in frames[2 * N : 4 * N]]
    rows = by_metric(measure_folders(real, write(tmp_path / "soft", soft), repeats=4))
    for name in ("kernel_distance", "gaussian_mmd", "density", "coverage", "told_apart"):
        assert rows[name]["worse_than_floor"] == 1.0, name
    assert rows["told_apart"]["generated"] > 0.97
    same = [np.clip(frames[2 * N].astype(int) + n % 3, 0, 255).astype(np.uint8) for n in range(2 * N)]
    rows = by_metric(measure_folders(real, write(tmp_path / "same", same), repeats=4))
    assert rows["coverage"]["generated"] < 0.3 and rows["recall"]["worse_than_floor"] == 1.0


def test_copies_of_the_training_set_are_flagged_by_file(real, frames, tmp_path) -> None:
    train = write(tmp_path / "train", frames[2 * N : 3 * N])
    made = write(tmp_path / "made", [*frames[2 * N : 2 * N + 10], *frames[3 * N : 3 * N + 38]])
    found = measure_folders(real, made, train=train, repeats=1)["memorisation"]
    assert {f"{n:03}.png" for n in range(10)} <= {Path(f).name for f in found["flagged"]}
    assert len(found["flagged"]) < 20 and found["n"] == 48


def test_halves_keep_a_patient_together() -> None:
    groups = np.array([str(n // 5) for n in range(83)])
    first, second = image_sets.halves(groups, np.random.default_rng(0))
    assert not set(groups[first]) & set(groups[second]) and len(first) + len(second) == 83
    assert abs(len(first) - len(second)) <= 8


def test_what_a_table_leaves_out(tmp_path) -> None:
    rows = [{"file": f"{n}.png", "label": "a", "accepted": n != 3, "synthetic": n % 2 == 0} for n in range(8)]
    pd.DataFrame(rows).to_parquet(tmp_path / "manifest.parquet")
    assert [Path(r["file"]).stem for r in image_sets.listed(tmp_path, synthetic=True)] == ["0", "2", "4", "6"]
    assert [Path(r["file"]).stem for r in image_sets.listed(tmp_path / "manifest.parquet", False)] == ["1", "5", "7"]
    (tmp_path / "out" / "train").mkdir(parents=True)
    rows = [{"path": f"train/{n}.png", "synthetic": n % 2, "group": f"g{n}", "split": "train"} for n in range(4)]
    rows.append({"path": "test/9.png", "synthetic": 0, "group": "g9", "split": "test"})
    pd.DataFrame(rows).to_csv(tmp_path / "out" / "images.csv")
    found = image_sets.listed(tmp_path / "out" / "train", False, ("train",))
    assert [(Path(r["file"]).stem, r["group"]) for r in found] == [("0", "g0"), ("2", "g2")]
    (tmp_path / "t.jsonl").write_text(
        '{"file_name": "x.png", "split": "train"}\n{"file_name": "y.png", "split": "test"}\n'
    )
    assert [Path(r["file"]).stem for r in image_sets.listed(tmp_path / "t.jsonl", False)] == ["y"]


def test_a_safetensors_network_must_fit_and_is_named_with_its_hash(real, frames, tmp_path) -> None:
    from kb.files import sha256_file

    torch.manual_seed(0)
    network = get_model("resnet18", weights=None, num_classes=3)
    state, file = network.state_dict(), tmp_path / "net.safetensors"
    save_file(state, file, metadata={"architecture": "resnet18"})
    ruler = extractors.weights_file(file)
    got = ruler.vectors(np.stack(frames[:2]))
    network.fc = torch.nn.Identity()
    grey = torch.from_numpy(np.stack([extractors.square(f, 224) for f in frames[:2]]))[:, None].float() / 255
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in extractors.IMAGENET)
    with torch.no_grad():
        expected = network.eval()((grey - mean) / sd).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert ruler.weights_sha256 == sha256_file(file) and "resnet18" in ruler.id
    with pytest.raises(UserError, match="does not fit resnet34"):
        extractors.weights_file(file, "resnet34")
    save_file({name: value for name, value in state.items() if name != "conv1.weight"}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="--architecture"):
        extractors.weights_file(tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="does not fit resnet18"):
        extractors.weights_file(tmp_path / "half.safetensors", "resnet18")
    with pytest.raises(UserError, match="no classifier 'vgg5'"):
        extractors.weights_file(file, "vgg5")


def test_the_command_prints_a_table_or_json_and_refuses_in_one_sentence(real, frames, tmp_path) -> None:
    made = write(tmp_path / "made", frames[2 * N : 3 * N])
    words = ["evaluate", str(real), str(made), "--repeats", "2"]
    done = CliRunner().invoke(gen_app, [*words, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert {row["metric"] for row in found["rows"]} == set(DIRECTIONS) - {"geometry_score"}
    for key in ("extractor", "weights_sha256", "resize", "seed", "left_out"):
        assert found[key] is not None
    assert all({"n", "floor"} <= set(row) for row in found["rows"]) and found["sets"]["fake"]["n"] == N
    text = CliRunner().invoke(gen_app, words, catch_exceptions=False).stdout
    for word in ("texture-52/1", found["weights_sha256"][:16], "floor", "kernel_distance", "left out"):
        assert word in text
    assert outlined(found)[0]["generated"] == "-"
    for wrong, sentence in ((["evaluate"], "REAL and FAKE"), (["evaluate", str(real)], "REAL and FAKE"),
                            (["evaluate", str(real), str(tmp_path / "none")], "no folder or table"),
                            ([*words, "--extractor", "clip"], "no extractor clip")):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            CliRunner().invoke(gen_app, wrong, catch_exceptions=False)
    few = write(tmp_path / "few", frames[:4])
    with pytest.raises(UserError, match="2 images a side"):
        measure_folders(few, made)


@pytest.fixture
def judged(tmp_path) -> tuple[Workspace, Judge]:
    """A workspace with a judge of random weights: what its features are is known all the same."""
    ws = Workspace.create(tmp_path / "ws")
    torch.manual_seed(0)
    judge = Judge(
        JudgeNetwork([2, 3], size=32, width=8), {"halo": ["absent", "thin"], "x": ["a", "b", "c"]}, "values", {}
    )
    judge.save(workshop.model_folder(ws, workshop.JUDGE))
    return ws, judge


def test_the_judge_as_extractor_measures_with_what_enters_its_heads(judged, frames, tmp_path) -> None:
    ws, judge = judged
    one, other = (image[:32, :32] for image in frames[:2])
    real, same, far = (write(tmp_path / name, [image] * 24) for name, image in (("r", one), ("s", one), ("f", other)))

    def measured(fake: Path) -> dict:
        words = [
            "evaluate",
            str(real),
            str(fake),
            "--extractor",
            "judge",
            "--repeats",
            "2",
            "-w",
            str(ws.path),
            "--json",
        ]
        return json.loads(CliRunner().invoke(gen_app, words, catch_exceptions=False).stdout.strip().splitlines()[-1])

    def features(image: np.ndarray) -> np.ndarray:
        network, x = judge.network, torch.from_numpy(image)[None, None].float() / 127.5 - 1
        with torch.no_grad():
            inner = network.blocks(network.stem(x))[0].flatten(1)
        return torch.cat([inner.mean(1), inner.amax(1)]).double().numpy()

    from kb.files import sha256_file

    equal, found = measured(same), measured(far)
    assert found["weights_sha256"] == sha256_file(workshop.model_folder(ws, workshop.JUDGE) / "judge.safetensors")
    assert found["dimensions"] == 8 * 8 and "judge" in found["extractor"] and "32 px" in found["resize"]
    rows = by_metric(equal)
    for name in ("kernel_distance", "gaussian_mmd"):
        assert rows[name]["generated"] == pytest.approx(0, abs=1e-9), "equal sets"
    a, b = features(one), features(other)
    expected = sum(((p @ q / len(a) + 1) ** 3) * s for p, q, s in ((a, a, 1), (b, b, 1), (a, b, -2)))
    assert by_metric(found)["kernel_distance"]["generated"] == pytest.approx(expected, rel=1e-4) and expected > 1e-6
    assert by_metric(found)["kernel_distance"]["floor"] == pytest.approx(0, abs=1e-9)


def test_extractors_of_a_workspace_need_it_and_their_files(judged, real, tmp_path) -> None:
    ws, _ = judged
    for name in ("judge", "dual"):
        with pytest.raises(UserError, match=f"`{name}` is a workspace's own"):
            measure_folders(real, real, extractor=name)
    with pytest.raises(UserError, match="holds no dual encoder"):
        measure_folders(real, real, extractor="dual", judge_folder=workshop.model_folder(ws, workshop.JUDGE))
    with pytest.raises(UserError, match="holds no judge"):
        measure_folders(real, real, extractor="judge", judge_folder=tmp_path)
