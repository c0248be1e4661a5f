"""The keys of a pattern: no text that a pattern matches is ever left out."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kb
from kb.cues import load_cues
from kb.needed import Lookup, needed

DOMAINS = ("thyroid", "breast", "chest")
CUES = [
    (domain, pattern)
    for domain in DOMAINS
    for patterns in (*load_cues(domain).cues.values(), *load_cues(domain).diagnosis.values())
    for pattern in patterns
]


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("未(?:见|探及)", {"未"}),
        ("(?:清晰|锐利)的?", {"清晰", "锐利"}),
        ("halos?", {"ha", "al", "lo"}),
        ("no (evidence|sign)s? of", None),
        ("[左右双]叶", {"叶", "左", "右", "双"}),
        (r"\d+ ?(?:mm|cm)", {"mm", "cm"}),
        ("钙化*", {"钙"}),
        ("(钙化)?", set()),
        ("钙化|", set()),
        (r"\s+", set()),
        (r"(a)\1", set()),
        ("(?i)halo", set()),
        (r"x{2,3}y{0,1}", {"x"}),
        ("(?<!不)清(?!晰)", {"清"}),
        ("[^清]晰", {"晰"}),
    ],
)
def test_keys_are_parts_of_the_pattern_that_no_match_can_lack(pattern: str, keys: set[str] | None) -> None:
    found = needed(pattern)
    if keys is None:  # which pair is the rarest is a matter of taste; that there is one is not
        assert found and all(len(key) == 2 for key in found)
    elif not keys:
        assert found is None
    else:
        assert found and found <= keys


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_every_string_that_a_cue_matches_holds_a_key(data: st.DataObject) -> None:
    _, pattern = data.draw(st.sampled_from(CUES))
    keys = needed(pattern)
    if keys is not None:
        text = data.draw(st.from_regex(pattern, fullmatch=True))
        assert any(key in text for key in keys), (pattern, text)


ATOMS = st.sampled_from(
    ["a", "bc", "清", "回声", r"\d", r"\s", ".", "[左右]", "[^左]", "[a-c]", r"\.", "[.,]", "[]清]"]
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = inner.map(lambda body: f"(?:{body})")
    repeated = st.tuples(group, st.sampled_from(["?", "*", "+", "{2}", "{0,2}", "{,2}", "+?", "??"])).map("".join)
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        repeated,
        inner.map(lambda body: f"(?:{body}|)"),
    )


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_it_holds_for_any_pattern(data: st.DataObject) -> None:
    pattern = data.draw(st.recursive(ATOMS, _grown, max_leaves=8))
    keys = needed(pattern)
    if keys is not None:
        text = data.draw(st.from_regex(pattern, fullmatch=True))
        assert any(key in text for key in keys), (pattern, text)


def test_almost_every_cue_has_keys_so_that_the_search_is_worth_it() -> None:
    without = [pattern for _, pattern in CUES if needed(pattern) is None]
    assert len(without) < 0.02 * len(CUES), without


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_lookup_names_each_cue_that_matches_a_surface_form(domain: str) -> None:
    base, cues = kb.load(domain), load_cues(domain)
    texts = [
        f"{before}{surface}{after}".lower()
        for model in base.attributes.values()
        for entry in model.values.values()
        for surface in (*entry.surfaces("zh"), *entry.surfaces("en"))
        for before, after in (("", ""), ("未见", ""), ("no ", " seen"), ("可疑", "?"))
    ]
    named = tried = 0
    for text in texts:
        possible = cues.lookup.possible(text)
        for name in cues.cues:
            if name.startswith(("heading_", "field", "lost_end")):
                continue
            if any(m.end() > m.start() for m in cues[name].finditer(text)):
                assert name in possible, (name, text)
                named += 1
        tried += len(possible)
    assert named > len(texts) / 4
    assert tried < 0.25 * len(texts) * len(cues.cues)


def test_a_pattern_without_keys_is_always_possible_and_equal_answers_are_one_object() -> None:
    lookup = Lookup({"any": [r"\d+"], "halo": ["halo", "晕"], "clear": ["清"]})
    assert lookup.possible("12") == {"any"}
    assert lookup.possible("低回声晕") == {"any", "halo"}
    assert lookup.possible("边界清") is lookup.possible("界清")
    assert re.search("halo", "halo") and lookup.possible("halo") == {"any", "halo"}
