"""Roles of terms for one target: literature and corpus brought together by the rule of `kb.roles`, and kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kb.errors import UserError
from kb.roles import Comparison, Votes, compare, decide
from kb.weights import delta, omega, term_frequency
from tigerdata.reports.labels import NODULE_LABELS, STATED

if TYPE_CHECKING:
    from kb import KnowledgeBase
    from tigerdata.workspace import Workspace

CORPUS = "Corpus"  # the source that corpus_roles.yaml cites
CITATION = "Reports of this workspace: log-odds with an informative prior, the rule of docs/knowledge-base.md"
HEADER = (
    "# Made by `tigerdata terms --target CLASS`: roles in which the reports of this workspace contradict the\n"
    "# literature. Made anew at each call; your own roles belong into vocabulary.yaml, which comes after this file.\n"
)
ORDER = ("particular", "joint", "common")


def term_table(ws: Workspace, target: str, store: bool = False) -> list[dict[str, Any]]:
    """Every foreground value with its role for `target`, why, its frequency and its weight (equations 9 and 10).

    A row has phrase, attribute, value, `role` (what prompts and training use), `decided_by` (literature, corpus or
    workspace), `literature` (the role there), `source`, `tau` (see `phrase_shares`), `weight`, `patients` of the target
    with the value, and `against`: one comparison a class (see `kb.roles.Comparison.row`). With `store` the rows go to
    the table `term_roles` and the roles that the corpus changed to `corpus_roles.yaml`, from where `Workspace.kb`
    takes them. Raises UserError for a class that neither the domain nor the workspace knows.
    """
    from tigerdata.workspace import CORPUS_FILE

    votes = class_votes(ws)
    _check_target(ws, target, votes)
    compared = compare(votes, target)
    if store:
        _write_overlay(ws, target, _changed(ws.kb, target, compared))
    base = ws.kb
    shares = phrase_shares(ws)
    mine = votes.get(target, Votes(0, {}))
    rows = []
    for attribute, value in _foreground(base):
        key = f"{attribute}.{value}"
        literature = base.literature_role(target, attribute, value)
        override = base.overrides.get(target, {}).get(key)
        comparisons = compared.get(key, [])
        role, source = base.role(target, attribute, value), base.role_sources(target, attribute, value)
        decided = "literature" if not override else "corpus" if override.file == CORPUS_FILE else "workspace"
        if decided != "workspace":
            # The stored roles may be those of an earlier corpus; this call shows what the rule says now.
            role = decide(literature, comparisons)
            decided = "literature" if role == literature else "corpus"
            source = (CORPUS,) if decided == "corpus" else _cited(base, target)
        tau = shares.get(base.phrase(attribute, value), 0.0)
        rows.append(
            {
                "phrase": base.phrase(attribute, value),
                "attribute": attribute,
                "value": value,
                "role": role,
                "decided_by": decided,
                "literature": literature,
                "source": "; ".join(source),
                "tau": round(tau, 5),
                "weight": round(omega(delta(role, tau)), 4),
                "patients": mine.values.get(key, 0),
                "of_patients": mine.patients,
                "against": [comparison.row() for comparison in comparisons],
            }
        )
    if store:
        _store(ws, target, rows)
    return sorted(rows, key=lambda row: (ORDER.index(row["role"]), -row["weight"], row["phrase"]))


def class_votes(ws: Workspace) -> dict[str, Votes]:
    """Patients by class and foreground value: one patient one vote, however many reports and nodules.

    Patients whose images are in another part of the split than `train` have no vote, because roles steer training.
    Nodules without a known class have none either; a patient of two classes votes in both.
    """
    query = f"""
        WITH {NODULE_LABELS}, {STATED},
        elsewhere AS (SELECT DISTINCT patient_id FROM splits WHERE name = 'default' AND split <> 'train'),
        voters AS (
            SELECT l.person, l.label, s.attribute, s.value FROM stated s JOIN labels l USING (nodule_id)
            WHERE l.label <> 'unknown'
            AND l.person NOT IN (SELECT patient_id FROM elsewhere WHERE patient_id IS NOT NULL))
        SELECT label, attribute, value, count(DISTINCT person) FROM voters GROUP BY ALL
        UNION ALL
        SELECT label, NULL, NULL, count(DISTINCT person) FROM voters GROUP BY ALL ORDER BY ALL"""
    with ws.connect(read_only=True) as con:
        rows = con.execute(query).fetchall()
    told: dict[str, dict[str, int]] = {}
    patients: dict[str, int] = {}
    foreground = _foreground(ws.kb)
    for label, attribute, value, count in rows:
        if attribute is None:
            patients[label] = count
        elif (attribute, value) in foreground:
            told.setdefault(label, {})[f"{attribute}.{value}"] = count
    return {label: Votes(count, told.get(label, {})) for label, count in sorted(patients.items())}


def phrase_shares(ws: Workspace) -> dict[str, float]:
    """tau of equation 10: share of each foreground phrase among all of them (`kb.weights.term_frequency`).

    Counted over the prompts of the training cases, which is what `tigergen train fine` stores in the model folder as
    `term_frequency` and what sampling uses; while there is no split, over all prompts; before there are prompts, over
    the findings.
    """
    with ws.connect(read_only=True) as con:
        split = con.execute("SELECT 1 FROM splits WHERE name = 'default' LIMIT 1").fetchone()
        prompts = [row[0] for row in con.execute("SELECT fg FROM prompts WHERE fg IS NOT NULL").fetchall()]
        stated = con.execute(
            f"WITH {STATED} SELECT attribute, value, count(*) FROM stated GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    if split and prompts:
        prompts = list(ws.cases("train")["fg"]) or prompts
    if prompts:
        return term_frequency([[part.strip() for part in prompt.split(",") if part.strip()] for prompt in prompts])
    base = ws.kb
    foreground = _foreground(base)
    phrases = [[base.phrase(a, value)] * count for a, value, count in stated if (a, value) in foreground]
    return term_frequency(phrases)


def _check_target(ws: Workspace, target: str, votes: dict[str, Votes]) -> None:
    base = ws.kb
    with ws.connect(read_only=True) as con:
        labels = {row[0] for row in con.execute("SELECT DISTINCT label FROM prompts").fetchall()}
    if target not in {*labels, *votes, *base.subtypes, *base.overrides}:
        raise UserError(f"no class '{target}' is known here; the domain has {', '.join(base.subtypes)}.")


def _foreground(base: KnowledgeBase) -> list[tuple[str, str]]:
    """(attribute, value) of the foreground in the vocabulary's order."""
    return [(name, value) for name, model in base.attributes.items() if model.scope == "fg" for value in model.values]


