"""Making a study: pictures drawn and re-encoded, questions, readers with their links and their own order."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.errors import UserError
from kb.files import sha256_file
from tigergen.study import questions as ask
from tigergen.study.folder import FORMAT, REAL, TASKS, Question, Reader, Study, Trial, Word, write
from tigergen.study.pool import Candidate, pool, shown
from tigergen.study.words import word

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

# The paper's third study asks each doctor for 30 pictures, its second for 20.
COUNTS = {"source": 40, "match": 20, "mark": 30}


def new(
    ws: Workspace,
    out: str | os.PathLike[str],
    runs: Sequence[str | os.PathLike[str]],
    *,
    counts: Mapping[str, int] = COUNTS,
    readers: Mapping[str, int] | None = None,
    split: str = "test",
    classes: Sequence[str] | None = None,
    features: Sequence[str] = (),
    repeats: float = 0.1,
    seed: int = 0,
) -> dict[str, Any]:
    """Make the study folder `out` from finished runs of `tigergen augment` and the real images of `split`.

    `counts`: pictures a task ("source", "match", "mark"), at most; 0 leaves the task out. Classes and sources get equal
    numbers; with several runs the first task shows as many real images as generated ones. `readers`: level -> number
    (default one junior, one senior). `features`: "attribute=value" each, in place of the ten chosen ones. `repeats`:
    share of each task that is asked twice. What is drawn, and each order, follows from `seed`; addresses and links
    never do. Returns the facts of `study.json`.

    Raises UserError when `out` exists, a run is unfinished or stems from a model that saw the real images, a task
    cannot be filled by one round, or a feature is unknown.
    """
    path = Path(out)
    if path.exists():
        raise UserError(f"{path} exists; a study is never changed once it is made: choose another folder.")
    levels = {"junior": 1, "senior": 1} if readers is None else dict(readers)
    if not sum(levels.values()):
        raise UserError("a study without readers asks nobody; give --junior or --senior.")
    if not 0 <= repeats <= 0.5:
        raise UserError(f"--repeats {repeats} is no share between 0 and .5.")
    named = _names(runs)
    candidates = pool(ws, named, split, classes, seed)
    unknown = _unseen(ws, named, candidates)
    asked, chosen, notes = _questions(ws, candidates, named, counts, features, seed)
    sources = {c.item.item: c.item.source for c in candidates}
    people = _readers(levels, asked, repeats, sources, seed)
    used = {item for question in asked for item in question.items}
    items = {c.item.item: c.item for c in candidates if c.item.item in used}
    facts = {
        "format": FORMAT,
        "seed": seed,
        "split": split,
        "repeats": repeats,
        "runs": {name: sha256_file(folder / "manifest.parquet") for name, folder in named.items()},
        "classes": sorted({item.label for item in items.values()}),
        "pictures": len(items),
        "grid": int(candidates[0].pixels.shape[0]),
        "questions": {task: n for task in TASKS if (n := sum(q.task == task for q in asked))},
        "trials_a_reader": len(people[0].trials),
        "features": [feature.en for feature in chosen],
        "readers": levels,
        "notes": [*unknown, *notes],
    }
    _write(path, Study(path, facts, items, {q.question: q for q in asked}, chosen, people), candidates)
    return {"study": str(path), **facts}


def _names(runs: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """A name for each run: its folder's, made unique by a number."""
    if not runs:
        raise UserError("a study needs a folder of generated images; give --run.")
    named: dict[str, Path] = {}
    for run in map(Path, runs):
        name = run.resolve().name
        n = sum(known == name or known.startswith(f"{name}-") for known in named)
        named[f"{name}-{n + 1}" if n or name in (REAL, "all") else name] = run
    return named


def _unseen(ws: Workspace, runs: Mapping[str, Path], candidates: Sequence[Candidate]) -> list[str]:
    """Refuse real images that a generator was trained on; returns notes on generators whose training set is unknown."""
    import pyarrow.parquet as pq

    real = {c.item.origin for c in candidates if c.item.source == REAL}
    notes = []
    with ws.connect(read_only=True) as con:
        for name, folder in runs.items():
            column = pq.read_table(folder / "manifest.parquet", columns=["model_id"])[0].to_pylist()
            for model in sorted(set(filter(None, column))):
                row = con.execute("SELECT trained_on FROM models WHERE model_id = ?", [model]).fetchone()
                seen = set(json.loads(row[0])) if row and row[0] else set()
                if seen & real:
                    raise UserError(
                        f"the generator of {folder} was trained on {len(seen & real)} of these real images, e.g. "
                        f"{min(seen & real)}; take another --split, or train again on today's split."
                    )
                notes += [] if seen else [f"{name}: what its generator was trained on is not recorded here"]
    return notes


