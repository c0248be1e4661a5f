"""What one sentence means for a nodule: a table of phenomena of Chinese and English reports."""

from typing import Any

import pytest

from tigerdata.reports.parser import parse

ZH, EN = "左叶上极见一结节，", "There is a nodule in the left lobe. "

# (language, sentence, fields that the nodule must have beyond its place; nothing else may be there)
SENTENCES: list[tuple[str, str, dict[str, Any]]] = [
    # negation
    (ZH, "内未见明显钙化", {"calcification": ["absent"]}),
    (ZH, "未见明确微钙化", {"negated": ["microcalcification"]}),
    (ZH, "未见钙化、声晕及囊性变", {"calcification": ["absent"], "halo": "absent", "negated": ["cystic_change"]}),
    (ZH, "未见粗大钙化，但见点状强回声", {"calcification": ["microcalcification"], "negated": ["macrocalcification"]}),
    (ZH, "呈无回声", {"echogenicity": "anechoic"}),
    (ZH, "纵横比未见失调", {"negated": ["taller_than_wide"]}),
    (ZH, "纵横比未见明显失调", {"negated": ["taller_than_wide"]}),
    (ZH, "未见甲状腺外侵犯", {"extension": ["absent"]}),
    (ZH, "紧贴被膜，未见包膜中断", {"extension": ["abutting_capsule"], "negated": ["capsule_disruption"]}),
    (EN, "No calcification.", {"calcification": ["absent"]}),
    (EN, "Calcifications are not seen.", {"calcification": ["absent"]}),
    (EN, "Calcifications: none.", {"calcification": ["absent"]}),
    (EN, "No microcalcifications but coarse calcification.",
     {"calcification": ["macrocalcification"], "negated": ["microcalcification"]}),
    (EN, "It is solid, not cystic.", {"composition": "solid", "negated": ["cystic"]}),
    (EN, "There is no evidence of halo, spiculated margin or extrathyroidal extension.",
     {"halo": "absent", "extension": ["absent"], "negated": ["spiculated"]}),
    (EN, "Margins are not well defined.", {"margin": ["unclear"]}),
    (ZH, "内见粗大钙化，周边未见声晕", {"calcification": ["macrocalcification"], "halo": "absent"}),
    (ZH, "边缘光整，甲状腺被膜完整", {"margin": ["smooth"], "extension": ["absent"]}),
    (EN, "It is noncalcified.", {"calcification": ["absent"]}),
    (EN, "Mostly solid without cystic change.", {"composition": "predominantly_solid", "negated": ["cystic_change"]}),
    (EN, "Non-parallel orientation.", {"aspect": "taller_than_wide"}),
    (EN, "Not taller than wide.", {"aspect": "wider_than_tall"}),
    # uncertainty
    (ZH, "内似可见点状强回声", {"calcification": ["microcalcification"], "uncertain": ["calcification"]}),
    (ZH, "可疑微钙化", {"calcification": ["microcalcification"], "uncertain": ["calcification"]}),
    (ZH, "被膜侵犯不除外", {"extension": ["capsule_disruption"], "uncertain": ["extension"]}),
    (EN, "Possible microcalcifications.", {"calcification": ["microcalcification"], "uncertain": ["calcification"]}),
    (EN, "Microcalcification cannot be excluded.",
     {"calcification": ["microcalcification"], "uncertain": ["calcification"]}),
    # the longest form wins
    (ZH, "呈极低回声", {"echogenicity": "markedly_hypoechoic"}),
    (ZH, "回声欠均", {"echotexture": ["heterogeneous"]}),
    (ZH, "形態不規則，邊界清晰", {"shape": "irregular", "margin": ["clear"]}),
    (ZH, "边缘可见小分叶，形态尚规则", {"shape": "regular", "margin": ["lobulated"]}),
    (ZH, "周边声晕不连续", {"halo": "interrupted"}),
    (EN, "Very hypoechoic.", {"echogenicity": "markedly_hypoechoic"}),
    (EN, "Slightly hypoechoic.", {"echogenicity": "hypoechoic"}),
    (EN, "Ill-defined with irregular shape.", {"margin": ["unclear"], "shape": "irregular"}),
    (ZH, "边界欠清晰，形态尚规整", {"margin": ["unclear"], "shape": "regular"}),
    (ZH, "边缘不规则", {"margin": ["irregular_margin"]}),
    (ZH, "边界清晰规则", {"margin": ["clear"], "shape": "regular"}),
    (ZH, "呈囊实混合回声", {"composition": "mixed_cystic_solid", "echogenicity": "mixed_echo"}),
    (ZH, "囊实性，以囊性为主", {"composition": "predominantly_cystic"}),
    (ZH, "周边见低回声晕", {"halo": "present"}),
    (ZH, "周边见厚薄不均的晕环", {"halo": "unevenly_thick"}),
    (EN, "Irregular, spiculated margins.", {"margin": ["irregular_margin", "spiculated"]}),
    (EN, "Irregular shape.", {"shape": "irregular"}),
    (EN, "A thin halo; the halo is interrupted below.", {"halo": "interrupted"}),
    # relations and comet tails
    (ZH, "纵横比＞１", {"aspect": "taller_than_wide"}),
    (ZH, "纵横比约等于1", {}),
    (ZH, "类圆形，纵横比小于1", {"aspect": "wider_than_tall"}),
    (EN, "AP/TR < 1.", {"aspect": "wider_than_tall"}),
    (EN, "A/T ratio >1.", {"aspect": "taller_than_wide"}),
    (ZH, "内见点状强回声，后伴彗星尾征", {"calcification": ["comet_tail"]}),
    (ZH, "内见点状强回声，部分后方伴彗星尾", {"calcification": ["microcalcification", "comet_tail"]}),
    (ZH, "内见无回声区", {"echotexture": ["cystic_change"]}),
    # sizes
    (ZH, "大小约１２＊８mm", {"diameter_mm": [12, 8]}),
    (ZH, "大小约1.2厘米x0.8厘米", {"diameter_mm": [12, 8]}),
    (ZH, "长径约16~18mm", {"diameter_mm": [18]}),
    (ZH, "大小约9×7mm（前次6×5mm）", {"diameter_mm": [9, 7]}),
    (ZH, "约黄豆大小", {}),
    (ZH, "最大直径约0.9cm", {"diameter_mm": [9]}),
    (ZH, "大小约 9mm*6mm", {"diameter_mm": [9, 6]}),
    (EN, "It measures 1.4 by 0.9 by 1.0 cm.", {"diameter_mm": [14, 9, 10]}),
    (EN, "It measures <5 mm.", {"diameter_mm": [5], "diameter_op": "<"}),
    (EN, "It measures up to 4 mm.", {"diameter_mm": [4], "diameter_op": "<="}),
    (ZH, "大小约＜３ｍｍ", {"diameter_mm": [3], "diameter_op": "<"}),
    (ZH, "最大径不超过0.5cm", {"diameter_mm": [5], "diameter_op": "<="}),
    (ZH, "超过1cm者建议穿刺", {}),
    # two values left open
    (EN, "It is iso- to hypoechoic.", {"echogenicity": "isoechoic", "echogenicity_alt": "hypoechoic"}),
    (EN, "It is hypo- to isoechoic.", {"echogenicity": "hypoechoic", "echogenicity_alt": "isoechoic"}),
    (EN, "It is isoechoic or mildly hypoechoic.", {"echogenicity": "isoechoic", "echogenicity_alt": "hypoechoic"}),
    (ZH, "呈等至稍低回声", {"echogenicity": "isoechoic", "echogenicity_alt": "hypoechoic"}),
    (ZH, "呈低-等回声", {"echogenicity": "hypoechoic", "echogenicity_alt": "isoechoic"}),
    (ZH, "呈等回声，周边低回声", {"echogenicity": "isoechoic"}),
    (EN, "It measures 14mm x 9mm x 6mm.", {"diameter_mm": [14, 9, 6]}),
    (EN, "It measures 1.1 x .8 x .7cm.", {"diameter_mm": [11, 8, 7]}),
    (EN, "It measures 0.8 cm (AP) x 6 mm (TR).", {"diameter_mm": [8, 6]}),
    (EN, "It measures 1,2 x 0,8 cm, volume 0.5 mL.", {"diameter_mm": [12, 8]}),
    # risk categories
    (ZH, "C-TIRADS 4Ａ类", {"tirads": {"system": "C-TIRADS", "category": "4A"}}),
    (ZH, "4b类", {"tirads": {"system": "unspecified", "category": "4B"}}),
    (ZH, "TI-RADS Ⅳa级", {"tirads": {"system": "unspecified", "category": "4A"}}),
    (EN, "TI-RADS category 4a.", {"tirads": {"system": "unspecified", "category": "4A"}}),
    (ZH, "TI-RADS：Ⅲ类", {"tirads": {"system": "unspecified", "category": "3"}}),
    (ZH, "TI-RADS 3-4类", {}),
    (EN, "ACR TI-RADS: TR5 (9 points).", {"tirads": {"system": "ACR-TIRADS", "category": "5"}}),
    (EN, "EU-TIRADS 4.", {"tirads": {"system": "EU-TIRADS", "category": "4"}}),
    # things that are not said of the nodule
    (ZH, "CDFI示实性部分见血流信号", {}),
    (ZH, "余腺体回声不均匀", {}),
    (ZH, "颈部见肿大淋巴结，内见微钙化", {}),
    (EN, "If microcalcifications develop, consider FNA.", {}),
    (EN, "A level III lymph node shows calcification.", {}),
]  # fmt: skip


