"""The parser's components, each on its own."""

import pytest

from kb.cues import load_cues
from tigerdata.reports.assertion import Scopes, cue_spans
from tigerdata.reports.clauses import sections, split
from tigerdata.reports.joined import join_columns
from tigerdata.reports.measures import find_sizes
from tigerdata.reports.pathology import parse_pathology
from tigerdata.reports.terms import finder
from tigerdata.reports.text import language_of, normalise
from tigerdata.reports.tirads import find_categories


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Ｃ－ＴＩＲＡＤＳ ４Ａ", "c-tirads 4a"),
        ("①低回声，15×11㎜", "①低回声，15x11mm"),
        ("低 回 声 结 节", "低回声结节"),
        ("左叶 lower pole", "左叶 lower pole"),
        ("Ⅳ區淋巴結", "iv区淋巴结"),
        ("", ""),
    ],
)
def test_normalise(text: str, plain: str) -> None:
    assert normalise(text).text == plain


def test_a_span_leads_back_over_dropped_spaces_and_longer_forms() -> None:
    source = normalise("大 小 １２㎜")
    start = source.text.index("12mm")
    a, b = source.span(start, start + 4)
    assert source.original[a:b] == "１２㎜"


def test_language_by_share_of_chinese() -> None:
    assert language_of("右叶 nodule 低回声") == "zh"
    assert (
        language_of("Thyroid US (甲状腺): solid hypoechoic nodule in the left lower pole, ill defined margin") == "en"
    )


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12x8x7mm", [(12, 8, 7)]),
        ("1.2cmx0.9cmx0.8cm", [(12, 9, 8)]),
        ("1.2 by 0.8 by 0.9 cm", [(12, 8, 9)]),
        ("0.8 cm (ap) x 6 mm (tr) x 7 mm (cc)", [(8, 6, 7)]),
        (".8 x .7cm", [(8, 7)]),
        ("1,2 x 0,8 cm", [(12, 8)]),
        ("1.0-1.2 cm", [(12,)]),
        ("16~18mm", [(18,)]),
        ("5公分", [(50,)]),
        ("约_2ds_", [()]),
        ("大小5x4mm、3x2mm", [(5, 4), (3, 2)]),
        (">= 2.5 cm", []),
        ("psv 35 cm/s", []),
        ("volume 0.47 ml", []),
        ("3/8枚", []),
        ("2023-05-12", []),
        ("foci x 3", []),
        ("tr5 (9 points)", []),
    ],
)
def test_sizes(text: str, values: list[tuple[float, ...]]) -> None:
    assert [s.values for s in find_sizes(text)] == values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("c-tirads 4b类", [("C-TIRADS", "4B")]),
        ("ti-rads iv类", [("unspecified", "4")]),
        ("acr ti-rads 2017 total points: 12", []),
        ("acr ti-rads risk category: tr5 (12 points)", [("ACR-TIRADS", "5")]),
        ("k-tirads 4. eu-tirads 5.", [("K-TIRADS", "4"), ("EU-TIRADS", "5")]),
        ("u3", [("BTA", "3")]),
        ("c-tirads 3-4a类", []),
        ("四类", []),
        ("ti-rads四类", [("unspecified", "4")]),
        ("2类；3类", [("unspecified", "2"), ("unspecified", "3")]),
    ],
)
def test_categories(text: str, found: list[tuple[str, str]]) -> None:
    assert [(c.system, c.category) for c in find_categories(text)] == found


def test_terms_of_two_attributes_may_overlap_but_not_swallow_each_other() -> None:
    found = [(t.attribute, t.value) for t in finder().find("囊实混合回声，边缘不规则，taller - than-wide")]
    assert found == [
        ("composition", "mixed_cystic_solid"),
        ("echogenicity", "mixed_echo"),
        ("margin", "irregular_margin"),
        ("aspect", "taller_than_wide"),
    ]
    assert finder().find("左右径12mm，颈总动脉") == []


