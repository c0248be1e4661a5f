"""What one clause says, wherever it stands: its terms, cues and scopes, worked out once for each clause text.

Reports are formulaic: most clauses of a corpus have been seen before. Everything that depends on nothing but the words
of a clause is therefore kept by its text, in positions from the start of the clause.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from kb.cues import NOTHING, Cues, load_cues
from tigerdata.reports.assertion import Assertion, Scopes, Span
from tigerdata.reports.terms import NOISE, Term, finder
from tigerdata.reports.text import CJK

# 20,000 clauses of a report corpus take some 60 MB.
KEPT_CLAUSES = 20_000
CHINESE = re.compile(f"[{CJK}]")
LATIN_WORD = re.compile(r"[a-z]")
LIST_END = re.compile(r"(?<![a-z])(or|nor)(?![a-z])")
# What may stand beside the location words of a clause that names nothing but a place.
LOCATION_WORDS = re.compile(
    r"[\s\d.,:'\"/-]|(?<![a-z])(?:in|the|of|at|lobe|breast|aspect|portion|to|within|pole|is|lies|located|side|thyroid|and)(?![a-z])"
    r"|位于|处|内|的|于|在|之|约|甲状腺|乳腺|近|偏|部|区|_loc_"
)


class Sheet:
    """One clause text; `first` and `spans` give the places of a cue, `terms` the vocabulary in it."""

    def __init__(self, text: str, domain: str) -> None:
        self.text = text
        self.cues: Cues = load_cues(domain)
        found = finder(domain).find_all(text)
        self.terms: tuple[Term, ...] = tuple(t for t in found if t.attribute != NOISE)
        self.noise: tuple[Span, ...] = tuple(t.span for t in found if t.attribute == NOISE)
        self.latin = not CHINESE.search(text)
        self._cues = self.cues.of_script(not self.latin, bool(LATIN_WORD.search(text)))
        self._spans: dict[str, tuple[Span, ...]] = {}
        self.firsts: dict[str, Span | None] = {}  # what `first` has answered

    def spans(self, name: str) -> tuple[Span, ...]:
        """All places of a cue, from left to right."""
        found = self._spans.get(name)
        if found is None:
            pattern = self._cues[name]
            matches = () if pattern is NOTHING else pattern.finditer(self.text)
            found = self._spans[name] = tuple([m.span() for m in matches if m.end() > m.start()])
        return found

    def first(self, name: str) -> Span | None:
        """The first place of a cue."""
        if name not in self.firsts:
            found = self.spans(name)
            self.firsts[name] = found[0] if found else None
        return self.firsts[name]

    @cached_property
    def anchors(self) -> tuple[Span, ...]:
        """Nouns that name a nodule, without those inside a term such as nodule-in-nodule."""
        hidden = [t.span for t in self.terms if t.attribute not in self.cues.rules.descriptive]
        return tuple(s for s in self.spans("anchor") if not any(a <= s[0] and s[1] <= b for a, b in hidden))

    @cached_property
    def anaphor(self) -> bool:
        """The clause begins with a word such as "it" or 该."""
        return bool(self.cues["anaphor"].search(self.text.lstrip()))

    @cached_property
    def scopes(self) -> Scopes:
        """Negation and doubt of the clause."""
        return Scopes.over(self._cues, self.text, [t.span for t in self.terms])

    @cached_property
    def list_denial(self) -> Span | None:
        """Cue such as "no evidence of" that denies a whole list."""
        return self.first("negation_list")

    @cached_property
    def ends_list(self) -> bool:
        """An "or" or "nor" that ends a list of denied things."""
        return bool(LIST_END.search(self.text))

    @cached_property
    def leftover(self) -> str:
        """What is left of the clause without its location words."""
        chars = list(self.text)
        for term in self.terms:
            if term.part or term.attribute == self.cues.rules.plane:
                chars[term.start : term.end] = " " * (term.end - term.start)
        return LOCATION_WORDS.sub("", "".join(chars))

    @cached_property
    def diagnoses(self) -> tuple[tuple[str, int, int, Assertion], ...]:
        """Diagnoses that the clause names: (name, start, end, assertion)."""
        found = []
        taken: list[Span] = []
        for name, pattern in self.cues.diagnoses.items():
            for match in pattern.finditer(self.text):
                if any(a < match.end() and match.start() < b for a, b in taken):
                    continue
                taken.append(match.span())
                found.append((name, *match.span()))
        if not found:
            return ()
        scopes = Scopes.over(self._cues, self.text, taken)
        return tuple((name, a, b, scopes.of(a, b)) for name, a, b in found)


@lru_cache(maxsize=KEPT_CLAUSES)
def sheet_of(text: str, domain: str) -> Sheet:
    """The sheet of a clause text (normalised, digits of measurements set to 0)."""
    return Sheet(text, domain)
