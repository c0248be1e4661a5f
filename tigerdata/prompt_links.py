"""Which nodule and which class an image shows: findings, pathology and image columns brought together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kb import KnowledgeBase

if TYPE_CHECKING:
    import duckdb


@dataclass
class Nodule:
    """A described nodule: `attributes` holds asserted and hedged values, `uncertain` the attributes with a hedge."""

    nodule_id: str | None
    image_id: str | None
    patient_id: str | None
    exam_id: str | None
    ordinal: int | None
    attributes: dict[str, list[str]] = field(default_factory=dict)
    uncertain: set[str] = field(default_factory=set)
    report_id: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """One pathology statement; `subtype` may be a class, other_malignant, indeterminate or none."""

    patient_id: str | None
    exam_id: str | None
    nodule_ordinal: int | None
    subtype: str
    conflict: bool


def attach_findings(
    base: KnowledgeBase, nodules: Mapping[str, Nodule], findings: Sequence[tuple[str, str, str, str]], counts: Counter
) -> None:
    """Add (nodule_id, attribute, value, certainty) rows to their nodules.

    Negated findings are dropped: a prompt says what is there. Fields outside the 12 attributes (TI-RADS, vascularity)
    are no prompt words. A single-valued attribute with two different values is a contradiction: it stays out, counted.
    """
    for nodule_id, attribute, value, certainty in findings:
        if nodule_id not in nodules or attribute not in base.attributes or certainty == "negated":
            continue
        if value not in base.attributes[attribute].values:
            counts["value_not_in_vocabulary"] += 1
            continue
        nodule = nodules[nodule_id]
        values = nodule.attributes.setdefault(attribute, [])
        if value not in values:
            values.append(value)
        if certainty == "uncertain":
            nodule.uncertain.add(attribute)
    for nodule in nodules.values():
        for attribute in [a for a, v in nodule.attributes.items() if len(v) > 1 and not base.attributes[a].multiple]:
            del nodule.attributes[attribute]
            counts["contradiction_left_out"] += 1


def agrees(base: KnowledgeBase, own: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether two descriptions can be of one nodule: no attribute that both state without a value in common.

    Side and size tell nodules of one examination apart. A location names a side and a pole in one attribute, so only
    values of the same group are compared.
    """
    for attribute in ("nodule_location", "diameter"):
        model = base.attributes[attribute]
        mine, theirs = set(own.get(attribute, ())), set(other.get(attribute, ()))
        for kind in model.groups.values() or (tuple(model.values),):
            here, there = mine & set(kind), theirs & set(kind)
            if here and there and not here & there:
                return False
    return True


