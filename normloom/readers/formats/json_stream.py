"""The records of a JSON array, one after the other, without the whole file in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from normloom.core.errors import SourceError
from normloom.readers.formats.json_values import DECODER, as_object
from normloom.readers.opening import open_text
from normloom.readers.records import Record, one_line, type_name

_CHUNK = 1 << 20
_BLANK = " \t\r\n"


class _Text:
    """A JSON text that is read value by value; errors are ValueErrors."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._buffer = ""
        self._position = 0
        self._chunk = _CHUNK

    def peek(self) -> str:
        """Return the next character that is no blank, nothing at the end."""
        while True:
            while self._position < len(self._buffer) and self._buffer[self._position] in _BLANK:
                self._position += 1
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def take(self, *expected: str) -> str:
        """Return the next character, one of those expected."""
        if (char := self.peek()) not in expected or not char:
            raise ValueError(f"expected {' or '.join(expected)}, found {char or 'the end of the file'}")
        self._position += 1
        return char

    def end(self) -> None:
        """Raise ValueError if anything is left."""
        if self.peek():
            raise ValueError("unexpected text after the JSON value")

    def value(self) -> Any:
        """Return the next value. Raises ValueError or RecursionError."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end == len(self._buffer) and self._more():  # a number may continue
                continue
            self._position, self._chunk = end, _CHUNK
            return value

    def _more(self) -> bool:
        new = self._stream.read(self._chunk)
        self._buffer, self._position = self._buffer[self._position :] + new, 0
        self._chunk = max(_CHUNK, len(self._buffer))  # doubles while one value grows: each byte is parsed a few times
        return bool(new)


def array_records(path: Path, encoding: str, field: str | None) -> Iterator[Record]:
    """Yield the items of the array that the file is, or that stands under a field such as `data.items`.

    Raises SourceError for a file that is not JSON to its end or has no array there.
    """
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    with io.TextIOWrapper(open_text(path), encoding) as stream:
        text = _Text(stream)
        try:
            yield from _within(path, text, field.split(".") if field else [], field)
            text.end()
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{path} is not one JSON array ({one_line(error)}): "
                "correct it, or name the file .jsonl if each line is an object"
            ) from error


def _within(path: Path, text: _Text, steps: list[str], field: str | None) -> Iterator[Record]:
    if not steps:
        yield from _items(path, text, field)
        return
    if text.peek() != "{":
        raise SourceError(f"{path} holds {type_name(text.value())} in place of the object of source.field={field!r}")
    text.take("{")
    names: list[str] = []
    while text.peek() != "}":
        if names:
            text.take(",")
        name = text.value()
        text.take(":")
        if name in names:
            raise ValueError(f"the name {name!r} occurs twice in one object")
        names.append(name)
        if name == steps[0]:
            yield from _within(path, text, steps[1:], field)
        else:
            text.value()
    text.take("}")
    if steps[0] not in names:
        listed = ", ".join(map(repr, names[:20])) or "none"
        raise SourceError(f"{path} has no field {steps[0]!r} of source.field={field!r}; its fields are {listed}")


def _items(path: Path, text: _Text, field: str | None) -> Iterator[Record]:
    if text.peek() != "[":
        value = text.value()
        hint = ""
        if isinstance(value, dict) and field is None:
            arrays = [name for name, inner in value.items() if isinstance(inner, list)]
            hint = f"; set source.field to one of its fields: {', '.join(arrays)}" if arrays else ""
        where = f" under source.field={field!r}" if field else ""
        raise SourceError(f"{path} holds {type_name(value)}{where}: expected a JSON array of objects{hint}")
    text.take("[")
    first = True
    while text.peek() != "]":
        if not first:
            text.take(",")
        first = False
        item = text.value()
        yield Record(as_object(item), item)
    text.take("]")