@pytest.mark.parametrize(("prefix", "sentence", "wanted"), SENTENCES, ids=[s for _, s, _ in SENTENCES])
def test_sentence(prefix: str, sentence: str, wanted: dict[str, Any]) -> None:
    found = parse(prefix + sentence)
    assert len(found["nodules"]) == 1
    nodule = dict(found["nodules"][0])
    place = nodule.pop("location")
    assert place == ({"side": "left", "pole": "upper"} if prefix == ZH else {"side": "left"})
    if not nodule["diameter_mm"]:
        del nodule["diameter_mm"]
    assert nodule == wanted


def brief(text: str) -> list[tuple[Any, ...]]:
    """(side, pole, sizes, echogenicity, margin, multiple) of each nodule."""
    return [
        (
            n["location"].get("side"), n["location"].get("pole"), n["diameter_mm"], n.get("echogenicity"),
            n.get("margin"), n.get("multiple", False),
        )
        for n in parse(text)["nodules"]
    ]  # fmt: skip


LOW, ISO = "hypoechoic", "isoechoic"
TEXTS: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("双侧甲状腺未见明显结节。", []),
    ("双侧颈部未见明显肿大淋巴结。", []),
    ("右叶切除术后，左叶见一结节，大小约7mm。", [("left", None, [7], None, None, False)]),
    ("A <4 mm nodule in the right lobe.", [("right", None, [4], None, None, False)]),
    ("No focal nodule is seen in either lobe.", []),
    ("左叶原有5×4mm结节本次未探及。", []),
    (
        "右叶见多发低回声结节，大者位于下极，大小约9×7mm，边界清。",
        [("right", "lower", [9, 7], LOW, ["clear"], True)],
    ),
    (
        "双叶见多个低回声结节，左叶大者约9×7mm，右叶大者约6×5mm，边界清晰。",
        [("left", None, [9, 7], LOW, ["clear"], True), ("right", None, [6, 5], LOW, ["clear"], True)],
    ),
    (
        "左叶上极见一低回声结节，大小6×5mm，边界不清；右叶见一等回声结节，大小8×7mm，上述结节边界清。",
        [("left", "upper", [6, 5], LOW, ["unclear"], False), ("right", None, [8, 7], ISO, ["clear"], False)],
    ),
    (
        "左叶上极及右叶下极各见一低回声结节，大小分别约6×5mm、8×7mm，前者边界不清，后者边界清。",
        [("left", "upper", [6, 5], LOW, ["unclear"], False), ("right", "lower", [8, 7], LOW, ["clear"], False)],
    ),
    (
        "右叶内见两个低回声结节，分别位于上极及下极，大小分别约5×4mm、3×2mm。",
        [("right", "upper", [5, 4], LOW, None, False), ("right", "lower", [3, 2], LOW, None, False)],
    ),
    (
        "左叶见2个低回声结节：①上极，5×4mm，边界清；②下极，6×3mm，边界不清。",
        [("left", "upper", [5, 4], LOW, ["clear"], False), ("left", "lower", [6, 3], LOW, ["unclear"], False)],
    ),
    (
        "右叶见一低回声结节，大小6×5mm，边界清。部分结节边界不清。",
        [("right", None, [6, 5], LOW, ["clear"], False)],
    ),
    (
        "甲状腺右叶体积略小，可见多个结节，大者位于上极，大小约9×7mm，边界清晰。",
        [("right", "upper", [9, 7], None, ["clear"], True)],
    ),
    ("甲状腺左叶回声减低，呈结节样改变。", []),
    ("左叶大小约45×16mm，右叶大小约46×15mm，峡部厚3mm。右叶见片状低回声区，边界不清。", []),
    ("Posterior to the left lobe is a 9 mm hypoechoic parathyroid adenoma.", []),
    (
        "Two nodules in the left lobe. The larger, in the upper pole, measures 14 x 10 mm and is isoechoic. "
        "The smaller one, in the lower pole, is 5 mm and hypoechoic. Both nodules are well-defined.",
        [("left", "upper", [14, 10], ISO, ["clear"], False), ("left", "lower", [5], LOW, ["clear"], False)],
    ),
    (
        "Nodule 1: right upper pole, 12 x 9 mm, hypoechoic. Nodule 2: isthmus, 6 mm, isoechoic, ill-defined.",
        [("right", "upper", [12, 9], LOW, None, False), ("isthmus", None, [6], ISO, ["unclear"], False)],
    ),
    (
        "RT lobe: 9 x 7 mm hypoechoic nod, mid, smooth margin.",
        [("right", "middle", [9, 7], LOW, ["smooth"], False)],
    ),
    (
        "Large, markedly hypoechoic, ill-defined mass replacing the left lobe, 6.0 x 5.0 cm.",
        [("left", None, [60, 50], "markedly_hypoechoic", ["unclear"], False)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), TEXTS, ids=[t[:28] for t, _ in TEXTS])
