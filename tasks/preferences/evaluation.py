"""How policies reply to prompts that none was trained on: each signal over all replies and over the valid ones.

Over all replies a failure counts with the worst value of the signal, so the format alone can decide the order of two
policies; over the valid ones it does not, but each policy is then measured on other prompts. Both are given, with the
share of failures. Intervals are percentile bootstraps over prompts; differences of two policies are paired by prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.core.errors import SourceError
from normloom.core.fan_out import each, free
from normloom.core.stage import Output, quarantined_frame
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas import tables
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import BOUNDS, MEASURED, OK, WORST
from normloom.steps.step import step
from normloom.tasks.metrics.figure import figure_row, figures_output
from normloom.tasks.preferences.dpo.dpo_figures import mean_over_groups
from normloom.tasks.preferences.parse import response_of
from normloom.tasks.records import fault

FAILURE, SECONDS, SHEET = "failure", "seconds", "sheet_response"
COLUMNS = ("policy", "prompt_id", "raw_reply", *MEASURED)  # of replies that were released with their signals


@step(
    makes=preference_tables.EVALUATED,
    name="evaluated",
    libraries=LIBRARIES,
    fan_out=free("a reply of each policy that the file has"),
)
def read_evaluated(rows: pl.DataFrame, *, source: Located) -> Output:
    """Return the replies of policies that were released with their signals; `rows` are the prompts.

    The file has policy, prompt_id, raw_reply, the four signals, and maybe seconds and sheet_response: the response that
    the signals are of, null if parsing failed. Without it a reply is valid if its raw reply parses. Quarantine rules:
    `missing` for a record without a policy or prompt, `unknown_prompt`, `repeated` (a policy replies to a prompt once),
    `out_of_range` for a valid reply without a signal, or with one outside its range.
    """
    read = read_source(source, text_column=None, keep=COLUMNS, optional=(SECONDS, SHEET))
    parsed = pl.Series("raw_status", [response_of(raw or "")[0] for raw in read.text("raw_reply")], dtype=pl.String)
    numbers = [read.numbers(name) for name in (*MEASURED, SECONDS) if name in read.rows.columns]
    told = read.rows.with_columns(parsed, *(read.names(name) for name in ("policy", "prompt_id")), *numbers)
    if SECONDS not in told.columns:
        told = told.with_columns(pl.lit(None, dtype=pl.Float64).alias(SECONDS))
    response = pl.col(SHEET).str.strip_chars()
    valid = (response != "").fill_null(value=False) if SHEET in told.columns else pl.col("raw_status") == OK
    known = told.with_columns(valid=valid).join(
        rows.select("prompt_id", "dialogue", "row_id"), on="prompt_id", how="left", maintain_order="left"
    )
    measured = pl.all_horizontal(pl.col(name).is_between(*BOUNDS[name]).fill_null(value=False) for name in MEASURED)
    rule = (
        pl.when(pl.any_horizontal(pl.col(name).is_null() for name in ("policy", "prompt_id")))
        .then(pl.lit("missing"))
        .when(pl.col("row_id").is_null())
        .then(pl.lit("unknown_prompt"))
        .when(~pl.struct("policy", "prompt_id").is_first_distinct())
        .then(pl.lit("repeated"))
        .when(pl.col("valid") & ~measured)
        .then(pl.lit("out_of_range"))
    )
    judged = known.with_columns(rule=rule)
    lost = [
        fault(row, row.pop("rule"), f"prompt {row['prompt_id']!r}")
        for row in judged.filter(pl.col("rule").is_not_null()).iter_rows(named=True)
    ]
    usable = judged.filter(pl.col("rule").is_null())
    if usable.is_empty():
        raise SourceError(f"{source.name}: none of {known.height} replies answers one of {rows.height} prompts")
    return Output(
        rows=_evaluated(usable).with_columns(parents=pl.concat_list("row_id"), content="policy").drop("row_id"),
        quarantined=quarantined_frame([*lost, *read.entries]),
        attempts=read.records,
    )


@step(makes=preference_tables.EVALUATED, name="answers", fan_out=each())
def evaluated(rows: pl.DataFrame, *signals: pl.DataFrame) -> pl.DataFrame:
    """Return the parsed replies of policies with their signals, failures at the worst values."""
    wide = pl.concat(signals).pivot(on="signal", on_columns=MEASURED, index="gen_id", values="value")
    told = rows.join(wide, on="gen_id", how="left", maintain_order="left")
    valid = (pl.col("parse_status") == OK) & pl.all_horizontal(pl.col(name).is_not_null() for name in MEASURED)
    return _evaluated(told.with_columns(policy="model", raw_status="parse_status", valid=valid))


def _evaluated(rows: pl.DataFrame) -> pl.DataFrame:
    worst = [
        pl.when("valid").then(pl.col(name).cast(pl.Float64)).fill_null(WORST[name]).alias(name) for name in MEASURED
    ]
    return rows.with_columns(worst).select("row_id", *preference_tables.EVALUATED.columns)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def evaluation_figures(rows: pl.DataFrame) -> Output:
    """Return for each policy the share of failures, the seconds, and each signal twice; and differences by pairs."""
    policies = rows["policy"].unique(maintain_order=True).to_list()
    figures = [figure for policy in policies for figure in _of_policy(rows.filter(policy=policy), policy)]
    return figures_output([*figures, *_differences(rows, policies)])


def _of_policy(replies: pl.DataFrame, policy: str) -> Iterator[dict[str, object]]:
    failed = replies.with_columns(failure=1 - pl.col("valid").cast(pl.Float64))
    yield figure_row(mean_over_groups(failed, FAILURE), metric=FAILURE, of=policy)
    yield figure_row(mean_over_groups(replies, SECONDS), metric=SECONDS, of=policy)
    raw = replies.with_columns(raw=(pl.col("raw_status") == OK).cast(pl.Float64))
    yield figure_row(mean_over_groups(raw, "raw"), metric="raw_reply_parses", of=policy)
    for name in MEASURED:
        yield figure_row(mean_over_groups(replies, name), metric=f"{name}_all", of=policy)
        yield figure_row(mean_over_groups(replies.filter("valid"), name), metric=f"{name}_valid", of=policy)


def _differences(rows: pl.DataFrame, policies: list[str]) -> Iterator[dict[str, object]]:
    measured = {**{f"{name}_all": pl.col(name) for name in MEASURED}, FAILURE: 1 - pl.col("valid").cast(pl.Float64)}
    told = rows.select("policy", "prompt_id", "dialogue", "valid", *MEASURED, **measured)
    for position, one in enumerate(policies):
        for other in policies[position + 1 :]:
            both = told.filter(policy=other).join(
                told.filter(policy=one), on="prompt_id", suffix="_before", maintain_order="left"
            )
            for name in (FAILURE, *(f"{name}_all" for name in MEASURED)):
                change = both.select("dialogue", change=pl.col(name) - pl.col(f"{name}_before"))
                yield figure_row(mean_over_groups(change, "change"), metric=f"{name}_change", of=other, **_paired(one))
            valid = both.filter(pl.col("valid") & pl.col("valid_before"))  # by both: prompts are the same then
            for name in MEASURED:
                change = valid.select("dialogue", change=pl.col(name) - pl.col(f"{name}_before"))
                yield figure_row(
                    mean_over_groups(change, "change"), metric=f"{name}_valid_change", of=other, **_paired(one)
                )


def _paired(before: str) -> dict[str, str]:
    """Return the place of a difference: from one policy, over prompts that both answered."""
    return {"slice_by": "paired", "slice": before}
