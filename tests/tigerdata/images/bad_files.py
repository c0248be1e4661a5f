"""Files that must not go in as they are, each made by a function of its path, with the code that refuses it."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Make = Callable[[Path], Any]
FRAME = (np.arange(48 * 64, dtype=np.uint32).reshape(48, 64) % 251).astype(np.uint8)
NONE = np.zeros_like(FRAME)
MOVED = [np.roll(FRAME, 5 * k, 0) for k in range(3)]
# Lies outside the set's folder: none of it may be read.
SECRET = "secret.png"


def texture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64), dtype=np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes = zlib.compress(b"\0" * 1000), extra: bytes = b"") -> bytes:
    """A PNG that says what size it is, whatever is behind it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def full_bomb(path: Path) -> None:
    """20000 x 20000 pixels that are really there: 400 MB of zeros in 400 kB."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" * 20001) for _ in range(20000)) + packer.flush()
    path.write_bytes(png(20000, 20000, data))


def bitmap(width: int, height: int) -> bytes:
    """Header of a BMP file without its pixels."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def cut(kind: str, share: float = 0.5, **options: Any) -> Make:
    def make(path: Path) -> None:
        Image.fromarray(texture(len(kind))).save(path, format=kind, **options)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return make


def film(kind: str, **options: Any) -> Make:
    def make(path: Path) -> None:
        frames = [Image.fromarray(f) for f in MOVED]
        frames[0].save(path, format=kind, save_all=True, append_images=frames[1:], **options)

    return make


def saved(array: np.ndarray, kind: str = "PNG", mode: str | None = None) -> Make:
    image = Image.fromarray(array)
    return lambda path: (image.convert(mode) if mode else image).save(path, format=kind)


def raw(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def flipped_bits(path: Path) -> None:
    Image.fromarray(texture(3)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def nothing(path: Path) -> None:
    """A name of which there is no file, or none inside the folder."""


TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"A" * 10**8))
HIDDEN = np.dstack([texture(4)] * 3 + [NONE])  # all of it transparent

