"""The pipeline: folders, batches, modes, errors."""

import json

import numpy as np
import pytest
import torch

from kb.errors import UserError
from tigergen.model import TigerPipeline, add_control
from tigergen.model.pipeline import to_conditions, to_pixels
from tigergen.sampling.schedulers import SAMPLERS
from tigergen.sampling.settings import MODES

# One grey level of rounding where float sums of another batch size differ in their last bits.
LEVELS = 1


def close(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(left.astype(int) - right).max() <= LEVELS)


def rows(cases: dict, which: list[int]) -> dict:
    """Arguments of some of the images, in that order."""
    return {name: value if name == "steps" else [value[k] for k in which] if isinstance(value, list) else value[which]
            for name, value in cases.items()}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_image_k_does_not_depend_on_its_batch(tiger: TigerPipeline, cases: dict, mode: str, sampler: str) -> None:
    together = tiger(**cases, mode=mode, sampler=sampler)
    assert together.shape == (3, 16, 16) and together.dtype == np.uint8
    alone = np.concatenate([tiger(**rows(cases, [k]), mode=mode, sampler=sampler) for k in range(3)])
    turned = tiger(**rows(cases, [2, 0, 1]), mode=mode, sampler=sampler)
    assert close(together, alone) and close(together[[2, 0, 1]], turned)
    assert together.std() > 1 and not close(together[:1], together[1:2])


def test_folder_round_trip_gives_identical_images(tiger: TigerPipeline, cases: dict, tmp_path) -> None:
    tiger.register_to_config(term_frequency={"solid": 0.25}, weighting="paper")
    tiger.save_pretrained(tmp_path)
    again = TigerPipeline.from_pretrained(tmp_path)
    for mode in ("joint", "sequential"):
        assert np.array_equal(again(**cases, mode=mode), tiger(**cases, mode=mode))
    assert again.config["term_frequency"] == {"solid": 0.25} and again.config["weighting"] == "paper"
    names = {path.name for path in tmp_path.iterdir()}
    parts = {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "fg_encoder", "bg_encoder", "fusion"}
    assert names == parts | {"model_index.json"}
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    assert json.loads((tmp_path / "model_index.json").read_text())["fusion"][1] == "AttentionalFusion"


def test_a_coarse_folder_round_trips_and_takes_encoders_later(coarse: TigerPipeline, cases: dict, tmp_path) -> None:
    coarse.save_pretrained(tmp_path)
    again = TigerPipeline.from_pretrained(tmp_path)
    text = coarse(**cases, mode="text")
    assert np.array_equal(again(**cases, mode="text"), text)
    with pytest.raises(UserError, match="fine training"):
        again(**cases)
    add_control(again)
    for mode in ("joint", "fg", "bg"):
        assert np.array_equal(again(**cases, mode=mode), text), "zero convolutions leave the U-Net alone"


def test_a_folder_that_is_no_model_is_a_user_error_and_not_a_download(tiger: TigerPipeline, tmp_path) -> None:
    with pytest.raises(UserError, match="no model_index.json"):
        TigerPipeline.from_pretrained("someone/some-model")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(UserError, match="from_base"):
        TigerPipeline.from_pretrained(tmp_path)


def test_the_same_seed_builds_the_same_model_and_leaves_global_chance_alone(coarse: TigerPipeline, fresh) -> None:
    state = torch.random.get_rng_state()
    twin = fresh(1)
    other = fresh(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    same = [torch.equal(a, b) for a, b in zip(coarse.unet.parameters(), twin.unet.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(coarse.unet.conv_in.weight, other.unet.conv_in.weight)


def test_conditions_prompts_and_seeds_all_matter(tiger: TigerPipeline, cases: dict) -> None:
    base = tiger(**cases)
    changes = {
        "fg": ["benign, cystic"] * 3,
        "bg": ["left side"] * 2 + ["transverse plane"],
        "masks": 1 - cases["masks"],
        "sobels": 255 - cases["sobels"],
        "seeds": [1, 2, 3],
        "guidance": 5.0,
        "keep_control": True,
        "resolution_weighting": True,
    }
    for name, value in changes.items():
        changed = {**cases, name: value} | ({"roles": None} if name == "fg" else {})
        assert not close(tiger(**changed), base if name != "fg" else tiger(**{**cases, "roles": None})), name


def test_roles_act_through_the_weights_of_the_fg_encoder(tiger: TigerPipeline, cases: dict) -> None:
    # Random text states hardly differ; larger ones show the attention's work in eight bits.
    tiger.text_encoder.final_layer_norm.weight.data *= 8
    results = [tiger(**cases, weighting=mode, guidance=8.0) for mode in ("off", "log", "paper")]
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[1], results[2])
    assert np.array_equal(results[0], tiger(**{**cases, "roles": None}, guidance=8.0))
    rare, frequent = (tiger(**cases, tau={"solid": tau, "no halo": tau}, guidance=8.0) for tau in (0.0, 1.0))
    assert not np.array_equal(rare, frequent)


def test_refinement_keeps_more_of_the_image_with_less_strength(tiger: TigerPipeline, cases: dict) -> None:
    rng = np.random.default_rng(1)
    start = rng.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    cases["steps"] = 20
    for sampler in SAMPLERS:
        distance = [
            np.abs(tiger(**cases, init_images=start, strength=strength, sampler=sampler).astype(int) - start).mean()
            for strength in (0.05, 0.3, 1.0)
        ]
        assert distance[0] < 10 < distance[2] and distance[0] < distance[1] < distance[2]


def test_sequential_keeps_the_nodule_of_its_first_pass(tiger: TigerPipeline, cases: dict) -> None:
    nodule = cases["masks"] > 0
    first, both = tiger(**cases, mode="fg"), tiger(**cases, mode="sequential")
    assert np.array_equal(first[nodule], both[nodule])
    far = np.zeros_like(nodule)
    far[:, 12:, :3] = True
    assert not np.array_equal(first[far], both[far])


def test_no_images_is_an_empty_array(tiger: TigerPipeline) -> None:
    assert tiger([], [], np.zeros((0, 16, 16), np.uint8), np.zeros((0, 16, 16), np.uint8)).shape == (0, 16, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bg": ["left side"]}, "3 FG prompts but 1 of bg"),
        ({"seeds": [1]}, "1 of seeds"),
        ({"mode": "both"}, "'both'"),
        ({"sampler": "euler"}, "'euler'"),
        ({"weighting": "loud"}, "'loud'"),
        ({"sobels": None}, "needs masks and Sobel maps"),
        ({"fg": ["purple"] * 3, "roles": None}, "'purple'"),
        ({"sobels": np.zeros((3, 8, 8), np.uint8)}, "give one size"),
        ({"masks": np.zeros((3, 15, 15), np.uint8), "sobels": np.zeros((3, 15, 15), np.uint8)}, "blocks of 2"),
        ({"init_images": np.zeros((3, 16, 16), np.uint8), "strength": 0.0}, "strength is 0.0"),
    ],
)
def test_wrong_arguments_are_user_errors(tiger: TigerPipeline, cases: dict, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiger(**{**cases, **change})


def test_arrays_become_tensors_in_the_documented_ranges() -> None:
    images = np.array([[[0, 255], [51, 204]]], np.uint8)
    assert torch.allclose(to_pixels(images), torch.tensor([[[[-1, 1], [-0.6, 0.6]]]]))
    masks, sobels = to_conditions(np.array([[[0, 1]]], np.uint8), np.array([[[0, 255]]], np.uint8))
    assert masks.tolist() == [[[[0, 1]]]] and sobels.tolist() == [[[[0, 1]]]]
