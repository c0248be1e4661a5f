"""Single images: from a prompt, a mask and a donor, or one image of a run again."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import read_json
from tigergen.augment import files
from tigergen.augment.asked import Asked, from_case
from tigergen.augment.layout import Layout, find
from tigergen.augment.pipe import open_pipe
from tigergen.augment.planfile import SAMPLING
from tigergen.augment.slots import Slots, donor_quality

BATCH = 16


@dataclass(frozen=True)
class Studio:
    """A model in a workspace, with the sampling settings of its images: the model's own and what a user changed."""

    ws: Any
    pipe: Any
    model: str
    sampling: dict[str, Any]

    @classmethod
    def open(cls, ws: Any, folder: str | os.PathLike[str], pipe: Any = None, **changed: Any) -> "Studio":
        """Open a model folder; settings that are None stay the model's. `pipe` replaces loading it.

        Raises UserError when it is no model folder.
        """
        from tigergen.model.folder import model_id, sampling

        pipe = pipe or open_pipe(folder)
        settings = {k: v for k, v in SAMPLING.items() if k != "quality"} | sampling(folder)
        return cls(ws, pipe, model_id(folder), settings | {k: v for k, v in changed.items() if v is not None})

    @property
    def size(self) -> int:
        """Side of the model's images in pixels."""
        return int(self.pipe.config["image_size"])

    def draw(self, asked: list[Asked], layout: Layout, seeds: list[int]) -> NDArray[np.uint8]:
        """One image uint8 [B, s, s] for each prompt and seed; with a strength they start from the donor's image."""
        from tigerdata.prompts import roles

        made = []
        for start in range(0, len(asked), BATCH):
            some = asked[start : start + BATCH]
            given = {"init_images": np.stack([layout.image] * len(some))} if self.refined else {}
            made.append(
                self.pipe(
                    [a.fg for a in some],
                    [a.bg for a in some],
                    np.stack([layout.mask] * len(some)),
                    np.stack([layout.sobel] * len(some)),
                    roles=[roles(self.ws.kb, a.label, a.fg) for a in some],
                    seeds=seeds[start : start + BATCH],
                    **given,
                    **self.sampling,
                )
            )
        return np.concatenate(made)

    @property
    def refined(self) -> bool:
        """Whether images are refined from the donor's, so that parts of it stay in them."""
        return self.sampling.get("strength") is not None

    def png(self, image: NDArray[np.uint8], asked: Asked, seed: int) -> bytes:
        """The file of an image: prompts, seed, settings and model are in it, and no donor's name."""
        facts = {"TigerModel": self.model, "TigerSeed": str(seed), "TigerFG": asked.fg, "TigerBG": asked.bg}
        facts["TigerSampling"] = json.dumps(self.sampling, sort_keys=True)
        return files.png_bytes(image, facts, composite=self.refined, producer=files.producer(self.ws))


def sample(
    studio: Studio,
    out: str | os.PathLike[str],
    asked: Asked | None = None,
    donor: str | None = None,
    mask: str | os.PathLike[str] | None = None,
    seed: int = 0,
    n: int = 1,
) -> dict[str, Any]:
    """Draw `n` images of a prompt, with the seeds `seed`, `seed` + 1, ..., and write them as PNG files.

    `asked`: default, the donor's own prompt. `donor`, `mask`: see `layout.find`. One image is written to `out`, more of
    them to `out` with -1, -2, ... before the suffix. The same seed, prompt and donor give the same image.

    Returns files, prompts and how they were read, donor, seeds, sampling settings and model.
    Raises:
        UserError: neither a prompt nor a donor, or a donor that cannot be used.
    """
    layout, asked = prepare(studio, asked, donor, mask, seed)
    seeds = [seed + k for k in range(n)]
    images = studio.draw([asked] * n, layout, seeds)
    path = Path(out)
    places = [path if n == 1 else path.with_name(f"{path.stem}-{k + 1}{path.suffix}") for k in range(n)]
    for place, image, own in zip(places, images, seeds, strict=True):
        files.write_bytes(place, studio.png(image, asked, own))
    return {
        "files": [str(place) for place in places],
        **asked.told(),
        **layout.told(),
        "seeds": seeds,
        "sampling": studio.sampling,
        "model_id": studio.model,
    }


