"""Which pictures are asked about: equal numbers by class and source, near but different ones, ten features."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kb.errors import UserError
from tigergen.study.folder import REAL, Item, Question, Trial, Word
from tigergen.study.pool import Candidate
from tigergen.study.words import word

if TYPE_CHECKING:
    from kb.vocabulary import KnowledgeBase

# A text is asked about when it says at least so much; a wrong picture contradicts it in at least so many attributes.
MIN_WORDS = 3
MIN_CONTRADICTIONS = 2
CHOICES = 4
FEATURES = 10
# Features of one attribute exclude each other more often than not: more than two would answer one another.
PER_ATTRIBUTE = 2


class TooFewError(UserError):
    """The pool cannot give one picture of each class and source."""


def draw(
    candidates: Sequence[Candidate],
    shares: Mapping[str, int],
    n: int,
    rng: np.random.Generator,
    used: set[str],
    limit: Callable[[int], int] = lambda size: size,
) -> list[Candidate]:
    """Draw about `n` pictures, equally many of each class, of each source in proportion to `shares` (whole numbers).

    Pictures in `used` come last, and so do further ones of a patient or outline that was taken: answers about one
    patient's frames are not independent. `limit` says how many of a cell may be taken. Raises TooFewError when a class
    or source has none, or n is below one round.
    """
    labels = sorted({c.item.label for c in candidates})
    cells: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        cells[candidate.item.source, candidate.item.label].append(candidate)
    round_size = sum(shares.values()) * len(labels)
    wanted = n // round_size if round_size else 0
    if wanted == 0:
        raise TooFewError(f"{n} pictures are too few for equal numbers of each class and source; ask for {round_size}.")
    rounds = {(s, label): limit(len(cells[s, label])) // share for s, share in shares.items() for label in labels}
    poorest = min(rounds, key=lambda cell: rounds[cell])
    if rounds[poorest] == 0:
        source, label = poorest
        raise TooFewError(
            f"class {label} has {len(cells[poorest])} fit pictures of source '{source}', which is too few."
        )
    taken: Counter[str] = Counter()
    drawn = []
    for (source, label), _ in sorted(rounds.items()):
        cell = [cells[source, label][k] for k in rng.permutation(len(cells[source, label]))]
        for _ in range(min(wanted, rounds[poorest]) * shares[source]):
            best = min(cell, key=lambda c: (c.item.item in used, taken[c.group]))
            cell.remove(best)
            taken[best.group] += 1
            drawn.append(best)
    return drawn


def source_questions(drawn: Sequence[Candidate]) -> list[Question]:
    """Real or generated: one question a picture."""
    return [Question(secrets.token_hex(8), "source", [c.item.item]) for c in drawn]


def mark_questions(drawn: Sequence[Candidate]) -> list[Question]:
    """Which of the study's features does the picture show: one question a picture."""
    return [Question(secrets.token_hex(8), "mark", [c.item.item]) for c in drawn]


