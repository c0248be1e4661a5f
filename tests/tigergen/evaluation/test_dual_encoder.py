"""The dual encoder: its loss by hand, what it learns and what it does not, and the scores that rest on it."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import kb
from kb.errors import UserError
from kb.files import sha256_file
from tests.proof_corpus import make_workspace
from tigergen import workshop
from tigergen.data import load_cases
from tigergen.evaluation import dual_encoder, extractors
from tigergen.evaluation.adherence import donor_likeness
from tigergen.evaluation.dual_encoder import DualEncoder, measure, retrieval, too_few, train_dual_encoder
from tigergen.evaluation.dual_network import DualNetwork, contrastive_loss
from tigergen.evaluation.dual_scores import distance, scores, shuffled, words
from tigergen.evaluation.metric_images import gradient_similarity
from tigergen.evaluation.metric_sets import cmmd

BASE = kb.load("thyroid")
SIZE = 32
LEVELS = {"anechoic": 20, "hypoechoic": 60, "isoechoic": 140, "hyperechoic": 230}
PLACES = {"round": (2, 2), "oval": (2, 18), "wider-than-tall": (18, 2), "taller-than-wide": (18, 18)}


def planted(seed: int, count: int = 240) -> tuple[np.ndarray, list[str]]:
    """A square whose brightness and corner are what the prompt says; its last phrase is drawn by lot."""
    rng = np.random.default_rng(seed)
    images = rng.integers(85, 115, (count, SIZE, SIZE), dtype=np.uint8)
    prompts = []
    for image in images:
        echo, place, lot = (str(rng.choice(list(v))) for v in (LEVELS, PLACES, ("solid", "cystic")))
        row, column = PLACES[place]
        image[row : row + 12, column : column + 12] = LEVELS[echo]
        prompts.append(f"benign nodule, {echo}, {place}, {lot}")
    return images, prompts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DualEncoder, Path]:
    folder = tmp_path_factory.mktemp("dual")
    small = {"epochs": 12, "size": SIZE, "width": 8, "dim": 16, "image_ids": ("b", "a")}
    return train_dual_encoder(*planted(0), BASE, folder, planted(1, 120), **small), folder


def unit(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return F.normalize(torch.from_numpy(rng.normal(size=shape)), dim=1)


def by_hand(x: torch.Tensor, t: torch.Tensor, scale: float, same: np.ndarray) -> float:
    """The loss in plain loops: for each image the mean over its right texts of -log its share, and the other way."""
    z = [[scale * sum(float(a) * float(b) for a, b in zip(i, j, strict=True)) for j in t] for i in x]
    total = 0.0
    for k in range(len(x)):
        for row in (z[k], [z[n][k] for n in range(len(x))]):
            right = [n for n in range(len(x)) if same[k][n]]
            below = sum(math.exp(v) for v in row)
            total += sum(-math.log(math.exp(row[n]) / below) for n in right) / len(right)
    return total / (2 * len(x))


@pytest.mark.parametrize("keys", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 0], [0, 0, 1, 1, 2]])
def test_the_loss_equals_plain_loops(keys: list[int]) -> None:
    rng = np.random.default_rng(len(set(keys)))
    x, t, same = unit(rng, 5, 3), unit(rng, 5, 3), np.equal.outer(keys, keys)
    found = contrastive_loss(x, t, 4.0, torch.from_numpy(same).double())
    assert float(found) == pytest.approx(by_hand(x, t, 4.0, same), rel=1e-9)
    if len(set(keys)) == 5:
        clip = (F.cross_entropy(4 * x @ t.T, torch.arange(5)) + F.cross_entropy(4 * t @ x.T, torch.arange(5))) / 2
        assert float(found) == pytest.approx(float(clip), rel=1e-12), "no two prompts alike: CLIP's own loss"


def test_equal_prompts_are_no_negatives_of_each_other() -> None:
    """Two images at their common text: nothing pulls them apart. Told that they are wrong for each other, all does."""
    rng = np.random.default_rng(3)
    text = unit(rng, 1, 4).repeat(2, 1)
    images = text.clone().requires_grad_()
    for same, pulled in ((torch.ones(2, 2, dtype=torch.float64), False), (torch.eye(2, dtype=torch.float64), True)):
        other = unit(rng, 2, 4) if pulled else text
        (gradient,) = torch.autograd.grad(contrastive_loss(images, other, 5.0, same), images)
        assert (float(gradient.abs().max()) > 1e-6) == pulled
    assert float(contrastive_loss(text, text, 5.0, torch.ones(2, 2).double())) == pytest.approx(math.log(2))


def test_retrieval_equals_all_draws_counted() -> None:
    rng = np.random.default_rng(5)
    similarity, own = rng.normal(size=(6, 7)), np.array([0, 1, 2, 3, 6, 6])
    similarity[0, 3] = similarity[0, 0]  # a tie counts against it
    found, first, ranks = retrieval(similarity, own, of=4), [], []
    for row, right in zip(similarity, own, strict=True):
        rest = [v for n, v in enumerate(row) if n != right]
        first += [all(row[right] > v for v in draw) for draw in combinations(rest, 3)]
        ranks.append(1 + sum(v >= row[right] for v in rest))
    assert found["top1"] == pytest.approx(np.mean(first)) and found["top1_chance"] == 0.25
    assert found["median_rank"] == np.median(ranks) and found["median_rank_chance"] == 4.0
    assert retrieval(np.eye(3), np.arange(3))["top1"] == 1.0 and retrieval(np.eye(3), np.arange(3))["top1_of"] == 3
    assert retrieval(1 - np.eye(3), np.arange(3))["top1"] == 0.0


def test_it_finds_the_prompts_of_images_that_it_has_not_seen(trained: tuple[DualEncoder, Path]) -> None:
    figures = trained[0].figures
    assert figures["trained_on"] == 240 and figures["held_out"] == 120 and figures["unknown_phrases"] == {}
    # Every prompt has a twin that differs in what was drawn by lot alone: half of the time the twin ranks above it.
    assert figures["top1"] > 0.45 > 4 * figures["top1_chance"] and figures["median_rank"] <= 4
    assert figures["cosine"] > figures["cosine_shuffled"] + 0.4
    assert set(figures["cosine_treated"]) == {"blur 0.4 px", "blur 0.6 px", "noise 0.06", "noise 0.10"}
    assert figures["cosine"] == pytest.approx(figures["cosine_treated"]["noise 0.06"], abs=0.2)


def test_prompts_that_are_not_the_images_own_teach_it_nothing() -> None:
    images, prompts = planted(0)
    lie = [prompts[n] for n in np.random.default_rng(0).permutation(len(prompts))]
    found = train_dual_encoder(images, lie, BASE, None, planted(1, 120), epochs=6, size=SIZE, width=8, dim=16).figures
    assert found["top1"] < 0.2 and 8 < found["median_rank"] < 25
    assert abs(found["cosine"] - found["cosine_shuffled"]) < 0.1


def test_the_same_seed_gives_the_same_weights_and_it_is_read_back(trained: tuple[DualEncoder, Path], tmp_path) -> None:
    encoder, folder = trained
    again = DualEncoder.load(folder)
    images, prompts = planted(2, 7)
    assert np.array_equal(again.image_vectors(images), encoder.image_vectors(images))
    assert np.array_equal(again.text_vectors(prompts), encoder.text_vectors(prompts))
    assert again.figures == encoder.figures and again.image_ids == ["a", "b"]
    assert again.weights_sha256 == encoder.weights_sha256 == sha256_file(folder / dual_encoder.WEIGHTS)
    assert np.linalg.norm(again.image_vectors(images), axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    images, prompts = planted(0)
    twice = [
        train_dual_encoder(images, prompts, BASE, None, epochs=1, size=16, width=8, dim=8).text_vectors(prompts[:3])
        for _ in range(2)
    ]
    assert np.array_equal(*twice)
    with pytest.raises(UserError, match="holds no dual encoder"):
        DualEncoder.load(tmp_path)
    for name in (dual_encoder.RECORD, dual_encoder.WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / dual_encoder.WEIGHTS).write_bytes(b"of another training")
    with pytest.raises(UserError, match="are not those of its dual_encoder.json"):
        DualEncoder.load(tmp_path)


def test_unknown_phrases_are_counted_and_passed_over(trained: tuple[DualEncoder, Path]) -> None:
    encoder = trained[0]
    prompts = ["round, anechoic", "anechoic, frothy, round", "frothy, squamous", "", "squamous,round"]
    assert encoder.unknown(prompts) == {"frothy": 2, "squamous": 2}
    assert encoder.known(prompts).tolist() == [True, True, False, False, True]
    vectors = encoder.text_vectors(prompts)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6), "neither order nor an unknown word changes a prompt"
    assert not vectors[2].any() and not vectors[3].any()
    images = planted(4, 24)[0]
    found = scores(encoder, images, ["frothy, round", "oval"] * 12, images, ["squamous"] * 24, list("ab") * 12)
    assert (found["clip_score"]["n"], found["clip_score"]["n_real"], found["clip_score"]["real"]) == (24, 0, None)
    assert measure(encoder, images, ["squamous"] * 24) == {"held_out": 0, "unknown_phrases": {"squamous": 24}}


def test_images_are_mirrored_only_where_no_prompt_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(dual_encoder, "fit", lambda *given: asked.append(given[6]))
    images, prompts = planted(0)
    train_dual_encoder(images, prompts, BASE, None, size=16, width=8)
    train_dual_encoder(images, [f"{p}, left lobe" for p in prompts], BASE, None, size=16, width=8)
    assert asked == [True, False]


def test_too_few_pairs_are_one_sentence(tmp_path: Path) -> None:
    assert too_few([f"a, {n}" for n in range(10)] * 10) is None
    assert "99 image-prompt pairs with 99 different" in str(too_few([f"a, {n}" for n in range(99)]))
    assert "with 9 different prompts" in str(too_few([f"{n % 9}, a" for n in range(300)] + ["a, 0"]))
    images, prompts = planted(0, 20)
    with pytest.raises(UserError, match="20 image-prompt pairs"):
        train_dual_encoder(images, prompts, BASE, None)
    with pytest.raises(UserError, match="do not pair up"):
        train_dual_encoder(images, prompts[:3], BASE, None)


def test_the_judge_command_trains_it_beside_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"train": {"benign": 40, "FTC": 20}, "val": {"benign": 16, "FTC": 8}}
    ws = make_workspace(tmp_path / "ws", counts)
    monkeypatch.setattr(workshop, "JUDGE_SIZE", 16)
    record = workshop.train_judge(ws, epochs=1)
    assert record["trained_on"] == 60 and record["dual_encoder"].startswith("no dual encoder was trained: there are 60")
    assert workshop.own_dual_encoder(ws) is None
    monkeypatch.setattr(dual_encoder, "LEAST_PAIRS", 60)
    small = train_dual_encoder
    monkeypatch.setattr(dual_encoder, "train_dual_encoder", lambda *a, **k: small(*a, **{**k, "epochs": 1, "width": 8}))
    record = workshop.train_judge(ws, epochs=1)
    own, train = workshop.own_dual_encoder(ws), ws.cases("train")
    assert record["dual_encoder"] == own.figures and own.figures["held_out"] == 24
    assert own.image_ids == sorted(train["image_id"]), "val and test are not among what it has seen"
    assert set(own.phrases) == {phrase for fg in train["fg"] for phrase in fg.split(", ")}
    before = (workshop.model_folder(ws, "judge") / "judge.safetensors").read_bytes()
    assert workshop.train_dual_encoder(ws) == own.figures
    assert (workshop.model_folder(ws, "judge") / "judge.safetensors").read_bytes() == before
    images = load_cases(ws, "val", 64).images[:3]
    ruler = extractors.dual(own)
    assert ruler.weights_sha256 == own.weights_sha256 and ruler.vectors(images).shape == (3, 64)


class Known:
    """An encoder of known vectors: text n of `prompts` is the n-th unit vector, an image is its first row."""

    def __init__(self, prompts: list[str]) -> None:
        self.prompts = prompts

    def known(self, prompts: list[str]) -> np.ndarray:
        return np.array([p in self.prompts for p in prompts])

    def text_vectors(self, prompts: list[str]) -> np.ndarray:
        return np.eye(len(self.prompts))[[self.prompts.index(p) for p in prompts]]


def test_the_clip_score_stands_between_its_floor_and_the_real_images() -> None:
    prompts = ["a", "b", "c", "d"]
    encoder, asked = Known(prompts), prompts * 5
    perfect = encoder.text_vectors(asked)
    found = words(encoder, perfect, asked, perfect[:12], asked[:12])
    assert found == {
        "n": 20, "n_real": 12, "prompts": 4, "generated": {"cosine_100": 100.0, "hessel": 2.5},
        "real": {"cosine_100": 100.0, "hessel": 2.5}, "floor": {"cosine_100": 0.0, "hessel": 0.0},
    }  # fmt: skip
    # Images that show half of what they were asked for and half of the next one.
    half = (perfect + np.roll(perfect, 1, axis=1)) / math.sqrt(2)
    found = words(encoder, half, asked, perfect, asked)
    assert found["generated"]["cosine_100"] == pytest.approx(100 / math.sqrt(2))
    assert found["floor"]["cosine_100"] == pytest.approx(100 / math.sqrt(2) / 3, abs=5)
    planted_error = words(encoder, perfect, asked[1:] + asked[:1], perfect, asked)
    assert planted_error["generated"]["cosine_100"] == 0 < planted_error["floor"]["cosine_100"]
    alone = words(encoder, perfect, ["a"] * 20, perfect, asked)
    assert (alone["generated"], alone["floor"], alone["prompts"]) == (None, None, 1), "no number without its floor"
    assert words(encoder, perfect[:9], asked[:9], perfect, asked)["generated"] is None


def test_shuffled_prompts_say_something_else_and_come_up_equally_often() -> None:
    prompts = ["a, b", "b, a", "c", "d"] * 25
    first, second = shuffled(prompts, np.random.default_rng(0), draws=20)
    assert np.bincount(first).tolist() == [20] * 100
    assert all(set(prompts[i].split(", ")) != set(prompts[j].split(", ")) for i, j in zip(first, second, strict=True))
    share = np.mean([prompts[j] == "c" for i, j in zip(first, second, strict=True) if prompts[i] == "d"])
    assert share == pytest.approx(1 / 3, abs=0.06)
    assert len(shuffled(["a, b", "b, a"], np.random.default_rng(0))[0]) == 0


def test_the_distance_has_a_floor_of_the_same_size_by_patient() -> None:
    rng = np.random.default_rng(1)
    held = unit(rng, 80, 6).numpy()
    patients = [f"p{n // 2}" for n in range(80)]
    found = distance(unit(rng, 300, 6).numpy(), held, patients)
    assert found["n"] == 40 and abs(found["floor"]) < 0.5 and abs(found["generated"] - found["floor"]) < 0.5
    moved = unit(rng, 300, 6).numpy() + 0.5
    far = distance(moved, held, patients)
    assert far["floor"] == found["floor"] and far["generated"] > 5 * abs(far["floor"])
    assert far["generated"] == pytest.approx(cmmd(held, moved)["unbiased"], rel=0.2)
    few = distance(held, held[:18], patients[:18])  # nine patients of two: halves of eight and ten images
    assert few == {"n": 8, "generated": None, "floor": None}
    mean = 10 * ((held.mean(0) - moved.mean(0)) ** 2).sum()
    assert cmmd(held, moved)["biased"] == pytest.approx(mean, rel=0.02), "so wide a kernel sees the mean (docs)"
    # All of one patient in one half: the other half is empty.
    assert distance(held, held, ["p"] * 80)["generated"] is None


def test_a_copy_of_the_donor_is_seen_and_the_floor_is_another_patient_of_the_plane(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "ws", {"train": {"benign": 6}})
    cases = load_cases(ws, "train", 64)
    plane = [{"sonogram_direction": [p]} for p in ("transverse", "transverse", "transverse", "longitudinal", "a", "b")]
    cases = replace(cases, patient_ids=["p", "p", "q", "q", "r", "s"], attributes=plane)
    copies = donor_likeness(cases.images[[0, 1]], [0, 1], cases, np.random.default_rng(0))
    assert copies["generated"] == 1.0 and copies["n"] == 2
    expected = np.mean([gradient_similarity(cases.images[2], cases.images[n]) for n in (0, 1)])
    assert copies["floor"] == pytest.approx(expected) and copies["floor"] < 0.99
    alone = donor_likeness(cases.images[[3, 4]], [3, 4], cases, np.random.default_rng(0))
    assert alone == {"n": 0, "generated": None, "floor": None}, "no other patient has that plane"


def test_an_untrained_network_gives_unit_vectors_of_the_width_asked_for() -> None:
    network = DualNetwork(5, 16, 8, 12).eval()
    assert network.text(torch.tensor([[1, 2, 0], [5, 0, 0]])).norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert network.image(torch.zeros(2, 1, 16, 16)).shape == (2, 12)
    assert float(network.scale.detach()) == pytest.approx(1 / 0.07)
