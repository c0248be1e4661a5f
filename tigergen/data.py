"""Cases: images of a workspace with their conditions and prompts as plain arrays, built once and cached."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import atomic_write, sha256_file

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

# Part of the cache key: raise it when the arrays of a cached file would no longer be built in the same way.
CACHE_FORMAT = 1


@dataclass(frozen=True)
class Cases:
    """Training cases. `images`, `sobel`: uint8 [N, s, s]; `masks`: uint8 [N, s, s] of 0 and 1; lists have length N."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    sobel: NDArray[np.uint8]
    fg: list[str]
    bg: list[str]
    labels: list[str]
    attributes: list[dict[str, list[str]]]
    image_ids: list[str]
    patient_ids: list[str]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"cases of different lengths: {lengths}")
        if self.masks.shape != self.images.shape or self.sobel.shape != self.images.shape:
            raise ValueError("images, masks and sobel maps of cases must have one shape")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[1]

    def counts(self) -> dict[str, int]:
        """Number of images of each label, largest class first."""
        return dict(Counter(self.labels).most_common())

    def layouts(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Nodule mask and Sobel map, each [s, s], by image id: what a donor lends."""
        return {i: (mask, sobel) for i, mask, sobel in zip(self.image_ids, self.masks, self.sobel, strict=True)}

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Cases":
        """Return the cases at these positions, in this order."""
        order = [int(index) for index in indices]
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            chosen[field.name] = value[order] if isinstance(value, np.ndarray) else [value[index] for index in order]
        return Cases(**chosen)

    def digest(self) -> str:
        """Hexadecimal SHA-256 over every array and text: equal digests train equal models."""
        return content_digest(self)


def content_digest(record: Any) -> str:
    """Hexadecimal SHA-256 over the arrays, texts and lists of a dataclass, under the names of its fields."""
    state = hashlib.sha256()
    for field in fields(record):
        value = getattr(record, field.name)
        state.update(field.name.encode())
        if isinstance(value, np.ndarray):
            state.update(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes())
        else:
            state.update(json.dumps(value, ensure_ascii=False, sort_keys=True).encode())
    return state.hexdigest()


def load_cases(ws: "Workspace", split: str | None, size: int, name: str = "default") -> Cases:
    """Return the cases of one part of a split (None: all) at `size` x `size` pixels.

    The conditions come from `tigerdata.conditions.build`, the one function that sampling uses too. They are kept in
    `runs/cache` of the workspace under a name made from the content of every image and mask, so that a changed mask
    never meets an old Sobel map; prompts and labels are read afresh. Raises UserError when there is no case.
    """
    rows = ws.cases(split=split, name=name)
    if not len(rows):
        where = f"split '{split}' of " if split else ""
        raise UserError(
            f"There are no cases in {where}{ws.path}: a case needs an image, a nodule mask and a prompt; run "
            "`tigerdata segment`, `tigerdata prompts` and `tigerdata split` first."
        )
    return cases_of(rows, _conditions(ws.path / "runs" / "cache", rows, size))


def cases_of(rows: Any, conditions: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]) -> Cases:
    """Rows of `Workspace.cases` with their images, masks and Sobel maps, as `build_conditions` gives them."""
    images, masks, sobel = conditions
    texts = {key: [str(value) for value in rows[key]] for key in ("fg", "bg", "label", "image_id", "patient_id")}
    return Cases(
        images=images,
        masks=masks,
        sobel=sobel,
        fg=texts["fg"],
        bg=texts["bg"],
        labels=texts["label"],
        attributes=[{str(k): [str(v) for v in values] for k, values in row.items()} for row in rows["attributes"]],
        image_ids=texts["image_id"],
        patient_ids=texts["patient_id"],
    )


def _conditions(cache: Path, rows: Any, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Read images, masks and Sobel maps from the cache, or build and store them."""
    key = hashlib.sha256(f"{CACHE_FORMAT} {_code_digest()} {size}".encode())
    for path, mask in zip(rows["image_path"], rows["mask_path"], strict=True):
        key.update(f"{sha256_file(path)} {sha256_file(mask)}\n".encode())
    file = cache / f"conditions-{size}-{key.hexdigest()[:24]}.npz"
    if file.exists():
        with np.load(file) as stored:
            return stored["images"], stored["masks"], stored["sobel"]
    arrays = build_conditions(list(rows["image_path"]), list(rows["mask_path"]), size)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, images=arrays[0], masks=arrays[1], sobel=arrays[2])
    return arrays


def build_conditions(
    image_paths: Sequence[str], mask_paths: Sequence[str], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Build images, masks and Sobel maps, each uint8 [N, size, size], from grey frames and 0/255 masks on disk."""
    from tigerdata.conditions import build

    built = [
        build(read_grey(image), read_grey(mask) > 127, size)
        for image, mask in zip(image_paths, mask_paths, strict=True)
    ]
    return (
        np.stack([one.image for one in built]),
        np.stack([one.mask for one in built]),
        np.stack([one.sobel for one in built]),
    )


def read_grey(path: str) -> NDArray[np.uint8]:
    """Read an 8-bit grey image [H, W]; UserError with the file's name when it cannot be read."""
    import cv2

    # imdecode, because imread cannot open names with Chinese characters on every platform.
    image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if Path(path).is_file() else None
    if image is None:
        raise UserError(f"Image {path} is missing or cannot be read; restore it or ingest the folder again.")
    return np.asarray(image, dtype=np.uint8)


def _code_digest() -> str:
    """SHA-256 of the module that builds the conditions, so that a changed rule makes a new cache."""
    from tigerdata import conditions

    return sha256_file(conditions.__file__ or "")
