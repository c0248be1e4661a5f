"""Values of attributes as readers see them, in English (the prompt's phrase) and Chinese (a report's wording)."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from tigergen.study.folder import Word

if TYPE_CHECKING:
    from kb.vocabulary import KnowledgeBase


def word(base: KnowledgeBase, attribute: str, value: str) -> Word:
    """A value for readers; UserError when the domain has no such value."""
    phrase = base.phrase(attribute, value)
    chinese = _table().get(attribute, {}).get(value)
    if chinese is None:
        surfaces = base.attributes[attribute].values[value].surfaces("zh")
        chinese = min(surfaces, key=len) if surfaces else phrase
    return Word(attribute, value, phrase, chinese)


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, str]]:
    import yaml

    text = files("tigergen.study").joinpath("words_zh.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = yaml.safe_load(text)
    return table
