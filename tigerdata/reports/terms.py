"""Finding the vocabulary in a text: spaCy's PhraseMatcher on Chinese characters and Latin words; longest match wins."""

import re
from dataclasses import dataclass
from functools import lru_cache

import spacy
from spacy.matcher import PhraseMatcher
from spacy.tokens import Doc

import kb
from kb.cues import load_cues
from kb.yamlfile import expand
from tigerdata.reports.text import CJK

# One Chinese character, one Latin word, one number or one sign is a token. spaCy's blank("zh") also cuts Latin words
# and blank("en") does not cut Chinese, so neither reads a report that mixes both; this tokenizer does.
TOKEN = re.compile(rf"[{CJK}]|[a-z]+|\d+|\S")
NOISE = "_noise"


@dataclass(frozen=True, slots=True)
class Term:
    """One value of an attribute at normalised positions [start, end)."""

    attribute: str
    value: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        """Normalised (start, end)."""
        return self.start, self.end


class TermFinder:
    """All surface forms of a domain in one matcher."""

    def __init__(self, domain: str) -> None:
        base, cues = kb.load(domain), load_cues(domain)
        self._relations = cues.relations
        self._vocab = spacy.blank("xx").vocab
        self._matcher = PhraseMatcher(self._vocab)
        self._keys: dict[int, tuple[str, str]] = {}
        forms: dict[tuple[str, str], set[str]] = {}
        for attribute, model in base.attributes.items():
            for value, entry in model.values.items():
                forms.setdefault((attribute, value), set()).update(entry.surfaces("en") + entry.surfaces("zh"))
        forms[NOISE, ""] = {text for pattern in cues.noise for text in expand(pattern)}
        for (attribute, value), surfaces in forms.items():
            name = f"{attribute}|{value}"
            patterns = [self._doc(TOKEN.findall(surface.lower())) for surface in sorted(surfaces)]
            if patterns:
                self._matcher.add(name, patterns)
                self._keys[self._vocab.strings[name]] = (attribute, value)

    def _doc(self, words: list[str]) -> Doc:
        return Doc(self._vocab, words=words)

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
        for key, first, last in self._matcher(self._doc([text[a:b] for a, b in spans])):
            attribute, value = self._keys[key]
            found.append(Term(attribute, value, spans[first][0], spans[last - 1][1]))
        for attribute, value, pattern in self._relations:
            found += [Term(attribute, value, *match.span()) for match in pattern.finditer(text)]
        found.sort(key=lambda term: (term.start - term.end, term.start))
        kept: list[Term] = []
        for term in found:
            if not any(_excludes(longer, term) for longer in kept):
                kept.append(term)
        return sorted(kept, key=lambda term: (term.start, term.end))


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
