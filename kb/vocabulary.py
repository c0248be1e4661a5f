"""The vocabulary of one organ: attributes, prompt phrases, subtypes, roles of terms, profiles and constraints."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kb.errors import UserError
from kb.yamlfile import Key, Lines, expand, read_yaml

Scope = Literal["fg", "bg"]
Role = Literal["particular", "joint", "common"]
DOMAINS = Path(__file__).parent / "domains"


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


class KnowledgeBase(_Model):
    """Everything the YAML files of one domain say; immutable. Get one with `kb.load`."""

    domain: str
    attributes: dict[str, Attribute]
    quality: dict[str, tuple[str, ...]]
    constraints: tuple[Constraint, ...]
    subtypes: dict[str, Subtype]
    sources: dict[str, str]

    def phrase(self, attribute: str, value: str) -> str:
        """Prompt phrase of a value, unique over all attributes; `attribute` may be "subtype" or a quality name."""
        for name, known, phrase in self._phrase_rows():
            if (name, known) == (attribute, value):
                return phrase
        raise UserError(f"'{value}' is no value of '{attribute}' in the domain {self.domain}; see its YAML file.")

    def parse_phrase(self, phrase: str) -> tuple[str, str]:
        """Attribute and value that a prompt phrase names; the inverse of `phrase`."""
        for name, value, known in self._phrase_rows():
            if known == phrase:
                return name, value
        raise UserError(f"'{phrase}' is no phrase of the domain {self.domain}; `base.phrases()` lists them.")

    def phrases(self) -> list[str]:
        """All prompt phrases in a stable order: subtypes, attributes, image quality."""
        return [phrase for _, _, phrase in self._phrase_rows()]

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

        The name of the target itself is particular. A target that the domain does not know has no term with a role,
        so all are common.
        """
        self.phrase(attribute, value)
        if attribute == "subtype":
            return "particular" if value == target else "common"
        subtype = self.subtypes.get(target)
        if subtype and value in subtype.particular.get(attribute, ()):
            return "particular"
        if subtype and value in subtype.joint.get(attribute, ()):
            return "joint"
        return "common"

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

    def _phrase_rows(self) -> Iterator[tuple[str, str, str]]:
        for name, subtype in self.subtypes.items():
            yield "subtype", name, subtype.phrase
        for attribute, model in self.attributes.items():
            for value, entry in model.values.items():
                yield attribute, value, entry.phrase
        for name, phrases in self.quality.items():
            for phrase in phrases:
                yield name, phrase, phrase


@lru_cache(maxsize=8)
def load(domain: str = "thyroid", folder: Path | None = None) -> KnowledgeBase:
    """Read and check the vocabulary of a domain, `kb/domains/<domain>.yaml` and `<domain>_subtypes.yaml`.

    Raises UserError, one sentence with file and line, for a mistake in the files.
    """
    place = folder or DOMAINS
    lines = Lines()
    content: dict[str, Any] = {}
    for name in (f"{domain}.yaml", f"{domain}_subtypes.yaml"):
        content |= read_yaml(place / name, lines)
    try:
        base = KnowledgeBase.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path: Key = tuple(first["loc"])
        what = ".".join(str(part) for part in path)
        raise UserError(f"{lines.at(path)} has a mistake in {what}: {first['msg']}; correct it.") from None
    _check(base, lines)
    return base


def _holds(side: Mapping[str, Sequence[str]], attributes: Mapping[str, Sequence[str]]) -> bool:
    return all(set(values) & set(attributes.get(name, ())) for name, values in side.items())


def _check(base: KnowledgeBase, lines: Lines) -> None:
    """The rules that hold between parts of the files; the first one broken is raised with its line."""

    def fail(key: Key, what: str) -> NoReturn:
        raise UserError(f"{lines.at(key)}: {what}; correct this line.")

    def check_values(key: Key, side: Mapping[str, Sequence[str]]) -> None:
        for name, values in side.items():
            if name not in base.attributes:
                fail((*key, name), f"there is no attribute '{name}'")
            for value in values:
                if value not in base.attributes[name].values:
                    fail((*key, name), f"'{value}' is no value of '{name}'")

    phrases: dict[str, str] = {}
    for attribute, value, phrase in base._phrase_rows():
        key: Key = ("attributes", attribute, "values", value, "phrase")
        if attribute == "subtype":
            key = ("subtypes", value, "phrase")
        elif attribute in base.quality:
            key = ("quality", attribute)
        if "," in phrase or phrase != phrase.strip() or not phrase:
            fail(key, f"the phrase '{phrase}' is empty or has a comma or outer spaces")
        if phrase in phrases:
            fail(key, f"the phrase '{phrase}' is already that of {phrases[phrase]}")
        phrases[phrase] = f"{attribute}.{value}"
    for name, attribute_model in base.attributes.items():
        for source in attribute_model.sources:
            if source not in base.sources:
                fail(("attributes", name, "sources"), f"the source '{source}' is not listed under `sources`")
        for language in ("en", "zh"):
            owners: dict[str, str] = {}
            for value, entry in attribute_model.values.items():
                for surface in entry.surfaces(language):
                    key = ("attributes", name, "values", value, language)
                    if not surface[:1].isalnum():
                        fail(key, f"the surface form '{surface}' does not begin with a letter or digit")
                    if owners.setdefault(surface, value) != value:
                        fail(key, f"'{surface}' already names '{owners[surface]}' of '{name}'")
        for group, members in attribute_model.groups.items():
            check_values(("attributes", name, "groups", group), {name: members})
    for name, subtype in base.subtypes.items():
        for source in subtype.sources:
            if source not in base.sources:
                fail(("subtypes", name, "sources"), f"the source '{source}' is not listed under `sources`")
        check_values(("subtypes", name, "particular"), subtype.particular)
        check_values(("subtypes", name, "joint"), subtype.joint)
        for attribute, values in subtype.particular.items():
            if shared := set(values) & set(subtype.joint.get(attribute, ())):
                fail(("subtypes", name, "joint", attribute), f"'{sorted(shared)[0]}' has two roles")
        check_values(("subtypes", name, "profile"), {k: list(v) for k, v in subtype.profile.items()})
        for attribute, model in base.attributes.items():
            chances = subtype.profile.get(attribute)
            if chances is None:
                fail(("subtypes", name, "profile"), f"the profile of '{name}' lacks '{attribute}'")
            if abs(sum(chances.values()) - 1) > 1e-6 or min(chances.values()) < 0 or not model.values:
                fail(("subtypes", name, "profile", attribute), f"the probabilities sum to {sum(chances.values()):.4g}")
    for index, rule in enumerate(base.constraints):
        check_values(("constraints", index), rule.when)
        check_values(("constraints", index), rule.never)
