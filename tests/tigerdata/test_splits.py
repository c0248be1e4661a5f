"""Splits by patient: properties of the assignment, and the leaks it must refuse."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb.errors import UserError
from tigerdata.images.ingest import ingest_images
from tigerdata.splits import assign, groups, split, thin
from tigerdata.workspace import Workspace

labelled = st.dictionaries(
    st.text("abcdef0123456789", min_size=1, max_size=6), st.sampled_from(["a", "b", "rare"]), min_size=1, max_size=60
)
shares = st.tuples(st.sampled_from([0.0, 0.1, 0.15, 0.3]), st.sampled_from([0.0, 0.1, 0.15, 0.3]))


@given(labelled, shares, st.integers(0, 5))
def test_every_class_is_in_train_and_its_shares_are_kept(
    labels: dict[str, str], share: tuple[float, float], seed: int
) -> None:
    val, test = share
    parts = assign(labels, val, test, seed)
    assert parts.keys() == labels.keys()
    for label, n in Counter(labels.values()).items():
        got = Counter(parts[g] for g in labels if labels[g] == label)
        assert got["train"] >= 1
        assert (got["val"] == 0) if val == 0 else (got["val"] >= 1 or n < 3)
        assert (got["test"] == 0) if test == 0 else (got["test"] >= 1 or n < 2)
        if n * min(s for s in (val, test, 1) if s) >= 1:  # each asked share is at least one patient
            assert abs(got["val"] - val * n) <= 0.5 and abs(got["test"] - test * n) <= 0.5


@given(labelled, st.integers(0, 3), st.randoms())
def test_the_order_of_patients_does_not_matter(labels: dict[str, str], seed: int, random: object) -> None:
    shuffled = list(labels.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(dict(shuffled), 0.2, 0.2, seed) == assign(labels, 0.2, 0.2, seed)


@given(labelled, st.sampled_from(["b", "rare"]))
def test_one_class_does_not_move_another(labels: dict[str, str], gone: str) -> None:
    rest = {g: x for g, x in labels.items() if x != gone}
    whole = assign(labels, 0.2, 0.2, 0)
    assert assign(rest, 0.2, 0.2, 0) == {g: whole[g] for g in rest}


def test_the_seed_matters() -> None:
    labels = {f"p{k}": "a" for k in range(40)}
    assert len({tuple(sorted(assign(labels, 0.2, 0.2, seed).items())) for seed in range(5)}) == 5


@pytest.mark.parametrize("val, test", [(-0.1, 0.2), (0.5, 0.5), (0.0, 1.0)])
def test_impossible_shares(val: float, test: float) -> None:
    with pytest.raises(UserError, match="less than 1"):
        assign({"p": "a"}, val, test, 0)


@settings(deadline=None)  # a busy machine
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=25))
def test_groups_are_the_connected_components(links: list[list[int]]) -> None:
    found = groups(links)
    reach = [{i} for i in range(len(links))]
    for _ in links:  # closure by brute force
        reach = [{k for j in near for k in range(len(links)) if set(links[j]) & set(links[k])} for near in reach]
    for i, near in enumerate(reach):
        assert {k for k, group in enumerate(found) if group == found[i]} == near
        assert found[i] == min(near)


def parts_of(ws: Workspace, name: str = "default") -> dict[str, tuple[str, str]]:
    with ws.connect(read_only=True) as con:
        rows = con.execute("SELECT image_id, patient_id, split FROM splits WHERE name = ?", [name]).fetchall()
    return {image_id: (patient, part) for image_id, patient, part in rows}


def test_no_patient_is_in_two_parts_and_the_split_is_repeatable(small_ws: Workspace) -> None:
    counts = split(small_ws)
    first = parts_of(small_ws)
    assert len(first) == 24 and sum(n for row in counts.values() for n in row.values()) == 24
    by_patient: dict[str, set[str]] = {}
    for patient, part in first.values():
        by_patient.setdefault(patient, set()).add(part)
    assert all(len(parts) == 1 for parts in by_patient.values())
    assert all(set(row) == {"benign", "PTC"} for row in counts.values()) and list(counts) == ["train", "val", "test"]
    split(small_ws, seed=1, name="other")
    split(small_ws)
    assert parts_of(small_ws) == first and len(parts_of(small_ws, "other")) == 24


def test_missing_patients_are_refused_unless_allowed(ws: Workspace, listed: Callable[..., Path]) -> None:
    ingest_images(ws, listed([{"patient_id": "P1"}, {"patient_id": "P2"}, {"patient_id": ""}, {"patient_id": ""}]))
    with pytest.raises(UserError, match="2 of 4 images have no patient_id"):
        split(ws)
    assert parts_of(ws) == {}
    split(ws, allow_missing_patients=True)
    assert len(parts_of(ws)) == 4


def test_the_same_pixels_in_another_file_stay_in_one_part(ws: Workspace, listed: Callable[..., Path]) -> None:
    """Planted leak: every patient's frame is also there as BMP under a second patient."""
    root = listed([{"patient_id": f"P{k:02d}", "label": "PTC"} for k in range(20)])
    lines = ["file,patient_id,label"]
    for k in range(20):
        cv2.imwrite(str(root / f"copy{k}.bmp"), cv2.imread(str(root / f"{k:03d}.png"), 0))
        lines += [f"{k:03d}.png,P{k:02d},PTC", f"copy{k}.bmp,Q{k:02d},PTC"]
    (root / "images.csv").write_text("\n".join(lines))
    assert ingest_images(ws, root)["images"] == 40
    split(ws, val=0.3, test=0.3)
    part = dict(parts_of(ws).values())
    assert all(part[f"P{k:02d}"] == part[f"Q{k:02d}"] for k in range(20)) and len(set(part.values())) == 3


