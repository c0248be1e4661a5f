"""The folder of a study: what is asked, of whom, in which order, and the key that no reader sees.

study.json    settings and counts, nothing that unblinds
key.json      pictures with their source, class and text; questions with the right answer
readers.json  readers with their token, seed and order of trials
pictures/     the pictures as they are shown, named by a random id
answers.db    the answers (SQLite), made when the study is served
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kb.errors import UserError
from kb.files import read_json, write_json

FORMAT = 1
REAL = "real"
# The three tasks in the order in which a reader does them: the first one must come before any text is read.
TASKS = ("source", "match", "mark")
# The share of right answers that guessing gives.
CHANCE = {"source": 0.5, "match": 0.25, "mark": 0.5}


@dataclass(frozen=True)
class Word:
    """One value of an attribute as readers see it, in English and Chinese."""

    attribute: str
    value: str
    en: str
    zh: str


@dataclass(frozen=True)
class Item:
    """One picture: `source` is "real" or the name of a run; `attributes` what its text says for certain."""

    item: str
    source: str
    label: str
    origin: str
    attributes: dict[str, list[str]]


@dataclass(frozen=True)
class Question:
    """What is asked: one picture (source, mark) or four (match), of which number `right` fits `words`."""

    question: str
    task: str
    items: list[str]
    right: int = 0
    words: list[Word] = field(default_factory=list)


@dataclass(frozen=True)
class Trial:
    """One showing of a question to one reader. `pictures`: address -> item, in the order shown."""

    trial: str
    question: str
    repeat: bool
    pictures: dict[str, str]


@dataclass(frozen=True)
class Reader:
    """A reader: pseudonym, level (junior or senior), the secret part of the link, and the trials in their order."""

    reader: str
    level: str
    token: str
    seed: int
    trials: list[Trial]


@dataclass(frozen=True)
class Study:
    """A whole study in memory, as `new` makes it and `serve` and `score` read it."""

    path: Path
    facts: dict[str, Any]
    items: dict[str, Item]
    questions: dict[str, Question]
    features: list[Word]
    readers: list[Reader]

    def picture(self, item: str) -> Path:
        """Where the picture of an item lies."""
        return self.path / "pictures" / f"{item}.png"

    @property
    def answers(self) -> Path:
        """Where the answers are kept."""
        return self.path / "answers.db"


def write(study: Study) -> None:
    """Write the three JSON files; key and readers can be read by the owner alone, and `study.json` comes last."""
    key = {
        "items": [asdict(item) for item in study.items.values()],
        "questions": [asdict(question) for question in study.questions.values()],
        "features": [asdict(word) for word in study.features],
    }
    secret = {"key.json": key, "readers.json": [asdict(reader) for reader in study.readers]}
    for name, content in secret.items():
        write_json(study.path / name, content)
        os.chmod(study.path / name, 0o600)
    write_json(study.path / "study.json", study.facts)


def read(folder: str | os.PathLike[str]) -> Study:
    """Read a study folder; UserError when it is none, or was made by another version of its format."""
    path = Path(folder)
    if not (path / "study.json").is_file():
        raise UserError(f"{path} is no reader study (it has no study.json); make one with `tigergen study new`.")
    facts = read_json(path / "study.json")
    if facts.get("format") != FORMAT:
        raise UserError(f"{path} has study format {facts.get('format')}, this program reads {FORMAT}; update it.")
    key, readers = read_json(path / "key.json"), read_json(path / "readers.json")
    return Study(
        path=path,
        facts=facts,
        items={row["item"]: Item(**row) for row in key["items"]},
        questions={
            row["question"]: Question(**row | {"words": [Word(**word) for word in row["words"]]})
            for row in key["questions"]
        },
        features=[Word(**word) for word in key["features"]],
        readers=[Reader(**row | {"trials": [Trial(**trial) for trial in row["trials"]]}) for row in readers],
    )
