"""Users without a label: what is predicted of them, and whom to ask an analyst about next."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.rows.ids import seed as seed_of
from normloom.core.stage import Output, dropped_rows
from normloom.schemas import tables
from normloom.schemas.people import analyst_tables, persona_tables
from normloom.schemas.people.persona_tables import DIVERSE, UNCERTAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.personas.classifier import MODEL, Acting, Classifier
from normloom.tasks.personas.facts import persona_texts
from normloom.tasks.personas.rounds import farthest

_ONE = ("classification_task", "username")


class Choosing(Args):
    """Whom an analyst is asked about."""

    strategy: Literal["random", "uncertain", "diverse"] = Field(
        "uncertain", description="who comes first: anybody, the least sure, or the least like anybody who is known"
    )
    ask: int = Field(8, ge=1, description="users of each task that an analyst is asked about next")
    seed: int = Field(42, description="seed of the random order and of ties")


@step(makes=analyst_tables.PREDICTIONS, libraries=("scikit-learn", "numpy"), fan_out=each())
def predictions(rows: pl.DataFrame, args: Acting, learned: pl.DataFrame, facts: pl.DataFrame) -> Output:
    """Return what the classifier says of every user of a task whose side is not known, after all whose side is."""
    personas = persona_texts(facts).join(_fact_ids(facts), on="username")
    open_ = rows.join(learned.select(_ONE), on=_ONE, how="anti", maintain_order="left")
    made = []
    for (task,), users in open_.join(personas, on="username", maintain_order="left").group_by(
        "classification_task", maintain_order=True
    ):
        known = learned.filter(classification_task=task)
        texts, sides, names = (known[name].to_list() for name in ("persona", "accepted", "username"))
        classifier = Classifier(texts, sides)
        found = classifier.predict(users["persona"].to_list())
        for place, row in enumerate(users.iter_rows(named=True)):
            accepts, confidence = bool(found.accepts[place]), float(found.confidence[place])
            near, words = classifier.nearest(row["persona"], accepted=accepts)
            made.append(
                {
                    **{name: row[name] for name in ("row_id", *_ONE, "accept", "decline", "persona")},
                    "through": [row["row_id"], *known["row_id"], *row["facts"]],
                    "member": row["row_id"],
                    "predicted": accepts,
                    "confidence": confidence,
                    "covered": confidence >= args.act_at,
                    "labelled": known.height,
                    "like": None if near is None else names[near],
                    "because": words,
                    "origin": MODEL,
                }
            )
    known_already = rows.join(learned.select(_ONE), on=_ONE, how="semi", maintain_order="left")
    schema = {"row_id": pl.String(), "through": tables.TEXTS, **analyst_tables.PREDICTIONS.columns}
    return Output(rows=pl.DataFrame(made, schema=schema), dropped=dropped_rows(known_already, reason="labelled"))


@step(makes=analyst_tables.CANDIDATES, libraries=("scikit-learn", "numpy"), fan_out=each())
def candidates(rows: pl.DataFrame, args: Choosing, learned: pl.DataFrame) -> Output:
    """Return the users of each task to ask about next, by one strategy; the others are dropped as `not yet`."""
    chosen: dict[str, int] = {}
    for (task,), users in rows.group_by("classification_task", maintain_order=True):
        luck = sorted(users.iter_rows(named=True), key=lambda row: seed_of(row["member"], args.seed))
        if args.strategy == UNCERTAIN:
            luck.sort(key=lambda row: row["confidence"])
        elif args.strategy == DIVERSE:
            known = learned.filter(classification_task=task)["persona"].to_list()
            order = farthest([row["persona"] for row in luck], known, args.ask)
            luck = [luck[place] for place in order]
        chosen |= {row["row_id"]: rank for rank, row in enumerate(luck[: args.ask], 1)}
    ranked = rows.with_columns(
        strategy=pl.lit(args.strategy),
        rank=pl.col("row_id").replace_strict(chosen, default=None, return_dtype=pl.Int64),
    )
    kept = ranked.filter(pl.col("rank").is_not_null()).sort("classification_task", "rank", maintain_order=True)
    left = rows.filter(~pl.col("row_id").is_in(list(chosen)))
    return Output(
        rows=kept.select("row_id", *analyst_tables.CANDIDATES.columns),
        dropped=dropped_rows(left, reason="not yet", leaving_out=("persona",)),
    )


@step(makes=analyst_tables.SUGGESTIONS, fan_out=each())
def suggestions(rows: pl.DataFrame, facts: pl.DataFrame, assistance: pl.DataFrame | None = None) -> Output:
    """Return each candidate as an analyst sees it: all facts, what is predicted, and what the assistant says."""
    said = pl.concat_str(pl.col("relation").str.replace_all("_", " "), pl.lit(": "), "object")
    told = dict(facts.select("row_id", said).iter_rows())
    own = facts.group_by("username", maintain_order=True).agg(facts=said)
    nothing = pl.DataFrame(schema={"row_id": pl.String, **persona_tables.ASSISTANCE.columns})
    opinions = (nothing if assistance is None else assistance).select(
        *_ONE, "score", "reason", opinion="row_id", cited=pl.col("cited").list.eval(pl.element().replace(told))
    )
    made = rows.join(own, on="username", maintain_order="left").join(
        opinions, on=_ONE, how="left", maintain_order="left"
    )
    linked = pl.concat_list("row_id", "opinion").list.drop_nulls()
    made = made.with_columns(pl.col("cited").fill_null(pl.lit([], dtype=tables.TEXTS)), through=linked)
    return Output(rows=made.select("row_id", "through", *analyst_tables.SUGGESTIONS.columns))


def _fact_ids(facts: pl.DataFrame) -> pl.DataFrame:
    return facts.group_by("username", maintain_order=True).agg(facts="row_id")
