"""Reports of simulated examinations in Chinese and English house styles, with the gold parse of what they say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tigerdata.phantom import house_styles
from tigerdata.phantom.cases import NoduleCase, Patient, Visit
from tigerdata.phantom.risk import acr_tirads, c_tirads
from tigerdata.phantom.wording import PATHOLOGY, TABLES

ATTRIBUTES = (
    "composition", "echogenicity", "aspect", "shape", "margin", "halo", "echotexture", "calcification", "extension",
)  # fmt: skip
LISTS = ("echotexture", "calcification", "margin", "extension")
# Reports mention extension mostly where there is one.
EXTENSION_ABSENT_STATED = 0.4


@dataclass
class Entry:
    """What a report says of one nodule: clauses by attribute, words of place and size, and the gold of it."""

    clauses: dict[str, list[str]]
    side: str
    pole: str
    size: str
    tirads: str
    gold: dict[str, Any] = field(default_factory=dict)
    plane: str = ""
    multiple: bool = False


@dataclass(frozen=True)
class Report:
    """A written report: language, findings, impression, and the expected parse (contract of `report_cases.yaml`)."""

    language: str
    findings: str
    impression: str
    expected: dict[str, Any]


def choose(options: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def write_report(
    patient: Patient,
    visit: Visit,
    planes: Sequence[str],
    languages: Sequence[str],
    stated: float,
    rng: np.random.Generator,
) -> Report:
    """Write the report of one visit.

    Each attribute of a nodule is stated with probability `stated`, whatever the class; `expected` holds exactly what
    the text says. The words depend on the attributes only, never on the class.
    """
    language = choose(tuple(languages), rng)
    nodules = [patient.nodule] + ([patient.second] if patient.second else [])
    if len(nodules) == 2 and rng.uniform() < 0.5:
        nodules.reverse()
    entries = [_entry(nodule, language, stated, len(nodules) > 1, rng) for nodule in nodules]
    if len(set(planes)) == 1 and len(entries) == 1 and rng.uniform() < 0.12:
        entries[0].plane = choose(TABLES[language]["sonogram_direction"][planes[0]], rng)
        entries[0].gold["sonogram_direction"] = [planes[0]]
    expected: dict[str, Any] = {"nodules": [entry.gold for entry in entries]}
    write = house_styles.chinese if language == "zh" else house_styles.english
    gland, gland_text = _gland(language, rng)
    nodes, nodes_text = _lymph_nodes(language, rng)
    if gland:
        expected["gland"] = gland
    if nodes:
        expected["lymph_nodes"] = nodes
    findings, impression = write(entries, gland_text, nodes_text, visit.exam_id[-1] != "1", rng)
    return Report(language, findings, impression, expected)


def _entry(nodule: NoduleCase, language: str, stated: float, place_needed: bool, rng: np.random.Generator) -> Entry:
    words = TABLES[language]
    gold: dict[str, Any] = {}
    clauses: dict[str, list[str]] = {}
    for name in ATTRIBUTES:
        values = nodule.attributes.get(name, [])
        keep = rng.uniform() < stated
        if values == ["absent"] and name == "extension":
            keep = rng.uniform() < EXTENSION_ABSENT_STATED
        if not values or not keep:
            continue
        clauses[name] = [choose(words[name][value], rng) for value in values]
        gold[name] = list(values) if name in LISTS else values[0]
    _hedge(clauses, gold, language, rng)
    where = nodule.attributes["nodule_location"]
    side = pole = ""
    if place_needed or rng.uniform() < 0.95:
        side = choose(words["nodule_location"][where[0]], rng)
        gold["location"] = {"side": where[0]}
        if len(where) > 1 and rng.uniform() < 0.9:
            pole = choose(words["nodule_location"][where[1]], rng)
            gold["location"]["pole"] = where[1]
    size, millimetres = _size(nodule.size_mm, language, rng)
    gold["diameter_mm"] = millimetres
    tirads = ""
    if rng.uniform() < 0.8:
        if language == "zh":
            category = c_tirads(nodule.attributes)
            tirads = f"C-TIRADS {category}类"
            gold["tirads"] = {"system": "C-TIRADS", "category": category}
        else:
            category = acr_tirads(nodule.attributes)
            tirads = f"ACR TI-RADS {category}"
            gold["tirads"] = {"system": "ACR", "category": category}
    return Entry(clauses, side, pole, size, tirads, gold)


def _hedge(clauses: dict[str, list[str]], gold: dict[str, Any], language: str, rng: np.random.Generator) -> None:
    """Now and then, deny microcalcification alone or hedge it, as reports do."""
    values = gold.get("calcification")
    draw = rng.uniform()
    if values == ["absent"] and draw < 0.08:
        clauses["calcification"] = ["未见微钙化" if language == "zh" else "no microcalcifications"]
        del gold["calcification"]
        gold["negated"] = ["microcalcification"]
    elif values == ["microcalcification"] and draw < 0.08:
        clauses["calcification"] = ["可疑微钙化" if language == "zh" else "possible microcalcifications"]
        gold["uncertain"] = ["calcification"]


def _size(size_mm: Sequence[float], language: str, rng: np.random.Generator) -> tuple[str, list[float]]:
    """Measurements as text and in mm: one to three numbers, the longest first, rounded to whole millimetres."""
    whole = sorted((round(value) for value in size_mm), reverse=True)[: int(choose((1, 2, 2, 3, 3, 3), rng))]
    if language == "zh":
        sign = choose(("×", "×", "x", "*"), rng)
        if rng.uniform() < 0.35:
            return sign.join(f"{value / 10:.1f}" for value in whole) + "cm", [float(v) for v in whole]
        return sign.join(str(value) for value in whole) + "mm", [float(v) for v in whole]
    if rng.uniform() < 0.6:
        return " x ".join(f"{value / 10:.1f}" for value in whole) + " cm", [float(v) for v in whole]
    return " x ".join(str(value) for value in whole) + " mm", [float(v) for v in whole]


def _gland(language: str, rng: np.random.Generator) -> tuple[dict[str, Any], list[str]]:
    """Gold of the gland and two sentences: its size and its echotexture (either may be empty)."""
    gold: dict[str, Any] = {}
    sizes = texture = ""
    if rng.uniform() < 0.7:
        left, right = ([int(rng.integers(40, 52)), int(rng.integers(13, 19)), int(rng.integers(13, 19))] for _ in "ab")
        isthmus = int(rng.integers(2, 5))
        gold = {"left_mm": left, "right_mm": right, "isthmus_mm": isthmus}
        if language == "zh":
            sides = [f"{name}大小约{'×'.join(map(str, mm))}mm" for name, mm in (("左叶", left), ("右叶", right))]
            sizes = f"甲状腺{sides[0]}，{sides[1]}，峡部厚约{isthmus}mm。"
        else:
            sides = [" x ".join(f"{value / 10:.1f}" for value in mm) + " cm" for mm in (right, left)]
            sizes = f"Right lobe: {sides[0]}. Left lobe: {sides[1]}. Isthmus: {isthmus / 10:.1f} cm."
    if rng.uniform() < 0.5:
        value = "homogeneous" if rng.uniform() < 0.7 else "heterogeneous"
        gold["echotexture"] = value
        if language == "zh":
            texture = "余腺体回声均匀。" if value == "homogeneous" else "余腺体回声不均匀。"
        else:
            texture = f"The thyroid parenchyma is {value}."
    return gold, [sizes, texture]


def _lymph_nodes(language: str, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    draw = rng.uniform()
    if draw < 0.72:
        zh = ("双侧颈部未见明显肿大淋巴结。", "双侧颈部未见异常肿大淋巴结。")
        en = ("No suspicious cervical lymph nodes.", "No cervical lymphadenopathy.")
        return {"suspicious": False}, choose(zh if language == "zh" else en, rng)
    if draw < 0.75:
        long, short = int(rng.integers(10, 18)), int(rng.integers(5, 9))
        if language == "zh":
            text = f"右侧颈部Ⅲ区见肿大淋巴结，大小约{long}×{short}mm，淋巴门消失。"
        else:
            text = f"Enlarged right level III lymph node measuring {long} x {short} mm with loss of the fatty hilum."
        return {"suspicious": True, "max_mm": [long, short]}, text
    return {}, ""


def pathology_text(patient: Patient, languages: Sequence[str], rng: np.random.Generator) -> str:
    """Pathology of the examined nodule: entity, side, tumour size of a cancer, and a line on nodes or margins."""
    language = choose(tuple(languages), rng)
    entity = choose(PATHOLOGY[language][patient.label], rng)
    side = patient.nodule.side
    size = f"{round(max(patient.nodule.size_mm)) / 10:.1f}"
    cancer = patient.label != "benign"
    if language == "zh":
        place = {"left": "左叶", "right": "右叶", "isthmus": "峡部"}[side]
        text = f"病理诊断：（{place}）{entity}" + (f"，肿瘤最大径{size}cm。" if cancer else "。")
        return text + ("中央区淋巴结0/5枚见癌转移。" if cancer and rng.uniform() < 0.4 else "")
    place = {"left": "Left thyroid lobe", "right": "Right thyroid lobe", "isthmus": "Thyroid isthmus"}[side]
    text = f"{place}: {entity}" + (f", {size} cm." if cancer else ".")
    return text + (" Surgical margins negative." if cancer and rng.uniform() < 0.4 else "")
