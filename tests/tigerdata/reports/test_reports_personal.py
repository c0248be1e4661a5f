"""Personal data is found and removed, and no clinical number with it: planted pieces, real texts, dates that move."""

import importlib.util
import json
import re
import sys
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tigerdata.phantom.corpus import patients, read_settings
from tigerdata.reports import dates
from tigerdata.reports.personal import KINDS, MASK, id_card_valid, redact


def load_planted() -> ModuleType:
    path = Path(__file__).with_name("planted.py")
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


PLANTED = load_planted()


@pytest.mark.parametrize("level", ["standard", "strict"])
def test_planted_pieces_are_removed(level: str) -> None:
    """Recall >= .98 over 20 pieces of each kind and language; the text around them stays, character for character."""
    found: Counter[tuple[str, str]] = Counter()
    missed = []
    pieces = PLANTED.planted()
    for piece in pieces:
        clean = redact(piece.text, level, -40)
        if piece.secret not in clean.text and clean.total:
            found[piece.kind, piece.language] += 1
        else:
            missed.append((piece.kind, piece.language, piece.text))
        kept = clean.text if level == "standard" else clean.text.replace(MASK, "")
        body = piece.body if level == "standard" else piece.body.replace(MASK, "")
        assert body in kept, (piece.text, clean.text)
    print(f"\nrecall of planted pieces, --phi {level} (20 each)\nkind     zh    en")
    for kind in PLANTED.KINDS:
        print(f"{kind:8} {found[kind, 'zh'] / 20:.2f}  {found[kind, 'en'] / 20:.2f}")
    recall = sum(found.values()) / len(pieces)
    print(f"all {recall:.4f} of {len(pieces)}")
    assert len(pieces) == 280 and recall >= 0.98, missed
    assert min(found[kind, language] for kind in PLANTED.KINDS for language in ("zh", "en")) >= 19, missed


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("姓名：王小明 男 45岁", "姓名：███ 男 45岁"),
        ("姓名：阿依古丽·买买提 女", "姓名：████████ 女"),
        ("患者李四左叶见结节", "患者██左叶见结节"),
        ("住院号：ZY0012345 12mm结节", "住院号：█████████ 12mm结节"),
        ("家住上海市徐汇区漕溪北路88弄12号楼502室。", "家住█████████████████████。"),
        ("电话13800138000", "电话███████████"),
        ("MRN: 7654321, 1.2 cm nodule", "MRN: ███████, 1.2 cm nodule"),
        ("96岁", "██岁"),
        ("A 93-year-old woman", "A ██-year-old woman"),
        ("床号：12，", "床号：██，"),
    ],
)
def test_a_text_keeps_its_length(text: str, clean: str) -> None:
    found = redact(text)
    assert found.text == clean and len(clean) == len(text) and found.total == 1
    assert set(found.removed) <= set(KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "患者所指处见结节，患者左叶，患者平卧，患者高血压病史，患者单发结节，患者石灰样钙化",
        "Nodule 1: 1.2 x 0.8 cm, TI-RADS 4a, PSV 120.5 cm/s, RI 0.65, 50-75%, 10 o'clock, ACR TI-RADS 2017",
        "C-TIRADS 4A类，检查部位：甲状腺，2017版ACR，2020年中国指南，随访3-6个月，约12×8×7mm，12点方向",
        "结节1号：大小约1.2×0.8cm；2号结节：15×11mm。临床：2级。床旁超声。",
        "Patient Position: Supine. Technique: Gray Scale. Exam: US Thyroid. Report: 2 nodules. Study: 12 mm nodule",
        "血流阻力指数0.62，流速12.3/4.5cm/s，弹性评分3分，杨氏模量35.6kPa，频率7-14MHz，第1-2肋间",
        "医师建议随访。医生：建议复查。主任查房。单位：mm。检查者未见异常。",
        "uid 1.2.840.10008.1.2, 45岁, 3 of 12 images",
        "信号12级，II区淋巴结，IV区8×4mm，BI-RADS 4b，Adler 2级，S/D 3.12",
    ],
)
def test_findings_are_left_alone(text: str) -> None:
    for level in ("standard", "strict"):
        assert redact(text, level) == type(redact(""))(text, Counter())


def test_strict_removes_more() -> None:
    text = "姓名：Xq 编码 12345678，北京协和医院检查，2023-05-12，Name: john doe; uid 123456"
    standard, strict = redact(text, shift_days=-10).text, redact(text, "strict", -10).text
    assert "12345678" in standard and "协和医院" in standard and "2023-05-02" in standard and "john" in standard
    for secret in ("12345678", "协和", "2023", "john", "Xq", "123456"):
        assert secret not in strict


def test_what_other_columns_say_is_removed_everywhere() -> None:
    known = [("name", "白云"), ("number", "88001"), ("number", "12"), ("name", "Kim")]
    assert redact("白云女士结节12mm，编号88001。", known=known).text == "██女士结节12mm，编号█████。"
    assert redact("白云状回声", known=[]).text == "白云状回声"


def test_identity_numbers_check_themselves() -> None:
    assert id_card_valid("11010519491231002X") and not id_card_valid("110105194912310020")
    assert not id_card_valid("1101051949123100") and not id_card_valid("1101051949123100２X")
    # 18 digits that are neither valid nor a date of birth are some other number; strict takes those too.
    assert redact("系列 123456789912345678").total == 0
    assert redact("系列 123456789912345678", "strict").total == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["standard", "strict"]), st.none() | st.integers(-365, -1))