def prepare(
    studio: Studio, asked: Asked | None, donor: str | None, mask: str | os.PathLike[str] | None, seed: int
) -> tuple[Layout, Asked]:
    """The layout, and the prompt with the donor's image-quality words: the donor's own prompt where none is asked."""
    if asked is None and donor is None:
        raise UserError("say what to draw: give --prompt (or --fg and --bg), or --donor for a donor's own prompt.")
    layout = find(studio.ws, studio.size, donor, None if mask is None else Path(mask), asked, seed)
    if asked is None:
        if layout.case is None:
            raise UserError(f"{layout.donor} is a file and has no prompt; give --prompt, or --fg and --bg.")
        asked = from_case(layout.case)
    return layout, asked.with_quality(layout.quality)


def remake(
    workspace: str | os.PathLike[str],
    run: str | os.PathLike[str],
    index: int,
    attempt: int | None,
    out: str | os.PathLike[str],
    pipe: Any = None,
) -> dict[str, Any]:
    """Generate image `index` of a run at its `attempt` again and write it to `out`.

    `attempt`: None is the accepted one (the last one where none was). The model is found by its id in the workspace. A
    batch of one rounds differently from a full batch: a difference of one or two grey levels in few pixels is expected.
    `pipe` replaces loading the model.

    Returns: out, label, donor, seed, attempt, and `difference`, the largest one in grey levels to the stored file (None
    when that attempt was rejected and no file is kept).
    Raises:
        UserError: the index is not in the plan, or the workspace has another model by now.
    """
    from tigerdata.prompts import roles
    from tigerdata.workspace import Workspace
    from tigergen.data import load_cases

    ws, folder = Workspace.open(workspace), Path(run)
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} holds no run; name a folder that `tigergen augment` wrote.")
    plan, settings = read_json(folder / "plan.json"), read_json(folder / "run.json")
    model = settings["model_id"]
    if pipe is None:
        with ws.connect(read_only=True) as con:
            row = con.execute("SELECT path FROM models WHERE model_id = ?", [model]).fetchone()
        if row is None:
            raise UserError(f"the workspace has no model {model} any more; the image can only be made with that one.")
        pipe = open_pipe(ws.path / row[0])
    train = load_cases(ws, "train", int(pipe.config["image_size"]))
    slots = Slots(plan, donor_quality(ws.kb, train))
    if not 0 <= index < len(slots):
        raise UserError(f"the plan has the images 0 to {len(slots) - 1}, and not {index}.")
    accepted = _accepted_attempt(folder, index)
    slot = slots.at(index, (accepted[0] if attempt is None else attempt))
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
    producer = settings.get("producer", files.PRODUCER)
    content = files.png_bytes(image, files.place_in_run(slots.id, index, model), producer=producer)
    files.write_bytes(Path(out), content)
    stored = folder / slot.label / f"{index:06d}.png"
    difference = None
    if stored.is_file() and accepted == (slot.attempt, True):
        difference = int(np.abs(files.read_pixels(stored).astype(int) - image.astype(int)).max())
    told = {"out": str(out), "label": slot.label, "donor": slot.donor, "seed": slot.seed, "attempt": slot.attempt}
    return {**told, "difference": difference}


def _accepted_attempt(folder: Path, index: int) -> tuple[int, bool]:
    """The attempt at an image that was accepted, or the last one; whether it was."""
    import pyarrow.parquet as pq

    place = folder / "manifest.parquet"
    if not place.is_file():
        raise UserError(f"{folder} is not finished; the same `tigergen augment` again continues it.")
    filters = [("index", "=", index)]
    rows = pq.read_table(place, columns=["attempt", "accepted"], filters=filters).to_pylist()
    chosen = max(rows, key=lambda r: (r["accepted"], r["attempt"]), default={"attempt": 0, "accepted": False})
    return int(chosen["attempt"]), bool(chosen["accepted"])
