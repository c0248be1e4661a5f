"""The vocabulary of one organ: attributes, prompt phrases, subtypes, roles of terms, profiles and constraints."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kb.checks import Checker
from kb.errors import UserError
from kb.locate import DOMAINS, Place, is_path, locate
from kb.yamlfile import Lines, checked, expand, read_yaml

__all__ = ["DOMAINS", "Attribute", "KnowledgeBase", "Override", "Role", "Scope", "Subtype", "Value", "load"]

Scope = Literal["fg", "bg"]
Role = Literal["particular", "joint", "common"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Value(_Model):
    """One value of an attribute: its prompt phrase and its surface forms by language."""

    phrase: str
    en: tuple[str, ...]
    zh: tuple[str, ...]
    from_mm: float | None = None
    below_mm: float | None = None

    def surfaces(self, language: str) -> list[str]:
        """All texts of one language ("en" or "zh") that name this value."""
        patterns = self.en if language == "en" else self.zh
        return list(dict.fromkeys(text for pattern in patterns for text in expand(pattern)))


class Attribute(_Model):
    """One attribute: background or foreground, its values in order, and whether several can hold at once."""

    scope: Scope
    values: dict[str, Value]
    sources: tuple[str, ...] = Field(min_length=1)
    multiple: bool = False
    groups: dict[str, tuple[str, ...]] = {}
    unit: str | None = None
    note: str | None = None


class Subtype(_Model):
    """One pathological subtype: prompt phrase, terms with a role, literature profile and sources."""

    phrase: str
    malignant: bool
    sources: tuple[str, ...] = Field(min_length=1)
    particular: dict[str, tuple[str, ...]] = {}
    joint: dict[str, tuple[str, ...]] = {}
    profile: dict[str, dict[str, float]]
    cited: str = ""
    note: str = ""


class Constraint(_Model):
    """Values that contradict each other, with the reason as a clause."""

    when: dict[str, tuple[str, ...]] = Field(alias="if")
    never: dict[str, tuple[str, ...]] = Field(alias="not")
    reason: str


class Override(_Model):
    """A role that an overlay gives a term in place of the literature's: what it is, who says so, in which file."""

    role: Role
    sources: tuple[str, ...]
    file: str


