"""What the parser leaves unread."""

from pathlib import Path

import pytest

from tigerdata.reports.unread import coverage, unread

KNOWN = "左叶上极见一低回声结节，大小约5×4mm，边界清晰，CDFI示周边可见少许血流信号。"


def test_a_report_of_known_words_is_read_in_full() -> None:
    assert unread(KNOWN) == []
    assert coverage([KNOWN]).share == 1.0


@pytest.mark.parametrize("planted", ["爆米花征", "zebroid", "ＺＥＢＲＯＩＤ"])
def test_a_planted_word_is_reported_at_its_place(planted: str) -> None:
    text = KNOWN.replace("边界清晰", f"边界清晰，{planted}")
    found = unread(text)
    assert [(surface, text[start:end]) for start, end, surface in found] == [(planted, planted)]
    assert coverage([text]).share < 1


def test_what_is_said_of_lymph_nodes_and_glands_is_no_matter() -> None:
    assert unread("甲状腺大小正常，腺体呈爆米花样回声。颈部淋巴结爆米花样。") == []


def test_the_head_of_a_form_and_the_next_step_are_no_unknown_words() -> None:
    assert unread("姓名：█ 性别：女 年龄：45岁 住院号：█ 电话：█。左叶见低回声结节，建议穿刺活检，FNA。") == []


def test_offsets_lead_into_the_original_with_spaces() -> None:
    text = "左 叶 见 一 低 回 声 结 节 ， 爆 米 花 征"
    assert [text[a:b] for a, b, _ in unread(text)] == ["爆 米 花 征"]


def test_a_text_without_nodules_has_a_share_of_one() -> None:
    found = coverage(["", "甲状腺大小正常。"])
    assert (found.texts, found.units, found.share) == (2, 0, 1.0)


@pytest.mark.realdata
@pytest.mark.parametrize(("organ", "least"), [("thyroid", 0.97)])
def test_the_real_texts_are_read(real_data: Path, organ: str, least: float) -> None:
    import json

    rows = json.loads((real_data / "reports_zh" / f"{organ}.json").read_text(encoding="utf-8"))
    texts = [row["finding"] for part in rows.values() for row in part]
    found = coverage(texts, organ)
    assert found.texts > 1900 and found.units > 50_000
    assert found.share >= least
