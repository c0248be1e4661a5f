"""Tables of the risk scores of an organ (`<domain>_scores.yaml`), read and checked against its vocabulary."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

import kb
from kb.errors import UserError
from kb.locate import locate
from kb.yamlfile import Key, Lines, checked, read_yaml

Values = dict[str, tuple[str, ...]]
UNDETERMINED = "undetermined"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Model):
    """One part of a score: points by attribute and value; stated values add up or the highest counts."""

    combine: Literal["sum", "max"]
    points: dict[str, dict[str, int]]
    optional: tuple[str, ...] = ()


class Rule(_Model):
    """A category for nodules that have one of the values of each attribute in `when`."""

    category: str
    when: Values = {}
    suspicious: bool | None = None


class System(_Model):
    """One risk system: by points (`parts`, `levels`) or by `rules`."""

    source: str
    alone: Values = {}
    parts: dict[str, Part] = {}
    levels: tuple[tuple[int, str], ...] = ()
    suspicious: Values = {}
    rules: tuple[Rule, ...] = ()


class Scores(_Model):
    """All risk systems of a domain."""

    systems: dict[str, System]
    sources: dict[str, str]


@lru_cache(maxsize=8)
def load_scores(domain: str = "thyroid", folder: Path | None = None) -> Scores | None:
    """The score tables of a domain, or None if it has none.

    Raises UserError with file and line for a mistake, such as a value that the vocabulary does not have.
    """
    path = locate(domain, folder).file("_scores")
    if not path.is_file():
        return None
    lines = Lines()
    scores = checked(Scores, read_yaml(path, lines), lines)
    base = kb.load(domain, folder)
    for name, system in scores.systems.items():
        if system.source not in scores.sources:
            key: Key = ("systems", name, "source")
            raise UserError(f"{lines.at(key)}: the source '{system.source}' is not listed; add it to `sources`.")
        named: list[tuple[Key, str, list[str]]] = [
            (("systems", name, "parts", part, "points", a), a, list(values))
            for part, table in system.parts.items()
            for a, values in table.points.items()
        ]
        for where, table in (("alone", system.alone), ("suspicious", system.suspicious)):
            named += [(("systems", name, where, a), a, list(values)) for a, values in table.items()]
        for index, rule in enumerate(system.rules):
            named += [(("systems", name, "rules", index), a, list(values)) for a, values in rule.when.items()]
        for key, attribute, values in named:
            known = base.attributes[attribute].values if attribute in base.attributes else {}
            for value in values:
                if value not in known and not (known and value == UNDETERMINED):
                    raise UserError(f"{lines.at(key)}: '{value}' is no value of '{attribute}'; correct this line.")
    return scores
