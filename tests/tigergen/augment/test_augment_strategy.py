"""How many images each class gets, by hand and as a property; what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.errors import UsageError, UserError
from tigergen.augment.strategy import images_per_class, read_strategy, warnings

REAL = {"benign": 1000, "PTC": 400, "FTC": 30}
KNOWN = {*REAL, "MTC"}


def test_each_way_by_hand() -> None:
    assert images_per_class(REAL, "FTC", KNOWN, n=300) == {"FTC": 300, "PTC": 300, "benign": 300}
    assert images_per_class(REAL, "FTC", KNOWN, n=300, classes=["PTC"]) == {"FTC": 300, "PTC": 300}
    assert images_per_class(REAL, "FTC", KNOWN, n=5, classes=[]) == {"FTC": 5}
    assert images_per_class(REAL, "FTC", KNOWN) == {"FTC": 970, "PTC": 970, "benign": 970}
    assert images_per_class(REAL, "FTC", KNOWN, balance=True) == {"FTC": 970, "PTC": 600, "benign": 0}
    assert images_per_class(REAL, "FTC", KNOWN, balance=True, classes=[]) == {"FTC": 970}


@pytest.mark.parametrize(
    ("strategy", "images"),
    [
        ({"FTC": 300, "MTC": "match:PTC"}, {"FTC": 300, "MTC": 400}),
        ({"FTC": "match:PTC"}, {"FTC": 370}),
        # A match follows what the other class will have, and never takes images away.
        ({"FTC": "match:PTC", "PTC": 100}, {"FTC": 470, "PTC": 100}),
        ({"FTC": 5, "benign": "match:FTC"}, {"FTC": 5, "benign": 0}),
        ({"FTC": "match:MTC", "MTC": "match:PTC", "PTC": "balance"}, {"FTC": 970, "MTC": 1000, "PTC": 600}),
        ({"FTC": "balance", "benign": 500}, {"FTC": 1470, "benign": 500}),
    ],
)
def test_strategies_by_hand(strategy, images) -> None:
    assert images_per_class(REAL, "FTC", KNOWN, strategy=strategy) == images


wishes = st.one_of(st.integers(0, 50), st.sampled_from(["balance", "match:a", "match:b", "match:c"]))
sizes = st.fixed_dictionaries({label: st.integers(0, 60) for label in "abc"})


@given(sizes, st.dictionaries(st.sampled_from("abc"), wishes, min_size=1).filter(lambda s: "a" in s))
def test_a_strategy_keeps_its_word(real, strategy) -> None:
    try:
        images = images_per_class(real, "a", "abc", strategy=strategy)
    except UserError as error:
        assert "circle" in str(error) or "no class lacks" in str(error)
        return
    after = {label: real[label] + images.get(label, 0) for label in real}
    top = max(real[label] + (w if isinstance(w := strategy.get(label, 0), int) else 0) for label in real)
    for label, wish in strategy.items():
        if isinstance(wish, int):
            assert images[label] == wish
        elif wish == "balance":
            assert after[label] == top
        else:
            assert after[label] == max(real[label], after[wish[-1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON \\(character 2"),
        ("[]", "JSON object"),
        ("{}", "JSON object"),
        ('{"FTC": 1.5}', "'FTC' 1.5; it must be a whole number"),
        ('{"FTC": -1}', "'FTC' -1"),
        ('{"FTC": true}', "'FTC' true"),
        ('{"FTC": "match:"}', "match:CLASS"),
        ('{"FTC": "PTC"}', "match:CLASS"),
        ('{"FTC": 1, "FTC": 2}', "'FTC' twice"),
    ],
)
def test_a_strategy_written_wrongly_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_strategy(text)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n": 3, "balance": True}, "one of --n, --balance and --strategy"),
        ({"strategy": {"FTC": 1}, "classes": []}, "without --class and --target-only"),
        ({"strategy": {"PTC": 1}}, "does not name the target 'FTC'"),
        ({"strategy": {"FTC": "match:XTC"}}, "no class 'XTC'"),
        ({"strategy": {"FTC": 1, "XTC": 2}}, "no class 'XTC'"),
        ({"strategy": {"FTC": "match:PTC", "PTC": "match:FTC"}}, "circle: FTC matches PTC matches FTC"),
        ({"strategy": {"FTC": "match:FTC"}}, "circle: FTC matches FTC"),
        ({"strategy": {"FTC": 0}}, "no class lacks an image"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, message: str) -> None:
    with pytest.raises(UserError, match=message):
        images_per_class(REAL, "FTC", KNOWN, **asked)
    with pytest.raises(UserError, match="no class lacks"):
        images_per_class(REAL, "benign", KNOWN)


def test_classes_left_out_are_warned_of() -> None:
    assert warnings(REAL, {"FTC": 5, "PTC": 5, "benign": 5}, "FTC") == []
    assert "Only 'FTC'" in warnings(REAL, {"FTC": 5, "PTC": 0}, "FTC")[0]
    assert warnings(REAL, {"FTC": 5, "PTC": 5}, "FTC")[0].startswith("benign receive no")
    assert warnings({"FTC": 3}, {"FTC": 5}, "FTC") == []
