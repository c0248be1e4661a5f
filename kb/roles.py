"""From literature and corpus to a role: particular, joint or common.

The rule. A value is *over* in a class against another when its log-odds ratio is at least ln 1.5, the false discovery
rate over all values and classes of the target is at most 5 %, and at least 5 patients of the class have the value;
*under* is the mirror image, with 5 patients of the other class. A class takes part with at least 10 patients.

* The literature's role stands unless the corpus contradicts it.
* particular is contradicted when the value is under against any class: joint if it is over against another class,
  else common.
* joint is contradicted when the value is over against every class, of which there must be two: particular; or when it
  is under against every class: common.
* common means that the literature is silent: over against every class, of which there must be two, makes particular;
  over against some and under against none makes joint.
* A role in a workspace's `vocabulary.yaml` is final.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kb.logodds import benjamini_hochberg, contrast
from kb.vocabulary import Role

Verdict = Literal["over", "under", "level"]

MIN_PATIENTS = 10  # of a class, to take part
MIN_VOTES = 5  # patients with the value, in the class that has more of it
MIN_EFFECT = math.log(1.5)
MAX_FDR = 0.05
PRIOR_PATIENTS = 10  # weight of the prior: so many average patients


@dataclass(frozen=True)
class Votes:
    """Patients of one class: how many described a nodule at all, and how many of them have each value."""

    patients: int
    values: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """One value in the target class against one other class; `votes` are patients with the value in each."""

    other: str
    log_odds: float
    low: float
    high: float
    p: float
    q: float
    votes: tuple[int, int]
    patients: tuple[int, int]

    @property
    def verdict(self) -> Verdict:
        """Whether the target has more (over), fewer (under), or nothing significant (level)."""
        if self.q <= MAX_FDR and self.log_odds >= MIN_EFFECT and self.votes[0] >= MIN_VOTES:
            return "over"
        if self.q <= MAX_FDR and self.log_odds <= -MIN_EFFECT and self.votes[1] >= MIN_VOTES:
            return "under"
        return "level"

    def row(self) -> dict[str, Any]:
        """The comparison as JSON values, numbers rounded to what they can bear."""
        numbers = {name: round(value, 4) for name, value in asdict(self).items() if isinstance(value, float)}
        # Small p and q keep their size: four decimals would make them 0.
        numbers |= {"p": float(f"{self.p:.3g}"), "q": float(f"{self.q:.3g}")}
        return {"against": self.other, **numbers, "votes": self.votes, "patients": self.patients, "is": self.verdict}


def compare(votes: Mapping[str, Votes], target: str) -> dict[str, list[Comparison]]:
    """Compare a target with each other class, value by value; classes with too few patients take no part.

    Each patient votes on each value, yes or no, so that a class which is described at more length does not seem to have
    less of everything else. The prior is informative: `PRIOR_PATIENTS` patients who vote as all classes together do
    (half a vote added to each side). A value that neither class has is not compared. Returns value -> comparisons in
    the order of the classes; empty when the target itself has too few patients.
    """
    enough = {name: group for name, group in votes.items() if group.patients >= MIN_PATIENTS}
    if target not in enough:
        return {}
    patients = sum(group.patients for group in enough.values())
    pooled: dict[str, int] = {}
    for group in enough.values():
        for value, count in group.values.items():
            pooled[value] = pooled.get(value, 0) + count
    mine = enough[target]
    tests = []
    for other, group in enough.items():
        for value, count in sorted(pooled.items()) if other != target else ():
            prior = PRIOR_PATIENTS * (count + 0.5) / (patients + 1)
            y, x = mine.values.get(value, 0), group.values.get(value, 0)
            if y + x:
                found = contrast(y, mine.patients, x, group.patients, prior, PRIOR_PATIENTS)
                tests.append((value, other, (y, x), (mine.patients, group.patients), found))
    out: dict[str, list[Comparison]] = {}
    for (value, other, shared, of, found), q in zip(
        tests, benjamini_hochberg([test[-1].p for test in tests]), strict=True
    ):
        low, high = found.interval
        out.setdefault(value, []).append(Comparison(other, found.log_odds, low, high, found.p, q, shared, of))
    return out


def decide(literature: Role, comparisons: Sequence[Comparison]) -> Role:
    """Role of a value by the rule at the head of this module; without comparisons the literature's."""
    verdicts = [comparison.verdict for comparison in comparisons]
    over, under = verdicts.count("over"), verdicts.count("under")
    everywhere = over == len(verdicts) >= 2
    if literature == "particular":
        return literature if not under else "joint" if over else "common"
    if everywhere:
        return "particular"
    if literature == "joint":
        return "common" if verdicts and under == len(verdicts) else literature
    return "joint" if over and not under else literature
