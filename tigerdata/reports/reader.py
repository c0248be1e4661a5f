"""Reading the findings clause by clause: which nodule, lymph node or gland does a clause speak of?"""

from __future__ import annotations

from collections.abc import Sequence

from tigerdata.reports.assertion import Span
from tigerdata.reports.clauses import Clause
from tigerdata.reports.facts import Fact, Place, places
from tigerdata.reports.measures import Size
from tigerdata.reports.members import Members
from tigerdata.reports.state import Findings, Judge
from tigerdata.reports.terms import Term


class Reader(Members):
    """The reader: `read` takes the clauses of the findings in order."""

    def read(self, clauses: Sequence[Clause]) -> Findings:
        """Read all clauses; nodules that stayed tentative are dropped."""
        until = 0
        for index, clause in enumerate(clauses):
            if index >= until:
                until = index + 1
                while until < len(clauses) and clauses[until].sentence == clause.sentence:
                    until += 1
            rest = clauses[index + 1 : until]
            if clause.sentence != self.sentence:
                self._begin(clause, rest)
            self._clause(clause, rest)
        self.out.nodules = [n for n in self.out.nodules if not n.tentative]
        if len(self.out.nodules) > 1:
            # "several nodules" only announces the ones that are described.
            self.out.nodules = [n for n in self.out.nodules if n.place.side or n.place.pole or n.facts or n.sizes]
        return self.out

    # ---- one clause ------------------------------------------------------------------------------------------------
    def _begin(self, clause: Clause, rest: Sequence[Clause]) -> None:
        self.sentence = clause.sentence
        self.place, self.early, self.early_sizes, self.planes = Place(), [], [], []
        self.inherited: Span | None = None
        if self.weak or not self.targets:
            self.targets = self.out.nodules[-1:]
        self.weak = False
        if clause.ordinals:
            self.ordinal = clause.ordinals[0]
            self.topic = "nodule" if self.topic != "lymph" else ""
        for part in (clause, *rest):
            if "elsewhere" in part.sheet.found:
                self.topic = "other"

    def _clause(self, clause: Clause, rest: Sequence[Clause]) -> None:
        terms, sizes, categories = self.content.within(clause)
        scopes = Judge(clause, self.inherited)
        if self.inherited is None and clause.sheet.list_denial and any(c.sheet.ends_list for c in rest):
            a, b = clause.sheet.list_denial
            self.inherited = a + clause.start, b + clause.start
        anchors = self._anchors(clause)
        topic = self._find_topic(clause, anchors, terms, sizes)
        if topic in ("gland", "nodule"):
            for term in terms:
                if term.attribute == self.rules.plane:
                    self.planes.append(Fact(term.attribute, term.value, term.start, term.end, rule="plane"))
        if topic == "lymph":
            self._lymph(clause, scopes)
        elif topic == "gland":
            self._gland(clause, terms, scopes)
        elif topic == "nodule" and not self._is_gland_size(clause, anchors, terms, sizes, rest):
            self.out.nodule_clauses.append(clause)
            self._nodule(clause, rest, anchors, terms, sizes, scopes)
        elif topic == "skip" and self.topic == "nodule":
            self.out.nodule_clauses.append(clause)
        for category in categories:
            # "Highly suspicious, TR5." may follow the lymph nodes: with one nodule it can only be meant.
            for nodule in (
                self.targets if topic == "nodule" else self.out.nodules[:1] if len(self.out.nodules) == 1 else []
            ):
                nodule.category = nodule.category or category

    def _find_topic(self, clause: Clause, anchors: Sequence[Span], terms: Sequence[Term], sizes: Sequence[Size]) -> str:
        said = clause.sheet.found
        place = "organ_place" in said
        if self.topic == "other" and (not place or "elsewhere" in said or not clause.first):
            return "other"
        if "lymph" in said or ("neck" in said and not place):
            self.topic = "lymph"
            return "lymph"
        if "other_organ" in said and not place:
            self.topic = "other"
            return "other"
        if self.topic in ("lymph", "other") and not place and not (clause.first and anchors and clause.sheet.latin):
            return self.topic
        gland = "gland" in said
        if gland and not anchors and "largest" not in said and "every" not in said:
            self.topic = "gland"
            measured = self.rules.gland_sizes and sizes and not any(t.attribute == self.rules.texture for t in terms)
            return "nodule" if measured else "gland"
        if "vascular" in said and not sizes and not (anchors and clause.sheet.latin):
            return "skip"
        # "余腺体回声不均匀，可见片状低回声区": a patch is the look of the gland, not of the nodule before it.
        patch = self.topic == "gland" and "not_entry" in said
        weak = "weak_anchor" in said and "inner" not in said and not patch
        subject = anchors or place or sizes or "largest" in said or weak
        if (
            self.topic == "gland"
            and not subject
            and not (clause.first and self.out.nodules and self._about_nodule(terms))
        ):
            return "gland"
        if "hypothetical" in said and not (anchors and sizes):
            return "skip"
        self.topic = "nodule"
        return "nodule"

    def _about_nodule(self, terms: Sequence[Term]) -> bool:
        return any(t.attribute in self.rules.about_nodule for t in terms)

    # ---- gland and lymph nodes -------------------------------------------------------------------------------------
    def _gland(self, clause: Clause, terms: Sequence[Term], scopes: Judge) -> None:
        for term in terms:
            if term.attribute == self.rules.texture and term.value in self.rules.rivals:
                found = scopes.of(term.start, term.end)
                if found.certainty != "negated":
                    self.out.gland.append(Fact(*term[:4], found.certainty, found.cue, "gland"))
        sides = [t for t in terms if t.part and t.value in ("left", "right")]
        if len(sides) == 1:
            # "右叶体积略小，可见多个结节": the lobe is the place of what is found in it.
            self.side = sides[0]
            self.place = Place(side=sides[0])

    def _is_gland_size(
        self,
        clause: Clause,
        anchors: Sequence[Span],
        terms: Sequence[Term],
        sizes: Sequence[Size],
        rest: Sequence[Clause],
    ) -> bool:
        """A lobe and its measurement without a word about a nodule: gland size, noted as such."""
        said = clause.sheet.found
        if not self.rules.gland_sizes or not sizes or anchors or self.ordinal is not None or "largest" in said:
            return False
        sides = [t for t in terms if t.part and t.value in self.rules.gland_sizes]
        others = [t for t in terms if t not in sides and t.attribute != self.rules.plane]
        side = sides[0] if sides else self.place.side
        if side is None or others or self.place.pole or (self.targets and self.targets[-1].sentence == self.sentence):
            return False
        if not sides and self._noun_follows(rest):
            return False
        if sides and "gland_size" not in said and self._noun_follows(rest):
            return False
        for term, size in zip(sides or [side], sizes, strict=False):
            if term.value in self.rules.gland_sizes:
                self.out.gland_sizes.append((term, size))
            self.measured.add(term.value)
        # One lobe measured and then described is the place of what follows; after a row of lobes none is.
        self.side = side if len(self.measured) == 1 else None
        self.headed = self.headed if len(self.measured) == 1 else None
        self.topic = "gland"
        self.place = Place()
        return True

    def _noun_follows(self, rest: Sequence[Clause]) -> bool:
        """A nodule is named in the rest of the sentence before another lobe is."""
        for clause in rest:
            terms = clause.sheet.terms
            if clause.sheet.anchors or any(t.attribute in self.rules.descriptive for t in terms):
                return "gland" not in clause.sheet.found
            if any(t.part and t.value in self.rules.gland_sizes for t in terms):
                return False
        return False

    def _lymph(self, clause: Clause, scopes: Judge) -> None:
        for name, value in (("lymph_suspicious", "true"), ("lymph_normal", "false"), ("lymph_deny", "")):
            for a, b in clause.sheet.spans(name):
                span = a + clause.start, b + clause.start
                found = scopes.of(*span)
                stated = value
                if found.certainty == "negated":
                    stated = "false" if name != "lymph_normal" else ""
                if stated:
                    self.out.lymph.append(Fact("suspicious", stated, *span, "positive", found.cue, name))

    # ---- nodules ---------------------------------------------------------------------------------------------------
    def _nodule(
        self,
        clause: Clause,
        rest: Sequence[Clause],
        anchors: list[Span],
        terms: list[Term],
        sizes: list[Size],
        scopes: Judge,
    ) -> None:
        said = clause.sheet.found
        veto = [(a + clause.start, b + clause.start) for a, b in clause.sheet.spans("fill_no")]
        where = places(terms, veto)
        live = [a for a in anchors if scopes.of(*a).certainty != "negated"]
        if anchors and not live and not where and not sizes:
            return
        if (anchors and not live) or (anchors and "resolved" in said):
            self.targets = []
            return
        if not self._choose(clause, rest, live, where, terms, sizes, scopes):
            return
        if where and where[0].side:
            self.side = where[0].side
        self._attach_sizes(clause, terms, sizes)
        self._attach_terms(clause, terms, scopes)

    def _choose(
        self,
        clause: Clause,
        rest: Sequence[Clause],
        anchors: list[Span],
        where: list[Place],
        terms: list[Term],
        sizes: list[Size],
        scopes: Judge,
    ) -> bool:
        """Set `targets` to the nodules that the clause speaks of; False when it only prepares a later clause."""
        said = clause.sheet.found
        if "every" in said:
            self.targets, self.weak = list(self.out.nodules), True
            return True
        for name, index in (("former", 0), ("latter", 1)):
            if name in said and len(self.batch) > 1:
                self.targets = [self.batch[index]]
                return True
        if span := self._first("rest", clause):
            return self._rest_of_group(self.text[slice(*span)], terms)
        if "introduce" not in said and self._one_of_pair(where):
            return True
        if "largest" in said and (self.group or self.out.nodules or where):
            return self._largest(clause, where)
        if "smaller" in said and self.group:
            return self._smaller(where, terms)
        if not anchors and "each" in said and self._split_group(where):
            return True
        if self._is_new(clause, anchors, where, terms, sizes):
            self._create(clause, anchors, where, terms)
            return True
        if "likewise" in said and self.group and len(self.group.members) > 1:
            self.targets, self.weak = list(self.group.members), True
            return True
        if anchors and where:
            same = [n for n in self.out.nodules if all(n.place.fits(p) for p in where[:1])]
            self.targets = same[-1:] or self.targets
            if clause.sheet.lies and same and same[-1].sentence == self.sentence:
                same[-1].place.fill(where[0])  # "右叶见多个结节，位于中部的低回声结节…；位于下部的…"
            return True
        return self._continue(clause, rest, where, terms, sizes, scopes)

    def _continue(
        self,
        clause: Clause,
        rest: Sequence[Clause],
        where: list[Place],
        terms: list[Term],
        sizes: list[Size],
        scopes: Judge,
    ) -> bool:
        """A clause that introduces nothing: more about the current nodule, or words before the next one."""
        said = clause.sheet.found
        begun = bool(self.targets and self.targets[-1].sentence == self.sentence)
        only_place = bool(where) and not sizes and not clause.sheet.leftover
        anaphor = clause.sheet.anaphor
        if not begun and not anaphor and not clause.field and "likewise" not in said:
            ahead = self._noun_ahead(rest)
            if only_place or (where and where[0].side and (ahead or self.ordinal is not None)):
                self.place = where[0]
                self.headed = where[0].side if self.text[clause.end : clause.end + 1] == ":" else self.headed
                self.side = where[0].side or self.side
                if only_place or ahead:
                    self._keep_for_noun(terms, sizes, scopes)
                    return False
            if ahead and (terms or sizes) and (clause.sheet.latin or self.place.side):
                self._keep_for_noun(terms, sizes, scopes)
                return False
        located = only_place or clause.field == "location" or clause.sheet.lies
        if where and len(self.targets) == 1 and located and (begun or anaphor or clause.field):
            self.targets[0].place.fill(where[0])
        return bool(self.targets)

    def _keep_for_noun(self, terms: Sequence[Term], sizes: Sequence[Size], scopes: Judge) -> None:
        for term in terms:
            if not term.part and term.attribute != self.rules.plane:
                found = scopes.of(term.start, term.end)
                self.early.append(Fact(term.attribute, term.value, term.start, term.end, found.certainty, found.cue))
        self.early_sizes += sizes

    def _noun_ahead(self, rest: Sequence[Clause]) -> bool:
        """A new nodule is named later in the sentence."""
        for clause in rest:
            if clause.sheet.anchors:
                return not clause.sheet.definite
            if "organ_place" in clause.sheet.found and not clause.sheet.latin:
                return False
        return False
