"""Properties that hold for every text, and for the simulated and the real corpora."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tigerdata.phantom.corpus import patients, read_settings
from tigerdata.phantom.reporting import write_report
from tigerdata.reports.joined import join_columns
from tigerdata.reports.parser import parse
from tigerdata.reports.pathology import parse_pathology
from tigerdata.reports.text import normalise

WORDS = [
    "左叶", "上极", "见一", "低回声", "结节", "，", "。", "大小约", "１２×８ｍｍ", "①", "未见", "钙化", "㎜",
    "½", "ﬁ", "İ", "no ", "nodule ", "2 x 1 cm", " ", "\n", "邊界清", "TI-RADS Ⅳ", "?", "上述结节", "右叶大者", "分别",
    "前者", "the larger", "1、", "(", ")", ":", "淋巴结", "\u200b", "e\u0301", "🩺",
]  # fmt: skip


def check(text: str) -> None:
    for result in (parse(text), parse(text, "breast"), parse(text, "chest"), parse_pathology(text)):
        for row in result["evidence"]:
            assert text[row["start"] : row["end"]] == row["surface"]
            assert row["surface"]
        json.dumps(result)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
@example("①②③")
@example("左 叶 １．２ＣＭ")
def test_any_text_is_parsed_with_right_offsets(text: str) -> None:
    check(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join))
def test_any_order_of_report_words_is_parsed_with_right_offsets(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_normalised_positions_lead_back_to_the_original(text: str) -> None:
    source = normalise(text)
    assert len(source.text) == len(source.starts) == len(source.ends)
    assert list(source.starts) == sorted(source.starts)
    assert all(0 <= a < b <= len(text) for a, b in zip(source.starts, source.ends, strict=True))


def test_parsing_twice_gives_the_same_bytes() -> None:
    text = "双叶见多个低回声结节，左叶大者约9×7mm，右叶大者约6×5mm，边界清晰。TI-RADS 3类。"
    assert json.dumps(parse(text)) == json.dumps(parse(text))


def test_full_width_ocr_and_traditional_writing_say_the_same() -> None:
    plain = parse("甲状腺右叶见一低回声结节，大小约1.2cm×0.9cm，边界清，未见声晕")
    for other in (
        "甲 状 腺 右 叶 见 一 低 回 声 结 节 ， 大 小 约 １．２ＣＭ×０．９ＣＭ ， 边 界 清 ， 未 见 声 晕",
        "甲狀腺右葉見一低回聲結節，大小約1.2cm*0.9cm，邊界清，未見聲暈",
    ):
        found = parse(other)
        assert found["nodules"] == plain["nodules"]
        assert [r["surface"] for r in found["evidence"]] != []


CLAUSES = [
    "边界清晰", "形态不规则", "未见钙化", "周边见声晕", "纵横比>1", "内部回声不均匀", "紧贴被膜", "大小约9×7mm",
    "可疑囊性变", "CDFI示周边血流信号", "TI-RADS 4A类",
]  # fmt: skip
ENGLISH = [
    "margins are ill-defined", "no calcification", "it is solid", "hypoechoic", "taller than wide", "12 x 8 mm",
    "possible capsular invasion", "thin halo",
]  # fmt: skip


def without_order(nodule: dict[str, Any]) -> dict[str, Any]:
    return {k: sorted(v, key=str) if isinstance(v, list) and k != "diameter_mm" else v for k, v in nodule.items()}


@settings(max_examples=60, deadline=None)
@given(st.permutations(CLAUSES))
def test_the_order_of_independent_clauses_does_not_matter(clauses: list[str]) -> None:
    head = "左叶上极见一低回声结节，"
    found = parse(head + "，".join(clauses) + "。")["nodules"]
    wanted = parse(head + "，".join(CLAUSES) + "。")["nodules"]
    assert [without_order(n) for n in found] == [without_order(n) for n in wanted]
    assert len(found) == 1 and found[0]["diameter_mm"] == [9, 7] and found[0]["uncertain"] == ["echotexture"]


@settings(max_examples=40, deadline=None)
@given(st.permutations(ENGLISH))
def test_the_order_of_english_sentences_does_not_matter(sentences: list[str]) -> None:
    head = "There is a nodule in the left upper pole. "
    found = parse(head + ". ".join(sentences) + ".")["nodules"]
    wanted = parse(head + ". ".join(ENGLISH) + ".")["nodules"]
    assert [without_order(n) for n in found] == [without_order(n) for n in wanted]
    assert len(found) == 1 and found[0]["calcification"] == ["absent"]


PLAIN = (
    "甲状腺右叶见多发低回声结节，大者位于下极，大小约1.2×0.9cm，边界清，未见声晕，内见点状强回声。左叶上极见一无回声结节，"
    "大小5×4mm，TI-RADS 2类。双侧颈部未见肿大淋巴结。"
)


def written(text: str, how: str) -> str:
    """The same report in another writing."""
    if how == "spaced":
        return re.sub("(?<=[一-鿿，。])(?=[一-鿿，。0-9])", " ", text)
    if how == "full width":
        return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    if how == "lines":
        return text.replace("。", "。\n")
    if how == "windows lines":
        return text.replace("。", "。\r\n")
    if how == "old mac lines":
        return text.replace("。", "。\r")
    if how == "numbered":
        return "1、" + text.replace("。左叶", "。\n2、左叶")
    return text.translate(str.maketrans("状腺叶发节径边声晕点强无类颈侧肿淋结", "狀腺葉發節徑邊聲暈點強無類頸側腫淋結"))


@pytest.mark.parametrize(
    "how", ["spaced", "full width", "lines", "windows lines", "old mac lines", "numbered", "traditional"]
)
def test_another_writing_says_the_same_of_its_own_characters(how: str) -> None:
    text = written(PLAIN, how)
    found, plain = parse(text), parse(PLAIN)
    assert found["nodules"] == plain["nodules"] and found["lymph_nodes"] == plain["lymph_nodes"]
    assert [e["path"] for e in found["evidence"]] == [e["path"] for e in plain["evidence"]]
    assert all(text[e["start"] : e["end"]] == e["surface"] for e in found["evidence"])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text).text
    assert normalise(once).text == once


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 99), st.integers(1, 99), st.sampled_from(["mm", "cm", "毫米"]))
def test_a_size_changes_nothing_but_the_size(a: int, b: int, unit: str) -> None:
    def rest(text: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in n.items() if k != "diameter_mm"} for n in parse(text)["nodules"]]

    text = PLAIN.replace("5×4mm", f"{a}×{b}{unit}")
    assert rest(text) == rest(PLAIN)
    scale = 10 if unit == "cm" else 1
    assert parse(text)["nodules"][1]["diameter_mm"] == [a * scale, b * scale]


def slots(nodule: dict[str, Any]) -> set[tuple[str, str]]:
    flat = {
        (k, json.dumps(v))
        for k, v in nodule.items()
        if k not in ("location", "uncertain", "negated", "tirads", "multiple")
    }
    return flat | {(k, v) for k, v in nodule.get("location", {}).items()}


def test_simulated_reports_are_read_as_they_were_meant() -> None:
    """F1 of nodule attributes, against the truth that the simulator wrote the sentences from."""
    corpus = read_settings({"counts": {"train": {"benign": 45, "PTC": 45, "FTC": 45}}, "seed": 5})
    hit = extra = missed = 0
    number = 0
    for patient, frames in patients(corpus):
        for visit in {id(v): v for v, _ in frames}.values():
            number += 1
            rng = np.random.default_rng(number)
            report = write_report(patient, visit, visit.planes, corpus.languages, corpus.stated_fraction, rng)
            found = parse(join_columns(report.findings, report.impression))["nodules"]
            truth = json.loads(json.dumps(report.expected["nodules"], default=float))
            assert len(found) == len(truth), report.findings
            for mine, theirs in zip(found, truth, strict=True):
                a = {
                    k: sorted(v) if isinstance(v, list) and v and isinstance(v[0], str) else v for k, v in mine.items()
                }
                b = {
                    k: sorted(v) if isinstance(v, list) and v and isinstance(v[0], str) else v
                    for k, v in theirs.items()
                }
                a["diameter_mm"] = [float(x) for x in a["diameter_mm"]]
                b["diameter_mm"] = [float(x) for x in b.get("diameter_mm", [])]
                hit += len(slots(a) & slots(b))
                extra += len(slots(a) - slots(b))
                missed += len(slots(b) - slots(a))
    assert number > 50
    assert 2 * hit / (2 * hit + extra + missed) >= 0.98


@pytest.mark.realdata
def test_real_chinese_texts_are_parsed_with_right_offsets(real_data: Path) -> None:
    texts = set()
    for file in sorted((real_data / "reports_zh").glob("*.json")):
        for rows in json.loads(file.read_text(encoding="utf-8")).values():
            texts.update(row["finding"] for row in rows)
    assert len(texts) > 3000
    with_nodule = 0
    for text in sorted(texts):
        check(text)
        with_nodule += "甲状腺" in text and bool(parse(text)["nodules"])
    assert with_nodule > 1500
