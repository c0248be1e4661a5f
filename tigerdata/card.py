"""The data card: a README under the headings of Datasheets for Datasets (Gebru et al. 2021)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kb.files import atomic_write

UNSTATED = "**Not stated.** Whoever passes this data set on must state it first."


@dataclass(frozen=True)
class Counts:
    """Images of one class in one split, and how many patients the real ones come from."""

    label: str
    split: str
    real: int
    synthetic: int
    patients: int


@dataclass(frozen=True)
class Card:
    """What a card says. `statements` are the owner's own words: licence, consent, contact; `remarks` are sentences on
    the split that a user must know (`splits.remarks`)."""

    title: str
    counts: Sequence[Counts]
    generator: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    checks: Sequence[str] = ()
    statements: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    front_matter: bool = True
    remarks: Sequence[str] = ()


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def render(card: Card) -> str:
    """The card as Markdown with the front matter that Hugging Face data sets read."""
    synthetic, real = sum(c.synthetic for c in card.counts), sum(c.real for c in card.counts)
    out: list[str] = []
    if card.front_matter:
        tags = ["medical", "ultrasound", *(["synthetic"] if synthetic else [])]
        licence = card.statements.get("licence")
        out += ["---", "task_categories:", "- image-classification", "tags:", *(f"- {t}" for t in tags)]
        out += [f"pretty_name: {_quoted(card.title)}"]
        out += ["license: other", f"license_name: {_quoted(licence)}"] if licence else []
        out += ["---", ""]
    out += [f"# {card.title}", ""]
    out += [f"{real} real and {synthetic} generated gray ultrasound images. Made by TigerData.", ""]
    if synthetic:
        out += ["**Generated images must never enter a validation or a test set.** They are for training only.", ""]
    out += ["## Motivation", ""]
    out += [
        "To train classifiers where a class has too few cases. Not for diagnosis, and not a device's sole evidence.",
        "",
    ]
    out += ["## Composition", ""]
    rows = [(c.label, c.split, c.real, c.synthetic, c.patients if c.real else "–", _share(c)) for c in card.counts]
    out += _table(("class", "split", "real", "generated", "patients (real)", "generated share"), rows)
    if card.features:
        out += _table(("field", "meaning"), list(card.features.items()))
    out += ["## Collection process", "", _said(card, "collection"), ""]
    out += ["Consent and ethics: " + _said(card, "consent"), ""]
    out += ["## Preprocessing, cleaning, labelling", ""]
    out += ["Labels come from pathology where it is linked, else from the image's own label. Splits are by patient."]
    out += [f"**{remark}**" for remark in card.remarks] + [""]
    if card.generator:
        out += ["How the generated images were made:", "", *_table(("setting", "value"), list(card.generator.items()))]
        rejects = [(reason, n) for reason, n in card.rejected.items()] or [("none", 0)]
        out += ["Rejected by the gates and made again:", "", *_table(("reason", "images"), rejects)]
        out += [
            "Each generated image borrows the nodule mask and edge map of one real training image (its donor, named",
            "in the manifest). The copy gate compares it with the real training images; passing it is no proof of",
            "anonymity.",
            "",
        ]
    if card.checks:
        out += ["Checked at export:", "", *(f"- {c}" for c in card.checks), ""]
    out += ["## Uses", ""]
    out += ["Training of image classifiers, with evaluation on real images of other patients.", ""]
    out += ["## Distribution", "", "Licence: " + _said(card, "licence"), ""]
    if synthetic:
        out += ["Each generated file says so: PNG text `TigerSynthetic=1` and IPTC digital source type in XMP.", ""]
    out += ["## Maintenance", "", "Contact: " + _said(card, "contact"), ""]
    return "\n".join(out)


def _share(c: Counts) -> str:
    return f"{100 * c.synthetic / max(1, c.real + c.synthetic):.0f} %"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said(card: Card, name: str) -> str:
    return card.statements.get(name) or UNSTATED


def write(path: Path, card: Card) -> None:
    """Write the card atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(render(card), encoding="utf-8")
