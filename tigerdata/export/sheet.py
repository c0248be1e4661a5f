"""What the data card and the Croissant file of an export say, gathered from workspace, run and format."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.files import read_json
from tigerdata import card
from tigerdata.export import facts
from tigerdata.export.formats import Written
from tigerdata.export.table import COLUMNS
from tigerdata.manifest import manifest_of, reason_kind

if TYPE_CHECKING:
    import pandas as pd


def recorded(
    ws: Any, real: "pd.DataFrame", made: "pd.DataFrame | None", run: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """The parts of a card (`card.Card`) that come from what workspace and run have recorded."""
    out: dict[str, Any] = {
        "people": facts.people(ws, real),
        "privacy": facts.privacy(ws),
        "labelling": facts.labelling(ws, real, made),
    }
    if run is not None and made is not None and len(made):
        rejected = _rejected(run)
        out |= {"generator": _generator(made, Path(run)), "rejected": rejected}
        out |= {"copies": facts.copies(Path(run), rejected), "quality": facts.quality(Path(run))}
    return out


def sheet(
    ws: Any,
    counts: Sequence[card.Counts],
    known: Mapping[str, Any],
    checks: Sequence[str],
    statements: Mapping[str, str],
    done: Written,
    settings: Mapping[str, Any],
) -> card.Card:
    """The card of an export; `known` is what is `recorded`, `settings` those of `export.json`."""
    from tigerdata import splits

    return card.Card(
        f"TigerData {Path(ws.settings['domain']).stem}",
        counts,
        checks=checks,
        statements=statements,
        features=COLUMNS,
        remarks=[*splits.remarks(ws), *done.remarks],
        preprocessing=_steps(ws, settings),
        lost=done.lost,
        draft=settings["draft"],
        data_files=done.data_files,
        marked=done.marked,
        software=card.software(),
        **known,
    )


def _generator(made: "pd.DataFrame", run: Path) -> dict[str, str]:
    """Model, plan and sampler from the manifest; seeds and gates from the files beside it, where a run has them."""
    first, plan = made.iloc[0], read_json(run / "plan.json") if (run / "plan.json").is_file() else {}
    out = {"model": f"{first['model_id']} (SHA-256 over weights and settings, 16 digits)", "plan": first["plan_id"]}
    sampler = f"{first['sampler']}, {first['steps']} steps, guidance {first['guidance']:g}, mode {first['mode']}"
    lent = made[["donor_image_id", "mask_image_id"]].nunique()
    out |= {"sampler": sampler, "donors": f"{lent['donor_image_id']} real training images"}
    out["donors of masks"] = f"{lent['mask_image_id']} real training images"
    out["donor policy"] = plan.get("donor_policy", facts.NOT_STATED)
    out["prompts"] = _sources(plan)
    out["seed"] = str(plan.get("seed", facts.NOT_STATED))
    out["seeds of the images"] = f"{made['seed'].nunique()} different ones, in lineage.parquet"
    if (run / "gates.json").is_file():
        used = {name: value for name, value in read_json(run / "gates.json").items() if value is not None}
        # How each threshold was measured fills a page; it stays in gates.json.
        used = {name: value for name, value in used.items() if name not in ("measured", "realism_by_class")}
        out["gates"] = json.dumps(used, sort_keys=True)
    return out


def _sources(plan: Mapping[str, Any]) -> str:
    """How many images of a plan take their prompt from where."""
    found: Counter[str] = Counter()
    for row in plan.get("rows", []):
        found[str(row.get("source") or "row written by hand").partition(";")[0]] += int(row["count"])
    return "; ".join(f"{source}: {n:,}" for source, n in sorted(found.items())) or facts.NOT_STATED


def _rejected(run: str | os.PathLike[str]) -> dict[str, int]:
    import pandas as pd

    every = pd.read_parquet(manifest_of(run), columns=["accepted", "reason"])
    reasons = every[~every["accepted"]]["reason"].map(reason_kind)
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
