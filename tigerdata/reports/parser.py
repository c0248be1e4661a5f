"""Reports to structured facts: text in, nodules with values and the characters that say so out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import kb
from kb.cues import Cues, load_cues
from tigerdata.reports.assertion import Scopes
from tigerdata.reports.clauses import Clause, split
from tigerdata.reports.facts import Fact
from tigerdata.reports.impression import merge
from tigerdata.reports.measures import find_sizes
from tigerdata.reports.reader import Reader
from tigerdata.reports.resolve import Evidence, write_nodule
from tigerdata.reports.state import Content, Findings
from tigerdata.reports.terms import NOISE, finder
from tigerdata.reports.text import Normalised, language_of, normalise
from tigerdata.reports.tirads import find_categories


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
    cues = load_cues(domain)
    source = normalise(text)
    found = finder(domain).find_all(source.text)
    terms = [t for t in found if t.attribute != NOISE]
    sizes = find_sizes(source.text)
    categories = find_categories(source.text, domain)
    protected = [t.span for t in terms] + [s.span for s in sizes] + [c.span for c in categories]
    clauses = split(source.text, protected, domain)
    content = Content(source.text, terms, sizes, categories, [t.span for t in found if t.attribute == NOISE])
    findings = Reader(cues, content).read([c for c in clauses if c.section == "findings"])
    impression = [c for c in clauses if c.section == "impression"]
    findings.nodule_clauses += merge(cues, content, impression, findings.nodules)
    return Reading(source, content, clauses, findings)


def parse(text: str, domain: str = "thyroid") -> dict[str, Any]:
    """Parse one report, Chinese, English or mixed.

    Returns `{"language", "nodules", "gland", "lymph_nodes", "post_operative", "diagnosis", "tirads", "evidence"}`.
    A nodule has `location` (side, pole, depth), `diameter_mm` in text order, one value for single-valued attributes and
    a list for the others, `negated`, `uncertain`, `tirads` and `multiple`; what the text does not say is absent.
    Every evidence row holds `text[start:end] == surface`. Nothing is raised for any text.
    """
    base, cues = kb.load(domain), load_cues(domain)
    reading = understand(text, domain)
    clauses, findings, categories = reading.clauses, reading.findings, reading.content.categories

    evidence = Evidence(reading.source)
    out: dict[str, Any] = {"language": language_of(text)}
    out["nodules"] = [write_nodule(n, i, base, evidence) for i, n in enumerate(findings.nodules)]
    out["gland"] = _gland(findings, evidence)
    out["lymph_nodes"] = _lymph(findings, evidence)
    out["post_operative"] = _post_operative(cues, clauses, evidence)
    out["diagnosis"] = _diagnoses(cues, clauses, evidence)
    out["tirads"] = []
    for index, category in enumerate(categories):
        out["tirads"].append({"system": category.system, "category": category.category})
        value = f"{category.system} {category.category}"
        evidence.add(f"tirads[{index}]", value, (category.start, category.end), rule="tirads")
    out["evidence"] = evidence.rows
    return out


def parse_many(
    rows: Iterable[Mapping[str, Any]], domain: str = "thyroid", pathology: bool = False
) -> Iterator[dict[str, Any]]:
    """Parse `{"id", "text"}` rows one after the other; the id comes first in each result."""
    from tigerdata.reports.pathology import parse_pathology

    for row in rows:
        yield {"id": row["id"], **(parse_pathology(row["text"], domain) if pathology else parse(row["text"], domain))}


def _gland(findings: Findings, evidence: Evidence) -> dict[str, Any]:
    gland: dict[str, Any] = {}
    if findings.gland:
        fact = findings.gland[0]
        gland["echotexture"] = fact.value
        evidence.add("gland.echotexture", fact.value, (fact.start, fact.end), fact)
    for term, size in findings.gland_sizes:
        name = "isthmus_mm" if term.value == "isthmus" else f"{term.value}_mm"
        if name in gland or not size.values:
            continue
        values = [int(v) if v == int(v) else v for v in size.values]
        gland[name] = values[0] if name == "isthmus_mm" else values
        evidence.add(f"gland.{name}", gland[name], (size.start, size.end), rule="gland size")
    return gland


def _lymph(findings: Findings, evidence: Evidence) -> dict[str, Any]:
    if not findings.lymph:
        return {}
    suspicious = [f for f in findings.lymph if f.value == "true"]
    fact = (suspicious or findings.lymph)[0]
    evidence.add("lymph_nodes.suspicious", bool(suspicious), (fact.start, fact.end), fact)
    return {"suspicious": bool(suspicious)}


def _post_operative(cues: Cues, clauses: list[Clause], evidence: Evidence) -> bool:
    text = evidence.source.text
    for clause in clauses:
        match = cues["post_operative"].search(text, clause.start, clause.end)
        if match and clause.section != "pathology" and not cues["hypothetical"].search(text, clause.start, clause.end):
            evidence.add("post_operative", True, match.span(), rule="post_operative")
            return True
    return False


def _diagnoses(cues: Cues, clauses: list[Clause], evidence: Evidence) -> list[dict[str, str]]:
    """Diagnoses that the findings or the impression name, each once, with their certainty."""
    text = evidence.source.text
    found: list[dict[str, str]] = []
    for clause in clauses:
        if clause.section not in ("findings", "impression"):
            continue
        taken: list[tuple[int, int]] = []
        for name, pattern in cues.diagnoses.items():
            for match in pattern.finditer(text, clause.start, clause.end):
                if any(a < match.end() and match.start() < b for a, b in taken):
                    continue
                taken.append(match.span())
                judged = Scopes(cues, text, clause, taken).of(*match.span())
                if judged.certainty == "negated" or any(d["value"] == name for d in found):
                    continue
                fact = Fact("diagnosis", name, *match.span(), judged.certainty, judged.cue, "diagnosis")
                evidence.add(f"diagnosis[{len(found)}]", name, match.span(), fact)
                found.append({"value": name, "certainty": judged.certainty})
    return found
