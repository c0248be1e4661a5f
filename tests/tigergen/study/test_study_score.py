"""Scores against hand counts, known answers and brute force."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from typer.testing import CliRunner

from kb.errors import UserError
from tests.tigergen.study.conftest import ASKED, right_answer
from tigerdata.workspace import Workspace
from tigergen.commands import gen_app
from tigergen.study.agreement import cohen_kappa, compare_groups, crossed_interval, proportion
from tigergen.study.answers import Answers
from tigergen.study.folder import Study, read
from tigergen.study.new import new
from tigergen.study.score import answer_rows, score


def test_exact_intervals_are_quantiles_of_the_beta_distribution() -> None:
    for k, n in ((0, 8), (3, 8), (8, 8), (61, 100)):
        row = proportion(k, n, 0.5)
        low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
        high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-9)
    assert proportion(8, 10, 0.5)["p"] == pytest.approx(2 * (45 + 10 + 1) / 2**10)
    assert proportion(0, 0, 0.5) == {"n": 0, "right": 0, "share": None, "low": None, "high": None, "chance": 0.5,
                                     "p": None}  # fmt: skip


def test_cohens_kappa_of_a_table() -> None:
    assert cohen_kappa(["a"], ["a"]) is None
    # Twenty yes-yes, five yes-no, ten no-yes, fifteen no-no: (.7 - .5) / (1 - .5).
    assert cohen_kappa("y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15) == pytest.approx(0.4)


def test_levels_are_compared_by_all_divisions_of_the_readers() -> None:
    rng = np.random.default_rng(0)
    asked = np.ones((3, 12)), np.ones((4, 12))
    right = (rng.random((3, 12)) < 0.5).astype(float), (rng.random((4, 12)) < 0.9).astype(float)
    found = compare_groups((right[0], asked[0]), (right[1], asked[1]), 0)
    means = np.concatenate([r.mean(1) for r in right])
    observed = means[3:].mean() - means[:3].mean()
    null = []
    for chosen in itertools.combinations(range(7), 3):
        rest = [k for k in range(7) if k not in chosen]
        null.append(abs(means[rest].mean() - means[list(chosen)].mean()))
    assert found["difference"] == pytest.approx(observed)
    assert found["p"] == pytest.approx(np.mean(np.array(null) >= abs(observed) - 1e-12))
    assert found["p_least"] == pytest.approx(1 / 35)
    assert found["low"] < observed < found["high"]
    assert compare_groups((right[0][:1], asked[0][:1]), (right[1][:1], asked[1][:1]), 0)["p"] == 1.0


def test_the_crossed_interval_is_wider_when_readers_differ() -> None:
    rng = np.random.default_rng(1)
    apart = np.repeat([[1.0] * 40, [0.2] * 40, [0.9] * 40, [0.3] * 40], 1, axis=0)
    right = (rng.random((4, 40)) < apart).astype(float)
    low, high = crossed_interval(right, np.ones((4, 40)), 0)
    exact = proportion(int(right.sum()), 160)
    assert high - low > 1.5 * (exact["high"] - exact["low"])


def answer_all(study: Study, wrong: dict[str, set[int]]) -> None:
    """Every reader answers by the key, but for the trials at the places in `wrong` (of each task from 0)."""
    answers = Answers(study.answers)
    for reader in study.readers:
        place: dict[str, int] = {}
        for k, trial in enumerate(reader.trials):
            task = study.questions[trial.question].task
            at = place[task] = place.get(task, -1) + 1
            answer = right_answer(study, trial)
            if at in wrong[reader.reader]:
                if task == "source":
                    answer = "generated" if answer == "real" else "real"
                elif task == "match":
                    answer = next(a for a in trial.pictures if a != answer)
                else:
                    answer = [1 - answer[0], *answer[1:]]
            answers.shown(reader.reader, trial.trial)
            stored = trial.pictures[answer] if task == "match" else answer
            answers.add(reader.reader, trial.trial, stored, 1000 + k, 0)
    answers.close()


def pick(rows: list[dict], **where: str) -> dict:
    (row,) = [row for row in rows if all(row[k] == v for k, v in where.items())]
    return row


def test_scores_are_what_one_counts_by_hand(study: Study) -> None:
    answer_all(study, {"J1": {0, 1, 2, 5}, "S1": {3}})
    scores = score(study.path)
    rows = pd.read_parquet(study.path / "results" / "answers.parquet")
    assert list(pd.read_csv(study.path / "results" / "answers.csv").columns) == list(rows.columns)
    assert len(rows) == sum(
        len(study.features) if study.questions[t.question].task == "mark" else 1
        for r in study.readers
        for t in r.trials
    )
    first = rows[~rows["repeat"]]
    for (task, reader), part in first.groupby(["task", "reader"]):
        known = part[part["expected"].notna()]
        row = pick(scores["shares"], task=task, who=reader, what="all", measure="right")
        assert (row["n"], row["right"]) == (len(known), int((known["answer"] == known["expected"]).sum()))
    # J1 gave four answers wrong in the first task; count those that were first showings, from the reader's own list.
    block = [t for t in study.readers[0].trials if study.questions[t.question].task == "source"]
    missed = [block[k] for k in (0, 1, 2, 5) if not block[k].repeat]
    assert pick(scores["shares"], task="source", who="J1", what="all", measure="right")["right"] == 12 - len(missed)
    real = [t for t in missed if study.items[study.questions[t.question].items[0]].source == "real"]
    said = pick(scores["shares"], task="source", who="J1", what="real", measure="said real")
    assert (said["n"], said["said_real"]) == (6, 6 - len(real)) and "p" not in said
    both = pick(scores["shares"], task="source", who="all", what="augmented", measure="said real")
    assert both["n"] == 12 and 0 <= both["low_crossed"] <= both["share"] <= both["high_crossed"] <= 1
    assert pick(scores["shares"], task="match", who="S1", what="all", measure="right")["chance"] == 0.25

    own = pick(scores["self_agreement"], task="source", who="J1")
    again = {t.question: k for k, t in enumerate(block) if t.repeat}
    firsts = {t.question: k for k, t in enumerate(block) if not t.repeat}
    flips = sum((again[q] in (0, 1, 2, 5)) != (firsts[q] in (0, 1, 2, 5)) for q in again)
    assert (own["n"], own["same"]) == (3, 3 - flips)

    pivot = first[first["task"] == "source"].pivot(index="question", columns="reader", values="answer")
    agree = pick(scores["readers_agree"], task="source", who="all")
    assert agree["cases"] == 12 and agree["agreeing_pairs"] == pytest.approx((pivot["J1"] == pivot["S1"]).mean())
    yes = (pivot == "real").to_numpy().mean()
    expected = yes**2 + (1 - yes) ** 2
    assert agree["fleiss_kappa"] == pytest.approx((agree["agreeing_pairs"] - expected) / (1 - expected))
    level = pick(scores["levels"], task="source")
    assert level["difference"] == pytest.approx(level["senior"] - level["junior"]) and level["p"] == 1.0
    assert json.loads((study.path / "results" / "scores.json").read_text())["progress"] == scores["progress"]


def test_pictures_that_say_nothing_of_a_feature_are_not_scored(study: Study) -> None:
    answer_all(study, {"J1": set(), "S1": set()})
    marks = [row for row in answer_rows(study) if row["task"] == "mark"]
    silent = [row for row in marks if row["expected"] is None]
    assert all(row["correct"] is None for row in silent)
    assert {row["answer"] for row in marks} == {"yes", "no"}
    row = pick(score(study.path)["shares"], task="mark", who="all", what="all", measure="right")
    assert row["n"] == len([r for r in marks if r["expected"] is not None and not r["repeat"]]) and row["share"] == 1.0


def test_the_score_command_and_an_unanswered_study(ws: Workspace, run: Path, tmp_path: Path) -> None:
    new(ws, tmp_path / "reading", [run], counts=ASKED)
    with pytest.raises(UserError, match="holds no answers yet"):
        score(tmp_path / "reading")
    study = read(tmp_path / "reading")
    answers = Answers(study.answers)
    answers.add("J1", study.readers[0].trials[0].trial, "real", 5, 0)
    answers.close()
    done = CliRunner().invoke(gen_app, ["study", "score", str(study.path)], catch_exceptions=False)
    assert done.exit_code == 0 and "J1: 1 of" in done.stdout and "preliminary" in done.stdout
    made = json.loads(
        CliRunner().invoke(gen_app, ["study", "score", str(study.path), "--json"], catch_exceptions=False).stdout
    )
    assert made["progress"]["S1"]["answered"] == 0
