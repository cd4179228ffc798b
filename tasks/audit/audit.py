"""The steps of an audit: cut a table into strata, draw rows, ask people, and correct the figures."""

from __future__ import annotations

import polars as pl

from normloom.core.errors import ConfigError, UsageError
from normloom.core.fan_out import each, free
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, Stage, dropped_rows
from normloom.labelling.questions import Question
from normloom.schemas import tables
from normloom.schemas.people import audit_tables
from normloom.steps.step import step
from normloom.tasks.audit.auditing import Auditing
from normloom.tasks.audit.bounds import Bound
from normloom.tasks.audit.corrected import corrected
from normloom.tasks.audit.strata import cut, groups_of, spreads
from normloom.tasks.audit.stratified import neyman
from normloom.tasks.labels.ask import ask
from normloom.tasks.labels.recorded import labels
from normloom.tasks.metrics.figure import figures_output

TRUTH = "truth"


def audit(
    table: Stage,
    args: Auditing,
    *,
    name: str,
    margins: Stage | None = None,
    bounds: tuple[Bound, ...] = (),
    need: int | None = None,
) -> Stage:
    """Return the figures of a table corrected by people's answers about drawn rows of it: labels `name`.

    `margins` is a table upstream that has the margin, if the table itself lacks it. `bounds` are recorded with the
    figures: a release whose audit misses one is not exported. `need` answers are enough (None: all that are drawn).
    """
    framed = frame(table, args, margins)
    asks = Question(text=args.question or f"Which {args.verdict} is right?", options=args.values)
    answered = ask(drawn(framed, args), labels(name, {TRUTH: asks}), show=args.show, need=need)
    return figures(answered, args, framed, bounds=bounds)


@step(makes=audit_tables.FRAME, fan_out=each())
def frame(rows: pl.DataFrame, args: Auditing, margins: pl.DataFrame | None = None) -> Output:
    """Return all rows with verdict, margin, groups and stratum; a row without a verdict goes to quarantine."""
    if missing := [name for name in (args.verdict, *args.show, *args.by) if name not in rows.columns]:
        raise ConfigError(f"audit: the table has no column {missing[0]!r}; available: {', '.join(rows.columns)}")
    known = _with_margin(rows, args, margins).with_columns(audit_verdict=pl.col(args.verdict).cast(pl.String))
    if unknown := sorted(set(known["audit_verdict"].drop_nulls()) - set(args.values)):
        raise ConfigError(
            f"audit: column {args.verdict!r} has {unknown[0]!r}, which is none of {', '.join(args.values)}"
        )
    if nulls := known["audit_verdict"].null_count():
        raise ConfigError(f"audit: {nulls:,} rows have no {args.verdict!r}")
    columns = [*dict.fromkeys(args.show)]
    made = known.with_columns(audit_groups=groups_of(known, args.by)).with_columns(audit_stratum=cut(known, args))
    return Output(rows=made.select("row_id", *audit_tables.FRAME.columns, *columns))


@step(makes=audit_tables.FRAME, fan_out=each())
def drawn(rows: pl.DataFrame, args: Auditing) -> Output:
    """Return the rows to ask about: of each stratum as many as Neyman's allocation says, at random.

    A larger budget draws the same rows and more.
    """
    names = sorted(rows["audit_stratum"].unique())
    counts = dict(rows["audit_stratum"].value_counts().iter_rows())
    try:
        wanted = neyman([counts[name] for name in names], spreads(rows, names, args), args.budget)
    except ValueError as error:
        raise UsageError(f"audit: {error}: raise --budget") from error
    luck = [seed(row, "audit", args.seed) for row in rows["row_id"]]
    ranked = rows.with_columns(luck=pl.Series(luck, dtype=pl.Int64)).with_columns(
        rank=pl.col("luck").rank("ordinal").over("audit_stratum")
    )
    least = pl.col("audit_stratum").replace_strict(dict(zip(names, wanted, strict=True)), return_dtype=pl.Int64)
    chosen = ranked.filter(pl.col("rank") <= least).drop("luck", "rank")
    left = rows.filter(~pl.col("row_id").is_in(chosen["row_id"].implode()))
    return Output(rows=chosen, dropped=dropped_rows(left, reason="not drawn"))


@step(
    makes=tables.FIGURES,
    name="audit_figures",
    fan_out=free("one row for each figure of a slice"),
    libraries=("scipy",),
)
def figures(
    rows: pl.DataFrame,
    args: Auditing,
    frame: pl.DataFrame,
    *,
    bounds: tuple[Bound, ...] = (),  # noqa: ARG001  # recorded with the table
) -> Output:
    """Return shares, precision, sensitivity and specificity of each verdict, corrected by the answers."""
    return figures_output(list(corrected(frame, rows, args)))


def _with_margin(rows: pl.DataFrame, args: Auditing, margins: pl.DataFrame | None) -> pl.DataFrame:
    """Return the rows with `audit_margin`: their own, or that of the row upstream which they came of."""
    if args.margin is None:
        return rows.with_columns(audit_margin=pl.lit(None, dtype=pl.Float64))
    if args.margin in rows.columns:
        return rows.with_columns(audit_margin=pl.col(args.margin).cast(pl.Float64))
    if margins is None or args.margin not in margins.columns:
        raise ConfigError(f"audit: neither the table nor one that it was made of has the column {args.margin!r}")
    own = margins.select(
        pl.col("row_id").alias("audit_parent"), pl.col(args.margin).cast(pl.Float64).alias("audit_margin")
    )
    parent = pl.col("parents").list.first().alias("audit_parent")
    return rows.with_columns(parent).join(own, on="audit_parent", how="left", maintain_order="left")
