"""Counts, shares and pairs worked out by hand; unread words with nothing personal in their examples."""

import doctest
import math
from pathlib import Path

import pandas as pd
import pytest

from kb import store
from kb.errors import UserError
from tigerdata.reports import statistics, unknown
from tigerdata.reports.ingest import ingest_reports
from tigerdata.reports.unknown import unknown_words
from tigerdata.workspace import Workspace

# Ten nodules: six of FTC (patients a-f), four of benign (g-j). The halo is described in eight.
NODULES = {
    "a": ["solid", "interrupted"], "b": ["solid", "interrupted"], "c": ["solid", "interrupted"],
    "d": ["solid", "thin_even"], "e": ["cystic", "thin_even"], "f": ["solid"],
    "g": ["cystic", "thin_even"], "h": ["cystic", "thin_even"], "i": ["solid", "interrupted"], "j": ["cystic"],
}  # fmt: skip


@pytest.fixture
def counted(ws: Workspace) -> Workspace:
    with ws.connect() as con:
        rows = [(f"n-{p}", p, 1) for p in NODULES]
        store.insert(con, "nodules", pd.DataFrame(rows, columns=["nodule_id", "patient_id", "ordinal"]))
        paths = [(p, p, "FTC" if p < "g" else "benign") for p in NODULES]
        store.insert(con, "pathology", pd.DataFrame(paths, columns=["pathology_id", "patient_id", "subtype"]))
        found = [
            (f"f-{p}-{v}", f"n-{p}", "composition" if v in ("solid", "cystic") else "halo", v, "positive")
            for p, values in NODULES.items()
            for v in values
        ]
        found.append(("denied", "n-f", "halo", "thin_even", "negated"))
        names = ["finding_id", "nodule_id", "attribute", "value", "certainty"]
        store.insert(con, "findings", pd.DataFrame(found, columns=names))
    return ws


def test_attributes_by_class_with_shares_of_what_is_described(counted: Workspace) -> None:
    found = statistics.attribute_counts(counted)
    assert found["classes"] == {"FTC": 6, "benign": 4}
    assert found["attributes"] == {
        "composition": {"solid": {"FTC": 5, "benign": 1}, "cystic": {"FTC": 1, "benign": 3}},
        "halo": {"thin_even": {"FTC": 2, "benign": 2}, "interrupted": {"FTC": 3, "benign": 1}},
    }
    assert found["described"] == {"composition": {"FTC": 6, "benign": 4}, "halo": {"FTC": 5, "benign": 3}}
    assert found["shares"]["halo"]["interrupted"] == {"FTC": 0.6, "benign": pytest.approx(1 / 3, abs=1e-4)}


def test_the_class_is_that_of_the_nodule_before_that_of_the_patient(counted: Workspace) -> None:
    with counted.connect() as con:
        con.execute("UPDATE nodules SET exam_id = 'e'")
        con.execute("INSERT INTO pathology (pathology_id, patient_id, exam_id, subtype) VALUES ('x', 'a', 'e', 'PTC')")
        con.execute(
            "INSERT INTO pathology (pathology_id, patient_id, exam_id, nodule_ordinal, subtype) VALUES "
            "('y', 'b', 'e', 1, 'MTC'), ('z', 'c', 'e', 2, 'PTC')"
        )
    assert statistics.attribute_counts(counted)["classes"] == {"FTC": 3, "MTC": 1, "PTC": 2, "benign": 4}


def test_pairs_by_hand(counted: Workspace) -> None:
    pairs = {(row["one"], row["two"]): row for row in statistics.co_occurrence(counted, least=1)}
    assert len(pairs) == 4, "two values of one single-valued attribute are no pair"
    row = pairs["composition.solid", "halo.interrupted"]
    # Eight nodules describe both: solid 5, interrupted 4, both 4.
    assert (row["nodules"], row["first"], row["second"], row["both"]) == (8, 5, 4, 4)
    assert row["lift"] == pytest.approx(4 * 8 / (5 * 4))
    assert row["log_odds"] == pytest.approx(math.log(4.5 * 3.5 / (1.5 * 0.5)), abs=1e-3)
    assert row["low"] == pytest.approx(row["log_odds"] - 1.96 * math.sqrt(1 / 4.5 + 1 / 3.5 + 1 / 1.5 + 2), abs=1e-3)
    assert pairs["composition.cystic", "halo.interrupted"]["both"] == 0, "values that avoid each other are shown too"
    assert statistics.co_occurrence(counted, least=5) == []
    within = {(row["one"], row["two"]): row for row in statistics.co_occurrence(counted, "benign", least=1)}
    assert within["composition.solid", "halo.interrupted"]["nodules"] == 3
    with pytest.raises(UserError, match="no class 'XX'"):
        statistics.co_occurrence(counted, "XX")


def test_values_of_an_attribute_with_several_are_a_pair(counted: Workspace) -> None:
    with counted.connect() as con:
        con.execute(
            "INSERT INTO findings (finding_id, nodule_id, attribute, value, certainty) "
            "SELECT nodule_id || v, nodule_id, 'margin', v, 'positive' "
            "FROM nodules, (VALUES ('clear'), ('smooth')) t(v)"
        )
    pairs = {(row["one"], row["two"]): row for row in statistics.co_occurrence(counted, least=1)}
    assert pairs["margin.clear", "margin.smooth"]["both"] == 10


def test_coverage_counts_what_the_vocabulary_explains(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n左叶低回声结节\n", encoding="utf-8")
    ingest_reports(ws, tmp_path / "a.csv")
    assert statistics.coverage(ws)["explained"] == 1.0
    (tmp_path / "b.csv").write_text("text\n左叶低回声结节猫狗鱼\n", encoding="utf-8")
    ingest_reports(ws, tmp_path / "b.csv")
    found = statistics.coverage(ws)
    assert found["explained"] == pytest.approx(14 / 17, abs=1e-4)
    assert found["unexplained"] == {}, "one report's words are not repeated"


def test_unread_words_are_counted_by_patient_and_masked(ws: Workspace, tmp_path: Path) -> None:
    sizes = [5, 6, 7, 8, 9, 11]
    rows = [f"p{k},左叶见一低回声结节，大小约{size}mm，后方爆米花征，张某某说" for k, size in enumerate(sizes)]
    rows += ["p0,右叶见一低回声结节，爆米花征，旁见爆米花征", "p9,左叶见一低回声结节，伴独角兽征"]
    (tmp_path / "a.csv").write_text("patient_id,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    ingest_reports(ws, tmp_path / "a.csv")
    words = {row["word"]: row for row in unknown_words(ws, least=5)}
    assert "独角兽征" not in words, "one patient's word"
    row = words["爆米花征"]
    assert (row["patients"], row["reports"], row["occurrences"]) == (6, 7, 8)
    assert row["example"] == "爆米花征"
    for row in words.values():
        assert row["example"].replace(row["word"], "").strip("· ") == ""
    assert [row["word"] for row in unknown_words(ws, least=5, limit=1)] == [next(iter(words))]


@pytest.mark.parametrize(
    ("text", "word", "example"),
    [
        ("左叶结节，后方爆米花征，约5mm。", "爆米花征", "··爆米花征"),
        ("A 1.5 cm zebroid nodule in Mr. Smith", "zebroid", "· ·.· ·· zebroid ······ ·· ··"),
        ("王小明爆米花征", "爆米花征", "···爆米花征"),
    ],
)
def test_an_example_hides_everything_but_the_word(text: str, word: str, example: str) -> None:
    start = text.index(word)
    assert unknown.masked_clause(text, start, start + len(word)) == example


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(unknown).failed == 0
