"""Cases: cached conditions equal fresh ones, and content decides what is taken from the cache."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from kb.errors import UserError
from tigerdata.conditions import build
from tigergen.data import Cases, load_cases


class Stored:
    """Stands for a workspace: a folder and its table of cases."""

    def __init__(self, path: Path, rows: list[dict[str, Any]]) -> None:
        self.path, self.rows = path, rows

    def cases(self, split: str | None = None, name: str = "default") -> pd.DataFrame:
        return pd.DataFrame([row for row in self.rows if split in (None, row["split"])])


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    rng, rows = np.random.default_rng(0), []
    for number in range(5):
        image, mask = rng.integers(0, 255, (40, 48), dtype=np.uint8), np.zeros((40, 48), np.uint8)
        mask[10:20, 12 + number : 30] = 255
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}m.png"
        for path, array in zip(paths, (image, mask), strict=True):
            cv2.imwrite(str(path), array)
        rows.append(
            {
                "image_id": f"i{number}",
                "patient_id": f"p{number}",
                "label": "FTC" if number == 0 else "benign",
                "split": "val" if number == 4 else "train",
                "image_path": str(paths[0]),
                "mask_path": str(paths[1]),
                "attributes": {"composition": ["solid"]},
                "fg": f"fg {number}",
                "bg": "bg",
            }  # fmt: skip
        )
    return Stored(tmp_path, rows)


def test_cached_cases_equal_fresh_conditions(stored: Stored) -> None:
    first, second = load_cases(stored, "train", 32), load_cases(stored, "train", 32)  # type: ignore[arg-type]
    assert len(list((stored.path / "runs" / "cache").glob("*.npz"))) == 1
    assert first.digest() == second.digest()
    assert first.labels == ["FTC", "benign", "benign", "benign"] and first.counts() == {"benign": 3, "FTC": 1}
    for number in range(4):
        image = cv2.imread(stored.rows[number]["image_path"], cv2.IMREAD_GRAYSCALE)
        mask = cv2.imread(stored.rows[number]["mask_path"], cv2.IMREAD_GRAYSCALE) > 127
        fresh = build(image, mask, 32)
        assert np.array_equal(second.images[number], fresh.image)
        assert np.array_equal(second.masks[number], fresh.mask) and second.masks.max() == 1
        assert np.array_equal(second.sobel[number], fresh.sobel)


def test_a_changed_mask_never_meets_an_old_sobel_map(stored: Stored) -> None:
    before = load_cases(stored, "train", 32)  # type: ignore[arg-type]
    mask = np.zeros((40, 48), np.uint8)
    mask[25:38, 5:20] = 255
    cv2.imwrite(stored.rows[1]["mask_path"], mask)
    after = load_cases(stored, "train", 32)  # type: ignore[arg-type]
    changed = [number for number in range(4) if not np.array_equal(before.sobel[number], after.sobel[number])]
    assert changed == [1]


def test_new_prompts_need_no_new_conditions_but_make_other_cases(stored: Stored) -> None:
    before = load_cases(stored, "train", 32)  # type: ignore[arg-type]
    stored.rows[2]["fg"] = "fg changed"
    after = load_cases(stored, "train", 32)  # type: ignore[arg-type]
    assert after.fg[2] == "fg changed" and after.digest() != before.digest()
    assert len(list((stored.path / "runs" / "cache").glob("*.npz"))) == 1


def test_selected_cases_keep_their_order(stored: Stored) -> None:
    cases = load_cases(stored, None, 32)  # type: ignore[arg-type]
    few = cases.select([4, 1])
    assert few.image_ids == ["i4", "i1"] and few.fg == ["fg 4", "fg 1"]
    assert np.array_equal(few.images[0], cases.images[4]) and len(few) == 2 and few.size == 32


def test_missing_cases_and_files_are_sentences(stored: Stored) -> None:
    with pytest.raises(UserError, match="no cases in split 'test'"):
        load_cases(stored, "test", 32)  # type: ignore[arg-type]
    Path(stored.rows[0]["image_path"]).write_bytes(b"no image")
    with pytest.raises(UserError, match="0.png"):
        load_cases(stored, "train", 32)  # type: ignore[arg-type]


def test_cases_of_different_lengths_are_refused() -> None:
    empty = np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="different lengths"):
        Cases(empty, empty, empty, ["fg"], ["bg"], ["benign"], [{}], ["i"], [])
