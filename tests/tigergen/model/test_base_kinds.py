"""Folders as Stable Diffusion 1.5 and 2.1 were published, narrow and random: load, one step a stage, sample, reload."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sd_folder import PHRASES, weights_of, write
from kb.errors import UserError
from tests.tigergen.training.training_toy import toy_cases
from tigergen.model import TigerPipeline, from_base
from tigergen.model.base import check_base
from tigergen.model.tokens import encode
from tigergen.training import presets, stages

DIVIDE = 40
# What the narrow copies differ in from the published shapes.
NARROW = ["model.image_size=64", "model.unet_channels=[8, 16, 32, 32]", "training.batch=2", "training.accumulation=1",
          "training.held_out_every=0", "training.grid_every=0", "training.precision=fp32", "training.warmup=0",
          "coarse.lr=0.01"]  # fmt: skip


def preset(kind: str, *overrides: str) -> dict:
    width = {"1.5": 768, "2.1": 1024}[kind] // DIVIDE
    name = {"1.5": "sd15", "2.1": "sd21"}[kind]
    return presets.load(name, [*NARROW, f"model.text_width={width}", *overrides])


def cases(count: int = 2):
    toy = toy_cases(count, 64)
    prompts = {"fg": ["solid, irregular margin"] * count, "bg": ["transverse plane, left side"] * count}
    return type(toy)(**{**vars(toy), **prompts})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: write(root / kind, kind, DIVIDE) for kind in ("1.5", "2.1")}


@pytest.mark.parametrize("kind", ["1.5", "2.1"])
def test_every_weight_of_a_published_folder_is_read_under_its_old_name(folders: dict[str, Path], kind: str) -> None:
    pipe = from_base(folders[kind])
    stored = weights_of(folders[kind] / "text_encoder")
    assert all(name.startswith("text_model.") for name in stored) and "text_model.embeddings.position_ids" in stored
    own = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in pipe.text_encoder.state_dict().items()}
    assert [
        name for name, value in stored.items() if "position_ids" not in name and not torch.equal(own[name], value)
    ] == []
    old = weights_of(folders[kind] / "vae")["decoder.mid_block.attentions.0.query.weight"]
    assert torch.equal(pipe.vae.decoder.mid_block.attentions[0].to_q.weight.flatten(), old.flatten())
    for name, value in weights_of(folders[kind] / "unet").items():
        assert torch.equal(pipe.unet.state_dict()[name], value), name
    assert pipe.scheduler.config["prediction_type"] == {"1.5": "epsilon", "2.1": "v_prediction"}[kind]
    assert pipe.config["image_size"] == 64 and pipe.tokenizer.model_max_length == 77


@pytest.mark.parametrize("kind", ["1.5", "2.1"])
def test_coarse_and_fine_step_on_a_published_folder_then_sample_save_and_load(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    settings = preset(kind, "training.gradient_checkpointing=false")
    stages.coarse(cases(), settings, tmp_path / "coarse", base=folders[kind], steps=1)
    before, after = weights_of(folders[kind] / "unet"), weights_of(tmp_path / "coarse" / "unet")
    # Merged adapters leave a plain U-Net, in which attention alone has changed (B is zero before the first step).
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("attn" in name and ".to_" in name for name in changed)
    stages.fine(tmp_path / "coarse", cases(), settings, tmp_path / "fine", steps=1)
    pipe = TigerPipeline.from_pretrained(tmp_path / "fine")
    assert weights_of(tmp_path / "fine" / "unet").keys() == after.keys()
    arguments = {"fg": ["solid"], "bg": ["left side"], "masks": cases(1).masks, "sobels": cases(1).sobel, "steps": 2}
    images = pipe(**arguments, roles=[[("solid", "particular")]])
    assert images.shape == (1, 64, 64)
    pipe.save_pretrained(tmp_path / "again")
    again = TigerPipeline.from_pretrained(tmp_path / "again")
    assert np.array_equal(again(**arguments, roles=[[("solid", "particular")]]), images)


def test_half_precision_files_are_read_where_there_are_no_others(folders: dict[str, Path], tmp_path: Path) -> None:
    half, whole = from_base(write(tmp_path / "half", "1.5", DIVIDE, fp16=True)), from_base(folders["1.5"])
    for part in ("unet", "vae", "text_encoder"):
        pairs = zip(getattr(half, part).parameters(), getattr(whole, part).parameters(), strict=True)
        for own, exact in pairs:
            assert own.dtype == torch.float32
            assert torch.allclose(own, exact, atol=1e-3, rtol=1e-3)


def test_names_of_newer_libraries_are_read_too(folders: dict[str, Path], tmp_path: Path) -> None:
    new, old = from_base(write(tmp_path / "new", "2.1", DIVIDE, old_names=False)), from_base(folders["2.1"])
    for part in ("vae", "text_encoder"):
        pairs = zip(getattr(new, part).parameters(), getattr(old, part).parameters(), strict=True)
        assert all(torch.equal(own, other) for own, other in pairs)


def test_a_folder_that_lacks_weights_is_refused_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for part, file, lost in (
        ("text_encoder", "model", "text_model.encoder.layers.1.mlp.fc1.weight"),
        ("unet", "diffusion_pytorch_model", "conv_out.weight"),
    ):
        broken = tmp_path / part
        shutil.copytree(folders["1.5"], broken)
        weights = weights_of(broken / part)
        del weights[lost]
        save_file(weights, broken / part / f"{file}.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=f"lacks 1 of its weights, such as .*{lost.removeprefix('text_model.')}"):
            from_base(broken)
        (broken / part / f"{file}.safetensors").unlink()
        with pytest.raises(UserError, match=f"has no {file}.safetensors"):
            from_base(broken)


@pytest.mark.parametrize("kind", ["1.5", "2.1"])
def test_phrases_spread_their_weight_over_the_pieces_of_the_vocabulary(folders: dict[str, Path], kind: str) -> None:
    tokenizer = from_base(folders[kind]).tokenizer
    roles = [[("solid", "particular"), ("irregular margin", "joint")]]
    tokens = encode(tokenizer, ["solid, irregular margin, no halo"], roles, {"irregular margin": 0.3})
    pieces = tokenizer.convert_ids_to_tokens(tokens.ids[0].tolist())
    weights = dict.fromkeys(("solid", "irregular margin", "no halo"), 0.0)
    length, place = {}, 1
    for phrase in weights:
        length[phrase] = len(tokenizer(phrase, add_special_tokens=False).input_ids)
        found = tokens.weights[0, place : place + length[phrase]]
        assert found.eq(found[0]).all()
        weights[phrase] = float(found[0])
        place += length[phrase] + 1  # the comma between two phrases
    assert length["solid"] == 1 and length["irregular margin"] > 4 and pieces[1] == "solid</w>"
    assert [round(weights[phrase], 3) for phrase in weights] == [3.1, 1.512, 0.633]
    pad = {"1.5": "<|endoftext|>", "2.1": "!"}[kind]
    assert pieces[0] == "<|startoftext|>" and pieces[place - 1] == "<|endoftext|>" and set(pieces[place:]) == {pad}
    assert tokens.weights[0, place - 1 :].eq(1).all() and tokens.ids.shape == (1, 77)
    assert set(PHRASES) >= set(weights)


def test_a_base_of_another_kind_is_refused_by_what_differs(folders: dict[str, Path], tmp_path: Path) -> None:
    check_base(folders["1.5"], preset("1.5"))
    with pytest.raises(UserError, match=r"diffusion.prediction is 'epsilon' there, the preset says 'v_prediction'"):
        stages.coarse(cases(), preset("2.1"), tmp_path / "out", base=folders["1.5"], steps=1)
    with pytest.raises(UserError, match=r"model.unet_channels is \[8, 16, 32, 32\] there"):
        check_base(folders["1.5"], presets.load("sd15"))
    with pytest.raises(UserError, match="starts from a Stable Diffusion 1.5 folder .* --base FOLDER"):
        stages.coarse(cases(), preset("1.5"), tmp_path / "out", steps=1)
    assert not (tmp_path / "out").exists()


def test_latents_are_never_clipped_whatever_the_folder_leaves_out(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["1.5"], tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    settings = json.loads(path.read_text())
    del settings["clip_sample"]
    path.write_text(json.dumps(settings))
    assert from_base(tmp_path / "base").scheduler.config["clip_sample"] is False
