"""Strings planted on frames: Chinese, English and digits as scanners burn them in, with the mask of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CHINESE = (
    "甲状腺右叶", "左叶结节", "横切面", "纵切", "姓名：李小红", "超声科", "峡部", "第一人民医院", "女 45岁", "颈动脉",
    "检查号", "下极", "增益", "深度4.0厘米", "淋巴结", "上极 内侧",
)  # fmt: skip
ENGLISH = (
    "RT LOBE TRANS", "LEFT SAG", "Thyroid", "Isthmus", "Gain 58", "DOE JANE", "MI 0.9", "TIs 0.2", "RIGHT MID",
    "Freq 10.0 MHz", "Depth", "nodule 1", "LT LONG", "General Hospital", "Dist", "SMALL PARTS",
)  # fmt: skip
DIGITS = (
    "2019-11-04 14:09:20", "12.3mm", "1.24 cm", "0.87", "4.0", "D1 9.4mm", "60%", "31 Hz", "10:22:45", "45", "1:2.31",
    "P 100", "634878812", "3.5", "2/3", "F 60",
)  # fmt: skip
WORDS = {"zh": CHINESE, "en": ENGLISH, "digits": DIGITS}
# Red, green, blue.
COLOURS = {"white": (255, 255, 255), "grey": (190, 190, 190), "yellow": (255, 235, 60)}
PLACES = ("corner", "header", "edge", "inside")


@dataclass(frozen=True)
class Planted:
    """A frame with one string: RGB uint8 [H, W, 3], the string's pixels bool [H, W], and how it was drawn."""

    frame: NDArray[np.uint8]
    text: NDArray[np.bool_]
    language: str
    place: str
    colour: str
    size: int
    font: str
    quality: int


FONTS = ("uni", "sans", "dejavu", "dejavu-mono", "hershey")


def glyphs(
    text: str, size: int, rng: np.random.Generator, language: str, fonts: Sequence[str] = FONTS
) -> tuple[NDArray[np.float32], str]:
    """Coverage 0..1 [h, w] of a string of `size` pixels a letter height, cut to its ink, and the font's name.

    Chinese glyphs come with OpenCV 5 (its font "uni"); no other font of this kind is needed on the machine.
    """
    pad = 3 * size
    canvas = np.zeros((4 * size + pad, (len(text) + 4) * size * 2, 3), np.uint8)
    font = "uni" if language == "zh" else str(rng.choice(list(fonts)))
    at = (pad, pad)
    if font == "hershey":
        cv2.putText(
            canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size / 22, (255, 255, 255), max(1, size // 12), cv2.LINE_AA
        )
    elif font.startswith("dejavu"):
        from matplotlib import get_data_path
        from PIL import Image, ImageDraw, ImageFont

        name = "DejaVuSansMono.ttf" if font.endswith("mono") else "DejaVuSans.ttf"
        image = Image.fromarray(canvas)
        ImageDraw.Draw(image).text(
            at, text, font=ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{name}", size), fill=(255, 255, 255)
        )
        canvas = np.array(image)
    else:
        if not hasattr(cv2, "FontFace"):
            raise SystemExit("This needs OpenCV 5, whose built-in font holds Chinese glyphs.")
        cv2.putText(canvas, text, at, (255, 255, 255), cv2.FontFace(font), size, int(rng.choice([400, 600])))
    ink = np.ascontiguousarray(canvas[:, :, 0])
    x, y, w, h = cv2.boundingRect(ink)
    ink = ink[y : y + h, x : x + w]
    coverage = ink.astype(np.float32) / 255
    if rng.random() < 0.3:  # the bitmap fonts of older scanners have no soft edge
        coverage = (coverage > 0.5).astype(np.float32)
    return coverage, font


def plant(
    levels: NDArray[np.uint8],
    sector: NDArray[np.bool_],
    rng: np.random.Generator,
    language: str,
    place: str,
    colour: str,
) -> Planted:
    """Draw one string on a grey frame [H, W] at a place relative to its scan `sector` bool [H, W], then JPEG.

    A place that the frame does not have (a header above a sector that fills the frame) becomes the frame's margin.
    """
    height, width = levels.shape
    for _ in range(50):
        size = int(rng.integers(10, 27))
        text = str(rng.choice(WORDS[language]))
        coverage, font = glyphs(text, size, rng, language)
        if coverage.shape[0] < height - 4 and coverage.shape[1] < 0.9 * width:
            break
    h, w = coverage.shape
    rows, columns = np.flatnonzero(sector.any(axis=1)), np.flatnonzero(sector.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    margin = int(rng.integers(2, 8))
    if place == "corner":
        y = margin if rng.random() < 0.5 else height - h - margin
        x = margin if rng.random() < 0.5 else width - w - margin
    elif place == "header":
        y, x = margin, int(rng.integers(2, max(3, width - w - 2)))
    elif place == "edge":
        side = rng.integers(4)
        y = int(rng.integers(top, max(top + 1, bottom - h)))
        x = int(rng.integers(left, max(left + 1, right - w)))
        if side < 2:
            x = (left if side == 0 else right) - int(rng.uniform(0.2, 0.8) * w)
        else:
            y = (top if side == 2 else bottom) - int(rng.uniform(0.2, 0.8) * h)
    else:
        for _ in range(200):
            y = int(rng.integers(top, max(top + 1, bottom - h)))
            x = int(rng.integers(left, max(left + 1, right - w)))
            if sector[y : y + h, x : x + w].all():
                break
    y, x = int(np.clip(y, 1, height - h - 1)), int(np.clip(x, 1, width - w - 1))
    frame = np.repeat(levels[:, :, None], 3, axis=2).astype(np.float32)
    ink = coverage[:, :, None]
    frame[y : y + h, x : x + w] = frame[y : y + h, x : x + w] * (1 - ink) + np.array(COLOURS[colour], np.float32) * ink
    mask = np.zeros(levels.shape, bool)
    mask[y : y + h, x : x + w] = coverage >= 0.5
    quality = int(rng.choice([75, 85, 95]))
    bgr = np.rint(frame[:, :, ::-1]).astype(np.uint8)
    _, buffer = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(buffer, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1]
    return Planted(np.ascontiguousarray(decoded), mask, language, place, colour, size, font, quality)
