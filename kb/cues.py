"""The words around the attributes in reports: headings, anchors, negation, uncertainty, risk systems, diagnoses."""

import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from kb.errors import UserError
from kb.locate import DOMAINS, Place, is_path, locate
from kb.needed import CHINESE, Lookup
from kb.yamlfile import Key, Lines, checked, expand, read_yaml

NOTHING = re.compile(r"(?!)")
DIAGNOSIS = "diagnosis:"
OF_TEXTS = ("heading_", "field", "lost_end")  # cues that cut a text into clauses, never asked of a clause
OVERLAY = "overlay"  # class of `known` that holds the words of overlays

if TYPE_CHECKING:
    from kb.vocabulary import KnowledgeBase


class Tirads(BaseModel):
    """How the risk systems are named: canonical name -> patterns, tried in order.

    A text without any of `hints` (plain lower-case words) is not searched.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    systems: dict[str, tuple[str, ...]]
    hints: tuple[str, ...] = ("",)


class Rules(BaseModel):
    """What the reader may conclude in this domain; every name is an attribute or value of `<domain>.yaml`.

    `reading` is "nodules" (entries are described things) or "findings" (every stated finding is an entry). `outranks`
    names entities of `pathology`: beside the first one the others are no conflict.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    reading: Literal["nodules", "findings"] = "nodules"
    location: str = "nodule_location"
    plane: str = "sonogram_direction"
    size_class: str = "diameter"
    texture: str = "echotexture"
    descriptive: tuple[str, ...] = ("composition", "echogenicity")
    about_nodule: tuple[str, ...] = ()
    sized_parts: tuple[str, ...] = ()
    precedence: dict[str, tuple[str, ...]] = {}
    denial: dict[str, dict[str, tuple[str, ...]]] = {}
    specific: dict[str, tuple[str, ...]] = {}
    rivals: tuple[str, ...] = ()
    artefact: dict[str, tuple[str, ...]] = {}
    inner: dict[str, tuple[str, str]] = {}
    outranks: dict[str, tuple[str, ...]] = {}
    margin_words: dict[str, tuple[str, str]] = {}
    gland_sizes: dict[str, str] = {}
    single_sizes: tuple[str, ...] = ()
    levels: str = "1-6"


