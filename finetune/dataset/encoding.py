"""Bytes to text: UTF-8 with or without BOM, UTF-16 with one, cp949, and files that mix UTF-8 and cp949 even within a line.

Text is decoded line by line, so that nothing is held but the line. A byte below 0x30 is never part of a cp949 character, so that quotes,
commas, tabs and newlines cut a line into pieces of which each has one encoding.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UTF8, UTF8_BOM, UTF16, CP949, BROKEN = "UTF-8", "UTF-8 with BOM", "UTF-16", "cp949", "undecodable"
_PIECES = re.compile(rb"""(["',;\t\r\n]+)""")
_MAX_LINE_BYTES = 1 << 20
_HANGUL = re.compile("[\uac00-\ud7a3]")


class Decoder:
    """Lines of one file, and how many of them needed which encoding (`lines`)."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()

    @property
    def words(self) -> str:
        """What was found, for people."""
        if not self.lines:
            return "empty"
        total = sum(self.lines.values())
        if len(self.lines) == 1:
            return next(iter(self.lines))
        return "mixed: " + ", ".join(f"{name} {count} of {total} lines" for name, count in self.lines.most_common())

    def read(self, path: Path) -> Iterator[str]:
        """Lines with their ends, as the csv module wants them."""
        with path.open("rb") as file:
            yield from self._lines(file)

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        head = file.read(3)
        for bom in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            if head.startswith(bom):
                file.seek(0)
                for line in codecs.getreader("utf-16")(file, "replace"):
                    self.lines[UTF16] += 1
                    yield line
                return
        has_bom = head == codecs.BOM_UTF8
        if not has_bom:
            file.seek(0)
        for raw in _pieces(file):
            text, name = decode_line(raw)
            self.lines[UTF8_BOM if has_bom and name == UTF8 else name] += 1
            yield text


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Lines; longer ones than a megabyte in parts, cut where no character is cut."""
    rest = b""
    while part := file.readline(_MAX_LINE_BYTES):
        part = rest + part
        rest = b""
        if not part.endswith(b"\n") and len(part) >= _MAX_LINE_BYTES and (cut := part.rfind(b'"') + 1):
            part, rest = part[:cut], part[cut:]
        yield part
    if rest:
        yield rest


def decode_line(raw: bytes) -> tuple[str, str]:
    """A line's text and the encoding's name; what no encoding explains becomes U+FFFD."""
    try:
        return raw.decode("utf-8"), UTF8
    except UnicodeDecodeError:
        pass
    names: set[str] = set()
    text = "".join(_decode_piece(piece, names) for piece in _PIECES.split(raw))
    return text, BROKEN if BROKEN in names else " and ".join(sorted(names)) if names else UTF8


def _decode_piece(piece: bytes, names: set[str]) -> str:
    if piece.isascii():
        return piece.decode("ascii")
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_foreign(piece, names)
    names.add(UTF8)
    return text


def _decode_foreign(piece: bytes, names: set[str]) -> str:
    try:
        text = piece.decode("cp949")
    except UnicodeDecodeError:
        text = ""
    if text and _HANGUL.search(text):
        names.add(CP949)
        return text
    words = [_decode_word(word) for word in piece.split(b" ")]
    if all(word is not None for word in words):
        names |= {UTF8, CP949}
        return " ".join(word for word in words if word is not None)
    names.add(BROKEN)
    return piece.decode("utf-8", "replace")


def _decode_word(word: bytes) -> str | None:
    for name in ("utf-8", "cp949"):
        try:
            return word.decode(name)
        except UnicodeDecodeError:
            continue
    return None
