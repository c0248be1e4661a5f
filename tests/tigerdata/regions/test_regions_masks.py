"""Mask flags and the segment step with a stand-in segmenter."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kb.errors import UserError
from tigerdata import regions
from tigerdata.images.ingest import ingest_images
from tigerdata.regions import masks
from tigerdata.regions.segment import dice
from tigerdata.splits import split
from tigerdata.workspace import Workspace


def square(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((50, 50), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    "mask, expected",
    [
        (square(), ["empty"]),
        (square((20, 20, 30, 30)), []),
        (square((20, 20, 22, 22)), ["tiny"]),
        (square((0, 20, 10, 30)), ["touches_border"]),
        (square((2, 2, 48, 48)), ["large"]),
        (square((5, 5, 15, 15), (30, 30, 40, 40)), ["several_parts"]),
        (square((5, 5, 25, 25), (40, 40, 42, 42)), []),  # a speck is no second nodule
    ],
)
def test_flags(mask: np.ndarray, expected: list[str]) -> None:
    assert masks.flags(mask) == expected


def test_dice_of_known_overlaps() -> None:
    a, b = square((0, 0, 10, 10)), square((0, 5, 10, 15))
    assert dice(a, a) == 1 and dice(a, b) == 0.5 and dice(a, square((40, 40, 45, 45))) == 0
    assert dice(square(), square()) == 1


class Thresholder:
    """Outlines what is dark; finds nothing in a frame whose first pixel is even."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked += len(images)
        return images < 60, np.array([0.9 if image[0, 0] % 2 else 0.1 for image in images], np.float32)


def test_segment_fills_gaps_and_never_touches_imported_masks(
    small_ws: Workspace, listed: Callable[..., Path], tmp_path: Path
) -> None:
    with small_ws.connect() as con:
        con.execute("DELETE FROM regions WHERE image_id IN (SELECT image_id FROM regions ORDER BY 1 LIMIT 10)")
        before = con.execute("SELECT * FROM regions ORDER BY 1").fetchall()
    segmenter = Thresholder()
    counts = regions.segment(small_ws, segmenter=segmenter)
    assert segmenter.asked == counts["without_mask"] == 10
    assert counts["predicted"] + counts["not_found"] == 10 and 0 < counts["predicted"] < 10
    with small_ws.connect(read_only=True) as con:
        after = con.execute("SELECT * FROM regions WHERE origin LIKE 'import:%' ORDER BY 1").fetchall()
        new = con.execute("SELECT path, area, score FROM regions WHERE origin = 'segmenter'").fetchall()
    assert after == before and len(new) == counts["predicted"]
    for path, area, score in new:
        assert masks.load(small_ws, path).mean() == pytest.approx(area) and score == pytest.approx(0.9)
    again = regions.segment(small_ws, segmenter=segmenter)
    assert again["without_mask"] == counts["not_found"] and again["predicted"] == 0


def test_an_imported_mask_replaces_a_predicted_one(ws: Workspace, listed: Callable[..., Path]) -> None:
    root = listed([{"patient_id": "P1"}], masks=False)
    ingest_images(ws, root)
    with ws.connect() as con:
        image_id = con.execute("SELECT image_id FROM images").fetchone()[0]
        masks.insert(con, [masks.save(ws, image_id, "nodule", square((1, 1, 9, 9)), "segmenter", 0.5)])
    table = root / "images.csv"
    table.write_text(table.read_text().replace("000.png,,", "000.png,masks/000.png,"))
    ingest_images(ws, root)
    with ws.connect(read_only=True) as con:
        rows = con.execute("SELECT origin, score FROM regions").fetchall()
    assert rows == [("import:csv", None)]


def test_missing_weights_and_missing_files_are_one_sentence(ws: Workspace, listed: Callable[..., Path]) -> None:
    ingest_images(ws, listed([{"patient_id": "P1"}], masks=False))
    with pytest.raises(UserError, match="train segmenter"):
        regions.segment(ws)
    with pytest.raises(UserError, match="missing or damaged"):
        masks.load(ws, "regions/none.png")


def test_training_needs_a_split_and_enough_masks(small_ws: Workspace) -> None:
    with pytest.raises(UserError, match="Only 0 imported nodule masks"):
        regions.train_segmenter(small_ws)
    split(small_ws)
    with pytest.raises(UserError, match="Only 0 imported gland masks"):
        regions.train_segmenter(small_ws, kind="gland")
