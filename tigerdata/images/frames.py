"""Reading one image file that cannot be trusted into 8-bit grey frames, or a refusal with a code."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from kb.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image

    from tigerdata.images.sector import Box
    from tigerdata.workspace import Workspace

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# A frame longer than this many times its other side is a strip cut out of something, not a scan.
MAX_ELONGATION = 8
EXIF_ORIENTATION = 0x0112
# Colour models that Pillow can turn into luma, and what the image's notes say of them.
COLOURS = {
    "L": "", "1": "1 bit to 8", "P": "palette", "PA": "palette", "RGB": "", "RGBA": "", "RGBX": "", "RGBa": "",
    "LA": "", "La": "", "CMYK": "CMYK", "YCbCr": "",
}  # fmt: skip
# What Pillow's readers raise on damaged content.
DAMAGE = (OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError, IndexError, OverflowError)


class Refused(Exception):
    """A file that is not taken in; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Frame:
    """One decoded frame, not yet cleaned: `levels` uint8 [H, W], and `rgb` [H, W, 3] if any pixel of it has a colour.

    `number` is its place in a file of several frames. `notes` says what was done to get 8-bit grey levels. `boxes` are
    the scanned areas that the file itself states, left to right; `burned_in` whether it states that text is drawn into
    the pixels, `mm_per_pixel` the side of a pixel (None: it says nothing). `who` holds what links the frame to people,
    as the file has it: it goes through pseudonyms before anything of it is stored.
    """

    levels: NDArray[np.uint8]
    rgb: NDArray[np.uint8] | None = None
    number: int = 0
    notes: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    burned_in: bool | None = None
    mm_per_pixel: float | None = None
    who: Mapping[str, Any] = field(default_factory=dict)


def inside(root: Path, name: str) -> Path:
    """Return the file `name` below `root`, links followed. Refused PATH_OUTSIDE_ROOT before anything is opened.

    Absolute names, drive letters, network shares and URLs are outside by their form, on every system.
    """
    windows = PureWindowsPath(name)
    if "\0" in name or "://" in name or windows.drive or windows.root or PurePosixPath(name).is_absolute():
        raise Refused("PATH_OUTSIDE_ROOT")
    top = root.resolve()
    try:
        path = (top / name).resolve()
    except (OSError, RuntimeError) as error:  # a circle of links, a name too long
        raise Refused("MISSING_FILE") from error
    if not path.is_relative_to(top):
        raise Refused("PATH_OUTSIDE_ROOT")
    return path


def read_frames(
    path: Path,
    max_megapixels: float = 50.0,
    min_side: int = 16,
    dicom: Mapping[str, Any] | None = None,
) -> Iterator[Frame]:
    """Yield the frames of a file: one of an image file, one or more of a DICOM file (`tigerdata.images.dicom`).

    `dicom` holds the settings of that name. Raises Refused as `read_gray` does, and with the codes of DICOM files.
    """
    _check_file(path)
    from tigerdata.images import dicom as dicom_files

    if dicom_files.is_dicom(path):
        yield from dicom_files.read(path, max_megapixels, min_side, dicom)
        return
    frame = _read(path, max_megapixels)
    check(frame.levels, min_side)
    yield frame


def read_gray(path: Path, max_megapixels: float = 50.0, min_side: int = 16) -> NDArray[np.uint8]:
    """Return the grey levels of an image file, uint8 [H, W]; of a file of several frames, those of the first.

    Turned as EXIF says; transparency is laid on black (the colours below a transparent pixel must not reappear);
    colour becomes luma (ITU-R 601); 16-bit levels are divided by the smallest of 8, 10, 12, 14, 16 bits that holds the
    frame's maximum, so that a scanner's 12-bit range is neither clipped nor left almost black. The file is only read.
    Raises Refused with one of MISSING_FILE, NOT_A_FILE, EMPTY_FILE, UNSUPPORTED_FORMAT, TOO_LARGE, TOO_SMALL,
    ELONGATED, ANIMATED, TRUNCATED_IMAGE, UNSUPPORTED_DEPTH, UNSUPPORTED_COLOUR, CONSTANT_IMAGE, UNREADABLE.
    """
    return next(read_frames(path, max_megapixels, min_side)).levels


def check(levels: NDArray[np.uint8], min_side: int) -> None:
    """Refuse levels [H, W] that are no scan: TOO_SMALL, ELONGATED, CONSTANT_IMAGE."""
    if min(levels.shape) < min_side:
        raise Refused("TOO_SMALL")
    if max(levels.shape) > MAX_ELONGATION * min(levels.shape):
        raise Refused("ELONGATED")
    if levels.min() == levels.max():
        raise Refused("CONSTANT_IMAGE")


