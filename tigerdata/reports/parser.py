"""Reports to structured facts: text in, nodules with values and the characters that say so out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kb
from kb.cues import Rules, load_cues
from kb.locate import versioned
from tigerdata.reports.clauses import Clause, split
from tigerdata.reports.facts import Fact
from tigerdata.reports.impression import merge
from tigerdata.reports.measures import Size, find_sizes
from tigerdata.reports.reader import Reader
from tigerdata.reports.resolve import Evidence, write_nodule
from tigerdata.reports.state import Content, Findings
from tigerdata.reports.study import read_findings
from tigerdata.reports.terms import finder
from tigerdata.reports.text import Normalised, language_of, normalise
from tigerdata.reports.tirads import find_categories

# Every decimal digit becomes 0; the normalised text has digits of other scripts only where NFKC keeps them.
ZEROS = dict.fromkeys(range(ord("1"), ord("9") + 1), "0")


@dataclass
class Reading:
    """A report as it was understood, before it is written: normalised text, what was found in it, its clauses."""

    source: Normalised
    content: Content
    clauses: list[Clause]
    findings: Findings

    @property
    def nodule_clauses(self) -> list[Clause]:
        """Clauses of findings and impression that speak of nodules."""
        return self.findings.nodule_clauses


def understand(text: str, domain: str = "thyroid") -> Reading:
    """Read a report without writing the result: the common part of `parse`, `unread` and `explain`."""
    domain = versioned(domain)  # an organ or overlay of the user's own may be edited while this process lives
    cues = load_cues(domain)
    source = normalise(text)
    plain = source.text
    sizes = find_sizes(plain)
    categories = find_categories(plain, domain)
    protected = [s.span for s in sizes] + [c.span for c in categories] + finder(domain).joined.spans(plain)
    masked = _without_digits(plain, sizes)
    clauses = split(plain, protected, domain, masked)
    content = Content(plain, sizes, categories)
    if cues.rules.reading == "findings":
        return Reading(source, content, clauses, read_findings(cues, content, clauses))
    findings = Reader(cues, content).read([c for c in clauses if c.section == "findings"])
    impression = [c for c in clauses if c.section == "impression"]
    findings.nodule_clauses += merge(cues, content, impression, findings.nodules)
    return Reading(source, content, clauses, findings)


def _without_digits(text: str, sizes: Sequence[Size]) -> str:
    """The text with zeros for the digits of measurements: a clause says the same words whatever the size."""
    if not sizes:
        return text
    parts, last = [], 0
    for start, end in sorted(s.span for s in sizes):
        if start >= last:
            parts += [text[last:start], text[start:end].translate(ZEROS)]
            last = end
    return "".join([*parts, text[last:]])


def parse(text: str, domain: str = "thyroid", computed: bool = False) -> dict[str, Any]:
    """Parse one report, Chinese, English or mixed.

    Returns `{"language", "nodules", "gland", "lymph_nodes", "post_operative", "diagnosis", "tirads", "evidence"}`.
    A nodule has `location` (side, pole, depth), `diameter_mm` in text order, one value for single-valued attributes and
    a list for the others, `negated`, `uncertain`, `tirads` and `multiple`; what the text does not say is absent.
    Every evidence row holds `text[start:end] == surface`. With `computed`, a nodule also has `computed`: risk scores
    that the text does not state but its attributes make (`tigerdata.reports.scores`). Nothing is raised for any text.

    `domain` is what `kb.load` takes: "thyroid", "breast", "chest", or the path of an organ's YAML file or of an overlay
    such as a workspace's `vocabulary.yaml`; UserError for a mistake in these files.

    >>> parse("Solid nodule in the left lobe, 8 mm.")["nodules"][0]["diameter_mm"]
    [8]
    """
    domain = versioned(domain)
    base, cues = kb.load(domain), load_cues(domain)
    reading = understand(text, domain)
    clauses, findings, categories = reading.clauses, reading.findings, reading.content.categories

    evidence = Evidence(reading.source)
    out: dict[str, Any] = {"language": language_of(text)}
    out["nodules"] = [write_nodule(n, i, base, cues.rules, evidence) for i, n in enumerate(findings.nodules)]
    if computed:
        from tigerdata.reports.scores import compute

        for nodule in out["nodules"]:
            nodule["computed"] = compute(nodule, domain)
    if cues.rules.reading == "findings":
        out["negated"] = [f.value for f in findings.denied]
        for index, fact in enumerate(findings.denied):
            evidence.add(f"negated[{index}]", fact.value, (fact.start, fact.end), fact)
    out["gland"] = _gland(cues.rules, findings, evidence)
    out["lymph_nodes"] = _lymph(findings, evidence)
    out["post_operative"] = _post_operative(clauses, evidence)
    out["diagnosis"] = _diagnoses(clauses, evidence)
    out["tirads"] = []
    for index, category in enumerate(categories):
        out["tirads"].append({"system": category.system, "category": category.category})
        value = f"{category.system} {category.category}"
        evidence.add(f"tirads[{index}]", value, (category.start, category.end), rule="tirads")
    out["evidence"] = evidence.rows
    return out


def parse_many(
    rows: Iterable[Mapping[str, Any]],
    domain: str = "thyroid",
    pathology: bool = False,
    computed: bool = False,
    workers: int = 1,
) -> Iterator[dict[str, Any]]:
    """Parse `{"id", "text"}` rows in order; the id comes first in each result.

    The results do not depend on `workers`, the number of processes.
    """
    from tigerdata.reports.pool import parse_rows

    return parse_rows(rows, domain, pathology, computed, workers)


def _gland(rules: Rules, findings: Findings, evidence: Evidence) -> dict[str, Any]:
    gland: dict[str, Any] = {}
    if findings.gland:
        fact = findings.gland[0]
        gland[fact.attribute] = fact.value
        evidence.add(f"gland.{fact.attribute}", fact.value, (fact.start, fact.end), fact)
    for term, size in findings.gland_sizes:
        name = rules.gland_sizes[term.value]
        if name in gland or not size.values:
            continue
        values = [int(v) if v == int(v) else v for v in size.values]
        gland[name] = values[0] if name in rules.single_sizes else values
        evidence.add(f"gland.{name}", gland[name], (size.start, size.end), rule="gland size")
    return gland


def _lymph(findings: Findings, evidence: Evidence) -> dict[str, Any]:
    if not findings.lymph:
        return {}
    suspicious = [f for f in findings.lymph if f.value == "true"]
    fact = (suspicious or findings.lymph)[0]
    evidence.add("lymph_nodes.suspicious", bool(suspicious), (fact.start, fact.end), fact)
    return {"suspicious": bool(suspicious)}


def _post_operative(clauses: list[Clause], evidence: Evidence) -> bool:
    for clause in clauses:
        sheet = clause.sheet
        span = sheet.first("post_operative")
        if span and clause.section != "pathology" and not sheet.first("hypothetical"):
            evidence.add(
                "post_operative", True, (span[0] + clause.start, span[1] + clause.start), rule="post_operative"
            )
            return True
    return False


def _diagnoses(clauses: list[Clause], evidence: Evidence) -> list[dict[str, str]]:
    """Diagnoses that the findings or the impression name, each once, with their certainty."""
    found: list[dict[str, str]] = []
    for clause in clauses:
        if clause.section not in ("findings", "impression"):
            continue
        by = clause.start
        for name, start, end, judged in clause.sheet.diagnoses:
            if judged.certainty == "negated" or any(d["value"] == name for d in found):
                continue
            cue = (judged.cue[0] + by, judged.cue[1] + by) if judged.cue else None
            fact = Fact("diagnosis", name, start + by, end + by, judged.certainty, cue, "diagnosis")
            evidence.add(f"diagnosis[{len(found)}]", name, (start + by, end + by), fact)
            found.append({"value": name, "certainty": judged.certainty})
    return found