def test_which_nodule_is_meant(text: str, wanted: list[tuple[Any, ...]]) -> None:
    assert brief(text) == wanted


def test_gland_nodes_and_operation_are_no_nodules() -> None:
    found = parse(
        "甲状腺左叶切除术后，右叶大小约45×16×15mm，峡部厚约3mm，腺体回声增粗，不均匀。"
        "右侧颈部见淋巴结，大小约12×6mm，淋巴门消失。"
    )
    assert found["nodules"] == []
    assert found["gland"] == {"echotexture": "heterogeneous", "right_mm": [45, 16, 15], "isthmus_mm": 3}
    assert found["lymph_nodes"] == {"suspicious": True}
    assert found["post_operative"] is True


@pytest.mark.parametrize(
    ("text", "suspicious"),
    [
        ("双侧颈部未见异常肿大淋巴结。", False),
        ("Cervical lymph nodes with preserved hilum.", False),
        ("Left level IV lymph node with loss of the fatty hilum.", True),
        ("左侧颈部淋巴结大小约8×4mm。", None),
    ],
)
def test_lymph_nodes_are_judged_only_when_the_text_judges(text: str, suspicious: bool | None) -> None:
    assert parse(text)["lymph_nodes"].get("suspicious") is suspicious


def test_the_impression_adds_to_the_nodule_it_names() -> None:
    found = parse(
        "超声所见：左叶上极见一无回声结节，大小约5×4mm。右叶见一低回声结节，大小约9×8mm。"
        "超声提示：甲状腺左叶囊肿，C-TIRADS 2类；右叶结节，C-TIRADS 4B类，乳头状癌可能。"
    )
    left, right = found["nodules"]
    assert (left["composition"], left["tirads"]["category"]) == ("cystic", "2")
    assert right["tirads"]["category"] == "4B" and "composition" not in right
    assert {"value": "PTC", "certainty": "uncertain"} in found["diagnosis"]