def read_mask(
    path: Path, shape: tuple[int, int], channel: int | None = None, max_megapixels: float = 50.0
) -> NDArray[np.bool_]:
    """Return a mask file as bool [H, W]; files of 0 and 1 and files of 0 and 255 (JPEG noise included) both work.

    `channel` picks one colour (0 red, 1 green, 2 blue) where the classes are drawn in different colours. Besides the
    codes of `read_gray`, Refused MASK_SIZE when it is not `shape`, MASK_EMPTY, and MASK_COVERS_ALL.
    """
    _check_file(path)
    levels = _read(path, max_megapixels, channel).levels
    if levels.shape != shape:
        raise Refused("MASK_SIZE")
    mask = levels > (0 if levels.max() <= 1 else 127)
    if not mask.any():
        raise Refused("MASK_EMPTY")
    if mask.all():
        raise Refused("MASK_COVERS_ALL")
    return mask


def _check_file(path: Path) -> None:
    """Refuse what must not be opened: MISSING_FILE, NOT_A_FILE, EMPTY_FILE, UNREADABLE."""
    try:
        if not path.exists():
            raise Refused("MISSING_FILE")
        if not path.is_file():
            raise Refused("NOT_A_FILE")  # a folder, or a pipe or device that would never end
        if path.stat().st_size == 0:
            raise Refused("EMPTY_FILE")
    except PermissionError as error:
        raise Refused("UNREADABLE") from error
    except (OSError, ValueError) as error:  # a name longer than the file system knows
        raise Refused("MISSING_FILE") from error


def _read(path: Path, max_megapixels: float, channel: int | None = None) -> Frame:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Our own limit, checked on the header's size before any pixel is decoded, is the stricter one.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > max_megapixels * 1e6:
                    raise Refused("TOO_LARGE")
                if getattr(image, "n_frames", 1) > 1:
                    raise Refused("ANIMATED")
                image.load()
                turned = ImageOps.exif_transpose(image)
                turn = image.getexif().get(EXIF_ORIENTATION, 1)
                return _frame(turned, channel, ["exif turned"] if turn in range(2, 9) else [])
    except PermissionError as error:
        raise Refused("UNREADABLE") from error
    except Image.DecompressionBombError as error:
        raise Refused("TOO_LARGE") from error
    except UnidentifiedImageError as error:
        raise Refused("UNSUPPORTED_FORMAT") from error
    except DAMAGE as error:
        raise Refused("TRUNCATED_IMAGE") from error


def _frame(image: Image, channel: int | None, notes: list[str]) -> Frame:
    if image.mode.startswith("I") or image.mode == "F":
        levels, depth = _deep(np.asarray(image))
        return Frame(levels, notes=(*notes, depth))
    if image.mode not in COLOURS:
        raise Refused("UNSUPPORTED_COLOUR")
    notes = [*notes, *filter(None, [COLOURS[image.mode]])]
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        from PIL import Image as pillow

        layered = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, (0, 0, 0, 255)), layered).convert("RGB")
        notes.append("alpha on black")
    if channel is not None:
        return Frame(np.asarray(image.convert("RGB"), dtype=np.uint8)[:, :, channel], notes=tuple(notes))
    levels = np.asarray(image.convert("L"), dtype=np.uint8)
    rgb = None if image.mode in ("1", "L") else coloured(np.asarray(image.convert("RGB"), dtype=np.uint8))
    return Frame(levels, rgb, notes=tuple(notes))


def coloured(rgb: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return levels [H, W, 3] as they are, None if red, green and blue are the same everywhere."""
    grey = np.array_equal(rgb[:, :, 0], rgb[:, :, 1]) and np.array_equal(rgb[:, :, 1], rgb[:, :, 2])
    return None if grey else rgb


def _deep(levels: NDArray) -> tuple[NDArray[np.uint8], str]:
    """Bring integer levels of up to 16 bits to 8; floats, negative and deeper levels have no stated white point."""
    if not np.issubdtype(levels.dtype, np.integer) or levels.min() < 0 or levels.max() > 65535:
        raise Refused("UNSUPPORTED_DEPTH")
    top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if levels.max() < 2**bits)
    return np.rint(levels * (255.0 / top)).astype(np.uint8), f"{top.bit_length()} bits to 8"


def write_gray(path: Path, levels: NDArray[np.uint8]) -> bool:
    """Write a grey PNG unless the same bytes are there already; return whether it was written."""
    import cv2

    done, buffer = cv2.imencode(".png", levels)
    if not done:
        raise UserError(f"{path} could not be encoded as PNG; check the free memory and try again.")
    content = buffer.tobytes()
    if path.is_file() and path.read_bytes() == content:
        return False
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return True


def read_clean(ws: Workspace, image_id: str) -> NDArray[np.uint8]:
    """Return the clean frame of an ingested image, uint8 [H, W]; UserError when its file is gone or damaged."""
    import cv2

    frame = cv2.imread(str(ws.frame_path(image_id)), cv2.IMREAD_GRAYSCALE)
    if frame is None:
        raise UserError(
            f"The clean frame of image {image_id} is missing or damaged; run `tigerdata ingest images` again."
        )
    return np.asarray(frame, dtype=np.uint8)
