"""The data card: a README under the headings of Datasheets for Datasets (Gebru et al. 2021)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kb.files import atomic_write

UNSTATED = "**Not stated.** Whoever passes this data set on must state it first."
# What only the owner can say, in the owner's words. Without the first two a data set must not be passed on.
STATEMENTS = {
    "licence": "licence of the data set",
    "consent": "consent and ethics approval",
    "collection": "how, where and when the images were collected",
    "contact": "whom to write to",
    "creator": "who made the data set",
    "published": "date of publication, as 2026-01-31",
    "url": "where the data set is published",
}
REQUIRED = ("licence", "consent")
USES = "Training of image classifiers, with evaluation on real images of other patients."
MOTIVATION = (
    "To train classifiers where a class has too few cases. Not for diagnosis, and not a device's sole evidence."
)
LABELS = "Labels come from pathology where it is linked, else from the image's own label. Splits are by patient."
BORROWED = (
    "Each generated image borrows the nodule mask and edge map of one real training image (its donor, named in the "
    "manifest). The copy gate compares it with the real training images; passing it is no proof of anonymity."
)
MARKED = "Each generated file says so: PNG text `TigerSynthetic=1` and IPTC digital source type in XMP."
UNMARKED = (
    "The arrays cannot say which images were generated: keep `images.csv` with them, its column `synthetic` does."
)
PERSONAL = (
    "Report texts are not part of the data set, only what was read in them; patient ids are keyed hashes and the files "
    "carry no header of the device. The images themselves stay health data."
)


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
    """What a card says. `statements` are the owner's own words (`STATEMENTS`); `remarks` are sentences that a user
    must know (`splits.remarks` and the format's); `preprocessing` says how the files were made from the frames;
    `lost` names the fields that the format cannot carry; `data_files` is split to file pattern for Hugging Face;
    `marked`: generated images say themselves that they are."""

    title: str
    counts: Sequence[Counts]
    generator: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    checks: Sequence[str] = ()
    statements: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    front_matter: bool = True
    remarks: Sequence[str] = ()
    preprocessing: Sequence[str] = ()
    lost: Sequence[str] = ()
    draft: bool = False
    data_files: Mapping[str, str] = field(default_factory=dict)
    marked: bool = True

    @property
    def synthetic(self) -> int:
        """Number of generated images."""
        return sum(c.synthetic for c in self.counts)

    def summary(self) -> str:
        """One sentence on the content."""
        real = sum(c.real for c in self.counts)
        return f"{real} real and {self.synthetic} generated gray ultrasound images. Made by TigerData."


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def render(card: Card) -> str:
    """The card as Markdown with the front matter that Hugging Face data sets read."""
    synthetic = card.synthetic
    out: list[str] = []
    if card.front_matter:
        tags = ["medical", "ultrasound", *(["synthetic"] if synthetic else [])]
        licence = card.statements.get("licence")
        out += ["---", "task_categories:", "- image-classification", "tags:", *(f"- {t}" for t in tags)]
        out += [f"pretty_name: {_quoted(card.title)}"]
        out += ["license: other", f"license_name: {_quoted(licence)}"] if licence else []
        if card.data_files:
            out += ["configs:", "- config_name: default", "  data_files:"]
            for split, pattern in card.data_files.items():
                out += [f"  - split: {split}", f"    path: {_quoted(pattern)}"]
        out += ["---", ""]
    out += [f"# {card.title}", ""]
    out += [card.summary(), ""]
    if card.draft:
        missing = [STATEMENTS[name] for name in REQUIRED if not card.statements.get(name)]
        unsaid = f" Not stated: {'; '.join(missing)}." if missing else ""
        out += [f"**A draft: not to be passed on.**{unsaid}", ""]
    if synthetic:
        out += ["**Generated images must never enter a validation or a test set.** They are for training only.", ""]
    out += ["## Motivation", ""]
    out += [MOTIVATION, ""]
    out += ["## Composition", ""]
    rows = [(c.label, c.split, c.real, c.synthetic, c.patients if c.real else "–", _share(c)) for c in card.counts]
    out += _table(("class", "split", "real", "generated", "patients (real)", "generated share"), rows)
    if card.features:
        out += _table(("field", "meaning"), list(card.features.items()))
    if card.lost:
        out += [f"The format's own files do not hold: {', '.join(card.lost)}. `images.csv` has all but the mask.", ""]
    out += ["## Collection process", "", _said(card, "collection"), ""]
    out += ["Consent and ethics: " + _said(card, "consent"), "", PERSONAL, ""]
    out += ["## Preprocessing, cleaning, labelling", ""]
    out += [*card.preprocessing, LABELS]
    out += [f"**{remark}**" for remark in card.remarks] + [""]
    if card.generator:
        out += ["How the generated images were made:", "", *_table(("setting", "value"), list(card.generator.items()))]
        rejects = [(reason, n) for reason, n in card.rejected.items()] or [("none", 0)]
        out += ["Rejected by the gates and made again:", "", *_table(("reason", "images"), rejects)]
        out += [BORROWED, ""]
    if card.checks:
        out += ["Checked at export:", "", *(f"- {c}" for c in card.checks), ""]
    out += ["## Uses", ""]
    out += [USES, ""]
    out += ["## Distribution", "", "Licence: " + _said(card, "licence"), ""]
    if synthetic:
        out += [MARKED if card.marked else UNMARKED, ""]
    out += ["## Maintenance", "", "Contact: " + _said(card, "contact"), ""]
    for name in ("creator", "published", "url"):
        out += [f"{name.capitalize()}: {card.statements[name]}", ""] if card.statements.get(name) else []
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