def test_history_and_recommendations_are_left_out() -> None:
    found = parse(
        "HISTORY: Family history of medullary carcinoma, coarse calcification before. "
        "FINDINGS: Left lobe nodule, 8 mm. "
        "RECOMMENDATION: FNA if > 2.5 cm or if microcalcifications appear."
    )
    assert [n["diameter_mm"] for n in found["nodules"]] == [[8]]
    assert "calcification" not in found["nodules"][0] and found["diagnosis"] == []


PAIRS = [
    ("双叶均可见一低回声结节，左叶大小5×4mm，右叶大小6×5mm，边界清。", ["clear"], ["clear"]),
    ("双叶各见一低回声结节，右叶大小6×5mm，左叶大小5×4mm，边界清。", ["clear"], ["clear"]),
    ("双叶各见一低回声结节，大小分别为左叶5×4mm，右叶6×5mm。", None, None),
    ("左、右叶各可见一低回声结节，左叶者大小5×4mm，边界清，右叶者大小6×5mm，边界不清。", ["clear"], ["unclear"]),
]


@pytest.mark.parametrize(("text", "left", "right"), PAIRS)
def test_one_nodule_in_each_lobe_is_two_entries(text: str, left: list[str] | None, right: list[str] | None) -> None:
    found = parse(text)["nodules"]
    assert [n["location"]["side"] for n in found] == ["left", "right"]
    assert [n["diameter_mm"] for n in found] == [[5, 4], [6, 5]]
    assert [n["echogenicity"] for n in found] == ["hypoechoic"] * 2
    assert [n.get("margin") for n in found] == [left, right]
    assert not any(n.get("multiple") for n in found)


