"""What the knowledge base holds: attributes by class, and the weight that each term of a class gets."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.weights import delta, omega

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace


def attribute_counts(ws: Workspace) -> dict[str, Any]:
    """Counts of reports, nodules and findings, and of described nodules by attribute, value and class.

    The class of a nodule is the pathology of its examination, else of its patient; "unknown" where there is none or
    where pathology is contradictory. Denied values do not count.
    """
    with ws.connect(read_only=True) as con:
        totals = {
            table: con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            for table in ("patients", "reports", "nodules", "findings", "pathology")
        }
        rows = con.execute(
            """
            WITH by_exam AS (
                SELECT patient_id, exam_id, CASE WHEN count(DISTINCT subtype) = 1 THEN any_value(subtype) END AS label
                FROM pathology WHERE conflict IS NULL GROUP BY ALL),
            by_patient AS (
                SELECT patient_id, CASE WHEN count(DISTINCT subtype) = 1 THEN any_value(subtype) END AS label
                FROM pathology WHERE conflict IS NULL GROUP BY ALL)
            SELECT f.attribute, f.value, coalesce(e.label, p.label, 'unknown') AS label,
                   count(DISTINCT f.nodule_id)
            FROM findings f JOIN nodules n USING (nodule_id)
            LEFT JOIN by_exam e ON e.patient_id = n.patient_id AND e.exam_id = n.exam_id
            LEFT JOIN by_patient p ON p.patient_id = n.patient_id
            WHERE f.certainty <> 'negated' AND f.value IS NOT NULL
            GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
    table: dict[str, dict[str, dict[str, int]]] = {name: {} for name in ws.kb.attributes}
    for attribute, value, label, count in rows:
        if attribute in table:
            table[attribute].setdefault(value, {})[label] = count
    ordered = {
        name: {value: found[value] for value in ws.kb.attributes[name].values if value in found}
        for name, found in table.items()
        if found
    }
    return {**totals, "attributes": ordered}


def term_table(ws: Workspace, target: str) -> list[dict[str, Any]]:
    """Particular and joint terms of a class: phrase, role, source, tau (share of all FG phrases) and weight.

    tau is counted over the stored prompts; before there are any, over the findings. Raises UserError for a class that
    neither the domain nor the workspace knows.
    """
    base = ws.kb
    with ws.connect(read_only=True) as con:
        labels = {row[0] for row in con.execute("SELECT DISTINCT label FROM prompts").fetchall()}
        roles = con.execute(
            "SELECT attribute, value, role, source FROM term_roles WHERE target = ? AND role <> 'common'", [target]
        ).fetchall()
    if target not in labels and target not in base.subtypes:
        raise UserError(f"no class '{target}' is known here; the domain has {', '.join(base.subtypes)}.")
    shares = phrase_shares(ws)
    table = []
    for attribute, value, role, source in roles:
        phrase = base.phrase(attribute, value)
        tau = shares.get(phrase, 0.0)
        table.append(
            {
                "phrase": phrase,
                "attribute": attribute,
                "value": value,
                "role": role,
                "tau": round(tau, 5),
                "weight": round(omega(delta(role, tau)), 4),
                "source": source,
            }
        )
    return sorted(table, key=lambda row: (row["role"] != "particular", -row["weight"], row["phrase"]))


def phrase_shares(ws: Workspace) -> dict[str, float]:
    """Share of each FG phrase among all FG phrases of the prompts, or of the findings while there are no prompts."""
    counts: Counter[str] = Counter()
    with ws.connect(read_only=True) as con:
        for (fg,) in con.execute("SELECT fg FROM prompts WHERE fg IS NOT NULL").fetchall():
            counts.update(part.strip() for part in fg.split(",") if part.strip())
        if not counts:
            for attribute, value, count in con.execute(
                "SELECT attribute, value, count(*) FROM findings "
                "WHERE nodule_id IS NOT NULL AND certainty <> 'negated' AND value IS NOT NULL GROUP BY ALL"
            ).fetchall():
                model = ws.kb.attributes.get(attribute)
                if model and model.scope == "fg" and value in model.values:
                    counts[ws.kb.phrase(attribute, value)] += count
    total = sum(counts.values())
    return {phrase: count / total for phrase, count in counts.items()}


def coverage(ws: Workspace) -> dict[str, Any]:
    """How much of the clinical words in reports the vocabulary explains: characters in terms over clinical characters.

    Clinical characters are Chinese characters and Latin letters of the findings; those inside a term, a measurement, a
    cue or an anchor count as explained. The most frequent unexplained stretches are listed with their number; only
    stretches that occur in at least five reports are shown, so that no single report's words are repeated.
    """
    from kb.cues import load_cues
    from tigerdata.reports.measures import find_sizes
    from tigerdata.reports.terms import finder
    from tigerdata.reports.text import normalise
    from tigerdata.reports.tirads import find_categories

    domain = ws.settings["domain"]
    cues = load_cues(domain)
    with ws.connect(read_only=True) as con:
        texts = [row[0] for row in con.execute("SELECT DISTINCT text FROM reports ORDER BY text").fetchall()]
    clinical = explained = 0
    unknown: dict[str, set[int]] = defaultdict(set)
    for number, original in enumerate(texts):
        text = normalise(original).text
        known = bytearray(len(text))
        spans = [t.span for t in finder(domain).find(text)] + [s.span for s in find_sizes(text)]
        spans += [c.span for c in find_categories(text, domain)]
        spans += [m.span() for name in cues.cues for m in cues[name].finditer(text)]
        for start, end in spans:
            known[start:end] = b"\x01" * (end - start)
        stretch = ""
        for position, char in enumerate(text + " "):
            if char.isalpha() and not known[position]:
                stretch += char
                clinical += 1
                continue
            if len(stretch) > 1:
                unknown[stretch].add(number)
            stretch = ""
            if char.isalpha():
                clinical += 1
                explained += 1
    frequent = Counter({words: len(where) for words, where in unknown.items() if len(where) >= 5})
    share = explained / clinical if clinical else 0.0
    return {"texts": len(texts), "explained": round(share, 4), "unexplained": dict(frequent.most_common(25))}


def to_json(value: Any) -> str:
    """Statistics as JSON text with Chinese characters kept."""
    return json.dumps(value, ensure_ascii=False, indent=1)
