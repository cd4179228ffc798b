"""Croissant metadata of an export, croissant.json (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from normloom.core.rows.text import counted
from normloom.exports.card.facts import Facts
from normloom.exports.features import Media
from normloom.exports.licences import UNKNOWN, identifier
from normloom.exports.tables import DataFile, Written

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
PARQUET = "application/x-parquet"
_SPDX = "https://spdx.org/licenses/"
_MEDIA: Mapping[Media, str] = {"image": "sc:ImageObject", "audio": "sc:AudioObject"}


def croissant(facts: Facts) -> dict[str, Any]:
    """Return the metadata of an export whose tables are Parquet files: a record set for each split of each table."""
    licences = [licence for licence in facts.rights.licences if identifier(licence) != UNKNOWN]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": facts.release.system,
        "alternateName": facts.name,
        "description": facts.about.summary or facts.name,
        "version": facts.release.version,
        "datePublished": f"{facts.release.created:%Y-%m-%d}",
        "url": f"https://huggingface.co/datasets/{facts.repository}" if facts.repository else "https://example.org/",
        "license": [_licence(licence) for licence in licences] or ["unknown"],
        "creator": {"@type": "Organization", "name": "built with Normloom"},
        **({"inLanguage": facts.language} if facts.language else {}),
        "keywords": [*facts.about.tags, "normloom"],
        "citeAs": facts.about.citation or f"{facts.name}, version {facts.release.version}",
        "distribution": [_file(file) for written in facts.tables for file in written.files],
        "recordSet": [
            _record_set(written, file, facts.meanings(written)) for written in facts.tables for file in written.files
        ],
    }


def _licence(licence: str | None) -> str:
    """Return a licence as a URL if it is an SPDX identifier, else as it is given."""
    known = identifier(licence)
    return f"{_SPDX}{known}" if known != "other" else str(licence)


def _file(file: DataFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": PARQUET,
        "sha256": file.sha256,
    }


def _record_set(written: Written, file: DataFile, meanings: Mapping[str, str]) -> dict[str, Any]:
    name = f"{written.shown.name}/{file.split}"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{counted(file.rows)} of the table {written.shown.ref.stage}, split {file.split}",
        **({"key": {"@id": f"{name}/row_id"}} if "row_id" in written.schema.names else {}),
        "field": [_field(field, name, file.path, written, meanings) for field in written.schema],
    }


def _field(field: pa.Field, owner: str, path: str, written: Written, meanings: Mapping[str, str]) -> dict[str, Any]:
    source = {"fileObject": {"@id": path}, "extract": {"column": field.name}}
    media = written.media.get(field.name)
    described = {"description": meanings[field.name]} if field.name in meanings else {}
    head = {"@type": "cr:Field", "@id": f"{owner}/{field.name}", "name": field.name, **described}
    if media:
        return {**head, "dataType": _MEDIA[media], "source": {**source, "transform": {"jsonPath": "$.bytes"}}}
    depth, kind = _unlisted(field.type)
    array = {"isArray": True, "arrayShape": ",".join(["-1"] * depth)} if depth else {}
    if not pa.types.is_struct(kind):
        return {**head, "dataType": _data_type(kind), **array, "source": source}
    return {**head, **array, "source": source, "subField": list(_sub_fields(kind, head["@id"], source, depth))}


def _sub_fields(kind: pa.DataType, owner: str, source: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of a struct, or of the structs in a list, found by their path in it."""
    lead = "$" + "[*]" * depth
    for inner in kind:
        more, plain = _unlisted(inner.type)
        shape = {"isArray": True, "arrayShape": ",".join(["-1"] * (depth + more))} if depth + more else {}
        yield {
            "@type": "cr:Field",
            "@id": f"{owner}/{inner.name}",
            "name": inner.name,
            "dataType": _data_type(plain),
            **shape,
            "source": {**source, "transform": {"jsonPath": f"{lead}.{inner.name}"}},
        }


def _unlisted(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """Return how many lists a type is in, and what they hold."""
    depth = 0
    while pa.types.is_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth, kind


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    if pa.types.is_timestamp(kind):
        return "sc:DateTime"
    return "sc:Date" if pa.types.is_date(kind) else "sc:Text"