def test_any_text_is_cleaned_without_error_and_twice_is_once(text: str, level: str, days: int | None) -> None:
    once = redact(text, level, None if days is None else days)
    if not once.removed["date"]:
        assert len(once.text) == len(text)
        assert redact(once.text, level).total == 0 or once.total


# --- dates


@pytest.mark.parametrize(
    ("text", "days", "moved"),
    [
        ("2023-05-12", -40, "2023-04-02"), ("2023/1/2", -1, "2023/1/1"), ("2023.05.12", -12, "2023.04.30"),
        ("2023年5月12日", -12, "2023年4月30日"), ("20230512", -12, "20230430"), ("5月12日", -12, "4月30日"),
        ("2023年5月", -30, "2023年4月"), ("May 12, 2023", -12, "Apr 30, 2023"), ("12 May 2023", -12, "30 Apr 2023"),
        ("SEPTEMBER 3, 2020", -3, "AUGUST 31, 2020"), ("05/13/2023", -13, "04/30/2023"),
        ("13/05/2023", -13, "30/04/2023"),
        ("２０２３-０５-１２", -12, "2023-04-30"),
        ("2023-02-31", -1, "██████████"), ("02/03/2023", -1, "██████████"),
        ("2023-05-12 14:03:22 复查", -12, "2023-04-30 14:03:22 复查"),
    ],
)  # fmt: skip
def test_dates_move(text: str, days: int, moved: str) -> None:
    assert redact(text, shift_days=days).text == moved
    assert not re.search(r"\d", redact(text, "strict", days).text)


@pytest.mark.parametrize("text", ["2017 ACR TI-RADS", "2020年版", "1.2.2023", "12-05", "3月后复查", "0.2023-05-12"])
def test_what_is_no_date_stays(text: str) -> None:
    assert redact(text, shift_days=-5).text in (text, MASK * len(text))


@given(
    st.dates(date(1990, 1, 1), date(2030, 12, 31)),
    st.dates(date(1990, 1, 1), date(2030, 12, 31)),
    st.integers(-365, -1),
)
def test_intervals_between_dates_stay(first: date, second: date, days: int) -> None:
    text = f"{first:%Y-%m-%d}，{second.year}年{second.month}月{second.day}日"
    clean = redact(text, shift_days=days).text
    found = [date(*map(int, re.findall(r"\d+", part))) for part in clean.split("，")]
    assert found == [first + timedelta(days), second + timedelta(days)]
    assert dates.shift_iso(str(first), days) == (first + timedelta(days)).isoformat()


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("2023-05-12", "2023-05-11"), ("2023-05-12 14:03:00", "2023-05-11"), ("20230512", "2023-05-11"),
        ("45058", "2023-05-11"), ("13/05/2023", "2023-05-12"), ("2023年5月12日", "2023-05-11"),
        ("02/03/2023", None), ("2023-02-31", None), ("5月12日", None), ("yesterday", None),
        ("", None), ("2023年5月", None),
    ],
)  # fmt: skip
def test_a_column_of_dates_becomes_iso_or_nothing(cell: str, found: str | None) -> None:
    assert dates.shift_iso(cell, -1) == found


# --- real texts

SIZES = ["12×8", "1.2*0.9", "23x15", "7×6"]


def with_numbers(text: str) -> str:
    """The public texts have placeholders where numbers were; put numbers of every clinical kind back."""
    number = iter(range(10**6))
    text = re.sub("_[23]DS_", lambda m: SIZES[next(number) % 4] + ("×5mm" if m[0] == "_3DS_" else "mm"), text)
    text = text.replace("_SCM_", "1.25cm").replace("_SMM_", "8.5mm").replace("_Loc_", "2点").replace("_LocR_", "3点")
    return text.replace("_r_", "2.5") + "PSV 123.4cm/s，RI 0.65，约50%，C-TIRADS 4a类，TI-RADS 3级，随访12个月。"


@pytest.mark.realdata
def test_no_clinical_number_is_eaten_in_real_texts(real_data: Path) -> None:
    """Every real text, with its placeholders as they are and with numbers in their place, goes through unchanged."""
    texts = []
    for name in ("thyroid", "breast"):
        parts = json.loads((real_data / "reports_zh" / f"{name}.json").read_text(encoding="utf-8"))
        texts += [row["finding"] for part in parts.values() for row in part]
    english = [path.read_text(encoding="utf-8") for path in sorted((real_data / "reports_en").glob("*.txt"))]
    assert len(texts) == 4070 and len(english) == 2
    changed = [
        (k, level)
        for k, text in enumerate([*texts, *map(with_numbers, texts), *english])
        for level in ("standard", "strict")
        if redact(text, level, -40).text != text
    ]
    print(f"\n{2 * len(texts) + len(english)} real texts, both levels: {len(changed)} changed")
    assert not changed  # numbers of the texts, not the texts: nothing of a report is printed


def test_no_simulated_report_is_changed() -> None:
    import numpy as np

    from tigerdata.phantom.reporting import write_report

    corpus = read_settings({"counts": {"train": {"PTC": 20, "benign": 20, "FTC": 10}}, "seed": 5})
    for number, (patient, frames) in enumerate(patients(corpus)):
        for visit in {id(v): v for v, _ in frames}.values():
            rng = np.random.default_rng(number)
            report = write_report(patient, visit, visit.planes, corpus.languages, corpus.stated_fraction, rng)
            for text in (report.findings, report.impression):
                assert redact(text, "strict").text == text
