"""Sparse labels within demographic groups, and new prompts for them that a person of the group might send."""

from __future__ import annotations

import polars as pl

from normloom.models.protocol import LanguageModel, ModelSpec
from normloom.schemas import demo_tables
from normloom.schemas.demo_tables import AXES
from normloom.schemas.template import Template
from normloom.stage import NoArguments, Output, Stage
from normloom.tasks import bounds
from normloom.tasks.expand import Expansion, GapSearch, draft_prompts
from normloom.tasks.rate import described

_PERSON = ["group", *AXES]


def find_group_gaps(rows: pl.DataFrame, arguments: GapSearch) -> Output:
    """Return one row for each group and label with too few conversations; its parents are those shown as examples."""
    labels = pl.DataFrame(
        [(taxonomy.dimension, label.id) for taxonomy in arguments.taxonomies for label in taxonomy.labels],
        schema=["dimension", "label"],
        orient="row",
    )
    having = (
        rows.select("group", "row_id", "context", label="labels")
        .explode("label")
        .group_by("group", "label", maintain_order=True)
        .agg(
            prompts=pl.len().cast(pl.Int64),
            parents=pl.col("row_id").head(arguments.examples),
            examples=pl.col("context").head(arguments.examples),
        )
    )
    groups = rows.select(_PERSON).unique(maintain_order=True).sort("group")
    cells = groups.join(labels, how="cross").join(having, on=["group", "label"], how="left", maintain_order="left")
    gaps = cells.with_columns(
        pl.col("prompts").fill_null(0),
        pl.col("parents", "examples").fill_null([]),
        quota=pl.lit(arguments.quota, dtype=pl.Int64),
        content=pl.format("{} {}", "group", "label"),
    ).filter(pl.col("prompts") < arguments.minimum)
    return Output(rows=gaps, attempts=gaps.height)


def draft_for_groups(rows: pl.DataFrame, arguments: Expansion, requests: pl.DataFrame, model: LanguageModel) -> Output:
    """Draw prompts for each group's gaps as `normloom.tasks.expand` does, told who the person is.

    A draft is compared with the other prompts of its group only. It becomes the context of a conversation without
    a response.
    """
    outputs = [
        draft_prompts(
            gaps,
            arguments.model_copy(update={"template": _for_person(arguments.template, gaps.select(*AXES).row(0))}),
            requests.filter(group=group).select("row_id", prompt="context"),
            model,
        )
        for (group,), gaps in rows.group_by("group", maintain_order=True)
    ]
    drafts = pl.concat([output.rows for output in outputs]).select(
        "row_id",
        "prompt",
        "seed",
        "tokens_out",
        "origin",
        item_id=pl.format("expansion-{}", "seed"),  # seeds belong to gap and draw: no two are equal
        context="prompt",
        labels=pl.col("labels").list.eval(pl.element().struct.field("label")),
        response=pl.lit(""),
        safety_gold=pl.lit(None, dtype=pl.String),
        weight=pl.lit(1, dtype=pl.Int64),
    )
    return Output(
        rows=drafts.join(rows.select("row_id", *_PERSON), on="row_id", how="left", maintain_order="left"),
        dropped=pl.concat([output.dropped for output in outputs]),
        quarantined=pl.concat([output.quarantined for output in outputs]),
        attempts=sum(output.attempts or 0 for output in outputs),
        tokens_in=sum(output.tokens_in for output in outputs),
        tokens_out=sum(output.tokens_out for output in outputs),
        metrics={"labels_short": sum(output.metrics["labels_short"] for output in outputs)},
    )


def count_group_coverage(rows: pl.DataFrame, arguments: NoArguments, unique: pl.DataFrame) -> Output:  # noqa: ARG001  # as stages are called
    """Count for each gap the drawn prompts that were kept, and what its quota still lacks."""
    drawn = unique.filter(origin="expansion").explode("labels").group_by("group", label="labels").len("added")
    counted = rows.join(drawn, on=["group", "label"], how="left", maintain_order="left").with_columns(
        pl.col("added").fill_null(0).cast(pl.Int64)
    )
    missing = (pl.col("quota") - pl.col("added")).clip(0)
    return Output(rows=counted.select("row_id", "group", "label", "prompts", "quota", "added", missing=missing))


def _for_person(template: Template, person: tuple[str | None, ...]) -> Template:
    """Return a template with its `$person` filled."""
    words = described(*person).replace("$", "$$")
    sections = {name: text.replace("$person", words) for name, text in template.sections.items()}
    return template.model_copy(update={"sections": sections})


def find_sparse_in_groups(requests: Stage, *, arguments: GapSearch, name: str = "gaps") -> Stage:
    """Return the stage that finds the labels that are sparse within a group."""
    return Stage(
        name=name,
        function=find_group_gaps,
        bound=bounds.sparse_labels_of_groups,
        arguments=arguments,
        contract=demo_tables.GROUP_GAPS,
        inputs=(requests,),
    )


def expand_groups(
    gaps: Stage, requests: Stage, *, arguments: Expansion, model: ModelSpec, part_rows: int | None, name: str = "expand"
) -> Stage:
    """Return the stage that draws prompts for labels that are sparse within a group."""
    return Stage(
        name=name,
        function=draft_for_groups,
        bound=bounds.drafted,
        arguments=arguments,
        contract=demo_tables.REQUESTS,
        inputs=(gaps,),
        sides=(requests,),
        model=model,
        part_rows=part_rows,
    )


def group_coverage(gaps: Stage, unique: Stage, *, name: str = "coverage") -> Stage:
    """Return the stage that counts how far the quota of each group and label was met."""
    return Stage(
        name=name,
        function=count_group_coverage,
        arguments=NoArguments(),
        contract=demo_tables.GROUP_COVERAGE,
        inputs=(gaps,),
        sides=(unique,),
    )
