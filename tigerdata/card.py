"""The data card: a README under the headings of Datasheets for Datasets (Gebru et al. 2021).

Under each heading stands what CLAIM 2024, TRIPOD+AI, MI-CLAIM-GEN, Croissant's RAI vocabulary and the rules on
generated content ask for. What nobody has said or measured is said to be so: a reader cannot tell silence from "none".
"""

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
    "population": "countries, sites, devices, years, ages and sexes of the patients",
    "annotation": "who labelled the images, with what qualification, and how well they agree",
    "limits": "known limits and biases",
    "readers": "what human readers said of the generated images, by which criteria",
    "impact": "social impact",
    "funding": "who paid for it",
    "changelog": "what changed since the last version",
    "contact": "whom to write to",
    "creator": "who made the data set",
    "published": "date of publication, as 2026-01-31",
    "url": "where the data set is published",
}
REQUIRED = ("licence", "consent")
SOFTWARE = ("tigerdata", "torch", "diffusers", "transformers", "numpy", "opencv-python-headless", "pillow", "duckdb")
NOT_MEASURED = "not measured"
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
    `marked`: generated images say themselves that they are. Tables of (what, value): `people` (whose images),
    `privacy` (how personal data was removed), `labelling` (vocabulary, prompts, masks), `software`; `copies` are rows
    of the copy check (layer, threshold, images dropped), `quality` rows of measurements (what, on what, N, value, 95 %
    interval or floor)."""

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
    people: Mapping[str, str] = field(default_factory=dict)
    privacy: Mapping[str, str] = field(default_factory=dict)
    labelling: Mapping[str, str] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    copies: Sequence[Sequence[str]] = ()
    quality: Sequence[Sequence[str]] = ()

    @property
    def synthetic(self) -> int:
        """Number of generated images."""
        return sum(c.synthetic for c in self.counts)

    def summary(self) -> str:
        """One sentence on the content."""
        real = sum(c.real for c in self.counts)
        return f"{real} real and {self.synthetic} generated gray ultrasound images. Made by TigerData."


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table; nothing where there are no rows."""
    if not rows:
        return []

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
    for heading, body in _sections(card).items():
        out += [f"## {heading}", "", *body]
    return "\n".join(out)


def _sections(card: Card) -> dict[str, list[str]]:
    """The seven headings of a datasheet, each with its lines."""
    made = bool(card.synthetic)
    rows = [
        (c.label, c.split, c.real, c.synthetic, c.patients if c.real else "–", _share(c), _ratio(c))
        for c in card.counts
    ]
    head = ("class", "split", "real", "generated", "patients (real)", "generated share", "generated a real image")
    return {
        "Motivation": [MOTIVATION, "", "Funding: " + _said(card, "funding"), ""],
        "Composition": [
            *_table(head, rows),
            *_table(("of the real images", ""), list(card.people.items())),
            "Population: " + _said(card, "population"), "",
            *_table(("field", "meaning"), list(card.features.items())),
            *([f"The format's own files do not hold: {', '.join(card.lost)}. `images.csv` has all but the mask.", ""]
              if card.lost else []),
        ],
        "Collection process": [
            _said(card, "collection"), "",
            "Consent and ethics: " + _said(card, "consent"), "", PERSONAL, "",
            *_table(("personal data", ""), list(card.privacy.items())),
        ],
        "Preprocessing, cleaning, labelling": [
            *card.preprocessing, LABELS, *(f"**{remark}**" for remark in card.remarks), "",
            "Annotation: " + _said(card, "annotation"), "",
            *_table(("labels and prompts", ""), list(card.labelling.items())),
            *(_generated(card) if made and card.generator else []),
            *(["Checked at export:", "", *(f"- {c}" for c in card.checks), ""] if card.checks else []),
            *_table(("software", "version"), list(card.software.items())),
        ],
        "Uses": [
            USES, "", "Known limits and biases: " + _said(card, "limits"), "",
            "Social impact: " + _said(card, "impact"), "",
        ],
        "Distribution": [
            "Licence: " + _said(card, "licence"), "",
            *([MARKED if card.marked else UNMARKED, ""] if made else []),
            "Published: " + _said(card, "published"), "", "Where: " + _said(card, "url"), "",
        ],
        "Maintenance": [
            "Contact: " + _said(card, "contact"), "", "Creator: " + _said(card, "creator"), "",
            "Changes: " + _said(card, "changelog"), "",
        ],
    }  # fmt: skip


def _generated(card: Card) -> list[str]:
    """How the generated images were made, checked and measured."""
    rejects = [(reason, n) for reason, n in card.rejected.items()] or [("none", 0)]
    return [
        "How the generated images were made:", "", *_table(("setting", "value"), list(card.generator.items())),
        "Rejected by the gates and made again:", "", *_table(("reason", "images"), rejects),
        BORROWED, "",
        *(["Copy check, by layer:", "", *_table(("layer", "threshold", "images dropped"), card.copies)]
          if card.copies else []),
        "Quality:", "",
        *(_table(("what", "measured by", "N", "value", "95 % interval, or real against real"), card.quality)
          or [f"{NOT_MEASURED}; `tigergen evaluate --run` does it.", ""]),
        "Human readers: " + _said(card, "readers"), "",
    ]  # fmt: skip


def software() -> dict[str, str]:
    """Name and version of the libraries that images depend on, of those that are installed."""
    # Here, because every start of the command would read the metadata of packages.
    from importlib.metadata import PackageNotFoundError, version

    out = {}
    for name in SOFTWARE:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def _share(c: Counts) -> str:
    return f"{100 * c.synthetic / max(1, c.real + c.synthetic):.0f} %"


def _ratio(c: Counts) -> str:
    return f"{c.synthetic / c.real:.2f}" if c.real else "–"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said(card: Card, name: str) -> str:
    return card.statements.get(name) or UNSTATED


def write(path: Path, card: Card) -> None:
    """Write the card atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(render(card), encoding="utf-8")
