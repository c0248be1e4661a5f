"""Overlays: a small YAML file that adds words and changes roles of an organ without touching the organ's own files.

extends: thyroid
surfaces:                     # further words for values that exist
  margin:
    clear: {en: [crisp margin], zh: [边界锐利]}
known: [弹性评分]              # words that are understood but state no attribute
roles:                        # in place of what the literature says
  FTC:
    sources: [Board2026]
    particular: {echogenicity: [markedly_hypoechoic]}
    common: {aspect: [oval]}
sources:
  Board2026: "Consensus of three radiologists of this hospital, 2026"
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from kb.checks import LANGUAGES, Checker
from kb.errors import UserError
from kb.locate import locate
from kb.vocabulary import KnowledgeBase, Override, Role
from kb.yamlfile import Key, Lines, checked, expand, read_yaml


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Words(_Part):
    """Further surface forms of one value, with "(a|b|)" alternatives as in an organ's file."""

    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()


class TargetRoles(_Part):
    """Roles of terms when one class is the target, with the sources that say so."""

    sources: tuple[str, ...] = Field(min_length=1)
    particular: dict[str, tuple[str, ...]] = {}
    joint: dict[str, tuple[str, ...]] = {}
    common: dict[str, tuple[str, ...]] = {}

    def by_role(self) -> dict[Role, dict[str, tuple[str, ...]]]:
        """Role -> attribute -> values."""
        return {"particular": self.particular, "joint": self.joint, "common": self.common}


class Overlay(_Part):
    """What one overlay file says. `classes` are targets of the workspace that are no subtypes of the organ."""

    extends: str
    surfaces: dict[str, dict[str, Words]] = {}
    known: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    roles: dict[str, TargetRoles] = {}
    sources: dict[str, str] = {}


def read(path: Path) -> tuple[Overlay, Lines]:
    """Read an overlay and where everything stands in it; UserError with file and line for a mistake in its shape."""
    lines = Lines()
    return checked(Overlay, read_yaml(path, lines), lines), lines


def lay(base: KnowledgeBase, path: Path) -> KnowledgeBase:
    """The knowledge base with an overlay laid over it.

    Raises UserError with file and line of the overlay: an unknown attribute, value, target or source, a word that
    already names another value, a value with two roles.
    """
    overlay, lines = read(path)
    below = locate(path)
    if below.name != base.domain:
        raise UserError(
            f"{lines.at(('extends',))}: it extends '{below.name}', but the organ here is '{base.domain}'; correct it."
        )
    check = Checker(base.model_copy(update={"sources": {**base.sources, **overlay.sources}}), lines)
    for name in overlay.sources:
        if name in base.sources:
            check.fail(("sources", name), f"the source '{name}' is already listed in the organ's file")
    attributes = dict(base.attributes)
    for attribute, by_value in overlay.surfaces.items():
        check.values(("surfaces",), {attribute: list(by_value)})
        for value, words in by_value.items():
            _check_words(check, base, ("surfaces", attribute, value), words)
            model = attributes[attribute]
            entry = model.values[value]
            longer = entry.model_copy(update={"en": (*entry.en, *words.en), "zh": (*entry.zh, *words.zh)})
            values = {**model.values, value: longer}
            attributes[attribute] = model.model_copy(update={"values": values})
    overrides = {target: dict(given) for target, given in base.overrides.items()}
    for target, given in overlay.roles.items():
        key: Key = ("roles", target)
        if target not in base.subtypes and target not in overlay.classes:
            known = ", ".join(base.subtypes)
            check.fail(key, f"'{target}' is no subtype ({known}); list a class of your own under `classes`")
        check.source_names((*key, "sources"), given.sources)
        check.roles(key, {str(role): side for role, side in given.by_role().items()})
        for role, side in given.by_role().items():
            for attribute, named in side.items():
                for value in named:
                    override = Override(role=role, sources=given.sources, file=path.name)
                    overrides.setdefault(target, {})[f"{attribute}.{value}"] = override
    return base.model_copy(update={"attributes": attributes, "overrides": overrides, "sources": check.base.sources})


def _check_words(check: Checker, base: KnowledgeBase, key: Key, words: Words) -> None:
    """A new word is not yet one of this attribute: not of another value, and not of this one."""
    attribute, value = str(key[1]), str(key[2])
    for language in LANGUAGES:
        owners = {
            surface: name
            for name, entry in base.attributes[attribute].values.items()
            for surface in entry.surfaces(language)
        }
        for pattern in words.en if language == "en" else words.zh:
            for surface in expand(pattern):
                check.surface((*key, language), surface)
                if surface in owners:
                    check.fail((*key, language), f"'{surface}' already names '{owners[surface]}' of '{attribute}'")
                owners[surface] = value
