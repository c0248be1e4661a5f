"""Risk scores computed from the attributes of a nodule: ACR, C-, EU- and K-TIRADS, with the points that made them.

A computed score is no statement of the report and is kept apart from `tirads`, which holds what the report states. A
score is given only when every attribute that it needs is stated; otherwise it says what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kb.scores import Part, Rule, System, load_scores

Stated = Mapping[str, Sequence[str]]


def compute(nodule: Mapping[str, Any], domain: str = "thyroid") -> dict[str, dict[str, Any]]:
    """Scores of one parsed nodule by system; empty for a domain without score tables.

    A score is `{"category", "points", "features", "source"}` (points only where the system counts them), or
    `{"not_computable": "lacks ...", "lacks": [...]}`. `features` are `{"attribute", "value", "points"}`; `uncertain`
    names the used attributes that the report only suspects.

    >>> compute({"composition": "spongiform"})["ACR-TIRADS"]["points"]
    0
    """
    scores = load_scores(domain)
    if scores is None:
        return {}
    stated = {k: _values(v) for k, v in nodule.items() if isinstance(v, str | list)}
    out = {}
    for name, system in scores.systems.items():
        result = _by_points(system, stated) if system.parts else _by_rules(system, stated)
        used = {f["attribute"] for f in result.get("features", ())}
        doubtful = [a for a in nodule.get("uncertain", ()) if a in used]
        out[name] = result | ({"uncertain": doubtful} if doubtful else {})
    return out


def _values(value: Any) -> list[str]:
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]


def _lacking(attributes: Sequence[str]) -> dict[str, Any]:
    lacks = list(dict.fromkeys(attributes))
    return {"not_computable": "lacks " + ", ".join(lacks), "lacks": lacks}


def _by_points(system: System, stated: Stated) -> dict[str, Any]:
    for attribute, values in system.alone.items():
        for value in stated.get(attribute, ()):
            if value in values:
                part = next(p for p in system.parts.values() if attribute in p.points)
                points = part.points[attribute][value]
                return _scored(system, [{"attribute": attribute, "value": value, "points": points}], points)
    features: list[dict[str, Any]] = []
    lacks: list[str] = []
    total = 0
    for part in system.parts.values():
        found, missing = _part(part, stated)
        lacks += missing
        if not missing:
            kept = found if part.combine == "sum" else [max(found, key=lambda f: f["points"])]
            features += kept
            total += sum(f["points"] for f in kept)
    return _lacking(lacks) if lacks else _scored(system, features, total)


def _part(part: Part, stated: Stated) -> tuple[list[dict[str, Any]], list[str]]:
    """Features of one part of a score and the attributes that it lacks."""
    found: list[dict[str, Any]] = []
    missing = []
    for attribute, table in part.points.items():
        values = stated.get(attribute, ())
        known = [v for v in values if v in table]
        found += [{"attribute": attribute, "value": v, "points": table[v]} for v in known]
        # A value without points ("calcification" of an unstated kind) leaves the part open.
        if attribute not in part.optional and len(known) < max(len(values), 1):
            missing.append(attribute)
    return found, missing


def _scored(system: System, features: list[dict[str, Any]], total: int) -> dict[str, Any]:
    category = system.levels[0][1]
    for least, name in system.levels:
        if total >= least:
            category = name
    return {"category": category, "points": total, "features": features, "source": system.source}


def _by_rules(system: System, stated: Stated) -> dict[str, Any]:
    for rule in system.rules:
        holds, lacks = _holds(rule, system, stated)
        if lacks:
            return _lacking(lacks)
        if holds:
            used = dict(rule.when)
            if rule.suspicious:
                used |= {a: (*used.get(a, ()), *values) for a, values in system.suspicious.items()}
            features = [
                {"attribute": a, "value": v} for a, values in used.items() for v in stated.get(a, ()) if v in values
            ]
            return {"category": rule.category, "features": features, "source": system.source}
    return {"not_computable": "no rule of the system fits the stated values", "lacks": []}


def _holds(rule: Rule, system: System, stated: Stated) -> tuple[bool, list[str]]:
    """Whether a rule holds; or the attributes without which that is not known."""
    open_: list[str] = []
    for attribute, values in rule.when.items():
        if attribute not in stated:
            open_.append(attribute)
        elif not set(stated[attribute]) & set(values):
            return False, []
    if rule.suspicious is not None:
        found = any(set(stated.get(a, ())) & set(values) for a, values in system.suspicious.items())
        unknown = [a for a in system.suspicious if a not in stated]
        if found and not rule.suspicious:
            return False, []
        if not found and rule.suspicious and not unknown:
            return False, []
        if not found:
            open_ += unknown
    return not open_, open_