def _questions(
    ws: Workspace,
    candidates: list[Candidate],
    runs: Mapping[str, Path],
    counts: Mapping[str, int],
    features: Sequence[str],
    seed: int,
) -> tuple[list[Question], list[Word], list[str]]:
    """The questions of all tasks, the features to mark, and notes where the pool held less than was asked for."""
    equal = {REAL: 1, **dict.fromkeys(runs, 1)}
    used: set[str] = set()
    asked: list[Question] = []
    chosen: list[Word] = []
    notes: list[str] = []
    if counts.get("source"):
        halves = equal | {REAL: len(runs)}
        asked += ask.source_questions(ask.draw(candidates, halves, counts["source"], _rng(seed, 1), used))
        used |= {q.items[0] for q in asked}
    if counts.get("match"):
        # A picture whose text was read cannot be marked afterwards: half of each class stays for the third task.
        both = bool(counts.get("mark"))

        def targets(fit: list[Candidate]) -> list[Candidate]:
            limit = (lambda n: n // 2) if both else (lambda n: n)
            return ask.draw(fit, equal, counts["match"], _rng(seed, 2), used, limit)

        asked += ask.match_questions(ws.kb, candidates, targets, _rng(seed, 3))
    told = {q.items[q.right] for q in asked if q.task == "match"}
    if counts.get("mark"):
        rest = [c for c in candidates if c.item.item not in told and c.item.attributes]
        drawn = ask.draw(rest, equal, counts["mark"], _rng(seed, 4), used | told)
        asked += ask.mark_questions(drawn)
        chosen = _features(ws, features) or ask.choose_features(ws.kb, [c.item for c in drawn])
        if not chosen:
            raise UserError("no feature is stated of some pictures and denied of others; give --feature or --mark 0.")
    found = Counter(q.task for q in asked)
    for task in TASKS:
        if counts.get(task) and found[task] < counts[task]:
            notes.append(
                f"{task}: {found[task]} questions of {counts[task]} wanted, for equal numbers a class and source"
            )
    if chosen and len(chosen) < ask.FEATURES and not features:
        notes.append(f"mark: {len(chosen)} features of {ask.FEATURES}, the texts of these pictures tell no more apart")
    if not asked:
        raise UserError("a study without tasks asks nothing; give one of --source, --match and --mark.")
    return asked, chosen, notes


def _features(ws: Workspace, named: Sequence[str]) -> list[Word]:
    base = ws.kb
    found = []
    for text in named:
        attribute, _, value = text.partition("=")
        if attribute not in base.attributes or value not in base.attributes[attribute].values:
            raise UserError(f"--feature '{text}' is no attribute=value of the domain; see `tigerdata kb show`.")
        found.append(word(base, attribute, value))
    if len(found) > ask.FEATURES:
        raise UserError(f"{len(found)} features are more than the {ask.FEATURES} that one screen holds; give fewer.")
    return found


def _readers(
    levels: Mapping[str, int], asked: Sequence[Question], repeats: float, sources: Mapping[str, str], seed: int
) -> list[Reader]:
    """Readers J1, J2, … S1, …, each with a secret link and an own order within each task."""
    people: list[Reader] = []
    for level, count in levels.items():
        for number in range(1, count + 1):
            own = int(np.random.SeedSequence([seed, 5, len(people)]).generate_state(1)[0])
            order: list[Trial] = []
            for place, task in enumerate(TASKS):
                part = [q for q in asked if q.task == task]
                order += ask.trials(part, repeats, sources, own + place)
            people.append(Reader(f"{level[0].upper()}{number}", level, secrets.token_urlsafe(24), own, order))
    return people


def _write(path: Path, study: Study, candidates: Sequence[Candidate]) -> None:
    """Write the folder under a temporary name and rename it when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp makes a folder that only its owner can read, and it stays so: the key is inside.
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
    try:
        (temporary / "pictures").mkdir()
        for candidate in candidates:
            if candidate.item.item in study.items:
                (temporary / "pictures" / f"{candidate.item.item}.png").write_bytes(shown(candidate.pixels))
        write(Study(temporary, study.facts, study.items, study.questions, study.features, study.readers))
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rng(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])
