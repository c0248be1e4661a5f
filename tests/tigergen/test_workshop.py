"""Training inside a workspace: what is missing is said, what is trained is entered in the database."""

from pathlib import Path

import pytest

from kb.errors import UserError
from tigerdata.workspace import Workspace
from tigergen import workshop


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
