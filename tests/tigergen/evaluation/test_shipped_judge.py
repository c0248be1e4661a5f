"""The judge that comes with the package keeps, on frames of yet another seed, what its card promises."""

from pathlib import Path

import numpy as np
import pytest

from tigerdata.phantom.corpus import uniform_frames
from tigerdata.workspace import Workspace
from tigergen import workshop
from tigergen.evaluation.judge import Judge, agreement


def test_it_is_right_on_frames_that_nobody_has_used_and_at_chance_on_wrong_labels() -> None:
    judge = Judge.load(workshop.SHIPPED_JUDGE)
    assert judge.view == "phantom" and judge.figures["mean"] >= 0.97
    images, _, attributes = uniform_frames(240, judge.network.size, seed=700_000)
    assert np.mean(list(agreement(judge, images, attributes).values())) > 0.94
    assert np.mean(list(agreement(judge, images, attributes[1:] + attributes[:1]).values())) < 0.5


def test_a_workspace_takes_it_and_measures_it_anew(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "study")
    figures = workshop.take_shipped_judge(ws, frames=40)
    own = workshop.own_judge(ws)
    assert figures["held_out"] == own.figures["held_out"] == 40 and figures["trained_on"] == 42_000
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64), dtype=np.uint8)
    for name, (values, chances) in Judge.load(workshop.SHIPPED_JUDGE).predict(image).items():
        assert own.predict(image)[name][0] == values
        assert own.predict(image)[name][1] == pytest.approx(chances, abs=1e-6)
