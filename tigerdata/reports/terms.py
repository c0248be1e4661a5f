"""Finding the vocabulary in a text: spaCy's PhraseMatcher on Chinese characters and Latin words; longest match wins."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import kb
from kb.cues import load_cues
from kb.needed import CJK
from kb.yamlfile import expand
from tigerdata.reports.light import light_imports

with light_imports():
    import spacy
    from spacy.matcher import PhraseMatcher
    from spacy.tokens import Doc

# One Chinese character, one Latin word, one number or one sign is a token. spaCy's blank("zh") also cuts Latin words
# and blank("en") does not cut Chinese, so neither reads a report that mixes both; this tokenizer does.
TOKEN = re.compile(rf"[{CJK}]|[a-z]+|\d+|\S")
NOISE = "_noise"
CUT = re.compile("[。；;！!，,():.]")


class Term(NamedTuple):
    """One value of an attribute at normalised [start, end); `part` is side, pole or depth for a place."""

    attribute: str
    value: str
    start: int
    end: int
    part: str = ""

    @property
    def span(self) -> tuple[int, int]:
        """Normalised (start, end)."""
        return self.start, self.end

    def shifted(self, by: int) -> "Term":
        """The same term further right."""
        return Term(self.attribute, self.value, self.start + by, self.end + by, self.part)


class Joined:
    """Surface forms that hold a sign at which a text is cut into clauses ("shape: regular"): they stay whole."""

    def __init__(self, surfaces: Iterable[str]) -> None:
        forms = sorted({text for text in surfaces if CUT.search(text)}, key=lambda text: (-len(text), text))
        # By what stands on both sides of the sign: few texts get as far as a pattern.
        near: dict[tuple[str, str, str], list[str]] = {}
        for form in forms:
            for match in CUT.finditer(form):
                sides = form[: match.start()].rstrip()[-1:], match[0], form[match.end() :].lstrip()[:1]
                near.setdefault(sides, []).append(form)
        self._near = {sides: re.compile("|".join(map(_loose, found))) for sides, found in near.items()}
        self._before = {(before, sign) for before, sign, _ in near}
        self._reach = max(map(len, forms), default=0) + 8

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Places of such forms in a normalised text."""
        found: list[tuple[int, int]] = []
        for match in CUT.finditer(text):
            start, end = match.span()
            before, after = text[start - 1 : start], text[end : end + 1]
            if before != " " and (before, match[0]) not in self._before:
                continue
            if before == " ":
                before = text[:start].rstrip()[-1:]
            if after == " ":
                after = text[end:].lstrip()[:1]
            pattern = self._near.get((before, match[0], after))
            if pattern:
                around = pattern.finditer(text, max(0, start - self._reach), end + self._reach)
                found += [m.span() for m in around]
        return found


def _loose(form: str) -> str:
    """Pattern of a surface form with any white space between its tokens."""
    return r"(?<![a-z])" + r"\s*".join(re.escape(token) for token in TOKEN.findall(form)) + r"(?![a-z])"


class TermFinder:
    """All surface forms of a domain in one matcher."""

    def __init__(self, domain: str) -> None:
        base, cues = kb.load(domain), load_cues(domain)
        cues.compile()
        self._relations = cues.relations
        self._vocab = spacy.blank("xx").vocab
        self._matcher = PhraseMatcher(self._vocab)
        self._keys: dict[int, tuple[str, str, str]] = {}
        self._location = cues.rules.location
        self._parts = cues.parts(base)
        forms: dict[tuple[str, str], set[str]] = {}
        for attribute, model in base.attributes.items():
            for value, entry in model.values.items():
                forms.setdefault((attribute, value), set()).update(entry.surfaces("en") + entry.surfaces("zh"))
        forms[NOISE, ""] = {text for pattern in cues.noise for text in expand(pattern)}
        for (attribute, value), surfaces in forms.items():
            name = f"{attribute}|{value}"
            patterns = [Doc(self._vocab, words=TOKEN.findall(surface.lower())) for surface in sorted(surfaces)]
            if patterns:
                self._matcher.add(name, patterns)
                self._keys[self._vocab.strings[name]] = (attribute, value, self._part(attribute, value))
        self.joined = Joined(text.lower() for surfaces in forms.values() for text in surfaces)

    def _part(self, attribute: str, value: str) -> str:
        return self._parts.get(value, "") if attribute == self._location else ""

    def find(self, text: str) -> list[Term]:
        """Terms in normalised text, in order, without the noise words that hide them."""
        return [term for term in self.find_all(text) if term.attribute != NOISE]

    def find_all(self, text: str) -> list[Term]:
        """Terms and noise words in normalised text, in order; of overlapping forms the longest stays.

        Forms of one attribute never overlap; forms of two attributes may ("囊实混合回声" names composition and
        echogenicity) unless one contains the other.
        """
        spans = [match.span() for match in TOKEN.finditer(text)]
        if not spans:
            return []
        found = []
        words = [text[a:b] for a, b in spans]
        for key, first, last in self._matcher(Doc(self._vocab, words=words)):
            attribute, value, part = self._keys[key]
            found.append(Term(attribute, value, spans[first][0], spans[last - 1][1], part))
        for attribute, value, pattern in self._relations:
            for match in pattern.finditer(text):
                found.append(Term(attribute, value, *match.span(), self._part(attribute, value)))
        if len(found) < 2:
            return found
        found.sort(key=lambda term: (term.start - term.end, term.start, term.attribute, term.value))
        kept: list[Term] = []
        for term in found:
            if not any(_excludes(longer, term) for longer in kept):
                kept.append(term)
        kept.sort(key=lambda term: (term.start, term.end))
        return kept


def _excludes(longer: Term, term: Term) -> bool:
    if longer.end <= term.start or term.end <= longer.start:
        return False
    inside = longer.start <= term.start and term.end <= longer.end
    return (
        inside
        and (longer.attribute == term.attribute or longer.end - longer.start > term.end - term.start)
        or (longer.attribute == term.attribute)
    )


@lru_cache(maxsize=4)
def finder(domain: str = "thyroid") -> TermFinder:
    """The (cached) finder of a domain."""
    return TermFinder(domain)
