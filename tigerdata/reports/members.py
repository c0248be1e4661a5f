"""Making nodules: new ones, entries of a group, pairs; and giving them sizes and attributes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tigerdata.reports.assertion import Span
from tigerdata.reports.clauses import Clause
from tigerdata.reports.facts import Fact, Group, Nodule, Place, one_side
from tigerdata.reports.measures import Size
from tigerdata.reports.state import Judge, State
from tigerdata.reports.terms import Term

ABOUT_PARTS = re.compile(r"^(?:内|周|后|边|与|向|前|表|形|呈|血|回|均|大小|局部|实性|囊)")
NEXT_MARGIN = re.compile(r", (?:\w+ ){0,2}(?:margins?|borders?)")
FIELD_NONE = re.compile(r"^\s*:\s*(?:none|no|absent|negative)\s*$")
JOINED = re.compile(r"[及和与或、]|(?<![a-z])(?:and|or)(?![a-z])")


class Members(State):
    """The rules by which clauses make and fill nodules."""

    # ---- is it a new one? ------------------------------------------------------------------------------------------
    def _is_new(
        self,
        clause: Clause,
        anchors: Sequence[Span],
        where: Sequence[Place],
        terms: Sequence[Term],
        sizes: Sequence[Size],
    ) -> bool:
        said = clause.sheet.found
        described = any(t.attribute in self.rules.descriptive for t in terms)
        if self.ordinal is not None and (
            anchors or sizes or described or any(p.pole for p in where) or (where and "gland_size" not in said)
        ):
            return True
        if clause.field == "size" and sizes:
            last = self.out.nodules[-1] if self.out.nodules else None
            return last is None or bool(last.sizes) or last.multiple
        if not anchors:
            weak = self._first("weak_anchor", clause)
            verb = self._first("introduce", clause)
            return bool(weak and verb and verb[0] < weak[0] and "inner" not in said and "not_entry" not in said) and (
                bool(where or self.place.side or "many" in said)
            )
        anchor = anchors[0]
        inner = self._first("inner", clause)
        if inner and inner[1] <= anchor[0] and not where and not self.place.side:
            return False
        if not self.out.nodules:
            return True
        known = self._known(where)
        if clause.sheet.definite and not where and not (sizes and self.targets and self.targets[-1].sizes):
            return False
        if clause.sheet.anaphor and not where:
            return False
        verb = self._first("introduce", clause)
        if not where and ABOUT_PARTS.match(self.text[anchor[1] : anchor[1] + 2]) and not clause.sheet.latin:
            return bool(verb and verb[0] < anchor[0] and self.place.side)
        if verb and (verb[0] < anchor[0] or clause.sheet.latin):
            return not (known and clause.sheet.definite and not sizes)
        if sizes or "many" in said:
            return not (known and not known[-1].sizes)
        return bool(where or self.place.side) and not known

    def _known(self, where: Sequence[Place]) -> list[Nodule]:
        """Nodules that a named place can mean."""
        place = Place(where[0].side or self.place.side, where[0].pole) if where else self.place
        if not place.side and not place.pole:
            return []
        return [n for n in self.out.nodules if n.place.fits(place) and n.place.side]

    def _one_of_pair(self, where: Sequence[Place]) -> bool:
        """ "双叶各见一结节，左叶A，右叶B，边界清": a side names its nodule; what follows both holds for both."""
        if len(self.batch) != 2 or self.batch[0].sentence != self.sentence or not where or not where[0].side:
            return False
        left, right = (n.place.side.value if n.place.side else "" for n in self.batch)
        if left == right or where[0].side.value not in (left, right):
            return False
        second = where[0].side.value == right
        nodule, other = self.batch[second], self.batch[not second]
        nodule.place.fill(where[0])
        self.targets, self.weak = [nodule], False
        self.group = Group([other, nodule], [], Place(), refined=True) if other.sizes else None
        return True

    def _split_group(self, where: Sequence[Place]) -> bool:
        """ "见两个结节，分别位于X及Y": each place is an entry of its own, with what was said of both."""
        group = self.group
        if group is None or group.refined or len(where) < 2 or group.members[0].sizes:
            return False
        first = group.members[0]
        made: list[Nodule] = []
        for place in where:
            nodule = first if not made else Nodule(facts=list(first.facts), sentence=self.sentence)
            nodule.place = Place(place.side or one_side(first.place.side), place.pole, place.depth)
            nodule.multiple = False
            made.append(nodule)
        self.out.nodules += made[1:]
        self.targets, self.batch, self.group, self.weak = made, made, None, False
        return True

    # ---- making ----------------------------------------------------------------------------------------------------
    def _create(self, clause: Clause, anchors: Sequence[Span], where: list[Place], terms: Sequence[Term]) -> None:
        said = clause.sheet.found
        many = "many" in said or any(self.text[a:b] in ("nodules", "cysts", "masses", "lesions") for a, b in anchors)
        where = [p for p in where if p.side or p.pole] or where
        if len(where) > 1 and "each" not in said and not (anchors and self._pair_follows(clause)):
            sides = {p.side.value for p in where if p.side}
            where = [Place(None)] if many and len(sides) > 1 else where[:1]
        side = where[0].side if len(where) == 1 else None
        if "one_each" in said and not many and side and side.value == "bilateral":
            whole = where[0]
            where = [Place(side._replace(value=value), whole.pole, whole.depth) for value in ("left", "right")]
        made = []
        for place in where or [Place()]:
            nodule = Nodule(Place(place.side, place.pole, place.depth), multiple=bool(many), sentence=self.sentence)
            nodule.place.fill(self.place)
            if nodule.place.side is None:
                carried = self.side if nodule.place.pole or self.ordinal is not None else None
                nodule.place.side = self.headed or carried
            nodule.anchor = anchors[0] if anchors else None
            nodule.tentative = not anchors and self.ordinal is None and not clause.field
            nodule.ordinal = self.ordinal
            nodule.facts += self.early
            nodule.sizes += self.early_sizes[:1]
            made.append(nodule)
        if made[0].ordinal is not None:
            self._number(made)
        self.out.nodules += made
        self.targets, self.batch, self.weak = made, made, False
        self.group = Group(made[:1], list(self.early), made[0].place) if many and len(made) == 1 else None
        if self.group is None and len(made) > 1:
            for nodule in made:
                nodule.multiple = False
        self.place, self.early, self.early_sizes, self.ordinal = Place(), [], [], None
        self.measured.clear()

    def _number(self, made: Sequence[Nodule]) -> None:
        """ "见数个低回声结节：①…；②…": the items are the nodules; the phrase before them holds for all."""
        head = self.out.nodules[-1] if self.out.nodules else None
        if head and not head.sizes and head.ordinal is None and not head.role and not head.place.pole:
            self.out.nodules.remove(head)
            self.listed = [f._replace(rule="group") for f in head.facts], one_side(head.place.side)
        if self.listed:
            for nodule in made:
                nodule.facts = [*self.listed[0], *nodule.facts]
                nodule.place.side = nodule.place.side or self.listed[1]

    def _pair_follows(self, clause: Clause) -> bool:
        """ "X及Y见结节，大小分别为A、B": the two places are two nodules."""
        end = self.text.find("。", clause.end)
        return bool(self.cues["each"].search(self.text, clause.end, end if end >= 0 else len(self.text)))

    def _rest_of_group(self, words: str, terms: Sequence[Term]) -> bool:
        """The other members: an entry only if their composition or echo is told; "部分结节" is none."""
        self.targets, self.weak = [], True
        if words.startswith(("部分", "some")) or not any(t.attribute in self.rules.descriptive for t in terms):
            return False
        nodule = Nodule(multiple=True, sentence=self.sentence)
        self.out.nodules.append(nodule)
        self.targets = [nodule]
        return True

    def _largest(self, clause: Clause, where: list[Place]) -> bool:
        place = where[0] if where else Place()
        group = self.group
        if group is None:
            last = self.out.nodules[-1] if self.out.nodules else None
            if last is None or last.sizes or (place.side and not last.place.fits(place)):
                last = Nodule(Place(self.side if not place.side else None), multiple=True, sentence=self.sentence)
                self.out.nodules.append(last)
            group = self.group = Group([last], [f for f in last.facts], last.place)
            last.multiple = True
        larger = [n for n in group.members if n.role == "larger" and n.place.fits(place)]
        if group.refined and (
            larger if place.side is None or clause.sheet.latin else [n for n in larger if n.place.side is place.side]
        ):
            self.targets = larger[-1:]
            return True
        if not group.refined:
            nodule = group.members[0]
            group.place = Place(nodule.place.side, nodule.place.pole, nodule.place.depth)
            group.refined = True
            nodule.facts = [f._replace(rule="group") for f in nodule.facts]
            group.shared = list(nodule.facts)
            if place.side:
                nodule.place.side = place.side
            if "likewise" in clause.sheet.found and place.pole:
                group.place.pole = place.pole
            unplaced = True
        elif place.side and any(
            n.place.side and n.place.side.value == place.side.value and not n.sizes for n in group.members
        ):
            nodule = next(n for n in group.members if n.place.side and n.place.side.value == place.side.value)
            unplaced = True
        elif (
            len(group.members) == 1
            and not group.members[0].sizes
            and (group.members[0].place.side is None or group.members[0].place.side.value == "bilateral")
        ):
            nodule, unplaced = group.members[0], True
            nodule.place.side = place.side or nodule.place.side
        else:
            nodule = group.add(place.side)
            self.out.nodules.append(nodule)
            unplaced = True
        if unplaced and place.pole:
            nodule.place.pole = place.pole
        nodule.place.fill(place)
        nodule.role, nodule.sentence, nodule.tentative = "larger", self.sentence, False
        self.targets, self.weak = [nodule], False
        return True

    def _smaller(self, where: list[Place], terms: Sequence[Term]) -> bool:
        group = self.group
        assert group is not None
        known = [n for n in group.members if n.role == "smaller"]
        if known:
            self.targets = known
            return True
        if (
            not where
            and not self.place.pole
            and not any(t.attribute in self.rules.descriptive for t in terms)
            and not self._latin_text()
        ):
            self.targets = []
            return False
        nodule = group.add(where[0].side if where else None)
        nodule.place.fill(where[0] if where else self.place)
        nodule.role, nodule.sentence = "smaller", self.sentence
        for member in group.members:
            member.multiple = False
        self.out.nodules.append(nodule)
        self.targets = [nodule]
        return True

    def _latin_text(self) -> bool:
        return sum(c.isascii() for c in self.text) > 0.8 * len(self.text)

    # ---- filling ---------------------------------------------------------------------------------------------------
    def _current(self, clause: Clause, sizes: Sequence[Size]) -> list[Size]:
        """Sizes of this examination: not those after 前次, previously."""
        kept = []
        for size in sizes:
            reach = size.start - clause.start
            prior = [b for _, b in clause.sheet.spans("prior") if b <= reach]
            now = [b for _, b in clause.sheet.spans("now") if b <= reach]
            if not prior or (now and max(now) > max(prior)):
                kept.append(size)
        return kept

    def _attach_sizes(self, clause: Clause, terms: Sequence[Term], sizes: Sequence[Size]) -> None:
        sizes = self._current(clause, sizes)
        inner = self._first("inner", clause)
        if inner and any(t.attribute in self.rules.sized_parts for t in terms):
            sizes = [s for s in sizes if s.end <= inner[0]]
        if not sizes or self.weak:
            return
        if len(self.targets) > 1 and len(sizes) >= len(self.targets):
            for nodule, size in zip(self.targets, sizes, strict=False):
                nodule.sizes.append(size)
            return
        for nodule in self.targets:
            largest = max(sizes, key=lambda s: max(s.values, default=0))
            another_plane = nodule.sizes and len(largest.values) == len(nodule.sizes[0].values) == 1 and self.planes
            if not nodule.sizes or another_plane:
                nodule.sizes.append(largest)
            nodule.tentative = False

    def _attach_terms(self, clause: Clause, terms: Sequence[Term], scopes: Judge) -> None:
        facts = self._facts(clause, terms, scopes)
        if not facts and not self.targets:
            return
        fresh = [n for n in self.targets if n.sentence == self.sentence]
        for nodule in self.targets:
            if self.planes and (facts or nodule in fresh or nodule.sizes):
                nodule.facts += [f for f in self.planes if f not in nodule.facts]
            for fact in facts:
                self._give(nodule, fact, self.weak)
            nodule.described = nodule.described or bool(facts and nodule.sizes)
        group = self.group
        if group and not self.weak and len(self.targets) == 1 and self.targets[0] in group.members:
            if not group.refined:
                group.shared += facts
            elif len(group.members) > 1 and self.targets[0] is group.members[-1] and self.targets[0].sizes:
                # "右叶大者A，左叶大者B，边界清晰": what follows both sizes holds for both.
                for nodule in group.members[:-1]:
                    if not nodule.described:
                        for fact in facts:
                            self._give(nodule, fact, True)

    @staticmethod
    def _give(nodule: Nodule, fact: Fact, weak: bool) -> None:
        if not weak:
            nodule.facts.append(fact)
        elif not nodule.own(fact.attribute):
            nodule.facts.append(
                Fact(fact.attribute, fact.value, fact.start, fact.end, fact.certainty, fact.cue, "shared")
            )

    def _facts(self, clause: Clause, terms: Sequence[Term], scopes: Judge) -> list[Fact]:
        inner = self._first("inner", clause)
        if inner and any(n.anchor and n.anchor[0] >= inner[1] for n in self.targets):
            inner = None  # "左叶增大，内可见一…结节": what is inside the lobe is the nodule itself
        wall = clause.sheet.latin
        facts: list[Fact] = []
        for term in terms:
            attribute, value, rule = term.attribute, term.value, "term"
            if term.part or attribute in (self.rules.plane, self.rules.size_class) or self._heading(clause, term):
                continue
            if inner and inner[1] <= term.start and attribute in self.rules.descriptive and not wall:
                if value not in self.rules.inner:
                    continue
                attribute, value = self.rules.inner[value]
                rule = "inner"
            word = self.rules.margin_words.get(self.text[term.start : term.end])
            if word and self._margin_near(clause):
                attribute, value = word
                rule = "margin word"
            found = scopes.of(term.start, term.end)
            facts.append(Fact(attribute, value, term.start, term.end, found.certainty, found.cue, rule))
        if self.group and not self.group.refined and "many" in clause.sheet.found:
            facts = [f for f in facts if not self._undecided(f, facts)]
        return facts

    def _heading(self, clause: Clause, term: Term) -> bool:
        """The name of a form field ("Echogenic foci:") states nothing unless the field is filled with "none"."""
        head = self.text.find(clause.field, clause.start, clause.end) if clause.field else -1
        if head < 0 or self.text[clause.start : head].strip() or term.end > head + len(clause.field):
            return False
        return not FIELD_NONE.match(self.text[term.end : clause.end])

    def _margin_near(self, clause: Clause) -> bool:
        if clause.field.startswith("margin") or "margin_word" in clause.sheet.found:
            return True
        # "Irregular, spiculated margins": the noun of a lone adjective comes after the comma.
        alone = self.text[clause.start : clause.end].strip() in self.rules.margin_words
        return alone and bool(NEXT_MARGIN.match(self.text, clause.end))

    def _undecided(self, fact: Fact, facts: Sequence[Fact]) -> bool:
        """ "囊实性及实性结节": members differ, so the group has neither value."""
        if fact.attribute not in self.rules.descriptive:
            return False
        rivals = [f for f in facts if f.attribute == fact.attribute and f.value != fact.value]
        return any(JOINED.search(self.text[min(f.end, fact.end) : max(f.start, fact.start)]) for f in rivals)
