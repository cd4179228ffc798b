"""Sources larger than memory: DuckDB streams their files into the table `facts`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normloom.core.errors import SourceError
from normloom.readers import Located

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FORMATS = {"conceptnet": ("csv", "tsv", "parquet"), "wikidata": ("json", "jsonl")}
_NOT_STREAMED = (".bz2", ".xz")

_DUMP = """
    CREATE TEMP TABLE raw AS
    SELECT uri, relation, start, stop, (meta ->> '$.weight')::DOUBLE AS weight, meta ->> '$.surfaceText' AS told
    FROM read_csv(
        $files, delim = '\t', header = false, quote = '', escape = '', strict_mode = false, store_rejects = true,
        columns = {'uri': 'VARCHAR', 'relation': 'VARCHAR', 'start': 'VARCHAR', 'stop': 'VARCHAR', 'meta': 'JSON'}
    )
    WHERE split_part(start, '/', 3) = $language AND split_part(stop, '/', 3) = $language
"""
_TABLE = """
    CREATE TEMP TABLE raw AS
    SELECT concat_ws(',', relation, start, "end") AS uri, relation, start, "end" AS stop, weight::DOUBLE AS weight,
        surface_text AS told
    FROM read_parquet($files)
    WHERE split_part(start, '/', 3) = $language AND split_part("end", '/', 3) = $language
"""
_ASSERTIONS = r"""
    INSERT INTO facts
    WITH spoken AS (
        SELECT uri, split_part(relation, '/', 3) AS relation, coalesce(weight, 1) AS weight,
            replace(split_part(start, '/', 4), '_', ' ') AS head, replace(split_part(stop, '/', 4), '_', ' ') AS tail,
            nullif(trim(regexp_replace(told, '\[\[|\]\]|^\*', '', 'g')), '') AS told
        FROM raw WHERE coalesce(weight, 1) > 0
    ), sides AS (
        SELECT *, unnest([{'surface': head, 'other': tail}, {'surface': tail, 'other': head}]) AS side FROM spoken
    )
    SELECT lower(side.surface), relation, side.other, weight / (1 + weight),
        coalesce(told, concat_ws(' ', head, lower(regexp_replace(relation, '([a-z])([A-Z])', '\1 \2', 'g')), tail)),
        'conceptnet', uri
    FROM sides
"""
_ENTITIES = """
    CREATE TEMP TABLE raw AS
    SELECT id, json_extract_string(labels, $label) AS label, json_extract_string(descriptions, $label) AS told,
        json_extract_string(aliases, $aliases) AS others,
        list_concat(
            json_extract_string(claims, '$.P31[*].mainsnak.datavalue.value.id'),
            json_extract_string(claims, '$.P279[*].mainsnak.datavalue.value.id')
        ) AS kinds
    FROM read_json(
        $files, format = $form, maximum_object_size = 33554432,
        columns = {'id': 'VARCHAR', 'labels': 'JSON', 'descriptions': 'JSON', 'aliases': 'JSON', 'claims': 'JSON'}
    )
"""
_ITEMS = """
    INSERT INTO facts
    WITH named AS (
        SELECT id, label, told, kinds, unnest(list_distinct(list_prepend(label, coalesce(others, [])))) AS name
        FROM raw WHERE label IS NOT NULL
    ), above AS (SELECT id, label, name, unnest(kinds) AS kind FROM named)
    SELECT lower(name), 'Description', told, 0.5, concat(label, ': ', told), 'wikidata', id
    FROM named WHERE told IS NOT NULL
    UNION ALL
    SELECT lower(name), 'IsA', raw.label, 0.5, concat(above.label, ' is a ', raw.label), 'wikidata', above.id
    FROM above JOIN raw ON raw.id = above.kind WHERE raw.label IS NOT NULL
"""


@dataclass(frozen=True)
class Read:
    """How many records of a source were read, and how many lines could not be."""

    read: int
    rejected: int = 0


def conceptnet(base: DuckDBPyConnection, source: Located, language: str) -> Read:
    """Insert the assertions between terms of a language, each found from both of its ends.

    `source` is ConceptNet's dump (tab-separated: URI, relation, start, end, JSON with weight and surfaceText), or
    Parquet with relation, start, end, weight and surface_text. A weight w becomes w / (1 + w).
    """
    given = {"files": _files(source, "conceptnet"), "language": language}
    if source.format == "parquet":
        return _inserted(base, _TABLE, given, _ASSERTIONS)
    read = _inserted(base, _DUMP, given, _ASSERTIONS)
    return Read(read.read, _one(base, "SELECT count(DISTINCT (file_id, line)) FROM reject_errors"))


def wikidata(base: DuckDBPyConnection, source: Located, language: str) -> Read:
    """Insert what each entity is (its description, P31, P279), found from its label and its aliases.

    `source` is Wikidata's JSON dump, one array of entities, or one entity a line. Each fact weighs 0.5.
    """
    given = {
        "files": _files(source, "wikidata"),
        "form": "array" if source.format == "json" else "newline_delimited",
        "label": f'$."{language}".value',
        "aliases": f'$."{language}"[*].value',
    }
    return _inserted(base, _ENTITIES, given, _ITEMS)


STREAMED: dict[str, Callable[[DuckDBPyConnection, Located, str], Read]] = {
    "conceptnet": conceptnet,
    "wikidata": wikidata,
}


def _inserted(base: DuckDBPyConnection, reading: str, given: dict[str, Any], inserting: str) -> Read:
    base.execute(reading, given)
    base.execute(inserting)
    count = _one(base, "SELECT count(*) FROM raw")
    base.execute("DROP TABLE raw")
    return Read(count)


def _one(base: DuckDBPyConnection, query: str) -> int:
    [(count,)] = base.execute(query).fetchall()  # all: a result left open blocks the base
    return int(count)


def _files(source: Located, kind: str) -> list[str]:
    """Return the paths of the files. Raises SourceError for a format or a compression that cannot be streamed."""
    if source.format not in _FORMATS[kind]:
        raise SourceError(f"{source.name} is {source.format}: expected {kind} as one of {', '.join(_FORMATS[kind])}")
    for file in source.files:
        if file.suffix in _NOT_STREAMED:
            raise SourceError(f"{file} cannot be streamed ({file.suffix}): recompress it with gzip or zstd")
    return [str(file) for file in source.files]
