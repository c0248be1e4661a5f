"""Masks made by other tools, attached to frames of the workspace: mask images, COCO JSON, YOLO polygons.

A drawing belongs to the image whose file has its name, or whose image id is its name. What is drawn on the file is cut
like the file's frames (the table `cleaning` says where they lie); what is drawn on a clean frame stays whole.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.images.frames import Refused, inside, read_mask
from tigerdata.progress import Progress
from tigerdata.regions import masks
from tigerdata.regions.outlines import decode_counts, fill, run_lengths

if TYPE_CHECKING:
    from tigerdata.workspace import Workspace

FORMATS = ("png", "coco", "yolo")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
# What tools append to an image's name for its mask: "007_mask", "007_mask_1", "007-seg", "007.gland".
APPENDED = re.compile(
    r"[ ._-]?(mask|seg|segmentation|label|gt|nodule|gland|tumou?r|lesion)([ _-]?\d+)?$", re.IGNORECASE
)
# YOLO's numbers are shares of the image. A tool may round a point onto the border a little beyond it.
SLACK = 0.01
Shape = tuple[int, int]
Draw = Callable[[Shape], NDArray[np.bool_]]


@dataclass(frozen=True)
class Drawing:
    """One region of one image, as a file holds it: `draw` makes the mask [H, W] or raises Refused.

    `names` are what the image may be called, the likeliest first; `size` is the (height, width) that the drawing is
    for, None where it fits any size.
    """

    where: str
    names: tuple[str, ...]
    draw: Draw
    size: Shape | None = None


@dataclass(frozen=True)
class Frame:
    """A frame of the workspace and where it lies in its file; `file` is (height, width), None if it is not known."""

    image_id: str
    path: str
    shape: Shape
    file: Shape | None
    corner: tuple[int, int]

    def cut(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The part of a mask of the whole file that lies on this frame."""
        (height, width), (left, top) = self.shape, self.corner
        return mask[top : top + height, left : left + width]


class Frames:
    """Look-up of the accepted frames by image id and by the name of their file."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.by_id: dict[str, Frame] = {}
        self.by_stem: dict[str, dict[str, list[Frame]]] = defaultdict(lambda: defaultdict(list))
        for frame in frames:
            self.by_id[frame.image_id] = frame
            self.by_stem[stem(frame.path)][frame.path].append(frame)

    def find(self, names: Sequence[str]) -> tuple[list[Frame], bool]:
        """Frames of the image that one of the names means, and whether it is the name of one frame; [] if none is.

        Where several files have the name, the folders above must tell them apart: Refused AMBIGUOUS_NAME otherwise.
        """
        for name in names:
            if stem(name) in self.by_id:
                return [self.by_id[stem(name)]], True
            files = self.by_stem.get(stem(name), {})
            if len(files) > 1:
                shared = {path: _shared_folders(name, path) for path in files}
                best = max(shared.values())
                files = {path: files[path] for path, depth in shared.items() if depth == best}
                if len(files) > 1:
                    raise Refused("AMBIGUOUS_NAME")
            if files:
                return next(iter(files.values())), False
        return [], False


def stem(name: str) -> str:
    """A file's name without folders and suffix; DDTI's "7_1.a.jpg" is "7_1.a"."""
    return PurePosixPath(PureWindowsPath(name).as_posix()).stem


def _shared_folders(name: str, path: str) -> int:
    mine, theirs = (PurePosixPath(PureWindowsPath(p).as_posix()).parts[-2::-1] for p in (name, path))
    return next((k for k, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))


def import_masks(
    ws: Workspace,
    path: str | os.PathLike[str],
    format: str = "png",
    kind: str = "nodule",
    only: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attach the drawings at `path` to images of the workspace as regions of `kind`, and return counts.

    `format` is "png" (a folder of mask images), "coco" (a JSON file, polygons and run lengths) or "yolo" (a folder of
    .txt files with polygons). `only` takes the drawings of one class: a COCO category by name, a YOLO class by number.
    Several drawings of one image are united. A region of that kind which is there is replaced, an imported one too.
    The result holds `drawings`, `masks` (written), `replaced`, `unmatched` (drawings without an image here),
    `view_without_mask`, `flagged`, `rejected_by_code` and `rejected` (where and code; nothing of it is stored). Raises
    UserError for a path that holds no drawings at all, and for several classes without `only`.
    """
    from kb import store

    if format not in FORMATS or kind not in masks.KINDS:
        raise UserError(
            f"Masks are of the formats {', '.join(FORMATS)} and of the kinds {', '.join(masks.KINDS)}, not '{format}' "
            f"and '{kind}'; name one of each."
        )
    limit = float(ws.settings["images"]["max_megapixels"])
    rejected: list[dict[str, str]] = []
    read = {"png": _images, "coco": _coco, "yolo": _yolo}[format]
    drawings = read(Path(path), only, limit, rejected)
    frames, known = _frames(ws)
    counts: Counter[str] = Counter(drawings=len(drawings))
    drawn: dict[str, NDArray[np.bool_]] = {}
    for number, drawing in enumerate(drawings, 1):
        try:
            found, whole = frames.find(drawing.names)
            counts["unmatched"] += not found
            for frame, mask in _on_frames(found, whole, drawing):
                drawn[frame.image_id] = drawn[frame.image_id] | mask if frame.image_id in drawn else mask
        except Refused as error:
            rejected.append({"where": drawing.where, "code": error.code})
        if progress:
            progress({"stage": "ingest masks", "step": number, "steps": len(drawings)})
    rows = [masks.save(ws, i, kind, mask, origin=f"import:{format}") for i, mask in sorted(drawn.items()) if mask.any()]
    with ws.connect() as con, store.transaction(con):
        masks.insert(con, rows)
    counts["masks"] = len(rows)
    counts["replaced"] = sum(row["region_id"] in known for row in rows)
    counts["view_without_mask"] = len(drawn) - len(rows)
    counts["flagged"] = sum(bool(row["flags"]) for row in rows)
    by_code = Counter(entry["code"] for entry in rejected)
    return {**counts, "rejected_by_code": dict(sorted(by_code.items())), "rejected": rejected}


