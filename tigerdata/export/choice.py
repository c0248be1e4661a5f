"""Which generated images are exported: the accepted ones, at most so many a real training image of their class."""

from pathlib import Path
from typing import TYPE_CHECKING

from tigerdata.manifest import manifest_of

if TYPE_CHECKING:
    import pandas as pd


def accepted(run: Path) -> "pd.DataFrame":
    """The accepted images of a finished run, one row each, in the order of their index."""
    import pandas as pd

    table = pd.read_parquet(manifest_of(run))
    return table[table["accepted"]].sort_values("index").reset_index(drop=True)


def capped(made: "pd.DataFrame", real: "pd.DataFrame", ratio: float) -> "pd.DataFrame":
    """At most `ratio` generated images a real training image of the same class; a class without real ones gets none.

    A run lists the combinations of its plan one after the other. The images of a class are taken in the order of van
    der Corput's sequence over their positions: any first part of it is spread evenly over the plan, and what a small
    ratio takes a larger one takes too.
    """
    import pandas as pd

    counts = real[real["split"] == "train"]["label"].value_counts().to_dict()
    parts = []
    for label, part in made.groupby("label", sort=True):
        order = sorted(range(len(part)), key=lambda k: f"{k:032b}"[::-1])
        # A ratio such as .1 is a little more than a tenth in binary; the small number keeps 30 * .1 at 3.
        parts.append(part.iloc[sorted(order[: int(ratio * counts.get(label, 0) + 1e-9)])])
    return pd.concat(parts).sort_values("index").reset_index(drop=True) if parts else made
