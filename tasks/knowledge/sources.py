"""From the files of a source to facts: by DuckDB, which streams files that are larger than memory, or by rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.errors import SourceError
from normloom.readers import Located, as_text, read_source
from normloom.schemas.knowledge_tables import FACT_COLUMNS, LEXICON, SYMBOLS, WORDNET
from normloom.tasks.knowledge.wordnet import WordNetFolder, senses

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMATS = {"conceptnet": ("csv", "tsv", "parquet"), "wikidata": ("json", "jsonl")}
_LARGEST_ENTITY = 256 * 1024 * 1024  # bytes of JSON
_WORDS = "lower(regexp_replace(split_part({relation}, '/', 3), '([a-z])([A-Z])', '\\1 \\2', 'g'))"
_TERM = "replace(split_part({node}, '/', 4), '_', ' ')"


@dataclass(frozen=True)
class Read:
    """How many records of a source were read, and how many lines could not be."""

    read: int
    rejected: int = 0


def conceptnet(base: DuckDBPyConnection, source: Located, language: str, into: str) -> Read:
    """Insert the assertions between terms of a language, each found from both of its ends.

    `source` is ConceptNet's dump (tab-separated: URI, relation, start, end, JSON with weight and surfaceText), or
    Parquet with relation, start, end, weight and surface_text. A weight w becomes w / (1 + w).
    """
    files = _files(source, "conceptnet")
    if source.format == "parquet":
        raw = (
            'SELECT concat_ws(\',\', relation, start, "end") AS uri, relation, start, "end" AS stop, '
            f"weight::DOUBLE AS weight, surface_text AS told FROM read_parquet({files})"
        )
    else:
        raw = (
            "SELECT uri, relation, start, stop, (meta ->> '$.weight')::DOUBLE AS weight, "
            "meta ->> '$.surfaceText' AS told "
            f"FROM read_csv({files}, delim = '\\t', header = false, quote = '', escape = '', store_rejects = true, "
            "strict_mode = false, columns = {'uri': 'VARCHAR', 'relation': 'VARCHAR', 'start': 'VARCHAR', "
            "'stop': 'VARCHAR', 'meta': 'JSON'})"
        )
    code = quoted(language)
    base.execute(
        f"CREATE TEMP TABLE assertions AS SELECT uri, relation, {_TERM.format(node='start')} AS head, "
        f"{_TERM.format(node='stop')} AS tail, coalesce(weight, 1) / (1 + coalesce(weight, 1)) AS weight, told "
        f"FROM ({raw}) WHERE split_part(start, '/', 3) = {code} AND split_part(stop, '/', 3) = {code} "
        "AND coalesce(weight, 1) > 0"
    )
    words = _WORDS.format(relation="relation")
    sentence = (
        "coalesce(nullif(trim(regexp_replace(told, '\\[\\[|\\]\\]|^\\*', '', 'g')), ''), "
        f"concat_ws(' ', head, {words}, tail))"
    )
    base.execute(
        f"INSERT INTO {into} SELECT lower(side.surface), split_part(relation, '/', 3), side.other, weight, {sentence}, "
        "'conceptnet', uri FROM (SELECT *, unnest([{'surface': head, 'other': tail}, "
        "{'surface': tail, 'other': head}]) AS side FROM assertions)"
    )
    read = _count(base, "assertions")
    base.execute("DROP TABLE assertions")
    return Read(read, _count(base, "reject_errors") if source.format != "parquet" else 0)


def wikidata(base: DuckDBPyConnection, source: Located, language: str, into: str) -> Read:
    """Insert what each entity is (its description, P31, P279), found from its label and its aliases.

    `source` is Wikidata's JSON dump, one array of entities or one entity a line.
    """
    files, code = _files(source, "wikidata"), language.replace("'", "")
    form = "array" if source.format == "json" else "newline_delimited"
    base.execute(
        "CREATE TEMP TABLE entities AS SELECT id, "
        f"labels ->> '$.\"{code}\".value' AS label, descriptions ->> '$.\"{code}\".value' AS told, "
        f"aliases ->> '$.\"{code}\"[*].value' AS others, "
        "list_concat(claims ->> '$.P31[*].mainsnak.datavalue.value.id', "
        "claims ->> '$.P279[*].mainsnak.datavalue.value.id') AS kinds "
        f"FROM read_json({files}, format = '{form}', maximum_object_size = {_LARGEST_ENTITY}, "
        "columns = {'id': 'VARCHAR', 'labels': 'JSON', 'descriptions': 'JSON', 'aliases': 'JSON', 'claims': 'JSON'})"
    )
    base.execute(
        f"INSERT INTO {into} WITH named AS (SELECT id, label, told, kinds, "
        "unnest(list_distinct(list_prepend(label, coalesce(others, [])))) AS name FROM entities "
        "WHERE label IS NOT NULL), "
        "above AS (SELECT named.*, kind.label AS kind FROM (SELECT *, unnest(kinds) AS above FROM named) AS named "
        "JOIN entities AS kind ON kind.id = named.above WHERE kind.label IS NOT NULL) "
        "SELECT lower(name), 'Description', told, 0.5, concat(label, ': ', told), 'wikidata', id "
        "FROM named WHERE told IS NOT NULL UNION ALL "
        "SELECT lower(name), 'IsA', kind, 0.5, concat(label, ' is a ', kind), 'wikidata', id FROM above"
    )
    read = _count(base, "entities")
    base.execute("DROP TABLE entities")
    return Read(read)


def wordnet(source: WordNetFolder, *, most: int) -> tuple[pl.DataFrame, Read]:
    """Return what each lemma is in its first senses; the weight of sense n is 1 / (1 + n)."""
    rows, count = [], 0
    for sense in senses(source, most=most):
        count += 1
        weight, reference = 1 / (1 + sense.number), f"wordnet:{sense.synset}"
        rows.append((sense.lemma, "Gloss", sense.gloss, weight, f"{sense.lemma}: {sense.gloss}", WORDNET, reference))
        if sense.kind_of:
            told = f"{sense.lemma} is a kind of {sense.kind_of}"
            rows.append((sense.lemma, "IsA", sense.kind_of, weight, told, WORDNET, reference))
    return _frame(rows), Read(count)


def lexicon(source: Located) -> tuple[pl.DataFrame, Read]:
    """Return the n-grams of a lexicon of abuse: a table with `ngram` and `prophate`, its share of hate (0 to 1)."""
    rows, read = _table(source, ("ngram", "prophate"))
    facts = [
        (
            ngram,
            "Lexicon",
            weight,
            _share(source, number, weight),
            f"“{ngram}” is in a lexicon of abusive words, weight {float(weight):.2f}",
            LEXICON,
            f"row {number}",
        )
        for number, ngram, weight in rows
    ]
    return _frame(facts), read


def symbols(source: Located) -> tuple[pl.DataFrame, Read]:
    """Return the symbols of a table with `symbol`, `meaning` and `source`; each weighs 1."""
    rows, read = _table(source, ("symbol", "meaning", "source"))
    facts = [
        (symbol, "Symbol", meaning, 1.0, f"{symbol}: {meaning}", SYMBOLS, f"row {number}, {origin}")
        for number, symbol, meaning, origin in rows
    ]
    return _frame(facts), read


BY_DUCKDB: dict[str, Callable[[DuckDBPyConnection, Located, str, str], Read]] = {
    "conceptnet": conceptnet,
    "wikidata": wikidata,
}


def _table(source: Located, columns: tuple[str, ...]) -> tuple[list[tuple[int, ...]], Read]:
    """Return the rows of a table that have all columns, as (record, texts); the others are counted as rejected."""
    found = read_source(source, text_column=None, keep=columns)
    texts = found.rows.select(
        "source_row", *(as_text(found.rows[name]).str.strip_chars().replace("", None) for name in columns)
    )
    whole = texts.drop_nulls()
    return whole.rows(), Read(whole.height, texts.height - whole.height + len(found.rejected))


def _share(source: Located, number: int, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SourceError(f"{source.name}: record {number}: prophate is {text!r}, expected a share from 0 to 1")
    return share


def _frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    made = pl.DataFrame(rows, schema=FACT_COLUMNS, orient="row")
    return made.with_columns(pl.col("surface").str.to_lowercase())


def _files(source: Located, kind: str) -> str:
    """Return the files as a list in SQL. Raises SourceError for a format or compression that cannot be streamed."""
    if source.format not in FORMATS[kind]:
        raise SourceError(f"{source.name} is {source.format}: expected {kind} as one of {', '.join(FORMATS[kind])}")
    for file in source.files:
        if file.suffix in {".bz2", ".xz"}:
            raise SourceError(f"{file} cannot be streamed ({file.suffix}): recompress it with gzip or zstd")
    return f"[{', '.join(quoted(str(file)) for file in source.files)}]"


def quoted(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _count(base: DuckDBPyConnection, table: str) -> int:
    [(count,)] = base.execute(f"SELECT count(*) FROM {table}").fetchall()  # all: a result left open blocks the base
    return int(count)
