"""Coverage: which values and pairs of values a class shows, which it lacks, and which contradict themselves.

One-way coverage counts single values of attributes, two-way coverage pairs of values of different attributes, as in the
testing of software by covering arrays (Kuhn, Kacker and Lei 2013): most of what goes wrong depends on one or two.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from kb import KnowledgeBase

Attributes = Mapping[str, Sequence[str]]
Value = tuple[str, str]
Combination = tuple[Value, ...]

# A pair on a single image is hardly learned: beside "shown at all", the plan counts what so many images show.
OFTEN = 5


def contradiction(base: KnowledgeBase, attributes: Attributes) -> str | None:
    """Why no image can show these values together, or None.

    Beside the constraints of the knowledge base: an attribute that has one value at a time must not have two.
    """
    for name, values in attributes.items():
        if len(set(values)) > 1 and not base.attributes[name].multiple:
            return f"{' and '.join(values)} exclude each other: a nodule has one {name.replace('_', ' ')}."
    return base.impossible(attributes)


def combined(values: Iterable[Value]) -> dict[str, list[str]]:
    """Values put together by attribute."""
    out: dict[str, list[str]] = {}
    for name, value in values:
        out.setdefault(name, []).append(value)
    return out


def combinations_of(case: Attributes, order: int) -> list[Combination]:
    """All combinations of `order` values of different attributes in one case, each sorted."""
    pairs = sorted({(a, v) for a, values in case.items() for v in values})
    return [c for c in combinations(pairs, order) if len({a for a, _ in c}) == order]


def ways(cases: Iterable[Attributes], order: int) -> set[Combination]:
    """All combinations of `order` different attributes' values that occur in some case."""
    return {c for case in cases for c in combinations_of(case, order)}


def frequencies(cases: Iterable[tuple[Attributes, int]], order: int) -> Counter[Combination]:
    """How many images show each combination; cases come with their number of images."""
    out: Counter[Combination] = Counter()
    for case, count in cases:
        out.update(dict.fromkeys(combinations_of(case, order), count))
    return out


def possible_ways(base: KnowledgeBase, names: Iterable[str], order: int) -> set[Combination]:
    """Every combination of values of these attributes that does not contradict itself."""
    values = [(a, str(v)) for a in sorted(names) for v in sorted(base.attributes[a].values)]
    every = (c for c in combinations(values, order) if len({a for a, _ in c}) == order)
    return {c for c in every if contradiction(base, combined(c)) is None}


def impossible_pairs(base: KnowledgeBase) -> list[dict[str, Any]]:
    """All pairs of values that no nodule can have, grouped by the reason that the knowledge base gives.

    Returns rows with reason and pairs (phrases joined by " + "), in the order of the vocabulary; two values of an
    attribute that has one at a time come last.
    """
    values = [(a, str(v)) for a, model in base.attributes.items() for v in model.values]
    groups: dict[str, list[str]] = {}
    for pair in combinations(values, 2):
        reason = contradiction(base, combined(pair))
        if reason is not None:
            clause = reason.partition(": ")[2].removesuffix(".")
            groups.setdefault(clause, []).append(" + ".join(base.phrase(a, v) for a, v in pair))
    # What needs knowledge comes before what goes without saying.
    order = sorted(groups, key=lambda reason: reason.startswith("a nodule has one "))
    return [{"reason": reason, "pairs": groups[reason]} for reason in order]


def coverage(
    base: KnowledgeBase,
    before: Sequence[Attributes],
    planned: Sequence[Attributes],
    counts: Sequence[int] | None = None,
    within: set[Combination] | None = None,
) -> dict[str, Any]:
    """One- and two-way coverage of a class before and after the plan, out of what the knowledge base calls possible.

    before: attributes of the real images; planned: those of the plan's combinations, with `counts` images each
    (default 1). `within`: the pairs that the class's own source allows (its literature, what was observed).

    Returns `one_way` and `two_way`, each with `possible`, `before`, `after` (numbers of combinations). `two_way` has
    beside them `allowed` (pairs within the source, those of the real images included; only with `within`), `often`
    (pairs that at least 5 images show, before and after), `filled` (phrase -> the phrases that join it for the first
    time) and `left` (the same for pairs that the source allows and nothing shows).
    """
    names = sorted({a for case in (*before, *planned) for a in case})
    drawn = list(zip(planned, counts or [1] * len(planned), strict=True))
    out: dict[str, Any] = {}
    for name, order in (("one_way", 1), ("two_way", 2)):
        every = possible_ways(base, names, order)
        real = frequencies([(case, 1) for case in before], order)
        made = frequencies([(case, count) for case, count in drawn if count], order)
        old, new = set(real) & every, set(made) & every
        out[name] = {"possible": len(every), "before": len(old), "after": len(old | new)}
        if order == 2:
            both = real + made
            out[name]["often"] = {
                "images": OFTEN,
                "before": sum(real[c] >= OFTEN for c in every),
                "after": sum(both[c] >= OFTEN for c in every),
            }
            out[name]["filled"] = by_phrase(base, new - old)
            if within is not None:
                allowed = within & every | old
                out[name] |= {"allowed": len(allowed), "left": by_phrase(base, allowed - old - new)}
    return out


def by_phrase(base: KnowledgeBase, pairs: Iterable[Combination]) -> dict[str, list[str]]:
    """Pairs as a readable list: the phrase of the first value -> the phrases of its partners."""
    phrases = {(a, v): p for a, v, p in base.phrase_rows()}
    out: dict[str, list[str]] = {}
    for first, second in sorted(pairs):
        out.setdefault(phrases[first], []).append(phrases[second])
    return out


def factor(found: Mapping[str, Any]) -> float | None:
    """After divided by before, rounded to two decimals; None where there was nothing before."""
    return round(found["after"] / found["before"], 2) if found["before"] else None
