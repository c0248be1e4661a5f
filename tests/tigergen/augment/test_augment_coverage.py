"""Coverage by hand, what cannot be, and rows that fill what is missing."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kb
from tigergen.augment.class_draws import choices_of, rare_combinations, source_of
from tigergen.augment.coverage import contradiction, coverage, factor, impossible_pairs, possible_ways, ways
from tigergen.augment.draws import RareDrawer
from tigergen.augment.fill import Choice, PairFiller

BASE = kb.load("thyroid")


def filler(choices: dict[str, list[str]], covered: set | None = None) -> PairFiller:
    options = {a: [Choice((v,), 1 / len(vs)) for v in vs] for a, vs in choices.items()}
    return PairFiller(BASE, options, covered or set())


def test_coverage_of_a_class_by_hand() -> None:
    """2 shapes x 3 diameters: 6 pairs, none impossible. One real case, one planned twice seen, one planned 5 times."""
    real = [{"shape": ["regular"], "diameter": ["small"]}]
    planned = [{"shape": ["regular"], "diameter": ["small"]}, {"shape": ["irregular"], "diameter": ["large"]}]
    within = set(combinations([("diameter", "large"), ("diameter", "small"), ("shape", "irregular")], 2))
    found = coverage(BASE, real, planned, [4, 1], within)
    assert found["one_way"] == {"possible": 5, "before": 2, "after": 4}
    assert found["two_way"] == {
        "possible": 6,
        "before": 1,
        "after": 2,
        "often": {"images": 5, "before": 0, "after": 1},  # 1 real + 4 planned
        "filled": {"large nodule": ["irregular shape"]},
        "allowed": 3,  # large + irregular, small + irregular, and the real one
        "left": {"small nodule": ["irregular shape"]},
    }
    assert factor(found["two_way"]) == 2.0 and factor({"before": 0, "after": 3}) is None


def test_a_row_without_images_covers_nothing() -> None:
    found = coverage(BASE, [], [{"shape": ["regular"], "diameter": ["small"]}], [0])
    assert found["one_way"]["after"] == found["two_way"]["after"] == 0


def test_impossible_pairs_are_listed_with_their_reason() -> None:
    listed = {pair: row["reason"] for row in impossible_pairs(BASE) for pair in row["pairs"]}
    assert listed["solid + anechoic"] == "an anechoic nodule is fluid and cannot be solid"
    assert listed["solid + cystic"] == "a nodule has one composition"
    assert "round + regular shape" not in listed and "round + irregular shape" in listed
    # Margin and calcification may have several values at once.
    assert "lobulated margin + irregular margin" not in listed
    values = [(a, v) for a, m in BASE.attributes.items() for v in m.values]
    assert len(listed) == sum(
        BASE.impossible({a: [v, w] if a == b else [v], b: [v, w] if a == b else [w]}) is not None
        or (a == b and not BASE.attributes[a].multiple)
        for (a, v), (b, w) in combinations(values, 2)
    )


def test_a_full_factorial_of_two_attributes_needs_every_pair_once() -> None:
    made = list(filler({"shape": ["regular", "irregular"], "diameter": ["small", "middle", "large"]}).rows(rng(0)))
    assert [row.fills for row in made] == [1] * 6
    assert len(ways([row.attributes for row in made], 2)) == 6


def test_three_two_valued_attributes_need_four_to_six_rows() -> None:
    """The smallest covering array of three two-valued factors has four rows; a greedy one begins with 3 + 3 pairs."""
    two = {"shape": ["regular", "irregular"], "diameter": ["small", "large"], "aspect": ["oval", "wider_than_tall"]}
    for seed in range(9):
        fills = [row.fills for row in filler(two).rows(rng(seed))]
        assert sum(fills) == 12 and fills[:2] == [3, 3] and 4 <= len(fills) <= 6


def test_impossible_and_covered_pairs_are_not_asked_for() -> None:
    covered = {(("aspect", "oval"), ("shape", "regular"))}
    made = list(filler({"aspect": ["round", "oval"], "shape": ["regular", "irregular"]}, covered).rows(rng(0)))
    seen = ways([row.attributes for row in made], 2)
    assert seen == {(("aspect", "round"), ("shape", "regular")), (("aspect", "oval"), ("shape", "irregular"))}


def test_a_pair_that_no_whole_row_can_have_is_given_up_and_named() -> None:
    """Round goes with a small nodule and cystic with any size, but every echogenicity left over forbids a cyst."""
    choices = {"composition": ["solid", "cystic"], "diameter": ["small"], "echogenicity": ["hypoechoic"]}
    one = filler(choices)
    made = list(one.rows(rng(0)))
    assert one.dead() == {(("composition", "cystic"), ("diameter", "small"))}
    assert [row.attributes["composition"] for row in made] == [["solid"]]


def test_of_equal_rows_the_likelier_one_is_taken() -> None:
    options = {
        "shape": [Choice(("regular",), 1.0)],
        "diameter": [Choice(("small",), 1.0)],
        "aspect": [Choice(("oval",), 0.1), Choice(("wider_than_tall",), 0.9)],
    }
    covered = {(("aspect", v), (b, w)) for v in ("oval", "wider_than_tall")
               for b, w in (("diameter", "small"), ("shape", "regular"))}  # fmt: skip
    made = list(PairFiller(BASE, options, covered).rows(rng(0)))
    assert [row.attributes["aspect"] for row in made] == [["wider_than_tall"]]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def real_cases(label: str, count: int, seed: int) -> list[dict[str, list[str]]]:
    """Simulated real prompts: drawn from the profile, with attributes left unsaid, as reports do."""
    profile, source = source_of(BASE, label, [], [])
    drawer, chance = RareDrawer(BASE, profile, source, [], 1.0), rng(seed)
    drawn = [drawer.draw(chance).attributes for _ in range(count)]
    return [{a: v for a, v in one.items() if chance.random() < 0.8} for one in drawn]


def frame(label: str, real: list[dict[str, list[str]]]):
    import pandas as pd

    rows = [{"label": label, "attributes": a, "image_id": str(n)} for n, a in enumerate(real)]
    rows.append({"label": "benign", "attributes": {"nodule_location": ["isthmus"]}, "image_id": "b"})
    return pd.DataFrame(rows)


rare = st.sampled_from([s for s in BASE.subtypes if s != "benign"])


@settings(max_examples=8, deadline=None, derandomize=True)
@given(rare, st.integers(0, 40), st.integers(1, 60), st.integers(0, 999))
def test_filling_never_covers_less_than_drawing_and_every_row_is_possible(label, known, count, seed) -> None:
    real = real_cases(label, known, seed)
    cases = frame(label, real)
    filled = rare_combinations(BASE, label, cases, count, 100.0, rng(seed), "coverage")
    drawn = rare_combinations(BASE, label, cases, count, 100.0, rng(seed), "profile")
    before = ways(real, 2)
    rows = [d.attributes for d in filled.draws]
    assert len(rows) == len({str(r) for r in rows}) == count
    assert all(contradiction(BASE, r) is None for r in rows)
    assert all(d.source.startswith(("literature profile [", "observed co-occurrence")) for d in filled.draws)
    for k in (count // 4, count // 2, count):
        assert len(ways(rows[:k], 2) - before) >= len(ways([d.attributes for d in drawn.draws[:k]], 2) - before)
    # What a row says it fills is what it fills.
    shown = set(before)
    for d in filled.draws:
        if d.fills:
            new = ways([d.attributes], 2) - shown
            assert len(new) == d.fills
        shown |= ways([d.attributes], 2)
    again = rare_combinations(BASE, label, cases, count, 100.0, rng(seed), "coverage")
    assert again.draws == filled.draws


@pytest.mark.parametrize("label", ["FTC", "MTC", "ATC"])
def test_everything_that_the_literature_allows_is_filled(label: str) -> None:
    real = real_cases(label, 30, 7)
    made = rare_combinations(BASE, label, frame(label, real), 300, 100.0, rng(1))
    rows = [d.attributes for d in made.draws]
    assert made.within is not None
    allowed = made.within & possible_ways(BASE, rows[0], 2)
    left = allowed - ways([*real, *rows], 2)
    profile, source = source_of(BASE, label, [], [])
    one = PairFiller(BASE, choices_of(BASE, profile, source), ways(real, 2))
    list(one.rows(rng(2)))
    assert left <= one.dead(), "what is left is what another seed cannot fill either"
    assert sum(d.fills > 0 for d in made.draws) < 80


def test_values_of_other_classes_come_in_only_when_asked_for_and_are_named() -> None:
    cases = frame("FTC", real_cases("FTC", 10, 0))
    own = rare_combinations(BASE, "FTC", cases, 100, 100.0, rng(0), values="own")
    assert not any("isthmus" in d.attributes.get("nodule_location", []) for d in own.draws)
    seen = rare_combinations(BASE, "FTC", cases, 100, 100.0, rng(0), values="seen")
    foreign = [d for d in seen.draws if "isthmus" in d.attributes["nodule_location"]]
    assert foreign and all(d.source.endswith("shown by other classes: nodule_location isthmus") for d in foreign)
    assert all("not in it" not in d.source for d in seen.draws if d not in foreign)
