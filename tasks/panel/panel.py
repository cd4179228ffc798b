"""From ratings by people to a panel of models: what is asked, what came back, and both joined to the source's rows.

Raters of one demographic group are one described person to a model, so each conversation is put to it once a group.
"""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import each, free
from normloom.core.stage import Output, dropped, dropped_frame
from normloom.schemas.people import demo_tables
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.release.publish import with_own_columns

_PAIR = ["item_id", "group"]


@step(
    makes=demo_tables.REQUESTS,
    name="requests",
    bound=bounds.joined,
    fan_out=free("one row for each conversation and group"),
)
def find_panel_requests(rows: pl.DataFrame, labelled: pl.DataFrame, *, raters: int) -> Output:
    """Return one row for each conversation and group of the ratings `rows`, conversation by conversation.

    Its parents are the labelled conversation and the ratings it stands for; `weight` is how many these are. A pair
    whose conversation was not labelled is dropped. The metric `calls_saved` counts the questions that the panel is
    spared: (ratings - requests) x raters.
    """
    pairs = rows.group_by(*_PAIR, maintain_order=True).agg(
        pl.first(*demo_tables.AXES), pl.first("row_id"), weight=pl.len().cast(pl.Int64), ratings="row_id"
    )
    conversations = labelled.drop("parents", "reference", "probabilities").rename({"row_id": "conversation"})
    joined = pairs.join(conversations.with_row_index("position"), on="item_id", how="left", maintain_order="left")
    asked = joined.filter(pl.col("position").is_not_null()).sort("position", "group")
    unasked = joined.filter(pl.col("position").is_null()).select("row_id", *_PAIR, "weight")
    return Output(
        rows=asked.select(
            *(name for name in demo_tables.REQUESTS.columns if name != "labels"),
            labels=pl.col("labels").list.eval(pl.element().struct.field("label")),
            parents=pl.concat_list("conversation", "ratings"),
            content=pl.lit("request"),
        ),
        dropped=dropped_frame([dropped(row, "not_labelled") for row in unasked.iter_rows(named=True)]),
        attempts=pairs.height,
        metrics={
            "ratings": float(asked["weight"].sum()),
            "calls_saved": float((asked["weight"].sum() - asked.height) * raters),
        },
    )


@step(makes=demo_tables.RATED, name="rated", fan_out=each())
def join_panel(rows: pl.DataFrame, asked: pl.DataFrame, *, raters: tuple[str, ...]) -> Output:
    """Return the scores of all raters, each with what it was asked; the metrics are coverage by rater.

    Coverage is the share of source rows and expansions (requests by weight) that a rater has rated: what it could not
    rate is missing, not made up.
    """
    joined = rows.join(asked.drop("row_id", "parents"), on=_PAIR, how="left", maintain_order="left")
    weights = dict(joined.group_by("rater").agg(pl.sum("weight")).iter_rows())
    total = max(asked["weight"].sum(), 1)
    return Output(
        rows=joined.select("row_id", *demo_tables.RATED.columns),
        metrics={f"coverage_{rater}": weights.get(rater, 0) / total for rater in raters},
    )


@step(makes=demo_tables.RELEASED, name="publish", fan_out=free("ratings and expansions"))
def release(
    rows: pl.DataFrame,
    labelled: pl.DataFrame,
    unique: pl.DataFrame,
    rated: pl.DataFrame,
    own: pl.DataFrame | None = None,
) -> Output:
    """Return the ratings `rows` that are left, then the expansions, with labels and what each model says.

    A source row leaves with its request: as `duplicate` if that repeats another of its group, as `not_labelled`
    if its conversation has no labels. `own` are columns of the source by `source_row`. The parents of a row are its
    source row, its request and the request's ratings.
    """
    element = pl.element().struct
    probable = pl.col("labels").list.eval(pl.struct(element.field("label"), element.field("probability")))
    given = pl.col("labels").list.eval(pl.struct(label=pl.element(), probability=pl.lit(None, dtype=pl.Float32)))
    scores = rated.group_by(*_PAIR, maintain_order=True).agg(
        pl.struct(*demo_tables.SCORE_FIELDS).alias("ratings"), scores="row_id"
    )
    asked = unique.rename({"row_id": "request"}).join(scores, on=_PAIR, how="left", maintain_order="left")
    source = rows.join(
        asked.filter(origin="source").select(*_PAIR, "request", "ratings", "scores", "origin"),
        on=_PAIR,
        how="left",
        maintain_order="left",
    ).join(labelled.select("item_id", probable), on="item_id", how="left", maintain_order="left")
    drawn = asked.filter(origin="expansion").drop("parents").with_columns(given)
    made = pl.concat([source.filter(pl.col("request").is_not_null()), drawn], how="diagonal").with_columns(
        pl.col("ratings", "scores").fill_null([])
    )
    reason = pl.when(pl.col("labels").is_null()).then(pl.lit("not_labelled")).otherwise(pl.lit("duplicate"))
    gone = source.filter(pl.col("request").is_null()).select("row_id", *_PAIR, "rater_id", reason=reason)
    released = made.select(
        *demo_tables.RELEASED.columns,
        parents=pl.concat_list(pl.concat_list("row_id", "request").list.drop_nulls(), "scores"),
    )
    return Output(
        rows=released if own is None else with_own_columns(released, own),
        dropped=dropped_frame([dropped(row, row.pop("reason")) for row in gone.iter_rows(named=True)]),
        attempts=source.height + drawn.height,
        metrics={"expansions": drawn.height, "unrated_rows": made.filter(pl.col("ratings").list.len() == 0).height},
    )
