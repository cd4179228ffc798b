"""Pages of rows: filtered, searched and sorted by DuckDB, with cells that a page can hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import UsageError
from normloom.core.rows.text import counted
from normloom.view.catalog import Catalog

LONGEST = 600  # characters of a cell in a page of rows; a row by itself is shown whole
SAFE_INTEGER = 2**53  # larger ones lose digits in a browser
MOST = 500  # rows of a page

_IDS = re.compile("[0-9a-f]{6,}")  # a word that may be part of an id

Operator = Literal["is", "is not", "contains", "<", "<=", ">", ">=", "is empty", "is not empty"]


class Condition(BaseModel):
    """What one column must be; `value` is read as the column's type."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: str
    operator: Operator
    value: str = ""


class RowsWanted(BaseModel):
    """One page of a table. Every word of `search` must be in some text column, in any case; of an id, six digits."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: str
    search: str = Field(default="", max_length=1000)
    where: tuple[Condition, ...] = Field(default=(), max_length=20)
    sort: str | None = None
    descending: bool = False
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=50, ge=1, le=MOST)


def page(catalog: Catalog, wanted: RowsWanted) -> dict[str, Any]:
    """Return `columns` (name and type), `rows` and whether there are `more`. Raises UsageError."""
    columns = catalog.columns(wanted.table)
    filters, values = _filters(wanted, columns)
    order = ""
    if wanted.sort is not None:
        _known(wanted.sort, columns, wanted.table)
        tie = ", row_id" if "row_id" in columns else ""  # or pages might overlap
        order = f" ORDER BY {_quoted(wanted.sort)} {'DESC' if wanted.descending else 'ASC'} NULLS LAST{tie}"
    sql = f"SELECT * FROM {_quoted(wanted.table)}{filters}{order} LIMIT {wanted.limit + 1} OFFSET {wanted.offset}"  # noqa: S608  # quoted names
    rows = _fetched(catalog, sql, values)
    return {
        "columns": [{"name": name, "type": kind} for name, kind in columns.items()],
        "rows": [[cell(value) for value in row] for row in rows[: wanted.limit]],
        "more": len(rows) > wanted.limit,
    }


def count(catalog: Catalog, wanted: RowsWanted) -> int:
    """Return how many rows of the table the filters leave. Raises UsageError."""
    table = catalog.table(wanted.table)
    filters, values = _filters(wanted, catalog.columns(wanted.table))
    if not filters:
        return table.rows
    sql = f"SELECT count(*) FROM {_quoted(wanted.table)}{filters}"  # noqa: S608  # quoted names
    return int(_fetched(catalog, sql, values)[0][0])


def select(catalog: Catalog, sql: str, *, limit: int = MOST) -> dict[str, Any]:
    """Return the columns and the first rows of one SELECT. Raises UsageError, also for any other statement."""
    with catalog.reading() as connection, _explained():
        statements = connection.extract_statements(sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise UsageError("expected one SELECT: this page only reads")
        found = connection.sql(sql).limit(limit + 1)
        names, rows = found.columns, found.fetchall()
    return {
        "columns": [{"name": name, "type": ""} for name in names],
        "rows": [[cell(value) for value in row] for row in rows[:limit]],
        "more": len(rows) > limit,
    }


def cell(value: Any, *, longest: int | None = LONGEST) -> Any:
    """Return a value as JSON has it; text beyond `longest` characters is cut, and says so."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"({counted(len(value), 'byte')})"
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if longest is None or len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def _fetched(catalog: Catalog, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    with catalog.reading() as connection, _explained():
        return connection.execute(sql, values).fetchall()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what DuckDB says of a query into a UsageError."""
    try:
        yield
    except duckdb.InterruptException:  # the catalog says how long was waited
        raise
    except duckdb.Error as error:
        raise UsageError(f"the query cannot be run: {' '.join(str(error).split())}") from error


def _filters(wanted: RowsWanted, columns: Mapping[str, str]) -> tuple[str, list[Any]]:
    """Return the WHERE clause, empty if nothing is filtered, and its values."""
    clauses: list[str] = []
    values: list[Any] = []
    for condition in wanted.where:
        _known(condition.column, columns, wanted.table)
        clause, given = _clause(condition, columns[condition.column])
        clauses.append(clause)
        values += given
    texts = [name for name, kind in columns.items() if kind in ("VARCHAR", "VARCHAR[]")]
    for word in wanted.search.split():
        searched = [name for name in texts if not _holds_ids(name) or _IDS.fullmatch(word)]
        found = [f"contains(lower(CAST({_quoted(name)} AS VARCHAR)), lower(?))" for name in searched]
        clauses.append(f"({' OR '.join(found) or 'false'})")
        values += [word] * len(found)
    return (f" WHERE {' AND '.join(clauses)}" if clauses else ""), values


def _clause(condition: Condition, kind: str) -> tuple[str, list[Any]]:
    name = _quoted(condition.column)
    operator = condition.operator
    if operator in ("is empty", "is not empty"):
        empty = f"({name} IS NULL OR CAST({name} AS VARCHAR) IN ('', '[]'))"
        return (empty if operator == "is empty" else f"NOT {empty}"), []
    if operator == "contains":
        return f"contains(lower(CAST({name} AS VARCHAR)), lower(?))", [condition.value]
    simple = "[" not in kind and "(" not in kind
    value = f"CAST(? AS {kind})" if simple else "?"
    column = name if simple else f"CAST({name} AS VARCHAR)"
    sql = {"is": "IS NOT DISTINCT FROM", "is not": "IS DISTINCT FROM"}.get(operator, operator)
    return f"{column} {sql} {value}", [condition.value]


def _holds_ids(column: str) -> bool:
    """Say whether a column holds ids, in whose digits any number would be found."""
    return column in ("parents", "winner") or column.endswith("_id")


def _known(column: str, columns: Mapping[str, str], table: str) -> None:
    if column not in columns:
        raise UsageError(f"unknown column {column!r} of {table}; available: {', '.join(columns)}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