# File name -> (code, maker).
FILES: dict[str, tuple[str, Make]] = {
    "zero.png": ("EMPTY_FILE", raw(b"")),
    "zero.jpg": ("EMPTY_FILE", raw(b"")),
    "page.png": ("UNSUPPORTED_FORMAT", raw(b"<!DOCTYPE html><html><body>404</body></html>")),
    "login.jpg": ("UNSUPPORTED_FORMAT", raw(b"<html><script>alert(1)</script></html>")),
    "drawing.svg": ("UNSUPPORTED_FORMAT", raw(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")),
    "page.eps": ("UNSUPPORTED_FORMAT", raw(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\nshowpage\n")),
    "noise.png": ("UNSUPPORTED_FORMAT", raw(texture(1).tobytes())),
    "zip.png": ("UNSUPPORTED_FORMAT", raw(b"PK\x03\x04" + b"\0" * 200)),
    "still.gif": ("UNSUPPORTED_FORMAT", saved(FRAME, "GIF")),
    "film.gif": ("UNSUPPORTED_FORMAT", film("GIF")),
    "gif_named.png": ("UNSUPPORTED_FORMAT", film("GIF", loop=0)),
    "signature.png": ("UNSUPPORTED_FORMAT", raw(b"\x89PNG\r\n\x1a")),
    "header.png": ("TRUNCATED_IMAGE", raw(png(64, 48)[:60])),
    "half.png": ("TRUNCATED_IMAGE", cut("PNG")),
    "half.jpg": ("TRUNCATED_IMAGE", cut("JPEG")),
    "late.jpg": ("TRUNCATED_IMAGE", cut("JPEG", 0.9)),
    "half.tif": ("TRUNCATED_IMAGE", cut("TIFF")),
    "half.bmp": ("TRUNCATED_IMAGE", cut("BMP")),
    "half.webp": ("TRUNCATED_IMAGE", cut("WEBP", lossless=True)),
    "bits.png": ("TRUNCATED_IMAGE", flipped_bits),
    "text_bomb.png": ("TRUNCATED_IMAGE", raw(png(64, 48, extra=TEXT_BOMB))),
    "bomb.png": ("TOO_LARGE", raw(png(20000, 20000))),
    "bomb_full.png": ("TOO_LARGE", full_bomb),
    "bomb_100.png": ("TOO_LARGE", raw(png(10000, 10000))),
    "bomb.bmp": ("TOO_LARGE", raw(bitmap(20000, 20000))),
    "dot.png": ("TOO_SMALL", saved(np.array([[7]], np.uint8))),
    "thin.png": ("TOO_SMALL", saved(FRAME[:1])),
    "strip.png": ("ELONGATED", saved(np.tile(FRAME[:16], (1, 40)))),
    "tower.png": ("ELONGATED", saved(np.tile(FRAME[:, :16], (40, 1)))),
    "film.png": ("ANIMATED", film("PNG")),
    "film.webp": ("ANIMATED", film("WEBP", lossless=True)),
    "pages.tif": ("ANIMATED", film("TIFF")),
    "black.png": ("CONSTANT_IMAGE", saved(NONE)),
    "white.jpg": ("CONSTANT_IMAGE", saved(np.full((48, 64), 255, np.uint8), "JPEG")),
    "deep_flat.png": ("CONSTANT_IMAGE", saved(np.full((48, 64), 999, np.uint16))),
    "hidden.png": ("CONSTANT_IMAGE", saved(HIDDEN)),
    "float.tif": ("UNSUPPORTED_DEPTH", saved(FRAME.astype(np.float32), "TIFF")),
    "deep.tif": ("UNSUPPORTED_DEPTH", saved(FRAME.astype(np.int32) * 1000, "TIFF")),
    "lab.tif": ("UNSUPPORTED_COLOUR", lambda p: Image.merge("LAB", [Image.fromarray(FRAME)] * 3).save(p)),
    "gone.png": ("MISSING_FILE", nothing),
    "n" * 300 + ".png": ("MISSING_FILE", nothing),
    "dangling.png": ("MISSING_FILE", lambda p: p.symlink_to(p.parent / "nowhere.png")),
    "circle.png": ("MISSING_FILE", lambda p: p.symlink_to(p)),
    "folder.png": ("NOT_A_FILE", lambda p: p.mkdir()),
    "pipe.png": ("NOT_A_FILE", lambda p: os.mkfifo(p)),
    "link.png": ("PATH_OUTSIDE_ROOT", lambda p: p.symlink_to(p.parents[1] / SECRET)),
    "linked/secret.png": ("PATH_OUTSIDE_ROOT", lambda p: p.parent.symlink_to(p.parents[2])),
    "../secret.png": ("PATH_OUTSIDE_ROOT", nothing),
    "a/../../secret.png": ("PATH_OUTSIDE_ROOT", nothing),
    "/etc/passwd": ("PATH_OUTSIDE_ROOT", nothing),
    "/dev/zero": ("PATH_OUTSIDE_ROOT", nothing),
    "C:\\Users\\x.png": ("PATH_OUTSIDE_ROOT", nothing),
    "\\\\host\\share\\x.png": ("PATH_OUTSIDE_ROOT", nothing),
    "http://example.org/x.png": ("PATH_OUTSIDE_ROOT", nothing),
    "file:///etc/passwd": ("PATH_OUTSIDE_ROOT", nothing),
    "nul\0.png": ("PATH_OUTSIDE_ROOT", nothing),
}

DEEP = texture(14).astype(np.uint16) * 16 + 5
ALPHA = np.where(np.arange(48)[:, None] < 20, NONE, np.uint8(255)).astype(np.uint8)
# Odd, and taken: the grey levels that must come out, and the maker.
ODD: dict[str, tuple[np.ndarray, Make]] = {
    "named.png": (texture(10), saved(texture(10), "BMP")),
    "-rf.png": (texture(11), saved(texture(11))),
    "CON.png": (texture(12), saved(texture(12))),
    "患者\u202e甲 '; DROP TABLE images.png": (texture(13), saved(texture(13))),
    "deep.png": (np.rint(DEEP * (255 / 4095)), saved(DEEP)),
    "alpha.png": (np.where(ALPHA > 0, texture(15), 0), saved(np.dstack([texture(15)] * 3 + [ALPHA]))),
    "cmyk.tif": (
        255 - texture(16),
        lambda p: Image.merge("CMYK", [Image.fromarray(c) for c in (NONE, NONE, NONE, texture(16))]).save(p),
    ),
    "rgb.png": (texture(17), saved(np.dstack([texture(17)] * 3))),
    "la.png": (texture(18), saved(texture(18), mode="LA")),
}