def _frames(ws: Workspace) -> tuple[Frames, set[str]]:
    with ws.connect(read_only=True) as con:
        rows = con.execute(
            """SELECT image_id, path, height, width, file_height, file_width, crop_left, crop_top
               FROM images LEFT JOIN cleaning USING (image_id) WHERE rejected IS NULL ORDER BY image_id"""
        ).fetchall()
        known = {row[0] for row in con.execute("SELECT region_id FROM regions").fetchall()}
    if not rows:
        raise UserError(f"{ws.path} holds no images to attach masks to; run `tigerdata ingest images` first.")
    return Frames(
        Frame(i, path, (h, w), None if fh is None else (fh, fw), (left or 0, top or 0))
        for i, path, h, w, fh, fw, left, top in rows
    ), known


def _on_frames(found: Sequence[Frame], whole: bool, drawing: Drawing) -> Iterator[tuple[Frame, NDArray[np.bool_]]]:
    """The mask of a drawing on each frame of its image; Refused MASK_SIZE when it is of neither file nor frame.

    The name of an image file means the file first, the name of one frame (its id) means the frame first.
    """
    if not found:
        return
    sizes: list[tuple[Shape, bool]] = [(f.shape, False) for f in found[:1] if len(found) == 1]
    if found[0].file is not None:
        sizes.insert(1 if whole else 0, (found[0].file, True))
    elif not sizes:
        raise Refused("FRAME_PLACE_UNKNOWN")  # a panel of a database before version 3: ingest it again
    fitting = [(size, of_file) for size, of_file in sizes if drawing.size in (None, size)]
    for number, (size, of_file) in enumerate(fitting, 1):
        try:
            mask = drawing.draw(size)
        except Refused as error:
            if error.code == "MASK_SIZE" and number < len(fitting):
                continue
            raise
        yield from ((frame, frame.cut(mask) if of_file else mask) for frame in found)
        return
    raise Refused("MASK_SIZE")


def _images(path: Path, only: str | None, limit: float, rejected: list[dict[str, str]]) -> list[Drawing]:
    if only is not None:
        raise UserError("Mask images have no classes: leave --class out, and export one image a class.")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in MASK_SUFFIXES)
    if not files:
        raise UserError(f"{path} holds no mask image ({', '.join(MASK_SUFFIXES)}); name the folder that does.")

    def drawing(file: Path) -> Drawing:
        name = _below(path, file)
        plain = name[: len(name) - len(file.suffix)]
        shorter = APPENDED.sub("", plain)
        root = path if path.is_dir() else path.parent

        def draw(size: Shape) -> NDArray[np.bool_]:
            mask = read_mask(inside(root, file.relative_to(root).as_posix()), size, max_megapixels=limit)
            mask, band = masks.without_bands(mask)
            if band:
                rejected.append({"where": name, "code": "BORDER_BAND"})  # the rest of the mask is taken
            return _not_empty(mask)

        # A suffix is put back, so that "7_1.a" keeps its ".a" when the stem is taken.
        return Drawing(name, (plain + ".png", *((shorter + ".png",) if shorter != plain else ())), draw)

    return [drawing(file) for file in files]