class KnowledgeBase(_Model):
    """Everything the YAML files of one domain say; immutable. Get one with `kb.load`.

    `overrides` (target -> "attribute.value" -> role) is what overlays changed; no file of an organ holds it.
    """

    domain: str
    attributes: dict[str, Attribute]
    quality: dict[str, tuple[str, ...]]
    constraints: tuple[Constraint, ...]
    subtypes: dict[str, Subtype]
    sources: dict[str, str]
    overrides: dict[str, dict[str, Override]] = {}

    def phrase(self, attribute: str, value: str) -> str:
        """Prompt phrase of a value, unique over all attributes; `attribute` may be "subtype" or a quality name."""
        for name, known, phrase in self.phrase_rows():
            if (name, known) == (attribute, value):
                return phrase
        raise UserError(f"'{value}' is no value of '{attribute}' in the domain {self.domain}; see its YAML file.")

    def parse_phrase(self, phrase: str) -> tuple[str, str]:
        """Attribute and value that a prompt phrase names; the inverse of `phrase`."""
        for name, value, known in self.phrase_rows():
            if known == phrase:
                return name, value
        raise UserError(f"'{phrase}' is no phrase of the domain {self.domain}; `base.phrases()` lists them.")

    def phrases(self) -> list[str]:
        """All prompt phrases in a stable order: subtypes, attributes, image quality."""
        return [phrase for _, _, phrase in self.phrase_rows()]

    def scope(self, attribute: str, value: str | None = None) -> Scope:
        """Whether an attribute (or "subtype", or a quality name) is told to the FG- or to the BG-Encoder."""
        if attribute == "subtype":
            return "fg"
        if attribute in self.quality:
            return "bg"
        if value is not None:
            self.phrase(attribute, value)
        return self._attribute(attribute).scope

    def role(self, target: str, attribute: str, value: str) -> Role:
        """Role of a term when `target` is the rare class (Tiger paper, eq. 10): the delta of its weight.

        The name of the target itself is particular. What an overlay says comes before the literature. A target that
        the domain does not know has no term with a role, so all are common.
        """
        self.phrase(attribute, value)
        if attribute == "subtype":
            return "particular" if value == target else "common"
        override = self.overrides.get(target, {}).get(f"{attribute}.{value}")
        return override.role if override else self.literature_role(target, attribute, value)

    def literature_role(self, target: str, attribute: str, value: str) -> Role:
        """Role that the organ's own files give a term, whatever overlays say; not listed is common."""
        subtype = self.subtypes.get(target)
        if subtype and value in subtype.particular.get(attribute, ()):
            return "particular"
        if subtype and value in subtype.joint.get(attribute, ()):
            return "joint"
        return "common"

    def role_sources(self, target: str, attribute: str, value: str) -> tuple[str, ...]:
        """Names of the sources behind `role`: those of the overlay that gives it, else those of the subtype."""
        override = self.overrides.get(target, {}).get(f"{attribute}.{value}")
        if override:
            return override.sources
        return self.subtypes[target].sources if target in self.subtypes else ()

    def check_target(self, target: str) -> None:
        """Raise UserError for a class that is neither a subtype nor has roles by an overlay."""
        if target not in self.subtypes and target not in self.overrides:
            raise UserError(f"the domain {self.domain} has no subtype '{target}'; it has {', '.join(self.subtypes)}.")

    def profile(self, subtype: str) -> dict[str, dict[str, float]]:
        """Attribute profile of a subtype: attribute -> value -> probability (each sums to 1), marginal distributions.

        `nodule_location` distributes the poles; the sides are equally frequent.
        """
        if subtype not in self.subtypes:
            raise UserError(f"the domain {self.domain} has no subtype '{subtype}'; it has {', '.join(self.subtypes)}.")
        return {name: dict(values) for name, values in self.subtypes[subtype].profile.items()}

    def impossible(self, attributes: Mapping[str, Sequence[str]]) -> str | None:
        """Reason why a combination of attribute values contradicts itself, or None."""
        for rule in self.constraints:
            if _holds(rule.when, attributes) and _holds(rule.never, attributes):
                named = [
                    v for side in (rule.when, rule.never) for a, vs in side.items() for v in attributes[a] if v in vs
                ]
                return f"{' and '.join(dict.fromkeys(named))} exclude each other: {rule.reason}."
        return None

    def size_class(self, diameter_mm: float) -> str:
        """Value of `diameter` for a largest diameter in mm, by the bounds of the YAML file."""
        for name, value in self._attribute("diameter").values.items():
            if diameter_mm >= (value.from_mm or 0) and (value.below_mm is None or diameter_mm < value.below_mm):
                return name
        raise UserError(f"no size class of the domain {self.domain} holds {diameter_mm} mm; correct the bounds.")

    def _attribute(self, name: str) -> Attribute:
        if name not in self.attributes:
            raise UserError(f"the domain {self.domain} has no attribute '{name}'; it has {', '.join(self.attributes)}.")
        return self.attributes[name]

    def phrase_rows(self) -> Iterator[tuple[str, str, str]]:
        """(attribute, value, phrase) of everything that can stand in a prompt; attribute may be "subtype"."""
        for name, subtype in self.subtypes.items():
            yield "subtype", name, subtype.phrase
        for attribute, model in self.attributes.items():
            for value, entry in model.values.items():
                yield attribute, value, entry.phrase
        for name, phrases in self.quality.items():
            for phrase in phrases:
                yield name, phrase, phrase


def load(domain: str | Path = "thyroid", folder: Path | None = None, overlays: Sequence[Path] = ()) -> KnowledgeBase:
    """Read and check the vocabulary of a domain: `<domain>.yaml` and `<domain>_subtypes.yaml`, then its overlays.

    `domain` is the name of a packaged organ ("thyroid"), the name of one in `folder`, the path of an organ's YAML file,
    or the path of an overlay such as a workspace's `vocabulary.yaml`. `overlays` are laid on top, the last one wins.
    A file that was edited is read again.

    >>> load("thyroid").role("FTC", "halo", "interrupted")
    'particular'

    Raises UserError, one sentence with file and line, for a mistake in the files.
    """
    if folder is None and not overlays and not is_path(domain):
        return _packaged(str(domain))  # once for every report that is parsed, so no file is looked at
    return _load(locate(domain, folder, tuple(overlays)))


@lru_cache(maxsize=16)
def _packaged(name: str) -> KnowledgeBase:
    return _load(locate(name))


@lru_cache(maxsize=16)
def _load(place: Place) -> KnowledgeBase:
    from kb.overlay import lay

    lines = Lines()
    content: dict[str, Any] = {}
    for part in ("", "_subtypes"):
        content |= read_yaml(place.file(part), lines)
    base = checked(KnowledgeBase, content, lines)
    check = Checker(base, lines)
    if base.overrides:
        check.fail(("overrides",), "'overrides' belongs into no file of an organ; use an overlay")
    if base.domain != place.name:
        check.fail(("domain",), f"the domain is called '{base.domain}' but its file {place.file().name}")
    check.whole()
    for path in place.overlays:
        base = lay(base, path)
    return base


def _holds(side: Mapping[str, Sequence[str]], attributes: Mapping[str, Sequence[str]]) -> bool:
    return all(set(values) & set(attributes.get(name, ())) for name, values in side.items())
