"""ACR points computed from the descriptors of the Duke table against its TotalPoints: each row equal, or why not.

Usage: python benchmarks/duke_points.py FOLDER   (the folder with duke_tirads/data.csv)
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tigerdata.reports.scores import compute

COMPOSITION = {
    "Entirely or almost entirely solid": "solid",
    "Mixed cystic_solid": "mixed_cystic_solid",
    "Spongiform": "spongiform",
    "Cystic": "cystic",
    "Cannot tell": "undetermined",
}
ECHO = {
    "Mild Hypo": "hypoechoic",
    "Iso": "isoechoic",
    "Hyper": "hyperechoic",
    "Very Hypo": "markedly_hypoechoic",
    "Cant classify": "undetermined",
}
FOCI = {
    "PEF": "microcalcification",
    "Macro": "macrocalcification",
    "Peripheral_eggshell": "rim_calcification",
    "Colloid": "comet_tail",
    "None": "absent",
}
MARGIN = {
    "Well-defined": "clear",
    "Ill-defined": "unclear",
    "Lobulated": "irregular_margin",
    "Cant classify": "undetermined",
}
SHAPE = {"y": "taller_than_wide", "n": "wider_than_tall"}
POINTS = ("CompositionPts", "EchogenicityPts", "ShapePts", "EchogenicFociPts", "MarginPts")
EQUAL = "equal"
SPONGIFORM = "rule: spongiform, nothing is added to its 0 points"
SPONGIFORM_SLIP = SPONGIFORM + "; and the table's columns do not add up to its total"
OMITS_SHAPE = "slip: the total omits the 3 points of the table's own shape column"
VERY_HYPO = "slip: the total counts 2 for very hypoechoic, the table's own column 3"
BOTH = "slip: the total omits the shape's 3 points and counts 2 for very hypoechoic"
OTHER_SUM = "slip: the total is 1 more than the columns of the table"
COLUMN = "slip: a points column contradicts the word beside it"
UNNAMED = "different without a name"


def descriptors(row: Mapping[str, str]) -> dict[str, Any]:
    """The row in our attributes; an empty cell of the foci means that there are none."""
    foci = list(dict.fromkeys(FOCI[row[name]] for name in ("Calcs1", "Calcs2", "Calcs3") if row[name]))
    return {
        "composition": COMPOSITION[row["Composition"]],
        "echogenicity": ECHO[row["Echogenicity"]],
        "aspect": SHAPE.get(row["Shape"], "undetermined"),
        "margin": [MARGIN[row["MargA"]]],
        "calcification": foci or ["absent"],
    }


def explain(row: Mapping[str, str]) -> str:
    """Whether our points equal the table's total, or the rule or slip that makes them differ."""
    ours = compute(descriptors(row))["ACR-TIRADS"]
    total, columns = int(row["TotalPoints"]), sum(int(row[name]) for name in POINTS)
    if ours.get("points") == total:
        return EQUAL
    if row["Composition"] == "Spongiform" and ours.get("points") == 0:
        return SPONGIFORM if columns == total else SPONGIFORM_SLIP
    if ours.get("points") == columns:
        missing = columns - total
        shape, very = int(row["ShapePts"]) == 3, int(row["EchogenicityPts"]) == 3
        if missing == 3 and shape:
            return OMITS_SHAPE
        if missing == 1 and very:
            return VERY_HYPO
        if missing == 4 and shape and very:
            return BOTH
        if missing == -1:
            return OTHER_SUM
    stated = {"solid": 2, "mixed_cystic_solid": 1, "cystic": 0, "undetermined": 2}
    if int(row["CompositionPts"]) != stated.get(descriptors(row)["composition"]):
        return COLUMN
    return UNNAMED


def read(folder: Path) -> list[dict[str, str]]:
    """The rows of `duke_tirads/data.csv`."""
    with (folder / "duke_tirads" / "data.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    rows = read(parser.parse_args().folder)
    counts = Counter(explain(row) for row in rows)
    for name, count in counts.most_common():
        print(f"{count:6d}  {name}")
    undetermined = sum("undetermined" in json.dumps(descriptors(row)) for row in rows)
    print(json.dumps({"rows": len(rows), "with_undetermined": undetermined, **counts}))


if __name__ == "__main__":
    main()
