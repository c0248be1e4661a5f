"""Roles of a target from literature, corpus and overlay: votes, the tables they are kept in, and where they count."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from kb import store
from kb.diff import difference, facts, only_stored, stored_facts
from kb.errors import UserError
from kb.refresh import refresh
from kb.weights import omega, term_frequency
from tigerdata.prompts import build_prompts, phrases, roles
from tigerdata.reports.roles import class_votes, phrase_shares, term_table
from tigerdata.splits import split
from tigerdata.workspace import Workspace

N = 30


def fill(ws: Workspace, shares: dict[str, dict[str, int]], patients: int = N, nodules: int = 1) -> None:
    """Findings and pathology as reports would give them: `shares` is class -> "attribute.value" -> patients with it."""
    rows: dict[str, list[dict[str, Any]]] = {"nodules": [], "findings": [], "pathology": []}
    for label, values in shares.items():
        for patient in range(patients):
            person = f"{label}-{patient}"
            rows["pathology"].append({"pathology_id": person, "patient_id": person, "subtype": label})
            for ordinal in range(1, nodules + 1):
                nodule = f"{person}-{ordinal}"
                rows["nodules"].append({"nodule_id": nodule, "patient_id": person, "ordinal": ordinal})
                stated = ["composition.solid", *(value for value, count in values.items() if patient < count)]
                for value in stated:
                    name, _, word = value.partition(".")
                    row = {"finding_id": f"{nodule}-{value}", "nodule_id": nodule, "attribute": name, "value": word}
                    rows["findings"].append({**row, "certainty": "positive"})
    with ws.connect() as con:
        for table, found in rows.items():
            con.execute(f"DELETE FROM {table}")
            store.insert(con, table, pd.DataFrame(found))


def by_value(table: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{row['attribute']}.{row['value']}": row for row in table}


CONTRADICTION = {
    "FTC": {"halo.interrupted": 1, "calcification.macrocalcification": 25, "shape.irregular": 25, "margin.clear": 20},
    "PTC": {"halo.interrupted": 25, "calcification.macrocalcification": 2, "shape.irregular": 25, "margin.clear": 20},
    "benign": {"halo.interrupted": 1, "calcification.macrocalcification": 2, "shape.irregular": 2, "margin.clear": 20},
}


def test_the_corpus_changes_what_it_contradicts_and_nothing_else(ws: Workspace) -> None:
    fill(ws, CONTRADICTION)
    table = by_value(term_table(ws, "FTC", store=True))
    changed = {value: (row["literature"], row["role"]) for value, row in table.items() if row["decided_by"] == "corpus"}
    assert changed == {
        "halo.interrupted": ("particular", "common"),
        "calcification.macrocalcification": ("joint", "particular"),
        "shape.irregular": ("common", "joint"),
    }
    assert table["margin.clear"]["role"] == table["margin.clear"]["literature"] == "joint"
    assert [c["is"] for c in table["margin.clear"]["against"]] == ["level", "level"]
    assert table["halo.interrupted"]["weight"] == pytest.approx(omega(1.0), abs=1e-4)
    assert table["calcification.macrocalcification"]["weight"] == 3.1


def test_roles_are_stored_once_and_are_those_that_prompts_use(ws: Workspace) -> None:
    fill(ws, CONTRADICTION)
    table = by_value(term_table(ws, "FTC", store=True))
    assert by_value(term_table(ws, "FTC", store=True)) == table
    with ws.connect(read_only=True) as con:
        stored = con.execute(
            "SELECT attribute || '.' || value, role, source, statistics FROM term_roles WHERE target = 'FTC'"
        ).fetchall()
        assert con.execute("SELECT count(*) FROM sources WHERE source_id = 'Corpus'").fetchall() == [(1,)]
        assert difference(stored_facts(con), only_stored(facts(ws.kb))) == []
    assert len(stored) == len(table) == len({row[0] for row in stored})
    for value, role, source, statistics in stored:
        assert role == table[value]["role"] == ws.kb.role("FTC", *value.split("."))
        assert source and json.loads(statistics)["against"] is not None
    kept = json.loads({row[0]: row[3] for row in stored}["halo.interrupted"])
    assert kept["against"][0]["votes"] == [1, 25] and kept["against"][0]["patients"] == [N, N]
    fg = "follicular nodule, interrupted halo, macrocalcification, irregular shape"
    assert [role for _, role in roles(ws.kb, "FTC", fg)] == ["particular", "common", "particular", "joint"]
    assert ws.kb.role("PTC", "halo", "interrupted") == "common", "another target keeps its own"


def test_the_literature_comes_back_with_another_corpus(ws: Workspace) -> None:
    fill(ws, CONTRADICTION)
    term_table(ws, "FTC", store=True)
    assert (ws.path / "corpus_roles.yaml").is_file()
    fill(ws, {name: {"margin.clear": 20} for name in CONTRADICTION})
    assert {row["decided_by"] for row in term_table(ws, "FTC", store=True)} == {"literature"}
    assert not (ws.path / "corpus_roles.yaml").exists()
    assert ws.kb.role("FTC", "halo", "interrupted") == "particular"


def test_a_user_has_the_last_word(ws: Workspace) -> None:
    fill(ws, CONTRADICTION)
    (ws.path / "vocabulary.yaml").write_text(
        "extends: thyroid\nroles:\n  FTC: {sources: [Board], joint: {halo: [interrupted]}}\nsources: {Board: Us}\n",
        encoding="utf-8",
    )
    row = by_value(term_table(ws, "FTC", store=True))["halo.interrupted"]
    assert (row["role"], row["decided_by"], row["source"]) == ("joint", "workspace", "Board")
    assert ws.kb.role("FTC", "halo", "interrupted") == "joint"
    (ws.path / "vocabulary.yaml").unlink()
    row = by_value(term_table(ws, "FTC", store=True))["halo.interrupted"]
    assert (row["role"], row["decided_by"]) == ("common", "corpus")


def test_two_targets_share_the_file(ws: Workspace) -> None:
    fill(ws, CONTRADICTION)
    term_table(ws, "FTC", store=True)
    term_table(ws, "PTC", store=True)
    assert ws.kb.role("FTC", "halo", "interrupted") == "common"
    assert ws.kb.role("PTC", "halo", "interrupted") == "particular"


def test_a_class_outside_the_domain_gets_roles_from_the_corpus(ws: Workspace) -> None:
    fill(ws, {"tr_high": {"shape.irregular": 25}, "tr_low": {"shape.irregular": 2}, "tr_mid": {"shape.irregular": 2}})
    row = by_value(term_table(ws, "tr_high", store=True))["shape.irregular"]
    assert (row["role"], row["decided_by"], ws.kb.role("tr_high", "shape", "irregular")) == (
        "particular", "corpus", "particular",
    )  # fmt: skip


def test_one_patient_has_one_vote(ws: Workspace) -> None:
    fill(ws, {"FTC": {"halo.interrupted": 3}}, patients=12, nodules=4)
    votes = class_votes(ws)["FTC"]
    assert (votes.patients, votes.values["halo.interrupted"], votes.values["composition.solid"]) == (12, 3, 12)


def test_patients_outside_of_training_have_no_vote(ws: Workspace) -> None:
    fill(ws, {"FTC": {"halo.interrupted": 12}}, patients=12)
    parts = ["train"] * 5 + ["val"] * 3 + ["test"] * 2
    rows = [("default", f"i{k}", f"FTC-{k}", part) for k, part in enumerate(parts)]
    with ws.connect() as con:
        store.insert(con, "splits", pd.DataFrame(rows, columns=["name", "image_id", "patient_id", "split"]))
    assert class_votes(ws)["FTC"].patients == 7, "five in train and two without images"


def test_denied_values_and_unknown_classes_have_no_vote(ws: Workspace) -> None:
    fill(ws, {"FTC": {"halo.interrupted": 12}, "indeterminate": {"halo.interrupted": 12}}, patients=12)
    with ws.connect() as con:
        con.execute("UPDATE findings SET certainty = 'negated' WHERE value = 'interrupted' AND nodule_id LIKE 'FTC-1%'")
        con.execute("UPDATE pathology SET conflict = 'FTC; PTC' WHERE patient_id = 'FTC-2'")
    votes = class_votes(ws)
    assert set(votes) == {"FTC"}
    assert (votes["FTC"].patients, votes["FTC"].values["halo.interrupted"]) == (11, 8), "FTC-1, 10, 11 deny; 2 is out"


def test_few_patients_leave_the_literature_alone(ws: Workspace) -> None:
    fill(ws, {name: {k: min(v, 9) for k, v in values.items()} for name, values in CONTRADICTION.items()}, patients=9)
    table = term_table(ws, "FTC", store=True)
    assert {row["decided_by"] for row in table} == {"literature"} and not any(row["against"] for row in table)
    with pytest.raises(UserError, match="no class 'XYZ'"):
        term_table(ws, "XYZ")


def test_an_update_brings_stored_roles_to_the_files(ws: Workspace) -> None:
    fill(ws, CONTRADICTION)
    term_table(ws, "FTC", store=True)
    (ws.path / "vocabulary.yaml").write_text(
        "extends: thyroid\nroles:\n  FTC: {sources: [assumption], joint: {halo: [interrupted]}}\n"
        "surfaces: {margin: {clear: {zh: [边界锐利]}}}\n",
        encoding="utf-8",
    )
    with ws.connect() as con:
        changes = {
            (row["change"], row["kind"], row["new"]) for row in difference(stored_facts(con), only_stored(facts(ws.kb)))
        }
        assert changes == {("changed", "role", "joint"), ("added", "word", "边界锐利")}
        refresh(con, ws.kb)
        assert difference(stored_facts(con), only_stored(facts(ws.kb))) == []
        row = con.execute(
            "SELECT role, source, statistics IS NOT NULL FROM term_roles WHERE target = 'FTC' AND value = 'interrupted'"
        ).fetchall()
    assert row == [("joint", "assumption", True)]


def test_tau_is_counted_over_findings_then_prompts_then_training_cases(small_ws: Workspace) -> None:
    with small_ws.connect() as con:
        con.execute("INSERT INTO nodules (nodule_id, image_id) SELECT 'n-' || image_id, image_id FROM images")
        nodules = con.execute("SELECT nodule_id FROM nodules ORDER BY nodule_id").fetchall()
        rows = [
            (f"f{k}", nodule, "composition", "solid" if k % 3 else "cystic", "positive")
            for k, (nodule,) in enumerate(nodules)
        ]
        names = ["finding_id", "nodule_id", "attribute", "value", "certainty"]
        store.insert(con, "findings", pd.DataFrame(rows, columns=names))
    solid = sum(value == "solid" for *_, value, _ in rows) / len(rows)
    assert phrase_shares(small_ws) == pytest.approx({"cystic": 1 - solid, "solid": solid})
    build_prompts(small_ws)
    with small_ws.connect(read_only=True) as con:
        prompts = [row[0] for row in con.execute("SELECT fg FROM prompts").fetchall()]
    assert phrase_shares(small_ws) == term_frequency([phrases(prompt) for prompt in prompts])
    split(small_ws)
    # What `tigergen train fine` stores in the model folder is counted over these cases by the same function.
    train = term_frequency([phrases(prompt) for prompt in small_ws.cases("train")["fg"]])
    assert phrase_shares(small_ws) == train != term_frequency([phrases(prompt) for prompt in prompts])