def test_what_is_inside_an_enlarged_lobe_is_the_nodule_itself() -> None:
    (found,) = parse("左叶体积增大，内可见一以实性为主的囊实混合回声结节，边界尚清晰。")["nodules"]
    assert (found["composition"], found["echogenicity"]) == ("predominantly_solid", "mixed_echo")


def test_several_nodules_in_both_lobes_stay_one_entry() -> None:
    found = parse("双叶均可见多个低回声结节，边界清。")["nodules"]
    assert [(n["location"]["side"], n["multiple"]) for n in found] == [("bilateral", True)]


def test_patches_of_the_remaining_gland_are_not_the_nodule_before_them() -> None:
    head = "双叶可见多个混合回声结节，左叶大者位于下极，大小约21mm×19mm，右叶大者位于上极，大小约5mm×5mm，边界清晰；"
    gland = "余腺体回声不均匀，可见多发小片状低回声区，边界不清。"
    assert parse(head + gland)["nodules"] == parse(head)["nodules"]


def test_nodules_of_a_group_that_are_listed_by_their_places_are_entries() -> None:
    found = parse(
        "右叶见多个结节，位于中上部的极低回声结节，大小约6×5mm，边界欠清晰；位于中下部的低回声结节，大小约9mm×12mm，边界清晰。"
    )["nodules"]
    assert [(n["location"]["pole"], n["diameter_mm"], n["echogenicity"], n["margin"]) for n in found] == [
        ("mid_upper", [6, 5], "markedly_hypoechoic", ["unclear"]),
        ("mid_lower", [9, 12], "hypoechoic", ["clear"]),
    ]