def _yolo(path: Path, only: str | None, limit: float, rejected: list[dict[str, str]]) -> list[Drawing]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*.txt") if p.name != "classes.txt")
    if not files:
        raise UserError(f"{path} holds no .txt file of YOLO polygons; name the folder of the labels.")
    drawings: list[Drawing] = []
    classes: Counter[str] = Counter()
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            rejected.append({"where": file.name, "code": "BROKEN_LINE"})
            continue
        for number, line in enumerate(lines, 1):
            name, *cells = line.split() or [""]
            if not name:
                continue
            classes[name] += 1
            if only is not None and name != only:
                continue
            where = f"{file.name}:{number}"
            try:
                outline = _polygon([float(cell) for cell in cells])
                if max(abs(v - 0.5) for point in outline for v in point) > 0.5 + SLACK:
                    raise Refused("NOT_NORMALISED")
            except (ValueError, Refused) as error:
                code = error.code if isinstance(error, Refused) else "BROKEN_LINE"
                rejected.append({"where": where, "code": "BOX_NO_OUTLINE" if len(cells) == 4 else code})
                continue

            def draw(size: Shape, outline: Sequence[tuple[float, float]] = outline) -> NDArray[np.bool_]:
                return _not_empty(fill([[(x * size[1], y * size[0]) for x, y in outline]], size))

            drawings.append(Drawing(where, (_below(path, file),), draw))
    _one_class(classes, only, path)
    return drawings


def _coco(path: Path, only: str | None, limit: float, rejected: list[dict[str, str]]) -> list[Drawing]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        names = {c["id"]: str(c["name"]) for c in content.get("categories", ())}
        annotations = list(content["annotations"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name the JSON file of the annotations.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no COCO file with images and annotations ({type(error).__name__}); name the JSON file."
        ) from None
    drawings = []
    classes: Counter[str] = Counter()
    for position, annotation in enumerate(annotations):
        where = f"{path.name}, annotation {position}"
        try:
            category = names.get(annotation.get("category_id"), str(annotation.get("category_id", "")))
            image = images[annotation["image_id"]]
            size = (int(image["height"]), int(image["width"]))
            name, shapes = str(image["file_name"]), annotation["segmentation"]
        except (KeyError, TypeError, ValueError, AttributeError):
            rejected.append({"where": where, "code": "BROKEN_ANNOTATION"})
            continue
        classes[category] += 1
        if only is not None and category != only:
            continue
        if min(size) < 1 or size[0] * size[1] > limit * 1e6:
            rejected.append({"where": where, "code": "TOO_LARGE"})
        else:
            drawings.append(Drawing(where, (name,), _coco_draw(shapes), size))
    _one_class(classes, only, path)
    return drawings


def _below(path: Path, file: Path) -> str:
    """A file's name with the folders that lead to it, from the one that the user named."""
    return f"{path.name}/{file.relative_to(path).as_posix()}" if path.is_dir() else file.name


def _coco_draw(shapes: Any) -> Draw:
    def draw(size: Shape) -> NDArray[np.bool_]:
        try:
            if isinstance(shapes, Mapping):
                if tuple(shapes["size"]) != size:
                    raise Refused("MASK_SIZE")
                counts = shapes["counts"]
                return _not_empty(run_lengths(decode_counts(counts) if isinstance(counts, str) else counts, size))
            return _not_empty(fill([_polygon([float(v) for v in flat]) for flat in shapes], size))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Refused("BROKEN_ANNOTATION") from error

    return draw


def _polygon(flat: Sequence[float]) -> list[tuple[float, float]]:
    """x, y, x, y, … as points; ValueError for fewer than three points, half a point, or numbers that are none."""
    if len(flat) < 6 or len(flat) % 2 or not all(map(math.isfinite, flat)):
        raise ValueError("no polygon")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _not_empty(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not mask.any():
        raise Refused("MASK_EMPTY")
    return mask


def _one_class(classes: Mapping[str, int], only: str | None, path: Path) -> None:
    if only is not None and only not in classes:
        raise UserError(f"{path} has no class '{only}'; its classes are {', '.join(sorted(classes)) or 'none'}.")
    if only is None and len(classes) > 1:
        raise UserError(
            f"{path} has several classes ({', '.join(sorted(classes))}); say with --class which one is the region, and "
            "run it once for each kind."
        )
