"""Which encoding a text file is in, and its lines: wrong bytes spoil one line, never the file.

The order of Chinese exports: byte order mark, UTF-16 without one, UTF-8, then GB18030 (which holds GBK and GB2312).
Latin-1 is never guessed: it reads everything and understands nothing.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kb.errors import UsageError, UserError

SAMPLE = 4 << 20
CHUNK = 1 << 20
BOMS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with BOM"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
NAMES = {"utf-8": "UTF-8", "gb18030": "GB18030", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
DAMAGED = "\ufffd"
_ASCII = bytes(range(128))
_USUAL = re.compile("[ -~\t\r\n\u2000-\u9fff\uff00-\uffef]")
_WRONG = re.compile("[\udc80-\udcff]")


def detect(sample: bytes, name: str, given: str | None = None) -> tuple[str, str, int]:
    """Codec, the name to tell a person, and the length of the byte order mark of a file's first bytes.

    UTF-8 stays UTF-8 with some wrong bytes in it: half of all bytes beyond ASCII have to form UTF-8 characters, which
    the bytes of GBK text do not. Raises UserError if the bytes are no text, or if the encoding `given` is unknown.
    """
    for mark, codec, title in BOMS:
        if sample.startswith(mark):
            return codec, title, len(mark)
    if given:
        try:
            codec = codecs.lookup(given).name
        except LookupError:
            raise UsageError(f"there is no encoding '{given}'; write utf-8, gb18030, utf-16 or big5.") from None
        return ("utf-16-le" if codec == "utf-16" else codec), NAMES.get(codec, codec), 0
    if sample.count(0) > len(sample) // 50:
        for codec in ("utf-16-le", "utf-16-be"):
            if _looks_utf16(sample, codec):
                return codec, NAMES[codec], 0
    for codec in ("utf-8", "gb18030"):
        if _valid_share(sample, codec) >= 0.5:
            return codec, NAMES[codec], 0
    raise UserError(f"{name} is neither UTF-8 nor GBK text; save it as UTF-8, or name its encoding with --encoding.")


def _looks_utf16(sample: bytes, codec: str) -> bool:
    """Whether bytes with zeros among them are text in UTF-16: line ends, and hardly a character that reports lack."""
    text = sample[: min(len(sample) // 2 * 2, 1 << 16)].decode(codec, "replace")
    return ("\n" in text or "\r" in text) and len(_USUAL.findall(text)) >= 0.9 * len(text)


def _valid_share(sample: bytes, codec: str) -> float:
    """Share of the bytes beyond ASCII that form characters. An incomplete character at the end does not count."""
    beyond = len(sample.translate(None, _ASCII))
    if not beyond:
        return 1.0
    text = codecs.getincrementaldecoder(codec)("surrogateescape").decode(sample)
    wrong = len(_WRONG.findall(text))
    return 1.0 - wrong / beyond


def damaged(text: str) -> bool:
    """Whether a text holds bytes that could not be read, or U+FFFD, which an earlier program put in their place."""
    if text.isascii():
        return False
    try:
        text.encode()  # refuses lone surrogates, hundreds of times faster than a look at each character
    except UnicodeEncodeError:
        return True
    return DAMAGED in text


def decode(data: bytes, name: str, given: str | None = None) -> tuple[str, str]:
    """Text of a whole file, and its encoding as a person calls it. Raises UserError if a byte of it is not text."""
    codec, title, skip = detect(data[:SAMPLE], name, given)
    try:
        return data[skip:].decode(codec), title
    except UnicodeDecodeError:
        raise UserError(
            f"{name} is neither UTF-8 nor GBK text throughout (read as {title}); save it as UTF-8."
        ) from None


class Lines:
    """The lines of a text file, line ends kept; `encoding` says what the file turned out to be in."""

    def __init__(self, path: Path, given: str | None = None) -> None:
        self.path = path
        with path.open("rb") as file:
            self.codec, self.encoding, self._skip = detect(file.read(SAMPLE), path.name, given)

    def __iter__(self) -> Iterator[str]:
        # A wrong byte becomes a lone surrogate, in UTF-16 U+FFFD: the row that holds one is refused, see `damaged`.
        errors = "replace" if self.codec.startswith("utf-16") else "surrogateescape"
        decoder = codecs.getincrementaldecoder(self.codec)(errors)
        with self.path.open("rb") as file:
            file.seek(self._skip)
            yield from _split(file, decoder)


def _split(file: BinaryIO, decoder: codecs.IncrementalDecoder) -> Iterator[str]:
    """Lines that end with LF, CR LF or a lone CR; no other character ends one (`str.splitlines` knows eight more)."""
    rest: list[str] = []
    while True:
        chunk = file.read(CHUNK)
        text = decoder.decode(chunk, final=not chunk)
        if rest and rest[-1].endswith("\r"):
            text = rest.pop() + text
        if chunk and text.endswith("\r"):
            keep, text = text[-1:], text[:-1]
        else:
            keep = ""
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if len(lines) == 1:
            rest.append(lines[0])
        else:
            yield "".join(rest) + lines[0] + "\n"
            for line in lines[1:-1]:
                yield line + "\n"
            rest = [lines[-1]]
        if keep:
            rest.append(keep)
        if not chunk:
            if last := "".join(rest):
                yield last
            return
