"""What the report shows: shares by hand, nearest pairs, gates and thresholds, and both languages of every sentence."""

import base64
import io
import json
import re
from html import unescape
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from jinja2 import Environment
from PIL import Image

import kb
from tigerdata import page
from tigergen.augment.gates import GateSettings
from tigergen.evaluation import report_views as views
from tigergen.evaluation.arm_stats import TITLES
from tigergen.evaluation.report import catalogue, chinese_verdict

BASE = kb.load("thyroid")


def names(attribute: str, value: str | None = None) -> str:
    return attribute if value is None else BASE.phrase(attribute, value)


def test_the_map_counts_shares_of_the_images_that_state_an_attribute() -> None:
    solid, cystic = {"composition": ["solid"]}, {"composition": ["cystic"], "shape": ["regular"]}
    train = SimpleNamespace(labels=["A", "A", "A", "B"], attributes=[solid, solid, cystic, {}])
    kept = pd.DataFrame({"label": ["A", "B"], "attributes": [json.dumps(cystic), json.dumps(solid)]})
    found = views.heat(BASE, train, kept, names)
    assert found["classes"] == ["A", "B"]
    rows = {row["name"]: row["cells"] for group in found["groups"] for row in group["rows"]}
    assert set(rows) == {"solid", "cystic", "regular shape"}, "values that nobody shows are left out"
    assert [(c["kind"], c["count"], c["of"]) for c in rows["solid"]] == [
        ("real", 2, 3), ("made", 0, 1), ("real", 0, 0), ("made", 1, 1),
    ]  # fmt: skip
    assert rows["regular shape"][0] | {"colour": ""} == {
        "kind": "real", "count": 1, "of": 1, "share": 1.0, "colour": "",
    }  # fmt: skip
    strength = [float(re.search(r"([\d.]+)\)$", c["colour"])[1]) for c in rows["solid"]]
    assert strength == [0.5, 0, 0, 0.75]


def test_pairs_are_the_nearest_of_each_class_at_native_size(tmp_path) -> None:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 255, (3, 160, 160)).astype(np.uint8)
    train = SimpleNamespace(images=real, masks=real > 127, sobel=real, image_ids=["a", "b", "c"])
    made, rows = rng.integers(0, 255, (6, 160, 160)).astype(np.uint8), []
    for n, image in enumerate(made):
        label = "AB"[n % 2]
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / label / f"{n}.png")
        scores = json.dumps({"nearest": 0.1 * n, "nearest_id": "abc"[n % 3], "donor": 0.5})
        rows.append({"label": label, "file": f"{label}/{n}.png", "scores": scores, "index": n})
    pictures = views.Pictures(tmp_path, train)
    found = views.pairs(pictures, pd.DataFrame(rows))
    assert [[p["file"] for p in found[label]] for label in "AB"] == [
        ["A/4.png", "A/2.png", "A/0.png"], ["B/5.png", "B/3.png", "B/1.png"],
    ]  # fmt: skip

    def pixels(address: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))

    first = found["A"][0]
    np.testing.assert_array_equal(pixels(first["made"]), made[4])
    np.testing.assert_array_equal(pixels(first["real"]), real[1])
    assert first["real_id"] == "b" and first["score"] == pytest.approx(0.4)
    assert views.small(real[0]).shape == (128, 128) and views.small(real[0, :64, :64]).shape == (64, 64)


def test_gates_show_threshold_and_count_and_keep_what_they_do_not_know() -> None:
    limits = {"mean": [20.0, 150.0], "sd_low": 12.0, "white_high": 0.05}
    thresholds = {"copy": 0.85, "donor": 0.95, "mask": None, "technical": limits}
    rejected = {"copy: too near to a real image": 3, "duplicate of image 4 (correlation 1.0)": 2, "new: reason": 1}
    rows = {r["reason"]: (r["threshold"], r["count"]) for r in views.gate_rows(rejected, thresholds)}
    assert rows["copy: too near to a real image"] == ("0.85", 3) and rows["copy: too near to its donor"] == ("0.95", 0)
    assert rows["duplicate"] == ("off", 2) and rows["new: reason"] == ("–", 1)
    assert rows["technical: too dark"] == ("20 – 150", 0) and rows["mask: nodule not where it was asked"] == ("off", 0)
    assert rows["copy: the pixels of a real image"] == ("none", 0)
    measured = dict.fromkeys(("copy", "hash", "texture", "realism", "attributes", "mask"), 1)
    flat = set(views.flat({**GateSettings().__dict__, **measured, "technical": limits}))
    assert {name for name in views.THRESHOLDS.values() if name} <= flat, "a threshold that no run stores"


