"""Personas with what contradicts, and what the community would recommend."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import each, free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people import persona_tables
from normloom.steps.step import step

MOST = 3  # recommendations of a topic
AGAINST = ("avoids", "dislikes", "dislike", "hates", "hate")
FOR = ("likes", "like", "loves", "love", "enjoys", "enjoy", "has_hobby", "hobby", "plays", "prefers_path")


@step(makes=persona_tables.PERSONAS, fan_out=each())
def personas(rows: pl.DataFrame, topics: pl.DataFrame) -> Output:
    """Return each fact with how many users share it, whether its task lists its topic, and what contradicts it.

    `topics` are the facts themselves if no list is known: every topic that occurs is listed then.
    Two facts of a user contradict each other if one is for and the other against the same object, whatever the case.
    """
    side = pl.when(pl.col("relation").is_in(FOR)).then(1).when(pl.col("relation").is_in(AGAINST)).then(-1).otherwise(0)
    told = rows.with_columns(
        n_seen=pl.col("username").n_unique().over("relation", "object").cast(pl.Int64),
        _side=side,
        _of=pl.col("object").str.to_lowercase(),
    )
    opposed = told.filter(pl.col("_side") != 0).select("username", "_of", "_side", other="relation")
    against = (
        told.select("row_id", "username", "_of", "_side")
        .join(opposed.with_columns(_side=-pl.col("_side")), on=("username", "_of", "_side"))
        .group_by("row_id")
        .agg(contradicts=pl.col("other").unique().sort())
    )
    listed = topics.select("task", "topic").unique().with_columns(listed=pl.lit(value=True))
    made = (
        told.join(listed, on=("task", "topic"), how="left", maintain_order="left")
        .join(against, on="row_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("listed").fill_null(value=False), pl.col("contradicts").fill_null(pl.lit([], dtype=tables.TEXTS))
        )
    )
    return Output(rows=made.select("row_id", *persona_tables.PERSONAS.columns))


@step(makes=persona_tables.RECOMMENDATIONS, fan_out=free("up to three for each user and each topic that a task lists"))
def recommendations(rows: pl.DataFrame) -> Output:
    """Return, for each user and each listed topic of their tasks, what most others have there and they do not.

    Others are counted once each; ties go by relation, then object. What a user has under any topic is left out.
    """
    listed = rows.filter("listed")
    wanted = rows.select("username", "task").unique().join(listed.select("task", "topic").unique(), on="task")
    common = listed.group_by("task", "topic", "relation", "object").agg(
        users=pl.col("username").n_unique().cast(pl.Int64), parents=pl.col("row_id").sort()
    )
    own = rows.select("username", "relation", "object").unique()
    ranked = (
        wanted.join(common, on=("task", "topic"))
        .join(own, on=("username", "relation", "object"), how="anti")
        .sort(
            ["username", "task", "topic", "users", "relation", "object"],
            descending=[False, False, False, True, False, False],
        )
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("username", "task", "topic").cast(pl.Int64))
        .filter(pl.col("rank") <= MOST)
    )
    content = pl.concat_str("username", "task", "topic", "rank", separator="\x1f")
    made = ranked.with_columns(content=content).select("parents", "content", *persona_tables.RECOMMENDATIONS.columns)
    return Output(rows=made, attempts=made.height)
