"""What a text must hold for a pattern to match it, so that most patterns need not be tried at all.

A clause of a report is short and a domain has some sixty patterns, of which one or two match. Every pattern is made of
literal words, so a match holds at least one of a few keys: a character, or two characters in a row. The keys are
read from the pattern once; a text is then asked for the patterns whose keys it holds.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import add
from typing import NamedTuple

Keys = frozenset[str]
CJK = "㐀-䶿一-鿿"  # Chinese characters, as a class of a pattern
CHINESE = re.compile(f"[{CJK}]")
SPACE = re.compile(r"\s")
# Characters that many clauses of an ultrasound report hold.
COMMON = "见可大不叶声回结节右左上下前内性状体甲及个区一分"
# Latin letters, the most frequent of English prose first: a rare pair is the better key.
BY_FREQUENCY = "etaoinshrdlcumwfgypbvkjxqz"
QUANTIFIER = re.compile(r"(?:([*?])|(\+)|\{(\d*),?\d*\})[?+]?")
GROUP = re.compile(r"\((?:\?(?::|P<\w+>))?(?!\?)")
LOOKAROUND = re.compile(r"\(\?<?[=!]")
CLASS = re.compile(r"\[(\^?)((?:\\.|\](?=[^\]]*\])(?<=\[\]|\^\])|[^\]\\])*)\]")


def needed(pattern: str) -> Keys | None:
    """Keys of which every match of a regular expression holds at least one; None when there are none to be found.

    Sound for any pattern, complete for none: what is not understood (back references, flags) counts as needing nothing.

    >>> sorted(needed("未(?:见|探及)"))
    ['未']
    >>> needed(r"\\d+ ?mm?") is None
    True
    """
    try:
        keys, end = _alternatives(pattern, 0)
    except _NotUnderstood:
        return None
    return keys if end == len(pattern) else None


class _NotUnderstood(Exception):
    """The pattern uses something that this reader does not know."""


class _Atom(NamedTuple):
    """One piece of a pattern: a literal character, or the keys of a class or group; `end` is where it stops."""

    end: int
    literal: str = ""
    keys: Keys | None = None


def _alternatives(pattern: str, at: int) -> tuple[Keys | None, int]:
    """Keys of `a|b|c` up to the end or a closing parenthesis, and where that is."""
    every: list[Keys | None] = []
    while True:
        keys, at = _sequence(pattern, at)
        every.append(keys)
        if pattern[at : at + 1] != "|":
            break
        at += 1
    known = [keys for keys in every if keys is not None]
    return (frozenset().union(*known) if len(known) == len(every) else None), at


def _sequence(pattern: str, at: int) -> tuple[Keys | None, int]:
    """The best keys among those of a sequence's pieces."""
    found: list[Keys] = []
    run = ""
    while at < len(pattern) and pattern[at] not in "|)":
        atom = _atom(pattern, at)
        quantifier = QUANTIFIER.match(pattern, atom.end)
        at = quantifier.end() if quantifier else atom.end
        once = not quantifier or bool(quantifier[2]) or int(quantifier[3] or 0) > 0
        if atom.literal and not quantifier:
            run += atom.literal
            continue
        found += [*_keys_of(run), *_keys_of(atom.literal if once else "")]
        run = ""
        if once and atom.keys:
            found.append(atom.keys)
    found += _keys_of(run)
    return (min(found, key=lambda keys: (sum(map(_cost, keys)), sorted(keys))) if found else None), at


def _atom(pattern: str, at: int) -> _Atom:
    char = pattern[at]
    if char == "\\":
        escaped = pattern[at + 1 : at + 2]
        if not escaped or escaped.isdigit() or escaped in "ghkNuUx":
            raise _NotUnderstood
        return _Atom(at + 2, "" if escaped.isalpha() else escaped)
    if char == "[":
        found = CLASS.match(pattern, at)
        if not found:
            raise _NotUnderstood
        chars = found[2]
        chinese = bool(chars) and not found[1] and all(CHINESE.match(c) for c in chars)
        return _Atom(found.end(), "", frozenset(chars) if chinese else None)
    if char == "(":
        if LOOKAROUND.match(pattern, at):
            _, end = _alternatives(pattern, at + 3 + (pattern[at + 2] == "<"))
            return _Atom(_closed(pattern, end))
        opening = GROUP.match(pattern, at)
        if not opening:
            raise _NotUnderstood
        keys, end = _alternatives(pattern, opening.end())
        return _Atom(_closed(pattern, end), "", keys)
    if char in "^$.":
        return _Atom(at + 1)
    if char in "*+?":
        raise _NotUnderstood
    return _Atom(at + 1, char)


def _closed(pattern: str, at: int) -> int:
    if pattern[at : at + 1] != ")":
        raise _NotUnderstood
    return at + 1


def _keys_of(run: str) -> list[Keys]:
    """Each key of literal text that stands in every match; white space has other forms than the pattern's."""
    pairs = [a + b for a, b in zip(run, run[1:], strict=False)]
    return [frozenset({key}) for key in (*run, *pairs) if not SPACE.search(key)]


def _cost(key: str) -> float:
    """How often a text holds the key although the pattern does not match, roughly."""
    if CHINESE.match(key):
        return 0.2 if len(key) == 2 else 4.0 if key in COMMON else 1.0
    if not all(letter in BY_FREQUENCY for letter in key):
        return 5.0
    ranks = [BY_FREQUENCY.index(letter) + 1 for letter in key]
    return 1.0 + 40.0 / (ranks[0] * ranks[1]) if len(ranks) == 2 else 50.0 + 40.0 / ranks[0]


class Lookup:
    """Named patterns by their keys: `possible(text)` names all that may match, and few others."""

    def __init__(self, patterns: Mapping[str, Iterable[str]]) -> None:
        always: set[str] = set()
        by_key: dict[str, set[str]] = {}
        for name, alternatives in patterns.items():
            for pattern in alternatives:
                keys = needed(pattern)
                if keys is None:
                    always.add(name)
                for key in keys or ():
                    by_key.setdefault(key, set()).add(name)
        self._always = frozenset(always)
        self._by_key = {key: frozenset(names - always) for key, names in by_key.items()}
        self._keys = frozenset(key for key, names in self._by_key.items() if names)

    def possible(self, text: str) -> frozenset[str]:
        """Names of the patterns that can match somewhere in a text in lower case."""
        held = self._keys.intersection([*text, *map(add, text, text[1:])])
        return _shared(self._always.union(*[self._by_key[key] for key in held]))


@lru_cache(maxsize=4096)
def _shared(names: frozenset[str]) -> frozenset[str]:
    """One object for equal sets: many clauses can match the same few patterns."""
    return names
