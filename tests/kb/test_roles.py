"""The rule that turns literature and corpus into a role: each line of it, and votes whose outcome is plain."""

import pytest

from kb.roles import MIN_PATIENTS, MIN_VOTES, Comparison, Votes, compare, decide
from kb.vocabulary import Role


def seen(*verdicts: str) -> list[Comparison]:
    """Comparisons with the given verdicts."""
    size = {"over": 2.0, "under": -2.0, "level": 0.1}
    return [
        Comparison(f"class {k}", size[v], size[v] - 1, size[v] + 1, 0.001, 0.01, (9, 9), (30, 30))
        for k, v in enumerate(verdicts)
    ]


@pytest.mark.parametrize(
    ("literature", "verdicts", "role"),
    [
        ("particular", (), "particular"),
        ("particular", ("level", "level"), "particular"),
        ("particular", ("over", "under"), "joint"),
        ("particular", ("level", "under"), "common"),
        ("joint", (), "joint"),
        ("joint", ("over",), "joint"),  # one class alone cannot say that nobody else has it
        ("joint", ("over", "over"), "particular"),
        ("joint", ("over", "level"), "joint"),
        ("joint", ("under", "level"), "joint"),
        ("joint", ("under", "under"), "common"),
        ("common", (), "common"),
        ("common", ("level", "level"), "common"),
        ("common", ("over",), "joint"),
        ("common", ("over", "level"), "joint"),
        ("common", ("over", "under"), "common"),
        ("common", ("over", "over"), "particular"),
        ("common", ("under", "under"), "common"),
    ],
)
def test_each_line_of_the_rule(literature: Role, verdicts: tuple[str, ...], role: Role) -> None:
    assert decide(literature, seen(*verdicts)) == role


@pytest.mark.parametrize(
    ("log_odds", "q", "votes", "verdict"),
    [
        (0.41, 0.05, (5, 0), "over"),
        (0.40, 0.001, (50, 10), "level"),  # ln 1.5 = 0.405: a sure but small difference
        (2.0, 0.051, (9, 1), "level"),
        (2.0, 0.001, (4, 0), "level"),  # four patients are no support
        (-2.0, 0.001, (0, 5), "under"),
        (-2.0, 0.001, (9, 4), "level"),
    ],
)
def test_a_verdict_needs_size_significance_and_support(
    log_odds: float, q: float, votes: tuple[int, int], verdict: str
) -> None:
    found = Comparison("benign", log_odds, log_odds - 0.1, log_odds + 0.1, q / 2, q, votes, (40, 40))
    assert found.verdict == verdict
    assert found.row()["is"] == verdict


def test_plain_votes_come_out_as_they_must() -> None:
    common = {"shape.regular": 35, "margin.clear": 30}
    votes = {
        "FTC": Votes(40, {**common, "halo.interrupted": 30}),
        "PTC": Votes(40, {**common, "halo.interrupted": 3}),
        "benign": Votes(40, {**common, "halo.interrupted": 2}),
        "MTC": Votes(MIN_PATIENTS - 1, {"halo.interrupted": 9}),
    }
    found = compare(votes, "FTC")
    assert [(c.other, c.verdict, c.votes) for c in found["halo.interrupted"]] == [
        ("PTC", "over", (30, 3)),
        ("benign", "over", (30, 2)),
    ], "MTC has too few patients to take part"
    assert {c.verdict for c in found["shape.regular"]} == {"level"}
    assert {c.verdict for c in compare(votes, "PTC")["halo.interrupted"]} == {"under", "level"}
    assert compare(votes, "MTC") == {}
    assert compare(votes, "unheard of") == {}


def test_chance_alone_changes_few_roles() -> None:
    """Two hundred values drawn alike in all classes: at 5 % false discoveries, hardly any may be called different."""
    import numpy as np

    rng = np.random.default_rng(0)
    rates = rng.uniform(0.05, 0.6, 200)
    votes = {
        name: Votes(60, {f"a.v{k}": int(rng.binomial(60, rate)) for k, rate in enumerate(rates)})
        for name in ("FTC", "PTC", "benign")
    }
    found = [c for comparisons in compare(votes, "FTC").values() for c in comparisons]
    assert len(found) == 400
    assert sum(c.verdict != "level" for c in found) <= 2
    assert MIN_VOTES == 5
