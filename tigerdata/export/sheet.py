"""What the data card and the Croissant file of an export say, gathered from workspace, run and format."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.files import read_json
from tigerdata import card
from tigerdata.export.formats import Written
from tigerdata.export.table import COLUMNS
from tigerdata.manifest import manifest_of

if TYPE_CHECKING:
    import pandas as pd


def sheet(
    ws: Any,
    counts: Sequence[card.Counts],
    made: "pd.DataFrame | None",
    run: str | os.PathLike[str] | None,
    checks: Sequence[str],
    statements: Mapping[str, str],
    done: Written,
    settings: Mapping[str, Any],
) -> card.Card:
    """The card of an export; `made` are the generated images in it, `settings` those of `export.json`."""
    from tigerdata import splits

    generator: dict[str, str] = {}
    rejected: dict[str, int] = {}
    if run is not None and made is not None and len(made):
        generator, rejected = _generator(made, Path(run)), _rejected(run)
    return card.Card(
        f"TigerData {Path(ws.settings['domain']).stem}",
        counts,
        generator,
        rejected,
        checks,
        statements,
        COLUMNS,
        remarks=[*splits.remarks(ws), *done.remarks],
        preprocessing=_steps(ws, settings),
        lost=done.lost,
        draft=settings["draft"],
        data_files=done.data_files,
        marked=done.marked,
    )


def _generator(made: "pd.DataFrame", run: Path) -> dict[str, str]:
    """Model, plan and sampler from the manifest; seed and gates from the files beside it, where a run has them."""
    first = made.iloc[0]
    out = {"model": first["model_id"], "plan": first["plan_id"]}
    sampler = f"{first['sampler']}, {first['steps']} steps, guidance {first['guidance']:g}, mode {first['mode']}"
    out |= {"sampler": sampler, "donors": f"{made['donor_image_id'].nunique()} real training images"}
    if (run / "plan.json").is_file():
        out["seed"] = str(read_json(run / "plan.json").get("seed"))
    if (run / "gates.json").is_file():
        used = {name: value for name, value in read_json(run / "gates.json").items() if value is not None}
        out["gates"] = json.dumps(used, sort_keys=True)
    return out


def _rejected(run: str | os.PathLike[str]) -> dict[str, int]:
    import pandas as pd

    every = pd.read_parquet(manifest_of(run), columns=["accepted", "reason"])
    reasons = every[~every["accepted"]]["reason"].str.split(" of image").str[0]
    return {str(k): int(v) for k, v in sorted(reasons.value_counts().items())}


def _steps(ws: Any, settings: Mapping[str, Any]) -> list[str]:
    # Here, because every start of the command reads the names of the formats and needs none of this.
    from importlib.metadata import PackageNotFoundError, version

    side, ratio = settings["size"], settings["ratio"]
    square = f"cropped to a square around its nodule and brought to {side} x {side} pixels" if side else "left whole"
    cleaned = "cleaned of text, rulers and surround, then " if ws.settings["images"]["clean"] else ""
    steps = [f"Every frame was {cleaned}{square}."]
    steps += ["Images have three equal channels."] if settings["channels"] == 3 else []
    steps += [f"At most {ratio:g} generated images a real training image of a class."] if ratio is not None else []
    try:
        steps.append(f"Written as {settings['format']} by TigerData {version('tigerdata')}.")
    except PackageNotFoundError:  # run from its sources
        steps.append(f"Written as {settings['format']}.")
    return steps