class Neighbours:
    """Pictures that look alike and differ in what they show, by perceptual hash; copies never stand side by side."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        from tigerdata.images.duplicates import fingerprints, near_pairs, perceptual_hash

        self._all = list(candidates)
        images = np.stack([c.pixels for c in self._all])
        self._hash = np.array([perceptual_hash(image) for image in images], dtype=np.uint64)
        prints = fingerprints(images).astype(np.float32)
        mirrored = fingerprints(np.ascontiguousarray(images[:, :, ::-1])).astype(np.float32)
        first, second, _, _ = near_pairs(self._hash, prints, mirrored, np.arange(len(images)))
        self._copies = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
        self._place = {c.item.item: k for k, c in enumerate(self._all)}

    def beside(self, target: Candidate, count: int) -> list[Candidate]:
        """The `count` nearest pictures by hash that contradict the target's text; fewer when there are no more.

        They are of the target's own source, or the odd one out would be told by its look; of another patient; and
        neither copies of the target nor of one another.
        """
        at = self._place[target.item.item]
        distance = np.bitwise_count(self._hash ^ self._hash[at])
        chosen: list[int] = []
        for k in np.argsort(distance, kind="stable").tolist():
            other = self._all[k]
            if (
                other.item.source == target.item.source
                and other.group != target.group
                and contradictions(target.item, other.item) >= MIN_CONTRADICTIONS
                and not any(frozenset((k, j)) in self._copies for j in (at, *chosen))
            ):
                chosen.append(k)
                if len(chosen) == count:
                    break
        return [self._all[k] for k in chosen]


def contradictions(a: Item, b: Item) -> int:
    """Attributes of which two texts say different things: both state them, and no value is in both."""
    return sum(not set(a.attributes[name]) & set(b.attributes[name]) for name in a.attributes.keys() & b.attributes)


def match_questions(
    base: KnowledgeBase,
    candidates: Sequence[Candidate],
    draw_from: Callable[[list[Candidate]], list[Candidate]],
    rng: np.random.Generator,
) -> list[Question]:
    """Which picture fits the text: targets drawn by `draw_from`, each with three near ones that contradict its text.

    Targets for which no three such pictures exist are drawn anew. Raises TooFewError when the pool has too few.
    """
    near = Neighbours(candidates)
    fit = [c for c in candidates if len(c.item.attributes) >= MIN_WORDS]
    while True:
        drawn = draw_from(fit)
        beside = {c.item.item: near.beside(c, CHOICES - 1) for c in drawn}
        alone = {name for name, found in beside.items() if len(found) < CHOICES - 1}
        if not alone:
            break
        fit = [c for c in fit if c.item.item not in alone]
    questions = []
    for target in drawn:
        shown = [target, *beside[target.item.item]]
        order = rng.permutation(CHOICES).tolist()
        words = [word(base, name, value) for name, values in target.item.attributes.items() for value in values]
        items = [shown[k].item.item for k in order]
        questions.append(Question(secrets.token_hex(8), "match", items, order.index(0), words))
    return questions


def truth(item: Item, feature: Word) -> bool | None:
    """Whether the picture's text states the feature; None when it says nothing of this attribute."""
    values = item.attributes.get(feature.attribute)
    return None if values is None else feature.value in values


def choose_features(base: KnowledgeBase, items: Sequence[Item], count: int = FEATURES) -> list[Word]:
    """The features to mark: those whose presence and absence the texts state most often, in the vocabulary's order.

    At most two of one attribute; "absent" values are left out, being the denial of others. A feature that texts only
    affirm or only deny tells nothing, so there may be fewer than `count`.
    """
    scored = []
    for order, (attribute, value, _) in enumerate(base.phrase_rows()):
        if attribute not in base.attributes or value == "absent":
            continue
        feature = word(base, attribute, value)
        said = Counter(truth(item, feature) for item in items)
        if min(said[True], said[False]):
            scored.append((-min(said[True], said[False]), order, feature))
    chosen: list[tuple[int, Word]] = []
    for _, order, feature in sorted(scored, key=lambda row: row[:2]):
        if sum(f.attribute == feature.attribute for _, f in chosen) < PER_ATTRIBUTE and len(chosen) < count:
            chosen.append((order, feature))
    return [feature for _, feature in sorted(chosen, key=lambda row: row[0])]


def trials(questions: Sequence[Question], repeats: float, source_of: Mapping[str, str], seed: int) -> list[Trial]:
    """One task's questions in a reader's own order, with a share of them asked a second time in the second half.

    Repeats are taken in turn from each source, of questions in the first half, and come at least ten trials (or half
    the task) later. Every address is new and random, so nothing on the page tells a repeat.
    """
    rng = np.random.default_rng(seed)
    n = len(questions)
    order = [questions[k] for k in rng.permutation(n)]
    early: dict[str, list[Question]] = defaultdict(list)
    for question in order[: max(1, n // 2)]:
        early[source_of[question.items[question.right]]].append(question)
    again: list[Question] = []
    while len(again) < min(round(repeats * n), max(1, n // 2)):
        for source in sorted(early, key=lambda s: (s != REAL, s)):
            if early[source] and len(again) < round(repeats * n):
                again.append(early[source].pop(0))
    sequence = [(question, False) for question in order]
    for question in again:
        first = sequence.index((question, False))
        lowest = min(max(n // 2, first + 1 + min(10, n // 2)), len(sequence))
        sequence.insert(int(rng.integers(lowest, len(sequence) + 1)), (question, True))
    made = []
    for question, repeat in sequence:
        places = rng.permutation(len(question.items)).tolist()
        pictures = {secrets.token_hex(8): question.items[k] for k in places}
        made.append(Trial(secrets.token_hex(8), question.question, repeat, pictures))
    return made