class Cues(BaseModel):
    """Patterns of one domain's reports; `cues["anchor"]` is one compiled alternation, longest alternative first."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    extends: str = ""
    cues: dict[str, tuple[str, ...]]
    patterns: dict[str, dict[str, tuple[str, ...]]]
    noise: tuple[str, ...]
    known: dict[str, tuple[str, ...]] = {}
    tirads: Tirads
    pathology: dict[str, tuple[str, ...]]
    diagnosis: dict[str, tuple[str, ...]]
    rules: Rules = Rules()

    @cached_property
    def _compiled(self) -> dict[str, re.Pattern[str]]:
        return {name: alternation(patterns) for name, patterns in self.cues.items()}

    def of_script(self, chinese: bool, latin: bool) -> dict[str, re.Pattern[str]]:
        """The cues by name that can match a text with Chinese characters, with Latin letters, or with both."""
        if chinese and latin:
            return self._compiled
        return self._chinese if chinese else self._latin

    @cached_property
    def _chinese(self) -> dict[str, re.Pattern[str]]:
        return {n: alternation(tuple(p for p in ps if not _only_latin(p))) for n, ps in self.cues.items()}

    @cached_property
    def _latin(self) -> dict[str, re.Pattern[str]]:
        return {n: alternation(tuple(p for p in ps if not _only_chinese(p))) for n, ps in self.cues.items()}

    @cached_property
    def relations(self) -> list[tuple[str, str, re.Pattern[str]]]:
        """(attribute, value, pattern) of the values that are written as relations, such as "A/T > 1"."""
        return [(a, v, alternation(p)) for a, values in self.patterns.items() for v, p in values.items()]

    @cached_property
    def _known(self) -> dict[str, re.Pattern[str]]:
        return {name: alternation(patterns) for name, patterns in self.known.items()}

    def known_words(self, name: str) -> re.Pattern[str]:
        """Compiled words of one class of `known`; matches nothing when the domain has no such class."""
        return self._known.get(name, NOTHING)

    @cached_property
    def all_words(self) -> list[re.Pattern[str]]:
        """Every cue and every class of `known` except the function words: what counts as read."""
        clinical = [pattern for name, pattern in self._known.items() if name != "function"]
        return [*self._compiled.values(), *clinical, *self.diagnoses.values()]

    def parts(self, base: "KnowledgeBase") -> dict[str, str]:
        """Part of a place that each location value names: side, pole or depth, by the order of the groups."""
        attribute = base.attributes.get(self.rules.location)
        if attribute is None:
            return {}
        slots = zip(("side", "pole", "depth"), attribute.groups.values(), strict=False)
        return {value: slot for slot, values in slots for value in values}

    @cached_property
    def systems(self) -> dict[str, re.Pattern[str]]:
        """Compiled patterns of the risk systems by canonical name."""
        return {name: alternation(patterns, right=False) for name, patterns in self.tirads.systems.items()}

    @cached_property
    def diagnoses(self) -> dict[str, re.Pattern[str]]:
        """Compiled patterns of the diagnoses by name."""
        return {name: alternation(patterns) for name, patterns in self.diagnosis.items()}

    @cached_property
    def entities(self) -> dict[str, re.Pattern[str]]:
        """Compiled patterns of the pathological entities by subtype, the one that wins an overlap first."""
        return {name: alternation(patterns) for name, patterns in self.pathology.items()}

    def compile(self) -> None:
        """Compile every pattern now, so that the first report is read as fast as the next one."""
        for table in (self._compiled, self._chinese, self._latin, self.diagnoses, self.systems, self.relations):
            assert table is not None
        assert self.lookup

    @cached_property
    def lookup(self) -> Lookup:
        """Which cues, and which diagnoses (as `DIAGNOSIS` and the name), a clause can hold at all."""
        of_clauses = {name: patterns for name, patterns in self.cues.items() if not name.startswith(OF_TEXTS)}
        return Lookup({**of_clauses, **{DIAGNOSIS + name: patterns for name, patterns in self.diagnosis.items()}})

    @cached_property
    def diagnosis_keys(self) -> frozenset[str]:
        """The diagnoses as `lookup` names them."""
        return frozenset(DIAGNOSIS + name for name in self.diagnosis)

    def __getitem__(self, name: str) -> re.Pattern[str]:
        return self._compiled[name]


def _letters(pattern: str) -> tuple[bool, bool]:
    """Whether a pattern names Chinese characters and Latin letters (\\s and \\d are no letters)."""
    plain = re.sub(r"\\.", "", pattern)
    return bool(CHINESE.search(plain)), bool(re.search("[a-z]", plain))


def _only_latin(pattern: str) -> bool:
    return _letters(pattern) == (False, True)


def _only_chinese(pattern: str) -> bool:
    return _letters(pattern) == (True, False)


def alternation(patterns: tuple[str, ...], right: bool = True) -> re.Pattern[str]:
    """One pattern out of several; an alternative that begins or ends with a Latin letter matches whole words only."""
    parts = []
    for pattern in patterns:
        begin = r"(?<![a-z])" if re.match(r"\(*[a-z]", pattern) else ""
        end = r"(?![a-z])" if right and re.search(r"[a-z][)?]*$", pattern) else ""
        parts.append(f"{begin}(?:{pattern}){end}")
    return re.compile("|".join(parts)) if parts else NOTHING


def _with_common(place: Place, lines: Lines) -> dict[str, Any]:
    """The reports file of a domain, completed by the file that it extends: one beside it, else a packaged one."""
    own = read_yaml(place.file("_reports"), lines)
    name = own.get("extends")
    if not name:
        return own
    beside = place.folder / f"{name}_reports.yaml"
    shared = read_yaml(beside if beside.is_file() else DOMAINS / beside.name, lines, extended=True)
    for key in own.get("cues") or {}:
        if key not in shared["cues"]:
            raise UserError(f"{lines.at(('cues', key))}: there is no kind of cue '{key}'; correct the name.")
    merged = {**shared, **own}
    for key in ("cues", "known"):
        merged[key] = {**(shared.get(key) or {}), **(own.get(key) or {})}
    merged["noise"] = [*(shared.get("noise") or ()), *(own.get("noise") or ())]
    return merged


def load_cues(domain: str = "thyroid", folder: Path | None = None) -> Cues:
    """Read and check `<domain>_reports.yaml`; `domain` and `folder` as in `kb.load`, overlays add words to `known`.

    Raises UserError with file and line for a mistake, such as a pattern that is no regular expression.
    """
    if folder is None and not is_path(domain):
        return _packaged(domain)
    return _load(locate(domain, folder))


@lru_cache(maxsize=8)
def _packaged(name: str) -> Cues:
    return _load(locate(name))


@lru_cache(maxsize=8)
def _load(place: Place) -> Cues:
    from kb import overlay

    lines = Lines()
    cues = checked(Cues, _with_common(place, lines), lines)
    tables: list[tuple[Key, dict[str, tuple[str, ...]]]] = [
        (("cues",), cues.cues),
        (("diagnosis",), cues.diagnosis),
        (("pathology",), cues.pathology),
        (("tirads", "systems"), cues.tirads.systems),
        *((("patterns", attribute), values) for attribute, values in cues.patterns.items()),
    ]
    for key, table in tables:
        for name, patterns in table.items():
            for index, pattern in enumerate(patterns):
                try:
                    re.compile(pattern)
                except re.error as error:
                    what = f"'{pattern}' is no regular expression ({error})"
                    raise UserError(f"{lines.at((*key, name, index))}: {what}; correct it.") from None
    for name, others in cues.rules.outranks.items():
        for entity in (name, *others):
            if entity not in cues.pathology:
                what = f"'outranks' names '{entity}', which is no entity of 'pathology'"
                raise UserError(f"{lines.at(('rules', 'outranks', name))}: {what}; correct it.")
    known = [
        re.escape(word) for path in place.overlays for text in overlay.read(path)[0].known for word in expand(text)
    ]
    return cues.model_copy(update={"known": {**cues.known, OVERLAY: tuple(known)}}) if known else cues
