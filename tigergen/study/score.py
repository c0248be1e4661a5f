"""What the readers' answers say: shares with intervals, against chance, agreement, junior and senior readers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from kb.errors import UserError
from kb.files import atomic_write, write_json
from tigergen.evaluation.metric_readers import fleiss_kappa
from tigergen.study.agreement import (
    Counts,
    cohen_kappa,
    compare_groups,
    crossed_interval,
    proportion,
)
from tigergen.study.answers import Answers
from tigergen.study.folder import CHANCE, REAL, TASKS, Study, read
from tigergen.study.questions import truth

Row = dict[str, Any]


def score(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, seed: int = 0) -> Row:
    """Score a study, finished or not, and write `answers.csv`, `answers.parquet` and `scores.json` into `out`.

    `out` defaults to `results` in the study. Only first showings are scored; second ones measure how far a reader
    agrees with himself. `seed`: of the bootstrap. Returns what `scores.json` holds: `progress`, `shares` (rows by task,
    measure, who and what), `readers_agree` (Fleiss), `self_agreement` (Cohen), `features`, `levels` (groups of readers
    compared) and `seconds` (medians). Raises UserError when there is no study or no answer.
    """
    study = read(folder)
    rows = answer_rows(study)
    if not rows:
        raise UserError(f"{folder} holds no answers yet; serve it with `tigergen study serve`.")
    first = [row for row in rows if not row["repeat"]]
    scores: Row = {
        "progress": {
            r.reader: {"answered": len({x["trial"] for x in rows if x["reader"] == r.reader}), "of": len(r.trials)}
            for r in study.readers
        },
        "shares": _share_rows(study, first, seed),
        "readers_agree": _fleiss_rows(study, first),
        "self_agreement": _self_rows(study, rows),
        "features": _feature_rows(study, first),
        "levels": _level_rows(study, first, seed),
        "seconds": _second_rows(study, first),
    }
    target = Path(out) if out else study.path / "results"
    _write(target, rows, scores)
    return {"results": str(target), **scores}


def answer_rows(study: Study) -> list[Row]:
    """All answers with the key beside them, one row an answer and, for marks, one a feature.

    `expected` and `correct` are None for a feature of which the picture's text says nothing. In task "match" the
    answer is the chosen item, and `item` the one that fits.
    """
    if not study.answers.is_file():
        return []
    answers = Answers(study.answers)
    try:
        stored = answers.rows()
    finally:
        answers.close()
    readers = {reader.reader: reader for reader in study.readers}
    places = {r.reader: {t.trial: (k, t) for k, t in enumerate(r.trials, 1)} for r in study.readers}
    rows: list[Row] = []
    for one in stored:
        position, trial = places[one["reader"]][one["trial"]]
        question = study.questions[trial.question]
        item = study.items[question.items[question.right]]
        row = {
            "reader": one["reader"], "level": readers[one["reader"]].level, "task": question.task,
            "position": position, "repeat": trial.repeat, "trial": trial.trial, "question": question.question,
            "item": item.item, "source": item.source, "label": item.label, "origin": item.origin,
        }  # fmt: skip
        times = {name: one[name] for name in ("ms", "hidden_ms", "views", "answered_at")}
        parts: list[tuple[str, Any, Any]]
        if question.task == "source":
            parts = [("", one["answer"], "real" if item.source == REAL else "generated")]
        elif question.task == "match":
            parts = [("", one["answer"], item.item)]
        else:
            names = {True: "yes", False: "no", None: None}
            parts = [
                (feature.en, names[bool(given)], names[truth(item, feature)])
                for feature, given in zip(study.features, one["answer"], strict=True)
            ]
        for feature, given, expected in parts:
            correct = None if expected is None else given == expected
            rows.append(row | {"feature": feature, "answer": given, "expected": expected, "correct": correct} | times)
    return rows


def _groups(study: Study, rows: Iterable[Row]) -> dict[str, list[str]]:
    """Who is scored together: all, each level, each reader; only readers with answers."""
    answered = {row["reader"] for row in rows}
    people = [r for r in study.readers if r.reader in answered]
    if not people:
        return {}
    groups = {"all": [r.reader for r in people]}
    for level in dict.fromkeys(r.level for r in people):
        groups[level] = [r.reader for r in people if r.level == level]
    return groups | {r.reader: [r.reader] for r in people}


def _table(rows: list[Row], readers: list[str]) -> tuple[Counts, Counts]:
    """Right and all answers [readers, questions]."""
    questions = {name: k for k, name in enumerate(sorted({row["question"] for row in rows}))}
    place = {name: k for k, name in enumerate(readers)}
    right, asked = np.zeros((2, len(readers), len(questions)))
    for row in rows:
        if row["reader"] in place:
            right[place[row["reader"]], questions[row["question"]]] += row["correct"]
            asked[place[row["reader"]], questions[row["question"]]] += 1
    return right, asked


def _crossed(rows: list[Row], readers: list[str], seed: int) -> Row:
    """The interval over readers and questions, where there is more than one of what goes together."""
    # Features of one picture are no independent answers either, so marks get it even for one reader.
    if not rows or (len(readers) == 1 and rows[0]["task"] != "mark"):
        return {}
    low, high = crossed_interval(*_table(rows, readers), seed)
    return {"low_crossed": low, "high_crossed": high}


def _share_rows(study: Study, first: list[Row], seed: int) -> list[Row]:
    """Right answers by task, group of readers, source and class; in the first task also who said "real" of what."""
    found = []
    for task in TASKS:
        known = [row for row in first if row["task"] == task and row["correct"] is not None]
        sources = sorted({row["source"] for row in known}, key=lambda s: (s != REAL, s))
        labels = sorted({row["label"] for row in known})
        every = {"all": known} | {s: [row for row in known if row["source"] == s] for s in sources}
        every |= {f"class {label}": [row for row in known if row["label"] == label] for label in labels}
        for who, readers in _groups(study, known).items():
            for what, held in every.items():
                part = [row for row in held if row["reader"] in readers]
                # Within one source "real or generated" has one right answer: guessing has no fixed share there.
                chance = None if task == "source" and what in sources else CHANCE[task]
                row = proportion(sum(r["correct"] for r in part), len(part), chance)
                head = {"task": task, "measure": "right", "who": who, "what": what}
                found.append(head | row | _crossed(part, readers, seed))
                if task == "source" and what in sources:
                    real = [row | {"correct": row["answer"] == "real"} for row in part]
                    said = proportion(sum(r["correct"] for r in real), len(real)) | _crossed(real, readers, seed)
                    said["said_real"] = said.pop("right")
                    found.append(head | {"measure": "said real"} | said)
    return found


def _complete(study: Study, rows: list[Row], task: str, readers: Iterable[str]) -> list[str]:
    """Readers who have answered every question of a task."""
    whole = {q.question for q in study.questions.values() if q.task == task}
    done: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        done[row["reader"]].add(row["question"])
    return [reader for reader in readers if whole and whole <= done[reader]]


def _fleiss(rows: list[Row], readers: list[str]) -> Row:
    cases: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for row in rows:
        if row["reader"] in readers:
            cases[row["question"], row["feature"]][row["reader"]] = row["answer"]
    ratings = [[case[reader] for reader in readers] for case in cases.values()]
    pairs = [a == b for case in ratings for a, b in combinations(case, 2)]
    # Where all gave one answer throughout, kappa is 0 / 0.
    kappa = fleiss_kappa(ratings) if len({one for case in ratings for one in case}) > 1 else None
    return {"readers": len(readers), "cases": len(ratings), "agreeing_pairs": float(np.mean(pairs)),
            "fleiss_kappa": kappa}  # fmt: skip


def _fleiss_rows(study: Study, first: list[Row]) -> list[Row]:
    """Agreement between the readers who finished a task, two or more: all of them and each level."""
    found = []
    for task in TASKS:
        part = [_renamed(study, row) for row in first if row["task"] == task]
        for who, readers in _groups(study, part).items():
            whole = _complete(study, part, task, readers)
            if len(whole) > 1:
                found.append({"task": task, "who": who, **_fleiss(part, whole)})
    return found


def _renamed(study: Study, row: Row) -> Row:
    """A choice among four by its number in the stored, random order: the categories of all cases are then the same."""
    if row["task"] != "match":
        return row
    return row | {"answer": study.questions[row["question"]].items.index(row["answer"])}


def _self_rows(study: Study, rows: list[Row]) -> list[Row]:
    """How often readers answered the second showing as the first one, and Cohen's kappa of the two series."""
    found = []
    for task in TASKS:
        part = [_renamed(study, row) for row in rows if row["task"] == task]
        for who, readers in _groups(study, part).items():
            series: dict[bool, dict[tuple[str, str, str], Any]] = {False: {}, True: {}}
            for row in part:
                if row["reader"] in readers:
                    series[row["repeat"]][row["reader"], row["question"], row["feature"]] = row["answer"]
            both = [key for key in series[True] if key in series[False]]
            if both:
                a, b = ([series[turn][key] for key in both] for turn in (False, True))
                row = proportion(sum(x == y for x, y in zip(a, b, strict=True)), len(both))
                row["same"] = row.pop("right")
                found.append({"task": task, "who": who, **row, "cohen_kappa": cohen_kappa(a, b)})
    return found


