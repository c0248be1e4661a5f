"""Single images and sweeps: how a prompt is understood, what lends the layout, what is kept fixed."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import kb
from kb.errors import UserError
from tests.proof_corpus import SIZE, FakePipe, make_workspace, model_stub
from tigerdata.conditions import build
from tigerdata.prompts import compose
from tigergen.augment import asked as prompts
from tigergen.augment.grid import grid
from tigergen.augment.layout import find
from tigergen.augment.one import Studio, sample
from tigergen.commands import gen_app

BASE = kb.load("thyroid")
ZH = "右叶中部见一低回声结节，大小约12×8×7mm，实性，边界不清，内未见钙化。考虑滤泡癌。今日天气晴朗。"
EN = "Right lobe mid pole: a hypoechoic solid nodule, 12 x 8 mm, ill-defined margin. Follicular carcinoma."


class Recording(FakePipe):
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[str, Any]] = []

    def __call__(self, fg, bg, masks, sobels, roles, seeds, **named):
        self.given.append(
            {"fg": fg, "bg": bg, "masks": masks, "sobels": sobels, "roles": roles, "seeds": seeds, **named}
        )
        return super().__call__(fg, bg, masks, sobels, roles, seeds)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("one")
    ws = make_workspace(folder / "ws", {"train": {"benign": 12, "FTC": 6}, "val": {"benign": 4, "FTC": 2}})
    return ws, model_stub(folder)


@pytest.fixture
def studio(setting) -> Studio:
    ws, model = setting
    return Studio.open(ws, model, pipe=Recording(), steps=3, guidance=None)


@pytest.mark.parametrize("text", [ZH, EN])
def test_a_report_text_becomes_both_prompts(text: str) -> None:
    got = prompts.from_text(BASE, "thyroid", text)
    fg, bg = got.fg.split(", "), got.bg.split(", ")
    assert got.label == "FTC" and fg[0] == BASE.subtypes["FTC"].phrase
    assert {"hypoechoic", "solid", BASE.phrase("diameter", BASE.size_class(12))} <= set(fg)
    assert "microcalcification" not in fg and {"right lobe", "middle pole"} <= set(bg)
    said = {row["says"]: row for row in got.understood}
    assert set(fg[1:]) | set(bg) == set(said), "every phrase leads back to characters of the text"
    assert all(row["text"] in text for row in got.understood) and said["right lobe"]["encoder"] == "bg"


def test_what_a_denial_states_is_asked_and_what_is_not_understood_is_told() -> None:
    got = prompts.from_text(BASE, "thyroid", ZH)
    assert "no calcification" in got.fg.split(", ") and any("天气" in piece for piece in got.unread)


def test_phrases_are_taken_as_they_are() -> None:
    said = {"echogenicity": ["hypoechoic"], "shape": ["irregular"], "nodule_location": ["left"]}
    want = compose(BASE, "PTC", said)
    got = prompts.from_text(BASE, "thyroid", f"{want.bg}, {want.fg}")
    assert (got.fg, got.bg, got.label, got.attributes) == (want.fg, want.bg, "PTC", said) and not got.understood
    direct = prompts.from_phrases(BASE, want.fg, want.bg)
    assert (direct.fg, direct.bg, direct.label, direct.attributes) == (want.fg, want.bg, "PTC", said)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: prompts.from_text(BASE, "thyroid", "solid nodule"), "names no class; give --label"),
    (lambda: prompts.from_text(BASE, "thyroid", "solid, hypoechoic"), "names no class; give --label"),
    (lambda: prompts.from_text(BASE, "thyroid", EN, None, 3), "describes 1 nodules and not 3"),
    (lambda: prompts.from_phrases(BASE, "solid", ""), "begins with 'solid', which is no class"),
    (lambda: prompts.from_phrases(BASE, "follicular nodule, shiny", ""), "'shiny' is no phrase"),
])  # fmt: skip
def test_prompts_that_cannot_be_used_are_refused(call, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        call()


def test_a_donor_alone_gives_prompt_and_conditions(setting, studio: Studio, tmp_path: Path) -> None:
    ws, _ = setting
    case = ws.cases("val").to_dict("records")[0]
    told = sample(studio, tmp_path / "a.png", donor=case["image_id"], seed=5, n=2)
    (given,) = studio.pipe.given
    assert given["fg"] == [case["fg"]] * 2 and given["bg"] == [case["bg"]] * 2 and given["seeds"] == [5, 6]
    assert given["steps"] == 3 and given["guidance"] == told["sampling"]["guidance"] == 1.4
    frame, mask = (cv2.imread(case[p], cv2.IMREAD_GRAYSCALE) for p in ("image_path", "mask_path"))
    made = build(frame, mask > 127, SIZE)
    assert np.array_equal(given["masks"][1], made.mask) and np.array_equal(given["sobels"][1], made.sobel)
    assert told["donor_split"] == "val" and [Path(f).name for f in told["files"]] == ["a-1.png", "a-2.png"]
    with Image.open(tmp_path / "a-2.png") as image:
        assert (image.text["TigerSeed"], image.text["TigerFG"]) == ("6", case["fg"])
        assert case["image_id"] not in json.dumps(image.text), "a file does not lead to a patient"


def test_without_a_donor_the_best_fitting_training_image_lends(setting, studio: Studio, tmp_path: Path) -> None:
    ws, _ = setting
    wanted = prompts.from_text(BASE, "thyroid", "transverse view, solid nodule, irregular shape", "FTC")
    told = sample(studio, tmp_path / "a.png", wanted)
    train = ws.cases("train").set_index("image_id")
    assert told["donor_split"] == "train"
    assert train.loc[told["donor"], "attributes"]["sonogram_direction"] == ["transverse"]
    words = {p for known in BASE.quality.values() for p in known}
    assert {p for p in train.loc[told["donor"], "bg"].split(", ") if p in words} <= set(told["bg"].split(", "))


def test_an_own_mask_moves_the_nodule_and_both_are_blanked(setting, studio: Studio, tmp_path: Path) -> None:
    ws, _ = setting
    case = ws.cases("train").to_dict("records")[0]
    moved = np.zeros((SIZE, SIZE), np.uint8)
    moved[40:56, 4:20] = 255
    cv2.imwrite(str(tmp_path / "m.png"), moved)
    layout = find(ws, SIZE, case["image_id"], tmp_path / "m.png")
    assert np.array_equal(layout.mask * 255, moved)
    own = cv2.imread(case["mask_path"], cv2.IMREAD_GRAYSCALE) > 127
    assert not layout.sobel[own].any() and not layout.sobel[moved > 0].any() and layout.sobel.any()


def test_a_file_may_lend_with_a_mask(setting, studio: Studio, tmp_path: Path) -> None:
    ws, _ = setting
    case = ws.cases("train").to_dict("records")[0]
    wanted = prompts.from_phrases(BASE, "follicular nodule, solid", "")
    told = sample(studio, tmp_path / "a.png", wanted, case["image_path"], case["mask_path"])
    assert told["donor_split"] is None and told["donor"] == Path(case["image_path"]).name
    inside = find(ws, SIZE, case["image_id"])
    assert np.array_equal(studio.pipe.given[0]["sobels"][0], inside.sobel)
    with pytest.raises(UserError, match="needs a nodule mask"):
        sample(studio, tmp_path / "a.png", wanted, case["image_path"])
    with pytest.raises(UserError, match="is a file and has no prompt"):
        sample(studio, tmp_path / "a.png", None, case["image_path"], case["mask_path"])


def test_refined_images_say_that_real_parts_are_in_them(setting, tmp_path: Path) -> None:
    ws, model = setting
    studio = Studio.open(ws, model, pipe=Recording(), strength=0.4)
    case = ws.cases("train").to_dict("records")[0]
    sample(studio, tmp_path / "a.png", donor=case["image_id"])
    assert studio.pipe.given[0]["strength"] == 0.4
    assert np.array_equal(studio.pipe.given[0]["init_images"][0], find(ws, SIZE, case["image_id"]).image)
    with Image.open(tmp_path / "a.png") as image:
        assert "compositeWithTrainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]


@pytest.mark.parametrize(("given", "sentence"), [
    ({}, "say what to draw"), ({"donor": "nobody"}, "neither an image id"), ({"mask": "m.png", "asked": ""}, "--donor"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(studio: Studio, tmp_path: Path, given, sentence: str) -> None:
    if "asked" in given:
        given = given | {"asked": prompts.from_phrases(BASE, "follicular nodule", "")}
    with pytest.raises(UserError, match=sentence):
        sample(studio, tmp_path / "a.png", **given)


@pytest.mark.parametrize(("content", "sentence"), [
    (np.zeros((SIZE, SIZE)), "is empty"), (np.full((9, 9), 255), "9 x 9 pixels and its frame 64 x 64"),
])  # fmt: skip
def test_masks_that_do_not_fit_are_refused(setting, tmp_path: Path, content, sentence: str) -> None:
    ws, _ = setting
    cv2.imwrite(str(tmp_path / "m.png"), content.astype(np.uint8))
    with pytest.raises(UserError, match=sentence):
        find(ws, SIZE, ws.cases("train")["image_id"][0], tmp_path / "m.png")


def test_a_sweep_changes_one_attribute_and_nothing_else(setting, studio: Studio, tmp_path: Path) -> None:
    ws, _ = setting
    wanted = prompts.from_text(BASE, "thyroid", "left lobe, solid nodule, regular shape, isoechoic", "FTC")
    told = grid(studio, tmp_path / "g.png", "echogenicity", None, wanted, seed=4, n=2)
    (given,) = studio.pipe.given
    values = [v for v in BASE.attributes["echogenicity"].values if v != "anechoic"]
    assert list(told["files"]) == values and list(told["left_out"]) == ["anechoic"]
    assert given["seeds"] == [4] * len(values) + [5] * len(values)
    phrase = {v: BASE.phrase("echogenicity", v) for v in values}
    for value, fg in zip(values * 2, given["fg"], strict=True):
        assert set(fg.split(", ")) - {phrase[value]} == {"follicular nodule", "solid", "regular shape"}
    assert len(set(given["bg"])) == 1 and (given["masks"] == given["masks"][0]).all()
    with Image.open(tmp_path / "g.png") as sheet:
        assert sheet.text["TigerSynthetic"] == "1" and "composite" in sheet.text["XML:com.adobe.xmp"]
        drawn = np.asarray(sheet)
    with Image.open(tmp_path / "g" / f"{values[0]}-4.png") as image:
        large = np.asarray(image).repeat(3, 0).repeat(3, 1)
    spots = np.lib.stride_tricks.sliding_window_view(drawn, large.shape)[:, 3 * 200 + 8]
    assert any(np.array_equal(spot, large) for spot in spots), "the images stand on the sheet as they are"
    with pytest.raises(UserError, match="'green' is no value of echogenicity"):
        grid(studio, tmp_path / "g.png", "echogenicity", ["green"], wanted)
    with pytest.raises(UserError, match="'colour' is not in the vocabulary"):
        grid(studio, tmp_path / "g.png", "colour", None, wanted)
    with pytest.raises(UserError, match="no value of echogenicity goes with"):
        grid(studio, tmp_path / "g.png", "echogenicity", ["anechoic"], wanted)


@pytest.mark.parametrize(("words", "sentence"), [
    (["sample", "--prompt", "a", "--fg", "b"], "either --prompt or --fg"),
    (["sample", "--bg", "b"], "--bg goes with --fg"),
    (["sample", "--label", "FTC"], "--label goes with"),
    (["sample", "--run", "r", "--prompt", "a"], "--run says what to draw"),
])  # fmt: skip
def test_options_that_contradict_each_other_are_refused(setting, words: list[str], sentence: str) -> None:
    ws, _ = setting
    done = CliRunner().invoke(gen_app, [*words, "-w", str(ws.path)])
    assert done.exception is not None and sentence in str(done.exception)
