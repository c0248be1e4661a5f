"""Training inside a workspace: what is missing is said, what is trained is entered in the database."""

from pathlib import Path

import pytest

from kb.errors import UserError
from tests.proof_corpus import FakePipe, make_workspace
from tigerdata import leaks
from tigerdata.export import export
from tigerdata.splits import split
from tigerdata.workspace import Workspace
from tigergen import workshop
from tigergen.augment.plan import make_plan
from tigergen.augment.run import augment

COUNTS = {"train": {"benign": 12, "FTC": 6}, "val": {"benign": 4, "FTC": 2}, "test": {"benign": 4, "FTC": 4}}
SMALL = (
    "model.image_size=16",
    "model.unet_channels=[8, 16]",
    "model.attention_heads=2",
    "model.text_width=16",
    "training.batch=4",
    "training.held_out_every=0",
    "training.grid_every=0",
    "coarse.steps=1",
    "fine.steps=1",
)


def test_fine_needs_a_coarse_model(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")
    with pytest.raises(UserError, match="no finished coarse model; run `tigergen train coarse`"):
        workshop.train_fine(ws)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "give either --plan, or --target together with --n"),
        ({"target": "FTC"}, "give either --plan"),
        ({"target": "FTC", "n": 2, "plan": "plan.json"}, "give either --plan"),
        ({"plan": "plan.json", "shard": "one"}, "--shard 'one' is not of the form i/N"),
    ],
)
def test_augment_says_what_is_missing(given: dict, sentence: str, tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")
    with pytest.raises(UserError, match=sentence):
        workshop.augment(ws, tmp_path / "out", **given)


def test_judges_and_corpora_never_share_a_frame() -> None:
    """The judge's training frames, its test frames and a corpus come from other seeds, so no image is in two."""
    from tigerdata.phantom.corpus import uniform_frames

    trained, _, _ = uniform_frames(8, 64, workshop.JUDGE_SEED)
    unseen, _ = workshop.unseen_frames(8)
    seen = {image.tobytes() for image in trained}
    assert len(seen) == 8
    assert not seen & {image.tobytes() for image in unseen}


def move_to_test(ws: Workspace, patient: str) -> set[str]:
    """Draw the split again with one training patient in test; returns this patient's images."""
    with ws.connect() as con:
        con.execute("UPDATE images SET cohort = 'test' WHERE patient_id = ?", [patient])
    split(ws, from_cohort=True)
    rows = ws.cases("test")
    return set(rows[rows["patient_id"] == patient]["image_id"])


@pytest.mark.parametrize("when", ["never", "before fine training", "after training"])
def test_a_split_drawn_again_after_training_is_refused(when: str, tmp_path: Path) -> None:
    """What the generator has seen was recorded when it was trained: today's split cannot tell."""
    ws = make_workspace(tmp_path / "ws", COUNTS)
    workshop.train_coarse(ws, "tiny", SMALL)
    moved: set[str] = set()
    if when == "before fine training":
        moved = move_to_test(ws, ws.cases("train")["patient_id"].iloc[0])
    workshop.train_fine(ws, "tiny", SMALL)
    plan = make_plan(ws, "FTC", 2, rare_below=10)
    augment(ws, plan, workshop.model_folder(ws, workshop.FINE), tmp_path / "run", pipe=FakePipe())
    if when == "after training":
        # A donor outside train is another leak, found before.
        donors = {donor for row in plan["rows"] for donor in row["donors"]}
        train = ws.cases("train")
        giving = set(train[train["image_id"].isin(donors)]["patient_id"])
        moved = move_to_test(ws, next(p for p in train["patient_id"] if p not in giving))
    if when == "never":
        assert export(ws, tmp_path / "set", tmp_path / "run", draft=True)["synthetic"] == 4
        return
    with pytest.raises(leaks.LeakError, match="has seen an image outside train") as error:
        export(ws, tmp_path / "set", tmp_path / "run", draft=True)
    assert moved and {image for _, image in error.value.pairs} == moved
    assert not (tmp_path / "set").exists()
