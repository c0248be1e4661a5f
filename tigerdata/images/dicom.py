"""DICOM files: frames as 8-bit grey levels, and of the header only what links them to a patient and an examination.

Needs the extra `dicom` (pydicom, and GDCM, CharLS and OpenJPEG for compressed pixels). Every element of the header
stays behind but patient and examination id (which become pseudonyms), sex and age. Grey levels follow the standard's
order (PS3.3 C.7.6.16, C.11): rescale, then the first window where there is one, else the whole range of the bits
stored; a window is what the sonographer saw. Of a file with several frames each one is taken, or every n-th by the
setting `dicom.every`: frames of one cine loop are alike, but they have one patient, so no split tears them apart, and a
frame that is left out unasked could be the one with the nodule.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kb.errors import UserError
from tigerdata.images.frames import DAMAGE, Frame, Refused, check, coloured
from tigerdata.reports import person
from tigerdata.sources.records import MM_PER_PIXEL

if TYPE_CHECKING:
    from tigerdata.images.sector import Box

MAGIC_AT, MAGIC = 128, b"DICM"
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
# PS3.3 C.8.5.5: two-dimensional areas that show tissue or colour flow; the others are curves and spectra.
FORMAT_2D, TISSUE_OR_FLOW = 1, (1, 2)
CENTIMETRES = 3
YEARS = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
# What pydicom and its codecs raise on headers and pixels that are not what they say.
FAULTS = (*DAMAGE, AttributeError, RuntimeError, TypeError, ZeroDivisionError)


def is_dicom(path: Path) -> bool:
    """Tell by its content whether an existing file is DICOM; its name says nothing."""
    try:
        with path.open("rb") as file:
            file.seek(MAGIC_AT)
            return file.read(len(MAGIC)) == MAGIC
    except PermissionError as error:
        raise Refused("UNREADABLE") from error


def available() -> bool:
    """Tell whether the extra `dicom` is installed."""
    return importlib.util.find_spec("pydicom") is not None


def need_extra() -> None:
    """Raise UserError when DICOM files cannot be read here."""
    if not available():
        raise UserError("DICOM files need the extra `dicom`; install it with `pip install 'tigerdata[dicom]'`.")


def read(
    path: Path, max_megapixels: float = 50.0, min_side: int = 16, settings: Mapping[str, Any] | None = None
) -> Iterator[Frame]:
    """Yield the frames of a DICOM file one by one, so that a long loop needs no more memory than a frame.

    A blank frame among others is left out. Raises Refused with DICOM_EXTRA_MISSING, NO_PIXEL_DATA, CODEC_MISSING,
    DICOM_HEADER (an element is missing that the pixels need), UNSUPPORTED_COLOUR, UNSUPPORTED_DEPTH, TOO_LARGE,
    TRUNCATED_IMAGE, and with the codes of `tigerdata.images.frames.check`. pydicom's warnings quote values of the
    header, so they are not shown.
    """
    if not available():
        raise Refused("DICOM_EXTRA_MISSING")
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    settings = settings or {"every": 1, "exam_id": ["AccessionNumber", "StudyInstanceUID"]}
    frames: Iterator[Frame] | None = None
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if frames is None:
                    frames = _frames(pydicom.dcmread(path, defer_size=2**16), max_megapixels, min_side, settings)
                frame = next(frames, None)
        except (InvalidDicomError, BytesLengthException, *FAULTS) as error:
            raise Refused("TRUNCATED_IMAGE") from error
        if frame is None:
            return
        yield frame


def _frames(header: Any, max_megapixels: float, min_side: int, settings: Mapping[str, Any]) -> Iterator[Frame]:
    from pydicom.pixels import iter_pixels

    _check(header, max_megapixels)
    count = max(1, int(header.get("NumberOfFrames") or 1))
    burned = {"YES": True, "NO": False}.get(str(header.get("BurnedInAnnotation", "")).strip().upper())
    boxes, side = regions(header), scale(header)
    who = _who(header, settings["exam_id"])
    refused: Refused | None = None
    taken = 0
    numbers = range(0, count, max(1, settings["every"]))
    for number, pixels in zip(numbers, iter_pixels(header, indices=list(numbers)), strict=True):
        levels, rgb, notes = gray(pixels, header)
        try:
            check(levels, min_side)
        except Refused as error:
            refused = error
            continue
        taken += 1
        yield Frame(levels, rgb, number, notes, boxes, burned, side, who)
    if not taken:
        raise refused or Refused("NO_PIXEL_DATA")


def _check(header: Any, max_megapixels: float) -> None:
    """Refuse by the header what must not, or cannot, be decoded."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in header:
        deep = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        raise Refused("UNSUPPORTED_DEPTH" if deep else "NO_PIXEL_DATA")
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None or any(header.get(name) is None for name in needed):
        raise Refused("DICOM_HEADER")
    if header.Rows * header.Columns > max_megapixels * 1e6:
        raise Refused("TOO_LARGE")
    if header.PhotometricInterpretation not in (*GREY, *COLOUR, PALETTE):
        raise Refused("UNSUPPORTED_COLOUR")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:  # films (MPEG, HEVC) and what is no transfer syntax of pixels
        raise Refused("CODEC_MISSING") from error
    if not decoder.is_available:
        raise Refused("CODEC_MISSING")


