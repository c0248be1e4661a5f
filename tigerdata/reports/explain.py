"""What the parser made of one report: every value at its characters, nodule by nodule, and what stayed unread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kb
from kb.errors import UserError

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

PATH = re.compile(r"^(?:nodules\[(\d+)\]\.)?([a-z_]+)(?:\.([a-z_]+))?")
LOCATION, DIAMETER = "nodule_location", "diameter"
PLACEHOLDER = "nodule"  # the class phrase while pathology has not named a class


@dataclass(frozen=True)
class Mark:
    """One value at text[start:end]. `nodule` counts from 1, None for what is said of no nodule; `side` is fg or bg."""

    start: int
    end: int
    attribute: str
    value: str
    certainty: str
    nodule: int | None
    side: str | None
    cue: str | None
    rule: str

    @property
    def denied(self) -> bool:
        """Whether the text says that it is not there: a denied value, or the value "absent" that a denial makes."""
        return self.certainty == "negated" or (self.value == "absent" and self.cue is not None)


@dataclass(frozen=True)
class Entry:
    """One nodule: where and how large it is, its prompts (foreground phrase, role), what is denied or doubtful."""

    number: int
    place: str
    size: str
    fg: list[tuple[str, str]]
    bg: list[str]
    negated: list[str]
    uncertain: list[str]
    tirads: str


@dataclass
class Explanation:
    """A report explained; `text` is the original, and offsets of `marks` and `unread` lead into it.

    `attributes` are those of the domain, in order: their place gives each its colour, the same in every report.
    """

    name: str
    domain: str
    language: str
    text: str
    marks: list[Mark]
    nodules: list[Entry]
    other: list[Mark]
    unread: list[tuple[int, int, str]] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    target: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)

    def pieces(self) -> list[tuple[str, list[Mark], bool]]:
        """The text cut where any mark begins or ends: (piece, marks that cover it, whether it is unread), in order."""
        marks = [*self.marks, *self.other]
        edges = {0, len(self.text)}
        for start, end in [(m.start, m.end) for m in marks] + [(a, b) for a, b, _ in self.unread]:
            edges |= {start, end}
        cuts = sorted(edges)
        out = []
        for start, end in zip(cuts, cuts[1:], strict=False):
            covering = [m for m in marks if m.start <= start and end <= m.end]
            missed = any(a <= start and end <= b for a, b, _ in self.unread)
            out.append((self.text[start:end], covering, missed))
        return out


def load_report(report: str, ws: Workspace | None) -> tuple[str, str]:
    """(name, text) of a report given as a path, "-" for standard input, or a report id of the workspace.

    An examination's id will do where it has one report.

    Raises UserError when it is none of them.
    """
    import sys

    from tigerdata.identity import KEY_FILE, pseudonyms
    from tigerdata.reports.encodings import decode

    if report == "-":
        return "standard input", decode(sys.stdin.buffer.read(), "standard input")[0]
    path = Path(report)
    if path.is_file():
        return path.name, decode(path.read_bytes(), path.name)[0]
    if ws is None:
        raise UserError(f"there is no file {report} and no workspace here; give a text file, or a report id with -w.")
    names, exams = [report], [report]
    if (ws.path / KEY_FILE).is_file():
        # A hospital knows its own ids; the database holds pseudonyms of them.
        known = pseudonyms(ws)
        names.append(known.of("report", report) or report)
        exams.append(known.of("exam", report) or report)
    with ws.connect(read_only=True) as con:
        found = con.execute("SELECT text FROM reports WHERE list_contains(?, report_id)", [names]).fetchall()
        # Many exports have no report ids: the examination is the report then.
        found = found or con.execute("SELECT text FROM reports WHERE list_contains(?, exam_id)", [exams]).fetchall()
    if not found:
        raise UserError(
            f"there is neither a file nor a report '{report}' in {ws.path}; `tigerdata kb query` lists ids."
        )
    if len(found) > 1:
        raise UserError(f"the examination '{report}' has {len(found)} reports in {ws.path}; give a report id.")
    return report, found[0][0]


def explain(
    text: str,
    name: str = "report",
    domain: str = "thyroid",
    base: kb.KnowledgeBase | None = None,
    target: str | None = None,
) -> Explanation:
    """Parse a report and arrange the result around its text.

    `base` (default: the domain's) gives scopes, phrases and roles; with a `target` each foreground phrase carries its
    role. The class phrase of the prompts is a placeholder: a report does not know its pathology. Raises UserError for a
    target that the domain does not have.
    """
    from tigerdata.reports.parser import parse
    from tigerdata.reports.unread import unread

    base = base or kb.load(domain)
    if target is not None:
        base.check_target(target)
    parsed = parse(text, domain)
    marks = [_mark(row, base) for row in parsed["evidence"]]
    return Explanation(
        name=name,
        domain=base.domain,
        language=parsed["language"],
        text=text,
        marks=[mark for mark in marks if mark.nodule],
        nodules=[_entry(number, nodule, base, target) for number, nodule in enumerate(parsed["nodules"], start=1)],
        other=[mark for mark in marks if not mark.nodule],
        unread=unread(text, domain),
        attributes=list(base.attributes),
        target=target,
    )


def attributes_of(nodule: Mapping[str, Any], base: kb.KnowledgeBase) -> dict[str, list[str]]:
    """Attributes of a parsed nodule as prompts take them: location and size class included, every value in a list."""
    found: dict[str, list[str]] = {}
    for attribute in base.attributes:
        if attribute == LOCATION:
            values = list(nodule.get("location", {}).values())
        elif attribute == DIAMETER:
            sizes = nodule.get("diameter_mm") or []
            values = [base.size_class(max(sizes))] if sizes else []
        else:
            given = nodule.get(attribute, [])
            values = [given] if isinstance(given, str) else list(given)
        known = [value for value in values if value in base.attributes[attribute].values]
        if known:
            found[attribute] = known
    return found


def _mark(row: Mapping[str, Any], base: kb.KnowledgeBase) -> Mark:
    match = PATH.match(row["path"])
    number, attribute, part = match.groups() if match else (None, row["path"], None)
    attribute = {"location": LOCATION, "diameter_mm": DIAMETER}.get(attribute, attribute)
    certainty = row["certainty"]
    value = row["value"]
    if attribute == "negated":
        attribute, certainty = _owner(str(value), row["surface"], base), "negated"
    side = base.scope(attribute) if number is not None and attribute in base.attributes else None
    nodule = int(number) + 1 if number is not None else None
    shown = _shown(value, part if nodule is None else None)
    return Mark(row["start"], row["end"], attribute, shown, certainty, nodule, side, row["cue"], row["rule"])


def _shown(value: Any, part: str | None) -> str:
    """A value as people read it; `part` names what of the gland or the nodes it is ("right_mm", "suspicious")."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, (int, float)):
        text = f"{value:g} mm"
    elif isinstance(value, list):
        text = f"{' × '.join(f'{number:g}' for number in value)} mm"
    else:
        text = str(value)
    return f"{part.removesuffix('_mm').replace('_', ' ')}: {text}" if part else text


def _owner(value: str, surface: str, base: kb.KnowledgeBase) -> str:
    """The attribute of a denied value; "absent" and the like belong to several, so the words decide."""
    owners = [name for name, model in base.attributes.items() if value in model.values]
    for name in owners:
        entry = base.attributes[name].values[value]
        if surface.lower() in entry.surfaces("en") + entry.surfaces("zh"):
            return name
    return owners[0] if owners else "negated"


def _entry(number: int, nodule: Mapping[str, Any], base: kb.KnowledgeBase, target: str | None) -> Entry:
    from tigerdata.prompts import compose, phrases, roles

    prompt = compose(base, PLACEHOLDER, attributes_of(nodule, base))
    fg = roles(base, target, prompt.fg) if target else [(phrase, "") for phrase in phrases(prompt.fg)]
    place = ", ".join(value.replace("_", " ") for value in nodule.get("location", {}).values())
    size = " × ".join(f"{value:g}" for value in nodule.get("diameter_mm", []))
    category = nodule.get("tirads")
    return Entry(
        number=number,
        place=(place or "place not stated") + (", one of several" if nodule.get("multiple") else ""),
        size=f"{size} mm" if size else "size not stated",
        fg=fg[1:],
        bg=phrases(prompt.bg),
        negated=[value.replace("_", " ") for value in nodule.get("negated", [])],
        uncertain=[value.replace("_", " ") for value in nodule.get("uncertain", [])],
        tirads=f"{category['system']} {category['category']}" if category else "",
    )


def visible(text: str) -> str:
    """The text with control characters shown as pictures, one for one: a terminal must not obey a report."""
    return "".join(
        chr(0x2400 + ord(char)) if ord(char) < 32 and char not in "\n\t" else "␡" if 127 <= ord(char) < 160 else char
        for char in text.replace("\r\n", "\n").replace("\r", "\n")
    )
