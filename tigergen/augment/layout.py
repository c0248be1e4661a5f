"""Where one image's nodule and edges come from: a donor of the workspace or a file, and a mask."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigergen.augment.asked import Asked
from tigergen.augment.slots import quality_of


@dataclass(frozen=True)
class Layout:
    """Conditions on the model's grid: `image`, `sobel` uint8 [s, s] and `mask` uint8 [s, s] of 0 and 1.

    `donor`: image id or file name; `split`: part of the workspace's split that the donor lies in, None for a file;
    `quality`: image-quality phrases of the donor; `case`: its row of `Workspace.cases`, None for a file.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    sobel: NDArray[np.uint8]
    donor: str
    split: str | None
    quality: list[str]
    case: dict[str, Any] | None

    def told(self) -> dict[str, Any]:
        """Donor, and the split where it is one."""
        return {"donor": self.donor, "donor_split": self.split}


def find(
    ws: Any, size: int, donor: str | None, mask: str | Path | None = None, asked: Asked | None = None, seed: int = 0
) -> Layout:
    """The layout of a donor: an image id of the workspace, or an image file that is a clean frame.

    Without a donor, the training image is taken that fits what is `asked` best, as a plan does (`seed` draws among
    equals). `mask`: image file of the donor frame's size, white where the nodule is to be; default: the donor's own
    nodule, for a file the one that the workspace's segmenter finds.
    Raises:
        UserError: no such donor, a mask of another size or without a nodule, no mask for a file.
    """
    from tigergen.data import read_grey

    cases = ws.cases()
    if donor is None:
        if mask is not None:
            raise UserError("a mask lies in a frame; name it with --donor.")
        donor = _best(ws, asked, seed)
    rows = cases[cases["image_id"] == donor].to_dict("records")
    case: dict[str, Any] | None = None
    if rows:
        case = {str(k): v for k, v in rows[0].items()}
        frame, own = read_grey(case["image_path"]), read_grey(case["mask_path"]) > 127
        quality = quality_of(ws.kb, case["bg"])
        name = donor
    elif Path(donor).is_file():
        from tigerdata.conditions import quality_words

        frame = read_grey(donor)
        own = _outlined(ws, frame, donor) if mask is None else np.zeros(frame.shape, bool)
        quality, name = quality_words(frame, ws.kb, ws.settings["quality"]), Path(donor).name
    else:
        raise UserError(
            f"the donor '{donor}' is neither an image id of {ws.path} nor a file; `tigerdata view` shows ids."
        )
    image, small, sobel = _built(frame, own, None if mask is None else _read_mask(mask, frame.shape), size)
    return Layout(image, small, sobel, name, case["split"] if case else None, quality, case)


def _best(ws: Any, asked: Asked | None, seed: int) -> str:
    from tigergen.augment.donors import DonorPool

    pool = DonorPool(ws.cases("train"))
    if not len(pool):
        raise UserError("the workspace has no training image that could lend its outlines; name one with --donor.")
    return pool.choose(asked.attributes if asked else {}, [], 1, np.random.default_rng(seed))[0][0]


def _outlined(ws: Any, frame: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
    from tigergen.workshop import own_segmenter

    segmenter = own_segmenter(ws)
    if segmenter is None:
        raise UserError(f"{name} needs a nodule mask: give --mask, or train a segmenter (`tigergen train segmenter`).")
    masks, _ = segmenter.predict(frame[None])
    if not masks[0].any():
        raise UserError(f"the segmenter finds no nodule in {name}; give --mask.")
    return np.asarray(masks[0], dtype=bool)


def _read_mask(path: str | Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    from tigergen.data import read_grey

    mask = read_grey(str(path)) > 127
    if mask.shape != shape:
        raise UserError(
            f"the mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels and its frame {shape[1]} x {shape[0]}; "
            "draw it on the frame."
        )
    if not mask.any():
        raise UserError(f"the mask {path} is empty; paint the nodule white.")
    return mask


def _built(
    frame: NDArray[np.uint8], own: NDArray[np.bool_], asked: NDArray[np.bool_] | None, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Image, mask and edges on the model's grid; edges of the donor's own nodule are blanked with the asked one's."""
    from tigerdata.conditions import build

    if asked is None:
        made = build(frame, own, size)
        return made.image, made.mask, made.sobel
    both = own | asked
    made = build(frame, both, size)
    # The mask as a frame of its own, so that it is cut and reduced exactly as the edges are.
    small = build(asked.astype(np.uint8) * np.uint8(255), both, size).image
    return made.image, (small >= min(128, int(small.max()))).astype(np.uint8), made.sobel
