"""The encoding of a text file: UTF-8 unless the file says otherwise."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from normloom.core.errors import SourceError
from normloom.readers.opening import open_text
from normloom.readers.records import Fault

UTF8 = "utf-8"
_MARKS = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WIDE = frozenset({"utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"})
_ESCAPED = re.compile(r"[\udc80-\udcff]")
_SAMPLE = 1 << 16
_PIECE = 1 << 20
_LONGEST_RUN = 2  # of letters beyond ASCII in words of languages that cp1252 is for
_PUNCTUATION = frozenset("€‚„…†‡‰‹‘’“”•–—™› ¡¢£¥§©ª«®°±²³´µ¶·¹º»¼½¾¿×")


class Line(NamedTuple):
    """A line with its end; what is not of the encoding stands in `text` as lone surrogates."""

    text: str
    raw: bytes

    def fault(self, encoding: str) -> Fault | None:
        """Say which byte is not of the encoding."""
        if self.text.isascii() or not (broken := _ESCAPED.search(self.text)):
            return None
        offset = len(self.text[: broken.start()].encode(encoding, "surrogateescape")) + 1
        rule = "broken_utf8" if encoding == UTF8 else "broken_encoding"
        name = "UTF-8" if encoding == UTF8 else encoding
        return Fault(rule, f"byte 0x{ord(broken.group()) - 0xDC00:02X} at position {offset} is not {name}")


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file.

    A byte-order mark decides; else it is UTF-8 unless lines that are not UTF-8 outnumber those that are (ASCII
    aside) and all of them read as words and punctuation in cp1252. The file is read once for it, line by line.
    """
    with open_text(path) as stream:
        first = stream.readline(_PIECE)  # JSON may be one long line
        for mark, encoding in _MARKS.items():
            if first.startswith(mark):
                return encoding
        good = bad = size = 0
        sample: list[bytes] = []
        decoder = codecs.getincrementaldecoder(UTF8)()  # a character may continue in the next piece
        while first:
            if not first.isascii() or decoder.getstate()[0]:
                try:
                    decoder.decode(first)
                    good += 1
                except UnicodeDecodeError:
                    decoder.reset()
                    bad += 1
                    if size < _SAMPLE:
                        sample.append(first)
                        size += len(first)
            first = stream.readline(_PIECE)
    return "cp1252" if bad > good and all(map(_is_western, sample)) else UTF8


def lines(path: Path, encoding: str) -> Iterator[Line]:
    """Yield the lines of a text file (parted by line feeds alone), without a byte-order mark."""
    with open_text(path) as stream:
        if encoding in _WIDE:
            try:
                with io.TextIOWrapper(stream, encoding, newline="\n") as decoded:
                    for text in decoded:
                        yield Line(text, text.encode())
            except UnicodeError as error:
                raise SourceError(f"{path} is not all {encoding}: set source.encoding, or save it as UTF-8") from error
            return
        mark = codecs.BOM_UTF8
        for number, raw in enumerate(stream):
            line = raw[len(mark) :] if not number and encoding.startswith("utf-8") and raw.startswith(mark) else raw
            yield Line(line.decode(encoding, "surrogateescape"), line)


def _is_western(line: bytes) -> bool:
    """Return whether a line reads as Western European text: letters in words of their case, punctuation around them."""
    try:
        text = line.decode("cp1252")
    except UnicodeDecodeError:
        return False
    run = 0
    for offset, char in enumerate(text):
        run = 0 if char.isascii() or char in _PUNCTUATION else run + 1
        if char.isascii():
            continue
        before, after = text[offset - 1 : offset], text[offset + 1 : offset + 2]
        if char in _PUNCTUATION:
            inside = before.isalpha() and after.isalpha() and before.isascii()
            if inside and char not in "’·–—ªº":
                return False
        elif char == "ÿ" or run > _LONGEST_RUN or not char.isalpha() or (char.isupper() and before.islower()):
            return False
    return True