def test_a_refused_copy_still_ties_its_patients(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": f"P{k:02d}"} for k in range(20)])
    with open(root / "images.csv", "a") as table:
        table.writelines(f"{k:03d}.png,,P{k + 1:02d}\n" for k in range(0, 20, 2))
    assert ingest_images(ws, root)["rejected_by_code"] == {"DUPLICATE_OF_ANOTHER_PATIENT": 10}
    split(ws, val=0.3, test=0.3)
    part = dict(parts_of(ws).values())
    assert all(part[f"P{k:02d}"] == part[f"P{k + 1:02d}"] for k in range(0, 20, 2)) and len(set(part.values())) == 3


def test_cohorts_are_taken_over_and_a_cut_patient_is_refused(ws: Workspace, listed: Callable[..., Path]) -> None:
    rows = [{"patient_id": f"P{k}", "cohort": c} for k, c in enumerate(["train", "train", "val", "test", "pool"])]
    root = listed(rows)
    ingest_images(ws, root)
    assert split(ws, from_cohort=True) == {
        "train": {"(no label)": 2},
        "val": {"(no label)": 1},
        "test": {"(no label)": 1},
        "pool": {"(no label)": 1},
    }
    assert {p: s for p, s in parts_of(ws).values()} == {f"P{k}": row["cohort"] for k, row in enumerate(rows)}
    table = (root / "images.csv").read_text()
    (root / "images.csv").write_text(table.replace("P3,test", "P2,test"))
    ingest_images(ws, root)
    with pytest.raises(UserError, match="is in cohort"):
        split(ws, from_cohort=True)
    (root / "images.csv").write_text(table.replace("P3,test", "P3,"))
    ingest_images(ws, root)
    with pytest.raises(UserError, match="needs train, val, test, pool"):
        split(ws, from_cohort=True)


def test_an_empty_workspace_says_what_to_do(ws: Workspace) -> None:
    with pytest.raises(UserError, match="ingest images"):
        split(ws)


@given(
    st.lists(st.tuples(st.integers(0, 15), st.sampled_from("ab")), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 3),
)
def test_thinning_keeps_patients_whole_and_only_touches_its_class(
    rows: list[tuple[int, str]], limit: int, seed: int
) -> None:
    group_of = [g * 2 + (label == "b") for g, label in rows]  # one class a group
    labels = [label for _, label in rows]
    parts = {g: ("train", "val", "test", "train")[g // 2 % 4] for g in group_of}
    sizes = Counter(g for g, label in zip(group_of, labels, strict=True) if label == "a" and parts[g] == "train")
    if not sizes:
        with pytest.raises(UserError, match="cannot be thinned"):
            thin(parts, group_of, labels, {"a": limit}, seed)
        return
    thinned = thin(parts, group_of, labels, {"a": limit}, seed)
    assert thin(parts, group_of, labels, {"a": limit}, seed) == thinned
    moved = {g for g in parts if parts[g] != thinned[g]}
    assert moved <= set(sizes) and all(thinned[g] == "pool" for g in moved) and moved != set(sizes)
    kept = sum(n for g, n in sizes.items() if g not in moved)
    assert kept <= max(limit, max(sizes.values()))
    assert all(kept + sizes[g] > limit for g in moved)  # nothing is held back that would have fitted


def test_a_class_made_rare_in_a_workspace(small_ws: Workspace) -> None:
    before = split(small_ws)
    after = split(small_ws, rare={"benign": 4})
    assert after["train"] == {"PTC": before["train"]["PTC"], "benign": 4}
    assert after["pool"] == {"benign": before["train"]["benign"] - 4}
    assert {k: after[k] for k in ("val", "test")} == {k: before[k] for k in ("val", "test")}