def completed(
    base: KnowledgeBase, own: Mapping[str, list[str]], other: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Return `own` attributes, completed by what only `other` states.

    Within an attribute of several groups (side, pole, depth) each group is completed by itself: an image set that
    names the side does not silence the report on the pole.
    """
    merged = {**other, **own}
    for attribute in own.keys() & other.keys():
        groups = base.attributes[attribute].groups
        for kind in groups.values():
            if not set(own[attribute]) & set(kind):
                merged[attribute] = merged[attribute] + [v for v in other[attribute] if v in kind]
    return merged


def read_links(base: KnowledgeBase, con: duckdb.DuckDBPyConnection, counts: Counter) -> Links:
    """Return the links of a workspace's open database; `counts` collects what is left out."""
    nodules = {
        row[0]: Nodule(row[0], row[1], row[2], row[3], row[4], report_id=row[5])
        for row in con.execute(
            "SELECT nodule_id, image_id, patient_id, exam_id, ordinal, report_id FROM nodules ORDER BY nodule_id"
        ).fetchall()
    }
    findings = con.execute(
        "SELECT nodule_id, attribute, value, certainty FROM findings WHERE nodule_id IS NOT NULL ORDER BY finding_id"
    ).fetchall()
    pathology = con.execute(
        "SELECT patient_id, exam_id, nodule_ordinal, subtype, coalesce(conflict, '') <> '' FROM pathology"
    ).fetchall()
    attach_findings(base, nodules, findings, counts)
    return Links(base, nodules, [Diagnosis(*row) for row in pathology], counts)


class Links:
    """Look-ups from an image to its nodule and its class; `counts` collects what was left out and why."""

    def __init__(
        self, base: KnowledgeBase, nodules: Mapping[str, Nodule], pathology: Sequence[Diagnosis], counts: Counter
    ) -> None:
        self.base, self.counts = base, counts
        self.by_image: dict[str, list[Nodule]] = defaultdict(list)
        self.by_exam: dict[tuple[str | None, str], list[Nodule]] = defaultdict(list)
        self.by_report: dict[str, list[Nodule]] = defaultdict(list)
        self.by_patient: dict[str, list[Diagnosis]] = defaultdict(list)
        for nodule in nodules.values():
            if nodule.image_id:
                self.by_image[nodule.image_id].append(nodule)
                continue
            if nodule.report_id:
                self.by_report[nodule.report_id].append(nodule)
            if nodule.exam_id:
                self.by_exam[nodule.patient_id, nodule.exam_id].append(nodule)
        for row in pathology:
            if row.patient_id:
                self.by_patient[row.patient_id].append(row)

    def nodule(
        self, image_id: str, patient_id: str | None, exam_id: str | None, report_id: str | None = None
    ) -> Nodule | None:
        """Return the nodule an image shows, or None (counted) when it cannot be told which one it is.

        The image's own descriptors come first. The nodules of its report, or of the examination's, are narrowed down
        by side and size to those that agree with them; one remaining nodule completes what the descriptors leave
        open. An image that nobody described at all (a class folder) has a nodule without an id.
        """
        own = self.by_image.get(image_id, [])
        if len(own) > 1:
            self.counts["several_nodules_on_image"] += 1
            return None
        stated = own[0].attributes if own else {}
        reported = self.by_report.get(report_id, []) if report_id else []
        if not reported and exam_id:
            reported = self.by_exam.get((patient_id, exam_id), [])
        fitting = [n for n in reported if agrees(self.base, stated, n.attributes)]
        if len(fitting) == 1:
            other = fitting[0]
            if not own:
                return other
            merged = completed(self.base, stated, other.attributes)
            return Nodule(other.nodule_id, image_id, patient_id, exam_id, other.ordinal, merged, set(other.uncertain))
        if own and any(self.base.scope(a) == "fg" for a in stated):
            return own[0]
        if not reported:
            return Nodule(None, image_id, patient_id, exam_id, None, dict(stated))
        self.counts["nodule_ambiguous" if fitting else "nodule_contradicts_image"] += 1
        return None

    def label(self, image_label: str | None, patient_id: str | None, nodule: Nodule) -> str | None:
        """Return the class: pathology of the examination, else of the patient, else the image's own; None = excluded.

        Pathology that contradicts itself, or that names a cancer outside the classes, excludes the image: a label
        from elsewhere would be known to be wrong.
        """
        rows = self.by_patient.get(patient_id or "", [])
        rows = [r for r in rows if r.exam_id and r.exam_id == nodule.exam_id] or rows
        same = [r for r in rows if r.nodule_ordinal is not None and r.nodule_ordinal == nodule.ordinal]
        rows = same or rows
        if any(r.conflict for r in rows):
            self.counts["pathology_conflict"] += 1
            return None
        found = {r.subtype for r in rows if r.subtype not in ("none", "indeterminate")}
        if len(found) > 1:
            self.counts["pathology_conflict"] += 1
            return None
        if found:
            label = found.pop()
            if label not in self.base.subtypes:
                self.counts["pathology_outside_classes"] += 1
                return None
            return label
        if not image_label:
            self.counts["no_label"] += 1
        return image_label or None
