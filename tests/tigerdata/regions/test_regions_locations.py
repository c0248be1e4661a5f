"""Location statistics and derived pole words: known places, what text says stands, nothing is written twice."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from kb import load
from tigerdata.images.ingest import ingest_images
from tigerdata.prompt_links import completed
from tigerdata.prompts import build_prompts
from tigerdata.regions import locations
from tigerdata.workspace import Workspace

POLES = ("upper", "middle", "lower")


@pytest.fixture
def lobes(ws: Workspace, listed: Callable[..., Path]) -> Workspace:
    """Six longitudinal frames whose nodule lies in a known third of a whole gland, one of a cut gland, one across."""
    rows = [
        {"patient_id": f"P{k}", "label": "benign", "plane": "longitudinal", "gland_file": f"masks/g{k}.png",
         "nodule_location": ("upper" if k == 4 else "lower" if k == 5 else "left" if k == 1 else "")}
        for k in range(8)
    ]  # fmt: skip
    rows[7]["plane"] = "transverse"
    root = listed(rows)
    for k in range(8):
        gland, nodule = np.zeros((64, 80), np.uint8), np.zeros((64, 80), np.uint8)
        gland[20:50, (0 if k == 6 else 10) : 70] = 255
        middle = 10 + (10, 30, 50)[k % 3]
        nodule[22 if k else 20 : 30, middle - 4 : middle + 4] = 255
        cv2.imwrite(str(root / f"masks/g{k}.png"), gland)
        cv2.imwrite(str(root / f"masks/{k:03d}.png"), nodule)
    assert ingest_images(ws, root)["gland_masks"] == 8
    return ws


def derived(ws: Workspace) -> list[tuple[str, str]]:
    with ws.connect(read_only=True) as con:
        return con.execute(
            """SELECT i.patient_id, f.value FROM findings f JOIN nodules n USING (nodule_id)
               JOIN images i ON i.image_id = n.image_id WHERE f.rule = ? ORDER BY 1""",
            [locations.DERIVED],
        ).fetchall()


def test_poles_are_derived_where_nobody_stated_one_and_the_gland_is_whole(lobes: Workspace) -> None:
    found = locations.locate(lobes)
    assert derived(lobes) == [(f"P{k}", POLES[k % 3]) for k in range(4)]
    # P4 says upper and lies in the middle, P5 says lower and lies there, P6's gland is cut, P7 is transverse.
    assert {k: found[k] for k in ("derived", "agrees_with_text", "contradicts_text", "gland_cut")} == {
        "derived": 4, "agrees_with_text": 1, "contradicts_text": 1, "gland_cut": 1,
    }  # fmt: skip
    along = next(row for row in found["table"] if row["plane"] == "longitudinal")
    assert (along["class"], along["nodules"], along["meets_upper_edge"]) == ("benign", 7, 1)
    assert along["first_third"] + along["second_third"] + along["third_third"] == 7
    assert along["down"] == pytest.approx((6 * (26 - 20) + 25 - 20) / 30 / 7, abs=1e-3)
    again = locations.locate(lobes)
    assert again == found and len(derived(lobes)) == 4


def test_prompts_take_derived_poles_up_and_statistics_do_not(lobes: Workspace) -> None:
    from tigerdata.reports.statistics import attribute_counts

    before = attribute_counts(lobes)["attributes"].get("nodule_location")
    locations.locate(lobes)
    assert attribute_counts(lobes)["attributes"].get("nodule_location") == before
    build_prompts(lobes)
    with lobes.connect(read_only=True) as con:
        bg = dict(con.execute("SELECT patient_id, bg FROM prompts JOIN images USING (image_id)").fetchall())
    assert "upper pole" in bg["P0"] and "inferior pole" in bg["P2"] and "pole" not in bg["P6"]
    assert "left lobe" in bg["P1"] and "middle pole" in bg["P1"]
    assert "upper pole" in bg["P4"] and "middle pole" not in bg["P4"]


def test_a_side_from_the_image_set_does_not_silence_the_report_on_the_pole() -> None:
    base = load("thyroid")
    own, other = {"nodule_location": ["left"]}, {"nodule_location": ["left", "upper"], "margin": ["clear"]}
    assert completed(base, own, other) == {"nodule_location": ["left", "upper"], "margin": ["clear"]}
    assert completed(base, {"nodule_location": ["right", "lower"]}, other)["nodule_location"] == ["right", "lower"]
    assert completed(base, {"margin": ["unclear"]}, {"margin": ["clear"]}) == {"margin": ["unclear"]}
