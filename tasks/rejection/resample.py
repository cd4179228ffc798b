"""Find which prompts still lack an aligned or a misaligned response, and diagnose why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, quarantined_frame, unanswered
from normloom.schemas import tables
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import transcript

ALIGNMENTS = ("aligned", "misaligned")
_DRAW = ("prompt_id", "generator")
_PART_ROWS = 1024


class Diagnosing(Args):
    """How the judge writes its short diagnosis of a response."""

    diagnosis: Sampling = Sampling(temperature=0, max_tokens=64)
    diagnosis_template: Annotated[Template, sections(("instruction", "prompt"))] = template_named("diagnose")
    part_rows: int = Field(128, ge=1, exclude=True, description="candidates in one part")


@step(
    makes=tables.SHORTFALL,
    part_rows=_PART_ROWS,
    sides_on="prompt_id",
    reads=("history", "prompt", "labels"),
    bound=bounds.shortfalls,
    fan_out=free("one row for each alignment that is missing"),
)
def shortfall(rows: pl.DataFrame, *rounds: pl.DataFrame, generators: tuple[str, ...]) -> Output:
    """Return one row for each labelled prompt, generator and alignment that the judged rounds so far do not have.

    Each row carries the closest candidate; ties go to the smallest row id.
    """
    wanted = (
        rows.filter(pl.col("labels").list.len() > 0)
        .select(
            "history",
            "prompt",
            prompt_id="row_id",
            targets=tables.DIMENSIONS_OF_LABELS,
        )
        .join(pl.DataFrame({"generator": generators}), how="cross", maintain_order="left_right")
        .join(pl.DataFrame({"wanted": ALIGNMENTS}), how="cross", maintain_order="left_right")
    )
    columns = ["row_id", *_DRAW, "response", "verdict", "reason", "checks"]
    tried = pl.concat([judged.select(columns) for judged in rounds])
    had = tried.select(*_DRAW, wanted="verdict")
    missing = wanted.join(had, on=[*_DRAW, "wanted"], how="anti", maintain_order="left").with_row_index("_position")
    nearest = (
        missing.select("_position", *_DRAW, "wanted", "targets")
        .join(tried, on=_DRAW)
        .with_columns(_distance=_distance(sorted(set(missing["targets"].explode()))))
        .sort("_position", "_distance", "row_id")
        .unique("_position", keep="first")
    )
    found = missing.join(
        nearest.select("_position", "row_id", "response", "verdict", "reason"),
        on="_position",
        how="left",
        maintain_order="left",
    )
    shortfalls = found.select(
        parents=pl.concat_list("prompt_id", "row_id").list.drop_nulls(),
        content=pl.format("{} {}", "generator", "wanted"),
        prompt_id="prompt_id",
        history="history",
        prompt="prompt",
        targets="targets",
        generator="generator",
        wanted="wanted",
        response=pl.col("response").fill_null(""),
        verdict=pl.col("verdict").fill_null("none"),
        reason=pl.col("reason").fill_null("no candidate was drawn"),
    )
    return Output(rows=shortfalls)


def _distance(dimensions: Sequence[str]) -> pl.Expr:
    """Return how far a judged candidate is from the wanted alignment.

    From aligned as far as its worst check is from 1, from misaligned as far as its worst check of a target from 0.
    """
    check = pl.element().struct
    worst = pl.col("checks").list.eval(check.field("probability")).list.min().cast(pl.Float64)
    of_targets = [
        pl.when(pl.col("targets").list.contains(name)).then(
            pl.col("checks").list.eval(check.field("probability").filter(check.field("check") == name)).list.first()
        )
        for name in dimensions
    ]
    return (
        pl.when(wanted="aligned")
        .then(1 - worst)
        .otherwise(pl.min_horizontal(pl.lit(None, dtype=pl.Float64), *of_targets))
    )


@step(makes=tables.DIAGNOSED, bound=bounds.diagnosed, fan_out=each())
def diagnose(rows: pl.DataFrame, args: Diagnosing, model: LanguageModel) -> Output:
    """Write one short diagnosis for each shortfall."""
    shortfalls = list(rows.iter_rows(named=True))
    requests = [
        GenerateRequest(
            instruction=args.diagnosis_template.render("instruction", wanted=row["wanted"]),
            prompt=args.diagnosis_template.render(
                "prompt",
                prompt=transcript(row["history"], row["prompt"]),
                response=row["response"],
                finding=f"{row['verdict']}, {row['reason']}",
            ),
            seeds=(seed(row["row_id"], "diagnosis"),),
            sampling=args.diagnosis,
        )
        for row in shortfalls
    ]
    completions = model.generate(requests)
    positions, written, failed = [], [], []
    for position, completion in enumerate(completions):
        if completion.error is not None:
            failed.append(unanswered(shortfalls[position], completion))
            continue
        [candidate] = completion.candidates
        positions.append(position)
        written.append((" ".join(candidate.text.split()), candidate.seed, candidate.tokens_out))
    schema = {name: tables.DIAGNOSED.columns[name] for name in ("diagnosis", "seed", "tokens_out")}
    diagnosed = pl.concat([rows[positions], pl.DataFrame(written, schema=schema, orient="row")], how="horizontal")
    return Output(
        rows=diagnosed.select("row_id", *tables.DIAGNOSED.columns),
        quarantined=quarantined_frame(failed),
        tokens_in=sum(completion.tokens_in for completion in completions),
        tokens_out=sum(tokens for *_, tokens in written),
    )