def test_sections_and_a_comparison_without_findings() -> None:
    text = "history: x. findings: y. impression: z. recommendation: w"
    assert [(text[a:b].strip(), name) for a, b, name in sections(text)] == [
        ("x.", "skip"),
        ("y.", "findings"),
        ("z.", "impression"),
        ("w", "skip"),
    ]
    text = "comparison: 2020. the nodule is 5 mm."
    assert [(text[a:b].strip(), name) for a, b, name in sections(text)] == [
        ("2020.", "skip"),
        ("the nodule is 5 mm.", "findings"),
    ]


def test_clauses_never_cut_a_measurement_and_know_their_marker() -> None:
    text = "①左叶，1.2x0.8cm，实性；②右叶，实性。"
    clauses = split(text, [s.span for s in find_sizes(text)])
    assert [(text[c.start : c.end], c.ordinals) for c in clauses] == [
        ("左叶", (1,)),
        ("1.2x0.8cm", ()),
        ("实性", ()),
        ("右叶", (2,)),
        ("实性", ()),
    ]


@pytest.mark.parametrize(
    ("text", "term", "certainty"),
    [
        ("未见明显钙化", "钙化", "negated"),
        ("未见粗大钙化但见微钙化", "微钙化", "positive"),
        ("钙化不除外", "钙化", "uncertain"),
        ("不除外钙化", "钙化", "uncertain"),
        ("可疑钙化", "钙化", "uncertain"),
        ("halo is absent", "halo", "negated"),
        ("halo cannot be excluded", "halo", "uncertain"),
        ("no halo but calcification", "calcification", "positive"),
        ("no change in calcification", "calcification", "positive"),
    ],
)
def test_assertion(text: str, term: str, certainty: str) -> None:
    start = text.index(term)
    span = (start, start + len(term))
    assert Scopes(cue_spans(load_cues(), text, 0, len(text)), 0, [span]).of(*span).certainty == certainty


@pytest.mark.parametrize(
    ("text", "subtype", "conflict"),
    [
        ("（左叶）甲状腺乳头状癌，滤泡亚型", "PTC", None),
        ("Papillary thyroid carcinoma, follicular variant", "PTC", None),
        ("甲状腺滤泡癌，微小浸润型", "FTC", None),
        ("follicular carcinoma, minimally invasive", "FTC", None),
        ("髓样癌，中央区淋巴结2/5枚转移", "MTC", None),
        ("乳头状癌伴未分化癌成分", "ATC", None),
        ("左叶髓样癌；右叶乳头状癌", "MTC", "MTC; PTC"),
        ("右叶乳头状癌；左叶结节性甲状腺肿", "PTC", None),
        ("Hürthle cell (oncocytic) carcinoma", "other_malignant", None),
        ("Poorly differentiated thyroid carcinoma", "other_malignant", None),
        ("NIFTP", "indeterminate", None),
        ("滤泡性肿瘤，恶性潜能未定", "indeterminate", None),
        ("可疑乳头状癌", "indeterminate", None),
        ("Bethesda category IV", "indeterminate", None),
        ("Bethesda II", "benign", None),
        ("Follicular adenoma. No evidence of papillary carcinoma.", "benign", None),
        ("Family history of medullary carcinoma. Nodular goiter.", "benign", None),
        ("Negative for carcinoma.", "none", None),
        ("Non-diagnostic.", "none", None),
    ],
)
def test_pathology(text: str, subtype: str, conflict: str | None) -> None:
    found = parse_pathology(text)
    assert (found["subtype"], found["conflict"]) == (subtype, conflict)
    assert all(text[e["start"] : e["end"]] == e["surface"] for e in found["evidence"])


def test_columns_are_joined_with_headings() -> None:
    assert join_columns("左叶结节。", "良性") == "超声所见：左叶结节。\n超声提示：良性"
    assert join_columns("Normal.") == "FINDINGS: Normal."
