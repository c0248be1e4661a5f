"""Settling contradictions within a nodule and writing the output with its evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import kb
from kb.cues import Rules
from tigerdata.reports.facts import Fact, Nodule
from tigerdata.reports.text import Normalised

ALTERNATIVE = "_alt"
ECHO_FOCI = re.compile(r"回声|echogenic|foci")
PARTLY = re.compile(r"部分|some|。|内|(?<![a-z])and(?![a-z])|及|和")
TAIL_LINK = re.compile(r"后|伴|见|呈|with|^[\s，,]*$")
TAIL_REACH = 22
BETWEEN = re.compile(r"\s*(?:-|~|/|或|至|到|to|or)\s*(?:稍|略|mildly |slightly )?")


@dataclass
class Evidence:
    """Evidence rows of one report; offsets are those of the original text."""

    source: Normalised
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, path: str, value: Any, span: tuple[int, int], fact: Fact | None = None, rule: str = "") -> None:
        """Add the row of one output value that stands at a normalised span."""
        start, end = self.source.span(*span)
        cue = None
        if fact and fact.cue and fact.cue[1] > fact.cue[0]:
            a, b = self.source.span(*fact.cue)
            cue = self.source.original[a:b]
        self.rows.append(
            {
                "path": path,
                "value": value,
                "surface": self.source.original[start:end],
                "start": start,
                "end": end,
                "cue": cue,
                "certainty": fact.certainty if fact else "positive",
                "rule": rule or (fact.rule if fact else "term"),
            }
        )


def settle(nodule: Nodule, text: str, base: kb.KnowledgeBase, rules: Rules) -> tuple[dict[str, list[Fact]], list[Fact]]:
    """Facts that hold, by attribute in KB order (one fact a value), and facts that the text denies.

    A single-valued attribute has a second fact only where the text leaves two values open ("iso- to hypoechoic").
    """
    stated = [f for f in nodule.facts if f.certainty != "negated"]
    denied = [f for f in nodule.facts if f.certainty == "negated"] if len(stated) < len(nodule.facts) else []
    for tail, foci in rules.artefact.items():
        stated = _without_tails(stated, text, tail, foci)
    for general, kinds in rules.specific.items():
        if any(f.value in kinds for f in stated):
            stated = [f for f in stated if f.value != general]
    noted: list[Fact] = []
    for fact in denied:
        attribute = _denied_attribute(fact, rules)
        present = any(f.attribute == attribute and f.value != "absent" for f in stated)
        if attribute and not present:
            stated.append(Fact(attribute, "absent", fact.start, fact.end, "positive", fact.cue, "negation"))
        elif not any(f.value == fact.value for f in stated):
            noted.append(fact)
    by_attribute: dict[str, list[Fact]] = {}
    for fact in stated:
        by_attribute.setdefault(fact.attribute, []).append(fact)
    held: dict[str, list[Fact]] = {}
    for attribute, model in base.attributes.items():
        facts = by_attribute.get(attribute)
        if not facts:
            continue
        if model.multiple:
            facts = [f for f in facts if f.value != "absent"] or facts
            facts = _one_of_rivals(facts, rules)
        else:
            best = min(facts, key=lambda f: _preference(f, rules))
            held[attribute] = [best, *_alternative(best, facts, text)]
            continue
        held[attribute] = _one_each(facts)
    return held, _one_each(noted)


def _alternative(best: Fact, facts: Sequence[Fact], text: str) -> list[Fact]:
    """The other value of a range that one phrase names."""
    for fact in facts:
        first, second = sorted((best, fact), key=lambda f: f.start)
        if fact.value != best.value and BETWEEN.fullmatch(text[first.end : second.start]):
            return [fact]
    return []


def _denied_attribute(fact: Fact, rules: Rules) -> str | None:
    """The attribute that is absent when this value is denied."""
    for attribute, values in rules.denial.items():
        if fact.value in values.get(fact.attribute, ()):
            return attribute
    return None


def _preference(fact: Fact, rules: Rules) -> tuple[bool, int, int]:
    order = rules.precedence.get(fact.attribute, ())
    rank = order.index(fact.value) if fact.value in order else len(order)
    return fact.rule in ("shared", "group", "impression"), rank, fact.start


def _one_each(facts: Sequence[Fact]) -> list[Fact]:
    """One fact a value, a stated one before a hedged one, in text order."""
    if len(facts) < 2:
        return list(facts)
    best: dict[str, Fact] = {}
    for fact in sorted(facts, key=lambda f: (f.certainty == "uncertain", f.start)):
        best.setdefault(fact.value, fact)
    return sorted(best.values(), key=lambda f: f.start)


def _one_of_rivals(facts: list[Fact], rules: Rules) -> list[Fact]:
    """Homogeneous and heterogeneous exclude each other: what is said of the nodule itself, then what comes first."""
    rivals = [f for f in facts if f.value in rules.rivals]
    if len({f.value for f in rivals}) < 2:
        return facts
    keep = min(rivals, key=lambda f: _preference(f, rules)).value
    return [f for f in facts if f not in rivals or f.value == keep]


def _without_tails(facts: list[Fact], text: str, tail: str, foci: Sequence[str]) -> list[Fact]:
    """A bright point with a comet tail is colloid, not calcium, unless only some of the points have one."""
    tails = [f for f in facts if f.value == tail]

    def is_tail(fact: Fact) -> bool:
        if fact.value not in foci or not ECHO_FOCI.search(text, fact.start, fact.end):
            return False
        return any(
            0 <= end.start - fact.end <= TAIL_REACH
            and not PARTLY.search(text[fact.end : end.start])
            and TAIL_LINK.search(text[fact.end : end.start])
            for end in tails
        )

    return [f for f in facts if not is_tail(f)] if tails else facts


def write_nodule(
    nodule: Nodule, index: int, base: kb.KnowledgeBase, rules: Rules, evidence: Evidence
) -> dict[str, Any]:
    """One entry of `nodules`, with its evidence rows; keys that the text says nothing about are absent."""
    path = f"nodules[{index}]"
    out: dict[str, Any] = {}
    if nodule.multiple:
        out["multiple"] = True
    location: dict[str, str] = {}
    place = base.attributes.get(rules.location)
    for slot, part in zip(("side", "pole", "depth"), place.groups if place else (), strict=False):
        term = getattr(nodule.place, slot)
        if term:
            location[part] = term.value
            evidence.add(f"{path}.location.{part}", term.value, (term.start, term.end))
    out["location"] = location
    out["diameter_mm"] = []
    for size in nodule.sizes:
        for value in size.values:
            evidence.add(f"{path}.diameter_mm[{len(out['diameter_mm'])}]", value, (size.start, size.end), rule="size")
            out["diameter_mm"].append(int(value) if value == int(value) else value)
    if nodule.sizes and nodule.sizes[0].bound:
        out["diameter_op"] = nodule.sizes[0].bound
    held, noted = settle(nodule, evidence.source.text, base, rules)
    uncertain = []
    for attribute, facts in held.items():
        multiple = base.attributes[attribute].multiple
        for position, fact in enumerate(facts):
            name = f"{attribute}[{position}]" if multiple else attribute + ALTERNATIVE * position
            evidence.add(f"{path}.{name}", fact.value, (fact.start, fact.end), fact)
        out[attribute] = [f.value for f in facts] if multiple else facts[0].value
        if not multiple and len(facts) > 1:
            out[attribute + ALTERNATIVE] = facts[1].value
        if any(f.certainty == "uncertain" for f in facts):
            uncertain.append(attribute)
    if noted:
        out["negated"] = [f.value for f in noted]
        for position, fact in enumerate(noted):
            evidence.add(f"{path}.negated[{position}]", fact.value, (fact.start, fact.end), fact)
    if uncertain:
        out["uncertain"] = uncertain
    if nodule.category:
        category = nodule.category
        out["tirads"] = {"system": category.system, "category": category.category}
        evidence.add(
            f"{path}.tirads", f"{category.system} {category.category}", (category.start, category.end), rule="tirads"
        )
    return out
