"""A domain as plain data, for `tigerdata kb show` and for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kb.errors import UserError

if TYPE_CHECKING:
    from kb.vocabulary import KnowledgeBase


def describe(base: KnowledgeBase) -> dict[str, Any]:
    """Everything a domain says: attributes, values, words, sources; subtypes with their roles and profiles."""
    return {
        "domain": base.domain,
        "attributes": {
            name: {
                "scope": model.scope,
                "several": model.multiple,
                "unit": model.unit,
                "sources": list(model.sources),
                "values": {
                    value: {"phrase": entry.phrase, "en": entry.surfaces("en"), "zh": entry.surfaces("zh")}
                    for value, entry in model.values.items()
                },
            }
            for name, model in base.attributes.items()
        },
        "subtypes": {
            name: {
                "phrase": subtype.phrase,
                "malignant": subtype.malignant,
                "sources": list(subtype.sources),
                "roles": {row["value"]: row["role"] for row in role_rows(base, name) if row["role"] != "common"},
                "profile": base.profile(name),
            }
            for name, subtype in base.subtypes.items()
        },
        "quality": {name: list(phrases) for name, phrases in base.quality.items()},
        "constraints": [rule.reason for rule in base.constraints],
        "sources": dict(base.sources),
    }


def value_rows(base: KnowledgeBase, attribute: str | None = None, words: int | None = 1) -> list[dict[str, Any]]:
    """One row a value: attribute, value, side (fg or bg), phrase, sources, and the patterns of its
    words in both languages (the first `words`).

    Raises UserError for an attribute that the domain does not have.
    """
    if attribute is not None and attribute not in base.attributes:
        raise UserError(
            f"the domain {base.domain} has no attribute '{attribute}'; it has {', '.join(base.attributes)}."
        )
    rows = []
    for name, model in base.attributes.items():
        if attribute in (None, name):
            for value, entry in model.values.items():
                row = {"attribute": name, "value": value, "side": model.scope, "phrase": entry.phrase}
                for language in ("en", "zh"):
                    found = entry.en if language == "en" else entry.zh
                    more = [f"… {len(found) - words} more"] if words is not None and len(found) > words else []
                    row[language] = ", ".join([*found[:words], *more])
                rows.append({**row, "sources": ", ".join(model.sources)})
    return rows


def role_rows(base: KnowledgeBase, target: str) -> list[dict[str, Any]]:
    """One row a foreground value: `attribute.value`, phrase, its role for the target, who says so.

    Raises UserError for a target that the domain does not have.
    """
    base.check_target(target)
    rows = [
        {
            "value": f"{attribute}.{value}",
            "phrase": entry.phrase,
            "role": base.role(target, attribute, value),
            "sources": ", ".join(base.role_sources(target, attribute, value)),
        }
        for attribute, model in base.attributes.items()
        if model.scope == "fg"
        for value, entry in model.values.items()
    ]
    order = ("particular", "joint", "common")
    return sorted(rows, key=lambda row: order.index(str(row["role"])))