def _feature_rows(study: Study, first: list[Row]) -> list[Row]:
    """Each feature on real and on generated pictures: agreement with the text, sensitivity, specificity, kappas."""
    found = []
    marks = [row for row in first if row["task"] == "mark"]
    for feature in [word.en for word in study.features]:
        for what in ("real", "generated"):
            part = [r for r in marks if r["feature"] == feature and (r["source"] == REAL) == (what == "real")]
            known = [r for r in part if r["expected"] is not None]
            row: Row = {"feature": feature, "what": what, **proportion(sum(r["correct"] for r in known), len(known))}
            for name, side in (("sensitivity", "yes"), ("specificity", "no")):
                sided = [r["correct"] for r in known if r["expected"] == side]
                row[name] = float(np.mean(sided)) if sided else None
            row["cohen_kappa"] = cohen_kappa([r["expected"] for r in known], [r["answer"] for r in known])
            whole = _complete(study, marks, "mark", list(dict.fromkeys(r["reader"] for r in part)))
            row["fleiss_kappa"] = _fleiss(part, whole)["fleiss_kappa"] if len(whole) > 1 else None
            found.append(row)
    return found


def _level_rows(study: Study, first: list[Row], seed: int) -> list[Row]:
    """Junior against senior readers, on each task."""
    found = []
    for task in TASKS:
        known = [row for row in first if row["task"] == task and row["correct"] is not None]
        groups = _groups(study, known)
        for a, b in combinations([name for name in ("junior", "senior") if name in groups], 2):
            result = compare_groups(_table(known, groups[a]), _table(known, groups[b]), seed)
            sizes, means = result.pop("readers"), result.pop("means")
            row: Row = {"task": task, f"readers_{a}": sizes[0], f"readers_{b}": sizes[1], a: means[0], b: means[1]}
            found.append(row | result)
    return found


def _second_rows(study: Study, first: list[Row]) -> list[Row]:
    """Median seconds to an answer, by task and group."""
    found = []
    for task in TASKS:
        part = list({row["trial"]: row for row in first if row["task"] == task}.values())
        for who, readers in _groups(study, part).items():
            times = [row["ms"] / 1000 for row in part if row["reader"] in readers]
            found.append({"task": task, "who": who, "n": len(times), "median_s": float(np.median(times))})
    return found


def _write(target: Path, rows: list[Row], scores: Row) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    # `object` keeps yes, no and unknown apart in CSV; Parquet stores them as nullable Booleans.
    frame["correct"] = frame["correct"].astype("boolean")
    with atomic_write(target / "answers.csv") as temporary:
        frame.to_csv(temporary, index=False)
    with atomic_write(target / "answers.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    write_json(target / "scores.json", scores)
