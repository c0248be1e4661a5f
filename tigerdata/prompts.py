"""Foreground and background prompts: composed from attributes, with the role of every phrase.

The split is total and disjoint (contract 4): every value goes to FG or to BG by the knowledge base's scope, none is
lost and none is in both. The foreground prompt starts with the class; its phrases carry the roles of eq. 10.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kb.errors import UserError

if TYPE_CHECKING:
    from kb import KnowledgeBase
    from tigerdata.workspace import Workspace

SEPARATOR = ", "
Attributes = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Prompt:
    """Foreground and background prompt, each a list of phrases joined by ', '."""

    fg: str
    bg: str


def phrases(prompt: str) -> list[str]:
    """Return the phrases of a prompt; the empty prompt has none."""
    return [p for p in prompt.split(SEPARATOR) if p]


def class_phrase(base: KnowledgeBase, label: str) -> str:
    """Return the phrase that names a class: the subtype's, or the label itself when the domain does not know it."""
    if label in base.subtypes:
        return base.subtypes[label].phrase
    if not label or SEPARATOR.strip() in label:
        raise UserError(
            f"Class label '{label}' is empty or contains a comma, so it cannot stand in a prompt; rename it."
        )
    return label


def compose(base: KnowledgeBase, label: str, attributes: Attributes, quality: Sequence[str] = ()) -> Prompt:
    """Return the prompts of one image: attributes in the knowledge base's order, a missing one stays out.

    `quality` are background phrases taken from the pixels (`conditions.quality_words`). Raises UserError for an
    attribute or value that the vocabulary does not have.
    """
    unknown = [a for a in attributes if a not in base.attributes]
    if unknown:
        raise UserError(f"Attribute '{unknown[0]}' is not in the vocabulary; known: {', '.join(base.attributes)}.")
    parts: dict[str, list[str]] = {"fg": [class_phrase(base, label)], "bg": []}
    for attribute in base.attributes:
        for value in attributes.get(attribute, ()):
            phrase = base.phrase(attribute, value)
            side = parts[base.scope(attribute, value)]
            if phrase not in side:
                side.append(phrase)
    parts["bg"] += [q for q in quality if q not in parts["bg"]]
    return Prompt(fg=SEPARATOR.join(parts["fg"]), bg=SEPARATOR.join(parts["bg"]))


def roles(base: KnowledgeBase, target: str, fg: str) -> list[tuple[str, str]]:
    """Return (phrase, role) for every phrase of a foreground prompt when `target` is the rare class (eq. 10).

    Roles are particular, joint or common. A class name that the domain does not know (it can only stand first) is
    common; any other unknown phrase is a UserError.
    """
    out = []
    for position, phrase in enumerate(phrases(fg)):
        if position == 0 and phrase not in base.phrases():
            out.append((phrase, "common"))
        else:
            out.append((phrase, base.role(target, *base.parse_phrase(phrase))))
    return out


def build_prompts(ws: Workspace) -> dict[str, int]:
    """Fill the prompts table: one row an image whose nodule and class are known. Return counts, exclusions included.

    Attributes come from the findings of the nodule that the image shows (`prompt_links.Links`), the plane from the
    image's own column before the report's, the class from pathology before the image's label, the image-quality words
    from the pixels. The table is rewritten as a whole, so that the call can be repeated.
    """
    import pandas as pd

    from kb import store
    from tigerdata import conditions
    from tigerdata.images.frames import read_clean
    from tigerdata.prompt_links import read_links

    base = ws.kb
    counts: Counter[str] = Counter()
    with ws.connect(read_only=True) as con:
        images = con.execute(
            "SELECT image_id, patient_id, exam_id, plane, label, report_id FROM images "
            "WHERE rejected IS NULL ORDER BY image_id"
        ).fetchall()
        links = read_links(base, con, counts)
    rows: list[dict[str, Any]] = []
    for image_id, patient_id, exam_id, plane, image_label, report_id in images:
        nodule = links.nodule(image_id, patient_id, exam_id, report_id)
        label = links.label(image_label, patient_id, nodule) if nodule else None
        if nodule is None or label is None:
            continue
        attributes = dict(nodule.attributes)
        if plane:
            attributes["sonogram_direction"] = [plane]
        attributes = {a: attributes[a] for a in base.attributes if a in attributes}
        if base.impossible(attributes):
            counts["impossible_combination"] += 1
        frame = read_clean(ws, image_id)
        prompt = compose(base, label, attributes, conditions.quality_words(frame, base, ws.settings["quality"]))
        counts["class_only"] += nodule.nodule_id is None
        counts["uncertain"] += bool(nodule.uncertain & set(attributes))
        rows.append(
            {
                "image_id": image_id,
                "nodule_id": nodule.nodule_id,
                "label": label,
                "fg": prompt.fg,
                "bg": prompt.bg,
                "attributes": json.dumps(attributes, ensure_ascii=False),
            }
        )
    columns = ["image_id", "nodule_id", "label", "fg", "bg", "attributes"]
    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM prompts")
        store.insert(con, "prompts", pd.DataFrame(rows, columns=columns))
    return {"images": len(images), "prompts": len(rows), **dict(sorted(counts.items()))}