def gray(pixels: NDArray, header: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, tuple[str, ...]]:
    """Return one decoded frame ([H, W], or [H, W, 3] in RGB) as grey levels uint8 [H, W], its colours, what was done.

    `header` is the file's pydicom data set.
    """
    from pydicom.pixels import apply_color_lut

    kind = header.PhotometricInterpretation
    if kind in GREY:
        levels, notes = _grey(pixels, header)
        return (255 - levels, None, (*notes, "inverted")) if kind == "MONOCHROME1" else (levels, None, notes)
    notes = ()
    top = 2**header.BitsStored - 1
    if kind == PALETTE:
        pixels, notes = apply_color_lut(pixels, header), ("palette",)
        top = np.iinfo(pixels.dtype).max
    from PIL import Image

    rgb = (pixels if top == 255 else np.rint(pixels * (255.0 / top))).astype(np.uint8)
    return np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.uint8), coloured(rgb), notes


def _grey(pixels: NDArray, header: Any) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Rescale, window, and bring the range of the display to 0-255."""
    from pydicom.pixels import apply_modality_lut, apply_windowing

    bits = header.BitsStored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)
    if "ModalityLUTSequence" in header:
        raise Refused("UNSUPPORTED_DEPTH")
    values = apply_modality_lut(pixels, header)
    first, last = (float(v) for v in apply_modality_lut(np.array([low, high]), header))
    notes = [f"{bits} bits to 8"] if bits != 8 else []
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None and last > first:
        # The window's output fills the range of the values, as pydicom states it.
        values = apply_windowing(values, header)
        notes.append("window")
    first, last = min(first, last), max(first, last)
    if last <= first:
        raise Refused("DICOM_HEADER")
    return np.rint(np.clip((values - first) / (last - first), 0, 1) * 255).astype(np.uint8), tuple(notes)


def regions(header: Any) -> tuple[Box, ...]:
    """Return the scanned areas that the header states (PS3.3 C.8.5.5), left to right; empty when it states none.

    An area inside another one (a colour box on its image) is no view of its own; what reaches beyond the frame is cut.
    """
    boxes: list[Box] = []
    for area in _areas(header):
        corners = [area.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if any(c is None for c in corners):
            continue
        left, top, right, bottom = corners
        box = (max(0, left), max(0, top), min(header.Columns, right + 1), min(header.Rows, bottom + 1))
        if box[0] < box[2] and box[1] < box[3]:
            boxes.append(box)
    unique = sorted(set(boxes))
    return tuple(b for b in unique if not any(b != other and _within(b, other) for other in unique))


def _areas(header: Any) -> list[Any]:
    """The items of the header's sequence that describe a two-dimensional image of tissue or flow."""
    found = header.get("SequenceOfUltrasoundRegions") or ()
    return [a for a in found if a.get("RegionSpatialFormat") == FORMAT_2D and a.get("RegionDataType") in TISSUE_OR_FLOW]


def scale(header: Any) -> float | None:
    """Return the side of a pixel in mm, if the header states one for all scanned areas; None if it states none.

    The calibration of the areas goes before PixelSpacing, which says nothing of what it is measured on. Pixels that
    are no squares (beyond one in a hundred) and areas of different depth have no such side.
    """
    sides: list[float] = []
    for area in _areas(header):
        for axis in "XY":
            if area.get(f"PhysicalUnits{axis}Direction") == CENTIMETRES:
                sides.append(10 * abs(float(area.get(f"PhysicalDelta{axis}") or 0)))
    sides = sides or [float(v) for v in header.get("PixelSpacing") or ()]
    if not sides or not MM_PER_PIXEL[0] <= min(sides) <= max(sides) <= MM_PER_PIXEL[1]:
        return None
    return sum(sides) / len(sides) if max(sides) <= 1.01 * min(sides) else None


def _within(a: Box, b: Box) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def _who(header: Any, exam_names: list[str]) -> dict[str, Any]:
    """What links the file to a patient and an examination, and sex and age; nothing else of the header."""
    exams = (str(header.get(name) or "").strip() for name in exam_names)
    stated = re.fullmatch(r"(\d{1,3})([DWMY])", str(header.get("PatientAge") or "").strip())
    return {
        "patient_id": str(header.get("PatientID") or "").strip() or None,
        "exam_id": next(filter(None, exams), None),
        "sex": person.sex(str(header.get("PatientSex") or "")),
        "age": int(stated[1]) / YEARS[stated[2]] if stated else None,
    }
