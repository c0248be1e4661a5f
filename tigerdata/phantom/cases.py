"""Draw nodules, patients and visits from the attribute profiles of the knowledge base."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kb import KnowledgeBase
from tigerdata.phantom.nodule import Attributes, draw_size
from tigerdata.phantom.visible import UNDRAWN, VISIBLE_VALUES

Rule = tuple[tuple[str, frozenset[str]], ...]

SIDES = {"left": 0.47, "right": 0.47, "isthmus": 0.06}
# Attributes are drawn in this order; each is drawn among the values that do not contradict those before it.
ORDER = (
    "composition", "echogenicity", "echotexture", "calcification", "shape", "aspect", "margin", "halo", "diameter",
    "extension",
)  # fmt: skip


@dataclass(frozen=True)
class NoduleCase:
    """A nodule: canonical attributes (without direction), side, identity (seeds its outline), diameters in mm."""

    attributes: Attributes
    side: str
    identity: int
    size_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Visit:
    """One examination: planes of its frames (attribute `sonogram_direction`), machine seed, ISO date."""

    exam_id: str
    date: str
    planes: tuple[str, ...]
    machine: int


@dataclass(frozen=True)
class Patient:
    """A patient of one class with one examined nodule and, for the text only, a second one in the other lobe."""

    patient_id: str
    label: str
    cohort: str
    sex: str
    age: int
    nodule: NoduleCase
    second: NoduleCase | None
    visits: tuple[Visit, ...]


def draw_attributes(
    base: KnowledgeBase, profile: Mapping[str, Mapping[str, float]], rng: np.random.Generator
) -> tuple[Attributes, str]:
    """Draw the attributes of one nodule and its side from a profile (attribute -> value -> probability).

    Values that `base.impossible` or `visible.undrawn` exclude, given those drawn before, get probability zero; the
    others keep their ratios.
    """
    rules = _rules(base)
    attributes: Attributes = {}
    for name in ORDER:
        value = _choose(rules, attributes, name, profile[name], rng)
        attributes[name] = [value]
        if name == "margin" and value in ("clear", "smooth") and rng.uniform() < 0.15:
            attributes[name] = ["clear", "smooth"]  # the same picture in two words, as reports often have it
    side = _choose(rules, attributes, "nodule_location", SIDES, rng)
    pole = _pick(profile["nodule_location"], rng)
    attributes["nodule_location"] = [side] if side == "isthmus" else [side, pole]
    return attributes, side


def uniform_attributes(base: KnowledgeBase, rng: np.random.Generator) -> tuple[Attributes, str, str]:
    """Attributes uniform over visible values, but for the commonest of some; values that look alike share one part."""
    profile = {}
    for name, table in VISIBLE_VALUES.items():
        groups = list(table.values())
        profile[name] = {value: 1.0 / groups.count(seen) for value, seen in table.items()}
    # One half of the nodules is solid, as echotexture is seen in those only, and one half has no calcification, halo or
    # extension: a nodule that has everything at once shows nothing.
    for name, value in (
        ("composition", "solid"),
        ("calcification", "absent"),
        ("halo", "absent"),
        ("extension", "absent"),
    ):
        profile[name][value] = sum(profile[name].values()) - profile[name][value]
    profile["nodule_location"] = {"upper": 1.0, "middle": 1.0, "lower": 1.0}
    attributes, side = draw_attributes(base, profile, rng)
    plane = _pick(profile["sonogram_direction"], rng)
    attributes["sonogram_direction"] = [plane]
    return attributes, side, plane


def draw_nodule(
    base: KnowledgeBase, profile: Mapping[str, Mapping[str, float]], rng: np.random.Generator
) -> NoduleCase:
    """Draw one nodule; its three diameters in mm are transverse, anteroposterior and craniocaudal."""
    attributes, side = draw_attributes(base, profile, rng)
    identity = int(rng.integers(1 << 31))
    width, height = draw_size(attributes, np.random.default_rng([identity, 7]))
    return NoduleCase(attributes, side, identity, (width, height, width * float(rng.uniform(0.86, 1.0))))


def draw_patient(
    base: KnowledgeBase,
    patient_id: str,
    label: str,
    cohort: str,
    rng: np.random.Generator,
    max_visits: int = 2,
    max_frames: int = 3,
) -> Patient:
    """Draw a patient: one nodule of the class, 1..max_visits examinations of 1..max_frames frames each.

    The second nodule, in a quarter of patients, is always drawn from the benign profile and lies in the other lobe,
    so that neither its presence nor its look depends on the class.
    """
    profile = base.profile(label)
    nodule = draw_nodule(base, profile, rng)
    second = None
    if nodule.side != "isthmus" and rng.uniform() < 0.25:
        other = draw_nodule(base, base.profile("benign"), rng)
        side = "left" if nodule.side == "right" else "right"
        pole = [v for v in other.attributes["nodule_location"] if v not in SIDES] or ["middle"]
        second = NoduleCase(other.attributes | {"nodule_location": [side, *pole]}, side, other.identity, other.size_mm)
    visits = []
    year, month = int(rng.integers(2016, 2024)), int(rng.integers(1, 7))
    for k in range(1 + int(rng.integers(max_visits))):
        planes = tuple(_pick(profile["sonogram_direction"], rng) for _ in range(1 + int(rng.integers(max_frames))))
        date = f"{year + k:04d}-{month + int(rng.integers(0, 6)):02d}-{int(rng.integers(1, 28)):02d}"
        visits.append(Visit(f"{patient_id}-E{k + 1}", date, planes, int(rng.integers(1 << 31))))
    sex = "F" if rng.uniform() < 0.75 else "M"
    age = int(np.clip(rng.normal(48, 13), 18, 85))
    return Patient(patient_id, label, cohort, sex, age, nodule, second, tuple(visits))


def _choose(
    rules: dict[str, list[Rule]], drawn: Attributes, name: str, options: Mapping[str, float], rng: np.random.Generator
) -> str:
    possible = {
        value: weight
        for value, weight in options.items()
        if weight > 0 and not any(_breaks(rule, drawn, name, value) for rule in rules.get(name, ()))
    }
    if not possible:
        raise ValueError(f"no value of {name} goes with {drawn}: the constraints leave the profile no way out")
    return _pick(possible, rng)


def _rules(base: KnowledgeBase) -> dict[str, list[Rule]]:
    """Constraints of the knowledge base and of the drawing, listed under each attribute that they name.

    `base.impossible` checks them all each time; here one attribute is added at a time to a consistent set.
    """
    pairs = [(rule.when, rule.never) for rule in base.constraints] + [(when, never) for when, never, _ in UNDRAWN]
    index: dict[str, list[Rule]] = {}
    for when, never in pairs:
        rule = tuple((key, frozenset(values)) for side in (when, never) for key, values in side.items())
        for key in dict.fromkeys(key for key, _ in rule):
            index.setdefault(key, []).append(rule)
    return index


def _breaks(rule: Rule, drawn: Attributes, name: str, value: str) -> bool:
    return all(value in bad if key == name else not bad.isdisjoint(drawn.get(key, ())) for key, bad in rule)


def _pick(options: Mapping[str, float], rng: np.random.Generator) -> str:
    values, weights = list(options), np.array(list(options.values()), float)
    edges = np.cumsum(weights / weights.sum())
    return values[min(int(np.searchsorted(edges, rng.uniform(), side="right")), len(values) - 1)]
