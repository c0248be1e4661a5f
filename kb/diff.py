"""What differs between two vocabularies, or between a vocabulary and what a workspace's database holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from kb.vocabulary import KnowledgeBase

Facts = dict[tuple[str, str], str]
STORED = ("phrase", "scope", "word", "role", "source")  # kinds of facts that the database keeps


def facts(base: KnowledgeBase) -> Facts:
    """A vocabulary as flat facts: (kind, name) -> content; a word is a fact of its own."""
    found: Facts = {}
    for attribute, value, phrase in base.phrase_rows():
        found["phrase", f"{attribute}.{value}"] = phrase
        found["scope", attribute] = base.scope(attribute)
    for attribute, model in base.attributes.items():
        found["attribute", attribute] = (
            f"{'several values' if model.multiple else 'one value'}, {model.unit or 'no unit'}"
        )
        found["attribute sources", attribute] = "; ".join(model.sources)
        for value, entry in model.values.items():
            for language in ("en", "zh"):
                for surface in entry.surfaces(language):
                    found["word", f"{attribute}.{value} {language} {surface}"] = surface
            if entry.from_mm is not None:
                found["bound", f"{attribute}.{value}"] = f"from {entry.from_mm:g} below {entry.below_mm or 'any'} mm"
    for target in (*base.subtypes, *(name for name in base.overrides if name not in base.subtypes)):
        for attribute, model in base.attributes.items():
            for value in model.values if model.scope == "fg" else ():
                found["role", f"{target}: {attribute}.{value}"] = base.role(target, attribute, value)
    for name, subtype in base.subtypes.items():
        found["subtype", name] = (
            f"{'malignant' if subtype.malignant else 'not malignant'}, {'; '.join(subtype.sources)}"
        )
        for attribute, chances in subtype.profile.items():
            found["profile", f"{name}: {attribute}"] = ", ".join(f"{v} {p:g}" for v, p in sorted(chances.items()))
    for index, rule in enumerate(base.constraints, start=1):
        found["constraint", f"{index}"] = f"{dict(rule.when)} not {dict(rule.never)}: {rule.reason}"
    for name, citation in base.sources.items():
        found["source", name] = citation
    return found


def stored_facts(con: duckdb.DuckDBPyConnection) -> Facts:
    """The same facts as far as a workspace's database keeps them (`STORED`)."""
    found: Facts = {}
    for attribute, value, phrase, scope, language, surface in con.execute("SELECT * FROM terms").fetchall():
        found["phrase", f"{attribute}.{value}"] = phrase
        found["scope", attribute] = scope
        if surface is not None:
            found["word", f"{attribute}.{value} {language} {surface}"] = surface
    for target, attribute, value, role in con.execute(
        "SELECT target, attribute, value, role FROM term_roles"
    ).fetchall():
        found["role", f"{target}: {attribute}.{value}"] = role
    for name, citation in con.execute("SELECT source_id, citation FROM sources").fetchall():
        found["source", name] = citation
    return found


def difference(old: Mapping[tuple[str, str], str], new: Mapping[tuple[str, str], str]) -> list[dict[str, str | None]]:
    """Rows of what `new` has added, removed or changed against `old`: change, kind, name, old, new.

    >>> difference({("phrase", "margin.clear"): "clear margin"}, {("phrase", "margin.clear"): "sharp margin"})
    [{'change': 'changed', 'kind': 'phrase', 'name': 'margin.clear', 'old': 'clear margin', 'new': 'sharp margin'}]
    """
    rows: list[dict[str, str | None]] = []
    for kind, name in sorted({*old, *new}):
        before, after = old.get((kind, name)), new.get((kind, name))
        if before != after:
            change = "added" if before is None else "removed" if after is None else "changed"
            rows.append({"change": change, "kind": kind, "name": name, "old": before, "new": after})
    return rows


def only_stored(found: Facts) -> Facts:
    """The facts of a vocabulary that a database would hold too."""
    return {key: content for key, content in found.items() if key[0] in STORED}
