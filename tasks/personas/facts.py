"""Read what is known of users, which topics a task lists, and which users were labelled."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.stage import Output, dropped_rows
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas import tables
from normloom.schemas.people import persona_tables
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.records import fault, source_rows

_FACT = ("username", "task", "topic", "relation", "object")
_TOPIC = ("task", "topic")
LABEL = ("classification_task", "username", "label")


class ReadFacts(Args):
    """Which facts are taken."""

    limit: int | None = Field(None, ge=1, description="only the first N facts")


@step(makes=persona_tables.FACTS, name="facts", libraries=LIBRARIES)
def read_facts(args: ReadFacts, *, source: Located) -> Output:
    """Return one row for each fact of a file with username, task, topic, relation and object.

    Quarantine rules: `missing_value`, `repeated_fact`. Facts beyond the limit are dropped as `limit`.
    """
    return _read(source, _FACT, key=_FACT, repeated="repeated_fact", limit=args.limit)


@step(makes=persona_tables.TOPICS, name="topics", libraries=LIBRARIES)
def read_topics(*, source: Located) -> Output:
    """Return the topics that each task lists, from a file with task and topic."""
    return _read(source, _TOPIC, key=_TOPIC, repeated="repeated_topic")


@step(
    makes=persona_tables.LABELS,
    name="labels",
    libraries=LIBRARIES,
    fan_out=free("one row for each label of a user of whom facts are known"),
)
def read_labels(rows: pl.DataFrame, *, source: Located) -> Output:
    """Return the labels of users of whom facts are known, from a file with classification_task, username and label.

    The label that a task names first is its accepted side. Labels of other users are dropped as `no facts`: rows in =
    rows + dropped. Quarantine rules: `missing_value`, `repeated_label`.
    """
    read = _read(source, LABEL, key=LABEL[:2], repeated="repeated_label")
    first = pl.col("label").first().over("classification_task")
    personas = persona_texts(rows)
    labels = read.rows.with_columns(accepted=pl.col("label") == first)
    joined = labels.join(personas, on="username", how="left", maintain_order="left")
    known = joined.filter(pl.col("persona").is_not_null())
    orphans = joined.filter(pl.col("persona").is_null()).with_columns(row_id=pl.lit(None, dtype=pl.String))
    return Output(
        rows=known.select("parents", "content", *persona_tables.LABELS.columns).with_columns(
            parents=pl.Series([_ids(rows, name) for name in known["username"]], dtype=tables.TEXTS)
        ),
        dropped=dropped_rows(orphans, reason="no facts"),
        quarantined=read.quarantined,
        attempts=labels.height + read.quarantined.height,
    )


def persona_texts(facts: pl.DataFrame) -> pl.DataFrame:
    """Return `username` and `persona`: "relation object" of each fact in the table's order, underscores as blanks."""
    said = pl.concat_str("relation", pl.lit(" "), "object").str.replace_all("_", " ")
    return facts.group_by("username", maintain_order=True).agg(persona=said.str.join(" "))


def _ids(facts: pl.DataFrame, username: str) -> list[str]:
    return facts.filter(username=username)["row_id"].to_list()


def _read(
    source: Located, columns: Sequence[str], *, key: Sequence[str], repeated: str, limit: int | None = None
) -> Output:
    """Return the records of a file that have every column, each key once; raises SourceError if none can be used."""
    read = read_source(source, text_column=None, keep=tuple(columns))
    records = read.rows.with_columns(read.names(name) for name in columns)
    taken, faults, seen = [], [], set[tuple[str, ...]]()
    for record in records.iter_rows(named=True):
        missing = [name for name in columns if not record[name]]
        own = tuple(record[name] or "" for name in key)
        if missing or own in seen:
            rule = "missing_value" if missing else repeated
            why = f"no {missing[0]}" if missing else f"{', '.join(own)} is there already"
            faults.append(fault(record, rule, why))
            continue
        seen.add(own)
        taken.append({"source_row": record["source_row"], **{name: record[name] for name in columns}})
    known_by = pl.concat_str(list(key), separator="\x1f")
    return source_rows(pl.DataFrame(taken), [*faults, *read.entries], key=known_by, limit=limit, source=source.name)
