"""The rules that hold between the parts of a domain's files; the first one broken is raised with its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from kb.errors import UserError
from kb.yamlfile import Key, Lines

if TYPE_CHECKING:
    from kb.vocabulary import Attribute, KnowledgeBase, Subtype

LANGUAGES = ("en", "zh")


class Checker:
    """Checks of one domain; `lines` knows where everything stands."""

    def __init__(self, base: KnowledgeBase, lines: Lines) -> None:
        self.base, self.lines = base, lines

    def fail(self, key: Key, what: str) -> NoReturn:
        """Raise UserError with the line of `key`."""
        raise UserError(f"{self.lines.at(key)}: {what}; correct this line.")

    def values(self, key: Key, side: Mapping[str, Sequence[str]]) -> None:
        """Every attribute and value of `side` is in the vocabulary."""
        for name, values in side.items():
            if name not in self.base.attributes:
                self.fail((*key, name), f"there is no attribute '{name}'")
            for value in values:
                if value not in self.base.attributes[name].values:
                    self.fail((*key, name), f"'{value}' is no value of '{name}'")

    def roles(self, key: Key, given: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Roles (role -> attribute -> values) are of foreground values, and a value has one role."""
        owners: dict[tuple[str, str], str] = {}
        for role, side in given.items():
            self.values((*key, role), side)
            for attribute, values in side.items():
                if self.base.attributes[attribute].scope == "bg":
                    self.fail((*key, role, attribute), f"'{attribute}' is told to the background, where terms weigh 1")
                for value in values:
                    if owners.setdefault((attribute, value), role) != role:
                        self.fail((*key, role, attribute), f"'{value}' has two roles")

    def source_names(self, key: Key, names: Sequence[str]) -> None:
        """Every source is one of those that the files cite."""
        for name in names:
            if name not in self.base.sources:
                self.fail(key, f"the source '{name}' is not listed under `sources`")

    def surface(self, key: Key, surface: str) -> None:
        """A surface form can be found in a text: it begins with a letter or digit and has no open parenthesis."""
        if not surface[:1].isalnum():
            self.fail(key, f"the surface form '{surface}' does not begin with a letter or digit")
        if set("()|") & set(surface):
            self.fail(key, f"the surface form '{surface}' has a parenthesis or bar without its partner")

    def whole(self) -> None:
        """All rules of an organ's own files."""
        self._phrases()
        for name, attribute in self.base.attributes.items():
            self._attribute(name, attribute)
        for name, subtype in self.base.subtypes.items():
            self._subtype(name, subtype)
        for index, rule in enumerate(self.base.constraints):
            self.values(("constraints", index), rule.when)
            self.values(("constraints", index), rule.never)

    def _phrases(self) -> None:
        phrases: dict[str, str] = {}
        for attribute, value, phrase in self.base.phrase_rows():
            key: Key = ("attributes", attribute, "values", value, "phrase")
            if attribute == "subtype":
                key = ("subtypes", value, "phrase")
            elif attribute in self.base.quality:
                key = ("quality", attribute)
            if "," in phrase or phrase != phrase.strip() or not phrase:
                self.fail(key, f"the phrase '{phrase}' is empty or has a comma or outer spaces")
            if phrase in phrases:
                self.fail(key, f"the phrase '{phrase}' is already that of {phrases[phrase]}")
            phrases[phrase] = f"{attribute}.{value}"

    def _attribute(self, name: str, attribute: Attribute) -> None:
        self.source_names(("attributes", name, "sources"), attribute.sources)
        for language in LANGUAGES:
            owners: dict[str, str] = {}
            for value, entry in attribute.values.items():
                key: Key = ("attributes", name, "values", value, language)
                patterns = Counter(entry.en if language == "en" else entry.zh)
                for pattern, times in patterns.items():
                    if times > 1:
                        self.fail(key, f"'{pattern}' is listed twice under '{value}'")
                for surface in entry.surfaces(language):
                    self.surface(key, surface)
                    if owners.setdefault(surface, value) != value:
                        self.fail(key, f"'{surface}' already names '{owners[surface]}' of '{name}'")
        for group, members in attribute.groups.items():
            self.values(("attributes", name, "groups", group), {name: members})

    def _subtype(self, name: str, subtype: Subtype) -> None:
        key: Key = ("subtypes", name)
        self.source_names((*key, "sources"), subtype.sources)
        self.roles(key, {"particular": subtype.particular, "joint": subtype.joint})
        self.values((*key, "profile"), {k: list(v) for k, v in subtype.profile.items()})
        for attribute, model in self.base.attributes.items():
            chances = subtype.profile.get(attribute)
            if chances is None:
                self.fail((*key, "profile"), f"the profile of '{name}' lacks '{attribute}'")
            if abs(sum(chances.values()) - 1) > 1e-6 or min(chances.values()) < 0 or not model.values:
                self.fail((*key, "profile", attribute), f"the probabilities sum to {sum(chances.values()):.4g}")
