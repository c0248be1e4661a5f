"""One image of a run again: to see that a file is what its manifest says."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kb.errors import UserError
from kb.files import read_json
from tigergen.augment import files
from tigergen.augment.slots import Slots, donor_quality


def remake(
    workspace: str | os.PathLike[str],
    run: str | os.PathLike[str],
    index: int,
    attempt: int,
    out: str | os.PathLike[str],
    pipe: Any = None,
) -> dict[str, Any]:
    """Generate image `index` of a run at its `attempt` again and write it to `out`.

    The model is found by its id in the workspace. A batch of one rounds differently from a full batch: a difference of
    one or two grey levels in few pixels is expected. `pipe` replaces loading the model.

    Returns: out, label, donor, seed, and `difference`, the largest one in grey levels to the stored file (None when
    that attempt was rejected and no file is kept).
    Raises:
        UserError: the index is not in the plan, or the workspace has another model by now.
    """
    from tigerdata.prompts import roles
    from tigerdata.workspace import Workspace
    from tigergen.data import load_cases

    ws, folder = Workspace.open(workspace), Path(run)
    plan, model = read_json(folder / "plan.json"), read_json(folder / "run.json")["model_id"]
    if pipe is None:
        with ws.connect(read_only=True) as con:
            row = con.execute("SELECT path FROM models WHERE model_id = ?", [model]).fetchone()
        if row is None:
            raise UserError(f"the workspace has no model {model} any more; the image can only be made with that one.")
        from tigergen.model import TigerPipeline

        pipe = TigerPipeline.from_pretrained(ws.path / row[0])
    train = load_cases(ws, "train", int(pipe.config["image_size"]))
    slots = Slots(plan, donor_quality(ws.kb, train))
    if not 0 <= index < len(slots):
        raise UserError(f"the plan has the images 0 to {len(slots) - 1}, and not {index}.")
    slot = slots.at(index, attempt)
    n = train.image_ids.index(slot.donor)
    sampling = {k: v for k, v in plan["sampling"].items() if k != "quality"}
    image = pipe(
        [slot.fg],
        [slot.bg],
        train.masks[n : n + 1],
        train.sobel[n : n + 1],
        roles=[roles(ws.kb, slot.label, slot.fg)],
        seeds=[slot.seed],
        **sampling,
    )[0]
    facts = {"TigerPlan": slots.id, "TigerIndex": str(index), "TigerModel": model}
    files.write_bytes(Path(out), files.png_bytes(image, facts))
    stored = folder / slot.label / f"{index:06d}.png"
    difference = None
    if stored.is_file():
        difference = int(np.abs(files.read_pixels(stored).astype(int) - image.astype(int)).max())
    return {"out": str(out), "label": slot.label, "donor": slot.donor, "seed": slot.seed, "difference": difference}
