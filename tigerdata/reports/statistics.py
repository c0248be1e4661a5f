"""What the reports say, counted: attributes by class with shares, values that go together, how much was read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.logodds import Z95
from tigerdata.reports.labels import NODULE_LABELS, STATED

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

FEWEST_REPORTS = 5  # words that fewer reports use are not shown: they could be one person's
FEWEST_PAIRS = 5


def attribute_counts(ws: Workspace) -> dict[str, Any]:
    """Rows of the main tables, and described nodules by attribute, value and class, as counts and as shares.

    Returns the table counts, `classes` (nodules a class), `attributes` (attribute -> value -> class -> nodules),
    `described` (attribute -> class -> nodules with any value) and `shares`, the first divided by the second; a share
    is of the nodules whose attribute is described, because a report that is silent says nothing. Denied values do not
    count. The class of a nodule is the pathology of the nodule, else of its examination, else of its patient, else the
    label of its image; "unknown" where there is none or where pathology contradicts itself.
    """
    with ws.connect(read_only=True) as con:
        totals = {
            table: con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            for table in ("patients", "reports", "nodules", "findings", "pathology")
        }
        rows = con.execute(
            f"WITH {NODULE_LABELS}, {STATED} SELECT attribute, value, label, count(*) "
            "FROM stated JOIN labels USING (nodule_id) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        shown = con.execute(
            f"WITH {NODULE_LABELS}, {STATED} SELECT attribute, label, count(DISTINCT nodule_id) "
            "FROM stated JOIN labels USING (nodule_id) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        classes = con.execute(
            f"WITH {NODULE_LABELS} SELECT label, count(*) FROM labels GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for attribute, model in ws.kb.attributes.items():
        for value in model.values:
            found = {label: count for name, known, label, count in rows if (name, known) == (attribute, value)}
            if found:
                counts.setdefault(attribute, {})[value] = found
    described: dict[str, dict[str, int]] = {name: {} for name in counts}
    for attribute, label, count in shown:
        if attribute in described:
            described[attribute][label] = count
    shares = {
        name: {
            value: {label: round(count / described[name][label], 4) for label, count in found.items()}
            for value, found in values.items()
        }
        for name, values in counts.items()
    }
    return {**totals, "classes": dict(classes), "attributes": counts, "described": described, "shares": shares}


def co_occurrence(ws: Workspace, label: str | None = None, least: int = FEWEST_PAIRS) -> list[dict[str, Any]]:
    """Pairs of values on one nodule, the most remarkable first; `label` keeps to the nodules of one class.

    Each row has the two values, `nodules` (those that describe both attributes: silence is no absence), `first` and
    `second` (of these, with the value), `both`, `lift` = both · nodules / (first · second), and `log_odds`, the natural
    log of the odds ratio with half a nodule added to each cell (Haldane, Anscombe) and its 95 % interval. A pair needs
    `least` nodules expected or seen together. Two values of an attribute that has only one are no pair.

    Raises UserError for a class that neither the organ nor a nodule has.
    """
    of_class = "WHERE label = ?" if label else ""
    query = f"""
        WITH {NODULE_LABELS}, {STATED},
        facts AS (SELECT s.* FROM stated s JOIN labels USING (nodule_id) {of_class}),
        told AS (SELECT DISTINCT nodule_id, attribute FROM facts),
        pairs AS (
            SELECT a.attribute AS a, b.attribute AS b, count(*) AS nodules
            FROM told a JOIN told b USING (nodule_id) WHERE a.attribute <= b.attribute GROUP BY ALL),
        alone AS (
            SELECT f.attribute AS attribute, f.value AS value, t.attribute AS beside, count(*) AS nodules
            FROM facts f JOIN told t USING (nodule_id) GROUP BY ALL),
        met AS (
            SELECT x.attribute AS a, x.value AS v, y.attribute AS b, y.value AS w, count(*) AS nodules
            FROM facts x JOIN facts y USING (nodule_id)
            WHERE (x.attribute, x.value) < (y.attribute, y.value) GROUP BY ALL)
        SELECT x.attribute, x.value, y.attribute, y.value, p.nodules, x.nodules, y.nodules, coalesce(m.nodules, 0)
        FROM pairs p JOIN alone x ON x.attribute = p.a AND x.beside = p.b
        JOIN alone y ON y.attribute = p.b AND y.beside = p.a
        LEFT JOIN met m ON m.a = x.attribute AND m.v = x.value AND m.b = y.attribute AND m.w = y.value
        WHERE (x.attribute, x.value) < (y.attribute, y.value)"""
    with ws.connect(read_only=True) as con:
        rows = con.execute(query, [label] if label else []).fetchall()
        labels = con.execute(f"WITH {NODULE_LABELS} SELECT DISTINCT label FROM labels").fetchall()
    classes = {*ws.kb.subtypes, *(name for (name,) in labels if name)}
    if label and label not in classes:
        raise UserError(f"no class '{label}' is known here; there are {', '.join(sorted(classes))}.")
    known = ws.kb.attributes
    found = []
    for one, value, two, other, nodules, first, second, both in rows:
        if one not in known or two not in known or (one == two and not known[one].multiple):
            continue
        if value not in known[one].values or other not in known[two].values:
            continue
        if max(both, first * second / nodules) < least:
            continue
        cells = [both + 0.5, first - both + 0.5, second - both + 0.5, nodules - first - second + both + 0.5]
        log_odds = math.log(cells[0] * cells[3] / (cells[1] * cells[2]))
        reach = Z95 * math.sqrt(sum(1 / cell for cell in cells))
        found.append(
            {
                "one": f"{one}.{value}",
                "two": f"{two}.{other}",
                "nodules": nodules,
                "first": first,
                "second": second,
                "both": both,
                "lift": round(both * nodules / (first * second), 3),
                "log_odds": round(log_odds, 3),
                "low": round(log_odds - reach, 3),
                "high": round(log_odds + reach, 3),
            }
        )
    # By the end of the interval that is nearest to no association: a strong claim on few nodules comes later.
    return sorted(found, key=lambda row: (-max(row["low"], -row["high"]), row["one"], row["two"]))


def coverage(ws: Workspace) -> dict[str, Any]:
    """How much of the clinical words in nodule clauses was read, and the most frequent unread ones.

    Words that fewer than five reports use are not shown, so that no single report's words are repeated.
    """
    from tigerdata.reports.unread import coverage as read_share

    with ws.connect(read_only=True) as con:
        texts = [row[0] for row in con.execute("SELECT DISTINCT text FROM reports ORDER BY text").fetchall()]
    found = read_share(texts, ws.domain)
    frequent = {word: count for word, count in found.words.most_common(25) if count >= FEWEST_REPORTS}
    return {"texts": found.texts, "explained": round(found.share, 4), "unexplained": frequent}
