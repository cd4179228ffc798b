"""Who can be asked about in a task, and which side each user is known to be on, whoever said so."""

from __future__ import annotations

from collections import Counter

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output, dropped_rows
from normloom.schemas import tables
from normloom.schemas.people import analyst_tables
from normloom.schemas.people.analyst_tables import ACCEPT, ACCEPTED, ANALYST, LISTED, REPLIED
from normloom.steps.step import step
from normloom.tasks.personas.facts import persona_texts

_ONE = ("classification_task", "username")
_KNOWN = (*_ONE, "accepted", "persona", "told_by", "when", "parents", "row_id")


@step(makes=analyst_tables.MEMBERS, fan_out=free("one row for each task and each user of whom facts are known"))
def members(rows: pl.DataFrame, facts: pl.DataFrame) -> Output:
    """Return every user of whom facts are known in every task that has labels, with the names of its two sides.

    Their ids hold task and username alone: answers about a user outlive facts that are learned later.
    """
    sides = rows.group_by("classification_task", maintain_order=True).agg(
        accept=pl.col("label").filter("accepted").first(), decline=pl.col("label").filter(~pl.col("accepted")).first()
    )
    named = sides.with_columns(
        pl.col("accept").fill_null("accept"), pl.col("decline").fill_null(pl.format("not {}", "accept"))
    )
    users = facts.select("username").unique(maintain_order=True)
    made = named.join(users, how="cross").with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.concat_str(_ONE, separator="\x1f")
    )
    return Output(rows=made.select("parents", "content", *analyst_tables.MEMBERS.columns), attempts=made.height)


@step(makes=analyst_tables.LEARNED, fan_out=free("one row for each user of whom a side is known, by task"))
def learned(
    rows: pl.DataFrame, members: pl.DataFrame, facts: pl.DataFrame, decisions: pl.DataFrame, replies: pl.DataFrame
) -> Output:
    """Return which side each user is on: as a reply to an offer says, else as an analyst decided, else as listed.

    If several people answered about a user, what most said counts. What does not count is dropped: `overruled`, `people
    disagree`, `no facts`.
    """
    listed = rows.with_columns(
        told_by=pl.lit(LISTED), when=pl.lit(None, dtype=pl.Datetime("us", "UTC")), parents=pl.concat_list("row_id")
    ).select(_KNOWN)
    answered = [
        _answered(replies, members, facts, told_by=REPLIED, yes=ACCEPTED),
        _answered(decisions, members, facts, told_by=ANALYST, yes=ACCEPT),
    ]
    every = pl.concat([*answered, listed])
    counts = every.filter(pl.col("accepted").is_not_null() & pl.col("persona").is_not_null())
    first = counts.unique(_ONE, keep="first", maintain_order=True)
    kept = first.sort(pl.col("told_by") != LISTED, maintain_order=True)  # listed labels first, as they were
    left = every.join(first.select("row_id"), on="row_id", how="anti", maintain_order="left")
    reason = (
        pl.when(pl.col("persona").is_null())
        .then(pl.lit("no facts"))
        .when(pl.col("accepted").is_null())
        .then(pl.lit("people disagree"))
        .otherwise(pl.lit("overruled"))
    )
    content = pl.concat_str(_ONE, separator="\x1f")
    return Output(
        rows=kept.with_columns(content=content).select("parents", "content", *analyst_tables.LEARNED.columns),
        dropped=dropped_rows(left, reason=reason),
        attempts=every.height,
    )


def _answered(
    answers: pl.DataFrame, members: pl.DataFrame, facts: pl.DataFrame, *, told_by: str, yes: str
) -> pl.DataFrame:
    """Return one row for each user about whom people answered; `accepted` is null if they disagree."""
    personas = dict(persona_texts(facts).iter_rows())
    of = {row["row_id"]: row for row in members.iter_rows(named=True)}
    made = []
    for (asked,), given in answers.group_by("asked", maintain_order=True):
        member = of.get(str(asked), {"classification_task": "", "username": ""})
        (value, most), *others = Counter(given["value"]).most_common()
        user = facts.filter(username=member["username"])["row_id"].to_list()
        made.append(
            {
                **{name: member[name] for name in _ONE},
                "accepted": None if others and others[0][1] == most else value == yes,
                "persona": personas.get(member["username"]),
                "told_by": told_by,
                "when": given["when"].max(),
                "parents": [*given["row_id"], asked, *user],
                "row_id": given["row_id"][0],
            }
        )
    schema = {**analyst_tables.LEARNED.columns, "parents": tables.TEXTS, "row_id": pl.String()}
    return pl.DataFrame(made, schema=schema).select(_KNOWN)