def _cited(base: KnowledgeBase, target: str) -> tuple[str, ...]:
    return base.subtypes[target].sources if target in base.subtypes else ()


def _changed(
    base: KnowledgeBase, target: str, compared: dict[str, list[Comparison]]
) -> dict[str, dict[str, list[str]]]:
    """Role -> attribute -> values of the roles that the corpus takes from the literature."""
    out: dict[str, dict[str, list[str]]] = {}
    for attribute, value in _foreground(base):
        literature = base.literature_role(target, attribute, value)
        role = decide(literature, compared.get(f"{attribute}.{value}", []))
        if role != literature:
            out.setdefault(role, {}).setdefault(attribute, []).append(value)
    return {role: out[role] for role in ORDER if role in out}


def _write_overlay(ws: Workspace, target: str, changed: dict[str, dict[str, list[str]]]) -> None:
    """Put the changed roles of one target into corpus_roles.yaml; the other targets' stay. No roles, no file."""
    import yaml

    from kb import overlay
    from kb.files import atomic_write
    from tigerdata.workspace import CORPUS_FILE

    path = ws.path / CORPUS_FILE
    roles: dict[str, Any] = {}
    if path.is_file():
        kept = overlay.read(path)[0].roles
        roles = {name: json.loads(given.model_dump_json(exclude_defaults=True)) for name, given in kept.items()}
    roles.pop(target, None)
    if changed:
        roles[target] = {"sources": [CORPUS], **changed}
    if not roles:
        path.unlink(missing_ok=True)
        return
    own = [name for name in sorted(roles) if name not in ws.kb.subtypes]
    content: dict[str, Any] = {"extends": ws.settings["domain"]} | ({"classes": own} if own else {})
    content |= {"roles": {name: roles[name] for name in sorted(roles)}, "sources": {CORPUS: CITATION}}
    with atomic_write(path) as temporary:
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, default_flow_style=None, width=120)
        temporary.write_text(HEADER + text, encoding="utf-8")


def _store(ws: Workspace, target: str, rows: list[dict[str, Any]]) -> None:
    """Replace the target's rows of `term_roles`; `statistics` holds what led to each role, as JSON."""
    import pandas as pd

    from kb import store

    kept = ("decided_by", "literature", "tau", "weight", "patients", "of_patients", "against")
    table = [
        {
            **{name: row[name] for name in ("attribute", "value", "role", "source")},
            "target": target,
            "statistics": json.dumps({name: row[name] for name in kept}),
        }
        for row in rows
    ]
    base = ws.kb
    cited = pd.DataFrame(list(base.sources.items()), columns=["source_id", "citation"])
    with ws.connect() as con, store.transaction(con):
        con.execute("DELETE FROM term_roles WHERE target = ?", [target])
        store.insert(con, "term_roles", pd.DataFrame(table))
        store.insert(con, "sources", cited, replace=True)
