"""What one clause says, wherever it stands: its terms, cues and scopes, worked out once for each clause text.

Reports are formulaic: most clauses of a corpus have been seen before. Everything that depends on nothing but the words
of a clause is therefore kept by its text, in positions from the start of the clause.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kb.cues import DIAGNOSIS, Cues, load_cues
from kb.needed import CHINESE
from tigerdata.reports.assertion import CUES, PLAIN, Assertion, Scopes, Span
from tigerdata.reports.terms import NOISE, Term, finder

# 20,000 clauses of a report corpus take some 60 MB.
KEPT_CLAUSES = 20_000
LATIN_WORD = re.compile(r"[a-z]")
LIST_END = re.compile(r"(?<![a-z])(or|nor)(?![a-z])")
DEFINITE = re.compile(r"^[\s-]*(?:(?:the|this|that) (?:\w+ ){0,2}?(?:nodule|lesion|mass|cyst)|(?:该|此|本)?结节(?!\d))")
LIES = re.compile(r"位于|居于|located|lies|situated|(?<![a-z])(?:in|at|within|occupying|replacing) the")
# What may stand beside the location words of a clause that names nothing but a place.
LOCATION_WORDS = re.compile(
    r"[\s\d.,:'\"/-]|(?<![a-z])(?:in|the|of|at|lobe|breast|aspect|portion|to|within|pole|is|lies|located|side|thyroid|and)(?![a-z])"
    r"|位于|处|内|的|于|在|之|约|甲状腺|乳腺|近|偏|部|区|_loc_"
)


class Sheet:
    """One clause text.

    `found` holds the places of each cue that the clause has, from left to right; `terms` the vocabulary in it, `noise`
    the words that hide some; `anchors` the nouns that name a nodule; `scopes` its negation and doubt; `diagnoses` what
    it names, as (name, start, end, assertion). `anaphor`: it begins with a word such as "it" or 该; `definite`: with a
    nodule that is known ("the nodule", 该结节); `lies`: it says where something lies. Few and small objects: a corpus
    keeps thousands of sheets.
    """

    __slots__ = (
        "_leftover", "anaphor", "anchors", "cues", "definite", "diagnoses", "found", "latin", "lies", "noise", "scopes",
        "terms", "text",
    )  # fmt: skip

    def __init__(self, text: str, domain: str) -> None:
        self.text = text
        self.cues: Cues = load_cues(domain)
        found = finder(domain).find_all(text)
        self.terms: tuple[Term, ...] = tuple([t for t in found if t.attribute != NOISE])
        self.noise: tuple[Span, ...] = tuple([t.span for t in found if t.attribute == NOISE])
        self.latin = not CHINESE.search(text)
        self.definite = bool(DEFINITE.search(text))
        self.lies = bool(LIES.search(text))
        self._leftover: str | None = None
        possible = self.cues.lookup.possible(text)  # few of the patterns are worth a search
        patterns = self.cues.of_script(not self.latin, bool(LATIN_WORD.search(text)))
        self.found: dict[str, tuple[Span, ...]] = {}
        for name in possible:
            if name in patterns:
                spans = tuple([m.span() for m in patterns[name].finditer(text) if m.end() > m.start()])
                if spans:
                    self.found[name] = spans
        self.anaphor = "anaphor" in self.found or bool(self.cues["anaphor"].search(text.lstrip()))
        self.anchors = self._anchors()
        covered = [t.span for t in self.terms]
        self.scopes = PLAIN if self.found.keys().isdisjoint(CUES) else Scopes(self.spans, 0, covered)
        self.diagnoses = self._diagnoses(possible)

    def spans(self, name: str) -> tuple[Span, ...]:
        """All places of a cue, from left to right."""
        return self.found.get(name, ())

    def first(self, name: str) -> Span | None:
        """The first place of a cue."""
        found = self.found.get(name)
        return found[0] if found else None

    def _anchors(self) -> tuple[Span, ...]:
        """Nouns that name a nodule, without those inside a term such as nodule-in-nodule."""
        nouns = self.spans("anchor")
        if not nouns:
            return ()
        hidden = [t.span for t in self.terms if t.attribute not in self.cues.rules.descriptive]
        return tuple([s for s in nouns if not any(a <= s[0] and s[1] <= b for a, b in hidden)])

    def _diagnoses(self, possible: frozenset[str]) -> tuple[tuple[str, int, int, Assertion], ...]:
        found = []
        taken: list[Span] = []
        if possible.isdisjoint(self.cues.diagnosis_keys):
            return ()
        for name, pattern in self.cues.diagnoses.items():
            for match in pattern.finditer(self.text) if DIAGNOSIS + name in possible else ():
                if any(a < match.end() and match.start() < b for a, b in taken):
                    continue
                taken.append(match.span())
                found.append((name, *match.span()))
        if not found:
            return ()
        scopes = Scopes(self.spans, 0, taken)
        return tuple((name, a, b, scopes.of(a, b)) for name, a, b in found)

    @property
    def list_denial(self) -> Span | None:
        """Cue such as "no evidence of" that denies a whole list."""
        return self.first("negation_list")

    @property
    def ends_list(self) -> bool:
        """An "or" or "nor" that ends a list of denied things."""
        return bool(LIST_END.search(self.text))

    @property
    def leftover(self) -> str:
        """What is left of the clause without its location words."""
        if self._leftover is None:
            chars = list(self.text)
            for term in self.terms:
                if term.part or term.attribute == self.cues.rules.plane:
                    chars[term.start : term.end] = " " * (term.end - term.start)
            self._leftover = LOCATION_WORDS.sub("", "".join(chars))
        return self._leftover


@lru_cache(maxsize=KEPT_CLAUSES)
def sheet_of(text: str, domain: str) -> Sheet:
    """The sheet of a clause text (normalised, digits of measurements set to 0)."""
    return Sheet(text, domain)