def test_scores_and_cells_that_were_not_filled_by_hand() -> None:
    scores = [{"nearest": 0.2, "exact": None}, {"nearest": 0.6, "donor": 0.1}, {"nearest": 0.4}]
    found = views.score_rows(pd.DataFrame({"scores": [json.dumps(s) for s in scores]}))
    assert found == [
        {"name": "donor", "n": 1, "low": 0.1, "median": 0.1, "high": 0.1},
        {"name": "nearest", "n": 3, "low": 0.2, "median": 0.4, "high": 0.6},
    ]
    rows = [(0, True, 1, None), (1, False, 1, "a"), (1, True, 1, None), (2, False, 2, "a"), (2, False, 2, "b"),
            (3, False, 2, "a of image 7")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["index", "accepted", "plan_row", "reason"]).assign(label="A", fg="prompt")
    reasons = {"a": 2, "b": 1}
    assert views.unfilled(table) == [{"label": "A", "row": 2, "missing": 2, "fg": "prompt", "reasons": reasons}]


def test_spaced_takes_the_ends_and_no_position_twice() -> None:
    assert views.spaced(0, 5) == [] and views.spaced(1, 5) == [0] and views.spaced(3, 5) == [0, 1, 2]
    assert views.spaced(100, 2) == [0, 99]


def test_every_sentence_of_the_report_is_there_in_both_languages() -> None:
    environment = Environment(extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True)
    environment.newstyle_gettext = True
    text = files("tigergen.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    found = {m if isinstance(m, str) else m[0] for _, _, m in environment.extract_translations(text)}
    known = catalogue()

    def filled(sentence: str) -> list[str]:
        return sorted(re.findall(r"%\(\w+\)s|%%|</?\w+>", sentence))

    assert len(found) > 100 and found <= set(known), found - set(known)
    for english in found:
        assert filled(english) == filled(known[english]), english
        assert re.search(r"[\u4e00-\u9fff]", known[english]) or english == "Fréchet", english
    said = {*views.THRESHOLDS, *TITLES.values(), views.OFF, views.NONE, *(a.replace("_", " ") for a in BASE.attributes)}
    assert said <= set(known), said - set(known)
    outside = re.sub(r"{%-?\s*trans.*?endtrans\s*%}|{[{%#].*?[}%#]}|<style>.*?</style>|<[^>]+>", " ", text, flags=re.S)
    left = set(re.findall(r"[A-Za-z]{3,}", unescape(outside)))
    assert left == {"TigerData", "English"}, "words of the page that stand in one language only"


def test_bilingual_escapes_what_is_not_the_templates_own() -> None:
    both = page.bilingual({"a<b": "甲<乙"})
    assert (
        both("a<b") == ('<span class="l-en" lang="en">a&lt;b</span><span class="l-zh" lang="zh">甲&lt;乙</span>')
        and both("<i>") == "&lt;i&gt;"
    )


def test_the_verdict_says_the_same_in_both_languages() -> None:
    arms = [{"arm": "generated", "test": 0.81}, {"arm": "classical", "test": 0.7}]
    compared = {"target": "FTC", "arms": arms, "seeds": 4, "n_test_patients": 90}
    verdict = {"kind": "helps", "text": "Generated images help: …", "difference": 0.11, "ci": [0.02, 0.2]}
    text = chinese_verdict(compared | {"verdict": verdict})
    assert text and text.startswith("生成图像有帮助")
    assert all(n in text for n in ("FTC", "0.810", "0.700", "+0.110", "+0.020", "+0.200", "4 个种子", "90 名患者"))
    harms = chinese_verdict(compared | {"verdict": verdict | {"kind": "harms"}})
    assert harms and harms.startswith("生成图像有害")
    assert (
        chinese_verdict(None) == catalogue()["No classifier was trained, so this report cannot say whether it helps."]
    )


def test_a_chinese_name_comes_out_of_every_pattern_of_the_vocabulary() -> None:
    for attribute in BASE.attributes.values():
        for value in attribute.values.values():
            if value.zh:
                name = views.plain_chinese(value.zh[0])
                assert name and not set(name) & set("(|)") and name in value.surfaces("zh")
