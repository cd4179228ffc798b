"""The columns of a table as Arrow types, and as the features that Hugging Face `datasets` reads from a card.

Pictures and sound are structs of `bytes` and `path`, as `datasets` embeds them; what they are is read from the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import polars as pl
import pyarrow as pa

Media = Literal["image", "audio"]
_MEDIA_FIELDS = {"bytes", "path"}
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_AUDIO = (b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_NAMES = {
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.bool_(): "bool",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date32",
}


def arrow_schema(schema: Mapping[str, pl.DataType]) -> pa.Schema:
    """Return the Arrow types that the columns are written with: those that readers of Parquet know best."""
    empty = pl.DataFrame(schema=dict(schema)).to_arrow().schema
    return pa.schema([(field.name, _plain(field.type)) for field in empty])


def features(schema: pa.Schema, media: Mapping[str, Media]) -> list[dict[str, Any]]:
    """Return the features of a card's `dataset_info`; `media` says which columns hold pictures and sound."""
    return [
        {"name": field.name, **({"dtype": media[field.name]} if field.name in media else _feature(field.type))}
        for field in schema
    ]


def media_columns(schema: Mapping[str, pl.DataType]) -> list[str]:
    """Return the columns that may hold pictures or sound."""
    return [
        name
        for name, kind in schema.items()
        if isinstance(kind, pl.Struct) and {field.name for field in kind.fields} == _MEDIA_FIELDS
    ]


def media_kind(values: Iterable[bytes | None]) -> Media | None:
    """Return what the first bytes that are there begin like, None if like neither picture nor sound."""
    head = next((value for value in values if value), b"")
    if head.startswith(b"RIFF"):
        return "image" if head[8:12] == b"WEBP" else "audio"
    if head.startswith(_IMAGES):
        return "image"
    return "audio" if head.startswith(_AUDIO) else None


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_dictionary(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    if _is_list(kind):
        return pa.list_(pa.field("element", _plain(kind.value_type)))
    return kind


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    if _is_list(kind):
        inner = _feature(kind.value_type)
        [(form, value)] = inner.items()
        return {"list": inner if form == "list" else value}
    return {"dtype": _NAMES.get(kind, str(kind))}
