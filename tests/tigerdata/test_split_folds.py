"""Folds and splits of random corpora: no patient and no copy in two parts, ever; what a user must know is said."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from kb import store
from kb.errors import UserError
from tigerdata import splits
from tigerdata.export import export
from tigerdata.images.ingest import ingest_images
from tigerdata.prompts import build_prompts
from tigerdata.workspace import Workspace

# An image of a random corpus: patient (None: not known), what its file is, what its pixels are, class.
image = st.tuples(
    st.one_of(st.none(), st.integers(0, 9)), st.integers(0, 25), st.integers(0, 25), st.sampled_from(["a", "b", "c"])
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.create(tmp_path_factory.mktemp("folds") / "ws")


def fill(ws: Workspace, rows: list[tuple]) -> None:
    columns = ["image_id", "sha256", "patient_id", "label", "source"]
    table = [(f"i{k:03d}", f"f{f}", None if p is None else f"P{p}", c, str(x)) for k, (p, f, x, c) in enumerate(rows)]
    with ws.connect() as con:
        con.execute("DELETE FROM images; DELETE FROM splits")
        store.insert(con, "images", pd.DataFrame(table, columns=columns).astype("string"))


def stored(ws: Workspace) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    with ws.connect(read_only=True) as con:
        for name, image_id, part in con.execute("SELECT name, image_id, split FROM splits").fetchall():
            found[name][image_id] = part
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(image, min_size=1, max_size=40), folds=st.integers(2, 6), seed=st.integers(0, 3))
def test_nothing_is_ever_in_two_parts(
    study: Workspace, monkeypatch: pytest.MonkeyPatch, rows: list[tuple], folds: int, seed: int
) -> None:
    fill(study, rows)
    pixels = {f"i{k:03d}": str(row[2]) for k, row in enumerate(rows)}
    monkeypatch.setattr(splits, "read_clean", lambda ws, image_id: image_id)
    monkeypatch.setattr(splits, "pixel_hash", pixels.__getitem__)
    if any(row[0] is None for row in rows):
        with pytest.raises(UserError, match="allow-missing-patients"):
            splits.split(study, seed=seed)
        assert not stored(study)
    splits.split(study, 0.2, 0.2, seed, allow_missing_patients=True)
    try:
        splits.split_folds(study, folds, 0.1, seed, allow_missing_patients=True)
    except UserError as refusal:
        assert "independent groups" in str(refusal) and str(refusal).count(".") == 1
        folds = 0
    found = stored(study)
    assert set(found) == {"default", *(f"default-fold{k + 1}" for k in range(folds))}
    # Two images that share a patient, a file or pixels are never apart.
    for i, j in combinations(range(len(rows)), 2):
        a, b = rows[i], rows[j]
        if (a[0] is not None and a[0] == b[0]) or a[1] == b[1] or a[2] == b[2]:
            assert all(parts[f"i{i:03d}"] == parts[f"i{j:03d}"] for parts in found.values())
    tests = Counter(i for name, parts in found.items() if name != "default" for i, p in parts.items() if p == "test")
    assert not folds or tests == Counter(dict.fromkeys(pixels, 1))  # each image is tested in exactly one fold
    for parts in found.values():
        assert parts.keys() == pixels.keys() and "train" in parts.values()


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=5), st.sampled_from("xyz"), min_size=6, max_size=60),
    st.integers(2, 6),
    st.randoms(),
)
def test_folds_are_dealt_evenly_and_do_not_depend_on_the_order(
    labels: dict[str, str], folds: int, random: object
) -> None:
    sizes = {group: 1 + len(group) for group in labels}
    fold_of = splits.deal(labels, sizes, folds, 0)
    shuffled = list(labels.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert splits.deal(dict(shuffled), sizes, folds, 0) == fold_of
    totals = Counter(fold_of.values())
    assert max(totals.values()) - min(totals[f] for f in range(folds)) <= 1 and len(totals) == folds
    for label in set(labels.values()):
        own = Counter(fold_of[g] for g in labels if labels[g] == label)
        assert max(own.values()) - min(own[f] for f in range(folds)) <= 1


def test_classes_are_as_even_as_scikit_learns_folds() -> None:
    """Independent implementation: scikit-learn's StratifiedGroupKFold on patients of 1 to 6 images each."""
    rng = np.random.default_rng(0)
    sizes = {f"p{k:03d}": int(rng.integers(1, 7)) for k in range(200)}
    labels = {group: str(rng.choice(["a", "b", "rare"], p=[0.6, 0.3, 0.1])) for group in sizes}
    groups = [g for g, n in sizes.items() for _ in range(n)]
    y = [labels[g] for g in groups]

    def spread(tests: list[list[str]]) -> float:
        shares = [[sum(labels[g] == c for g in t) / y.count(c) for t in tests] for c in ("a", "b", "rare")]
        return float(np.std(shares, axis=1).mean())

    other = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, groups)
    theirs = spread([[groups[i] for i in test] for _, test in other])
    fold_of = splits.deal(labels, sizes, 5, 0)
    ours = spread([[g for g in groups if fold_of[g] == f] for f in range(5)])
    assert ours <= theirs + 0.01


def test_folds_are_replaced_and_other_names_are_left_alone(small_ws: Workspace) -> None:
    splits.split(small_ws, name="default")
    splits.split(small_ws, name="default-folding")
    splits.split_folds(small_ws, 4)
    counts = splits.split_folds(small_ws, 3)
    again = stored(small_ws)
    assert set(again) == {"default", "default-folding", *(f"default-fold{k}" for k in (1, 2, 3))} and len(counts) == 3
    splits.split_folds(small_ws, 3)
    assert stored(small_ws) == again
    assert sum(sum(row["test"].values()) for row in counts.values()) == 24
    with pytest.raises(UserError, match="12 independent groups"):
        splits.split_folds(small_ws, 13)
    with pytest.raises(UserError, match="val=0.7"):
        splits.split_folds(small_ws, 3, val=0.7)


def test_a_split_without_patients_says_so_and_the_data_card_too(ws: Workspace, listed: Callable[..., Path]) -> None:
    rows = [{"patient_id": "" if k in (3, 4) else f"P{k}", "label": "ab"[k % 2]} for k in range(12)]
    ingest_images(ws, listed(rows))
    splits.split(ws, allow_missing_patients=True)
    said = splits.remarks(ws)
    assert said[0].startswith("2 of 12 images have no patient id") and "Class 'a' has few patients" in said[1]
    build_prompts(ws)
    export(ws, ws.path / "out", draft=True)
    card = (ws.path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"**{said[0]}**" in card
    table = pd.read_csv(ws.path / "out" / "images.csv")
    assert table["group"].nunique() == 12  # two unknown patients are not one


def test_enough_patients_need_no_remark(ws: Workspace, listed: Callable[..., Path]) -> None:
    ingest_images(ws, listed([{"patient_id": f"P{k}", "label": "ab"[k % 2]} for k in range(40)]))
    splits.split(ws)
    assert splits.remarks(ws) == []
    with pytest.raises(UserError, match="no split 'other'"):
        splits.remarks(ws, "other")
