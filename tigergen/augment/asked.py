"""What one image is asked to show: a report text, phrases or an existing case, as prompts of both encoders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kb import KnowledgeBase
from kb.errors import UserError
from tigerdata.prompts import class_phrase, compose, phrases
from tigergen.augment.slots import quality_of, with_quality


@dataclass(frozen=True)
class Asked:
    """A prompt and where it comes from.

    `attributes`: attribute to values. `understood`: what was read in a text, a row each with `text`, `says` and
    `encoder`; `denied`, `doubtful`: values that the text denies or doubts; `unread`: stretches in
    which nothing was read.
    """

    label: str
    attributes: dict[str, list[str]]
    fg: str
    bg: str
    understood: list[dict[str, str]] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """The prompts, and how a text was read, without what is empty."""
        read = {name: getattr(self, name) for name in ("understood", "denied", "doubtful", "unread")}
        return {"label": self.label, "fg": self.fg, "bg": self.bg, **{k: v for k, v in read.items() if v}}

    def with_quality(self, words: Sequence[str]) -> "Asked":
        """The same with image-quality phrases in the background prompt, behind those that it has."""
        return replace(self, bg=with_quality(self.bg, words))

    def changed(self, base: KnowledgeBase, attribute: str, values: Sequence[str]) -> "Asked":
        """The same with other values of one attribute; image-quality phrases stay."""
        attributes = {**self.attributes, attribute: list(values)}
        quality = quality_of(base, self.bg)
        prompt = compose(base, self.label, {a: v for a, v in attributes.items() if v}, quality)
        return replace(self, attributes=attributes, fg=prompt.fg, bg=prompt.bg)


def from_text(base: KnowledgeBase, domain: str, text: str, label: str | None = None, nodule: int = 1) -> Asked:
    """Read a prompt: a Chinese or English report text, or phrases of the vocabulary separated by commas.

    `label`: the class; default: the one that the text names. `nodule`: which of several that a report describes.
    Raises UserError where no class is named, or nothing of the vocabulary is in the text.
    """
    listed = [part.strip() for part in text.split(",") if part.strip()]
    known = set(base.phrases())
    if listed and all(part in known for part in listed):
        return _from_list(base, listed, label)
    from tigerdata.reports.explain import attributes_of, explain
    from tigerdata.reports.parser import parse

    found, parsed = explain(text, "prompt", domain, base), parse(text, domain)["nodules"]
    if not 1 <= nodule <= max(len(parsed), 1):
        raise UserError(f"the text describes {len(parsed)} nodules and not {nodule}; give --nodule from 1.")
    attributes = attributes_of(parsed[nodule - 1], base) if parsed else {}
    own = label or _class_in(base, domain, text)
    if not attributes and label is None:
        raise UserError(
            f"nothing of the vocabulary was found in the prompt; `tigerdata explain` shows how '{domain}' reads it."
        )
    marks = [m for m in found.marks if m.nodule == nodule]
    rows = [
        {"text": text[m.start : m.end], "says": base.phrase(m.attribute, m.value), "encoder": str(m.side)}
        for m in marks
        # What a denial states is asked for (no calcification); what it takes away is not.
        if m.certainty != "negated" and m.value in attributes.get(m.attribute, ())
    ]
    # A size is said in millimetres and asked for as a class.
    rows += [
        {"text": text[m.start : m.end], "says": base.phrase(m.attribute, v), "encoder": base.scope(m.attribute)}
        for m in marks
        if m.attribute == "diameter" and m.value not in attributes.get("diameter", ())
        for v in attributes.get("diameter", ())[:1]
    ]
    prompt = compose(base, own, attributes)
    entry = found.nodules[nodule - 1] if found.nodules else None
    return Asked(
        label=own,
        attributes=attributes,
        fg=prompt.fg,
        bg=prompt.bg,
        understood=[row for n, row in enumerate(rows) if row not in rows[:n]],
        denied=entry.negated if entry else [],
        doubtful=entry.uncertain if entry else [],
        unread=[piece for _, _, piece in found.unread],
    )


def _class_in(base: KnowledgeBase, domain: str, text: str) -> str:
    from tigerdata.reports.pathology import parse_pathology

    named = parse_pathology(text, domain)["subtype"]
    if named not in base.subtypes:
        raise UserError(f"the prompt names no class; give --label, one of {', '.join(base.subtypes)}.")
    return str(named)


def _from_list(base: KnowledgeBase, listed: Sequence[str], label: str | None) -> Asked:
    """Phrases, each sorted to its encoder."""
    attributes: dict[str, list[str]] = {}
    quality, own = [], label
    for phrase in listed:
        attribute, value = base.parse_phrase(phrase)
        if attribute == "subtype":
            own = label or value
        elif attribute in base.quality:
            quality.append(phrase)
        else:
            attributes.setdefault(attribute, []).append(value)
    if own is None:
        raise UserError(f"the prompt names no class; give --label, one of {', '.join(base.subtypes)}.")
    prompt = compose(base, own, attributes, quality)
    return Asked(own, attributes, prompt.fg, prompt.bg)


def from_phrases(base: KnowledgeBase, fg: str, bg: str, label: str | None = None) -> Asked:
    """The prompts of both encoders as they are given; each phrase must be one of the vocabulary.

    The foreground prompt begins with the phrase of its class, unless `label` names another class whose phrase it may
    begin with. Raises UserError for another phrase.
    """
    heads = {class_phrase(base, name): name for name in base.subtypes}
    first = phrases(fg)[0] if phrases(fg) else ""
    own = label or heads.get(first)
    if own is None or first != class_phrase(base, own):
        raise UserError(
            f"the foreground prompt begins with '{first}', which is no class; begin with one of {', '.join(heads)}."
        )
    attributes: dict[str, list[str]] = {}
    for phrase in [*phrases(fg)[1:], *phrases(bg)]:
        attribute, value = base.parse_phrase(phrase)
        if attribute not in base.quality and attribute != "subtype":
            attributes.setdefault(attribute, []).append(value)
    return Asked(own, attributes, fg, bg)


def from_case(case: Mapping[str, Any]) -> Asked:
    """The prompts of an image of the workspace (a row of `Workspace.cases`)."""
    return Asked(case["label"], {a: list(v) for a, v in case["attributes"].items()}, case["fg"], case["bg"])
