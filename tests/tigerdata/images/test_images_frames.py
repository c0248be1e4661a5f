"""Bad files by the table: each is refused with its code, and nothing is written or opened that should not be."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tigerdata.images.frames import Refused, inside, read_gray, read_mask

FRAME = (np.arange(48 * 64, dtype=np.uint32).reshape(48, 64) % 251).astype(np.uint8)


def _bomb(path: Path) -> None:
    """A valid PNG header of 20000 x 20000 with almost no data behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def _truncated(path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path, format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _animated(path: Path) -> None:
    frames = [Image.fromarray(np.roll(FRAME, k, 0)) for k in (0, 5)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


def _pages(path: Path) -> None:
    frames = [Image.fromarray(np.roll(FRAME, k, 0)) for k in (0, 5)]
    frames[0].save(path, format="TIFF", save_all=True, append_images=frames[1:])


BAD: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty.png": ("EMPTY_FILE", lambda p: p.write_bytes(b"")),
    "page.png": ("UNSUPPORTED_FORMAT", lambda p: p.write_text("<html><body>no image</body></html>")),
    "drawing.png": ("UNSUPPORTED_FORMAT", lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")),
    "film.gif": ("UNSUPPORTED_FORMAT", lambda p: Image.fromarray(FRAME).save(p)),
    "half.png": ("TRUNCATED_IMAGE", lambda p: _truncated(p, "PNG")),
    "half.jpg": ("TRUNCATED_IMAGE", lambda p: _truncated(p, "JPEG")),
    "half.tif": ("TRUNCATED_IMAGE", lambda p: _truncated(p, "TIFF")),
    "bomb.png": ("TOO_LARGE", _bomb),
    "dot.png": ("TOO_SMALL", lambda p: Image.fromarray(np.array([[7]], np.uint8)).save(p)),
    "strip.png": ("ELONGATED", lambda p: Image.fromarray(np.tile(FRAME[:16], (1, 40))).save(p)),
    "moving.png": ("ANIMATED", _animated),
    "pages.tif": ("ANIMATED", _pages),
    "black.png": ("CONSTANT_IMAGE", lambda p: Image.fromarray(np.zeros((64, 64), np.uint8)).save(p)),
    "float.tif": ("UNSUPPORTED_DEPTH", lambda p: Image.fromarray(FRAME.astype(np.float32)).save(p)),
    "gone.png": ("MISSING_FILE", lambda p: None),
    "folder.png": ("NOT_A_FILE", lambda p: p.mkdir()),
    "pipe.png": ("NOT_A_FILE", lambda p: os.mkfifo(p)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_their_code(tmp_path: Path, name: str) -> None:
    code, make = BAD[name]
    make(tmp_path / name)
    with pytest.raises(Refused) as refused:
        read_gray(tmp_path / name)
    assert refused.value.code == code


def test_a_limit_of_the_user_is_kept(tmp_path: Path) -> None:
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    with pytest.raises(Refused, match="TOO_LARGE"):
        read_gray(tmp_path / "a.png", max_megapixels=0.003)
    with pytest.raises(Refused, match="TOO_SMALL"):
        read_gray(tmp_path / "a.png", min_side=49)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_lossless_formats_keep_the_grey_levels(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(FRAME)
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(read_gray(tmp_path / name), FRAME)


def test_the_content_counts_and_not_the_extension(tmp_path: Path) -> None:
    Image.fromarray(FRAME).save(tmp_path / "a.png", format="BMP")
    np.testing.assert_array_equal(read_gray(tmp_path / "a.png"), FRAME)


def test_16_bit_levels_are_scaled_by_their_range_and_not_clipped(tmp_path: Path) -> None:
    twelve = (FRAME.astype(np.uint16) * 16) + 5
    Image.fromarray(twelve).save(tmp_path / "a.png")
    expected = np.rint(twelve * (255 / 4095))
    np.testing.assert_array_equal(read_gray(tmp_path / "a.png"), expected)
    Image.fromarray(FRAME.astype(np.uint16)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "b.png"), FRAME)


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    rgba = np.dstack([FRAME, FRAME, FRAME, np.full_like(FRAME, 255)])
    rgba[:20, :, 3] = 0  # the colours below must not come back
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    levels = read_gray(tmp_path / "a.png")
    assert not levels[:20].any()
    np.testing.assert_array_equal(levels[20:], FRAME[20:])


def test_palette_one_bit_and_colour(tmp_path: Path) -> None:
    Image.fromarray(FRAME).convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "p.png"), FRAME)
    Image.fromarray(FRAME > 100).save(tmp_path / "b.png")
    assert set(np.unique(read_gray(tmp_path / "b.png"))) == {0, 255}
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:24, :, 0], rgb[24:, :, 1] = 200, 200
    Image.fromarray(rgb).save(tmp_path / "c.png")
    levels = read_gray(tmp_path / "c.png")
    assert abs(int(levels[0, 0]) - 0.299 * 200) < 1 and abs(int(levels[-1, 0]) - 0.587 * 200) < 1


def test_exif_turn_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(FRAME).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_gray(tmp_path / "a.png"), np.rot90(FRAME, -1))


@pytest.mark.parametrize(
    "name",
    ["../x.png", "a/../../x.png", "/etc/passwd", "C:\\x.png", "c:x.png", "\\\\host\\share\\x.png", "http://h/x.png",
     "a\0.png", "file:///etc/passwd", "link.png", "linked/x.png"],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(FRAME).save(tmp_path / "x.png")
    (root / "link.png").symlink_to(tmp_path / "x.png")
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(Refused, match="PATH_OUTSIDE_ROOT"):
        inside(root, name)


def test_names_that_stay_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"1")
    (tmp_path / "l.png").symlink_to(tmp_path / "a" / "x.png")
    assert inside(tmp_path, "a/../l.png") == (tmp_path / "a" / "x.png").resolve()


@pytest.mark.parametrize(
    "levels, code",
    [(np.zeros((48, 64), np.uint8), "MASK_EMPTY"), (np.full((48, 64), 255, np.uint8), "MASK_COVERS_ALL"),
     (np.zeros((48, 63), np.uint8), "MASK_SIZE")],
)  # fmt: skip
def test_bad_masks(tmp_path: Path, levels: np.ndarray, code: str) -> None:
    Image.fromarray(levels).save(tmp_path / "m.png")
    with pytest.raises(Refused, match=code):
        read_mask(tmp_path / "m.png", (48, 64))


@pytest.mark.parametrize("top", [1, 255])
def test_masks_of_zero_and_one_or_255_are_the_same(tmp_path: Path, top: int) -> None:
    mask = FRAME > 120
    Image.fromarray(mask.astype(np.uint8) * top).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (48, 64)), mask)


def test_a_channel_of_a_mask_can_be_picked(tmp_path: Path) -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[5:9, 5:9, 1] = 255
    rgb[30:40, 30:40, 2] = 255
    Image.fromarray(rgb).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (48, 64), channel=1).sum() == 16
    assert read_mask(tmp_path / "m.png", (48, 64), channel=2).sum() == 100
