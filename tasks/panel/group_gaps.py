"""Sparse labels within demographic groups, and new prompts for them that a person of the group might send."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.models.protocol import LanguageModel
from normloom.core.stage import Output
from normloom.near_duplicates.features import Features
from normloom.schemas.people import demo_tables
from normloom.schemas.people.demo_tables import AXES
from normloom.schemas.taxonomy import Taxonomy
from normloom.schemas.template import Template, template_named
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.panel.rate import described
from normloom.tasks.prompts.expand import EXPANDS, Drafting, GapSearch, expand

_PERSON = ["group", *AXES]


class GroupDrafting(Drafting):
    """How prompts that a person of a group might send are drafted."""

    template: Annotated[Template, EXPANDS] = template_named("expand_group")
    part_rows: int = Field(14, ge=1, exclude=True, description="labels of groups in one part")


@step(
    makes=demo_tables.GROUP_GAPS,
    name="gaps",
    bound=bounds.sparse_labels_of_groups,
    fan_out=free("one row for each sparse label of a group"),
)
def find_sparse_in_groups(
    rows: pl.DataFrame, args: GapSearch, *, taxonomies: tuple[Taxonomy, ...], minimum: int
) -> Output:
    """Return one row for each group and label with fewer than `minimum` conversations.

    Its parents are those shown as examples.
    """
    labels = pl.DataFrame(
        [(taxonomy.dimension, label.id) for taxonomy in taxonomies for label in taxonomy.labels],
        schema=["dimension", "label"],
        orient="row",
    )
    having = (
        rows.select("group", "row_id", "context", label="labels")
        .explode("label")
        .group_by("group", "label", maintain_order=True)
        .agg(
            prompts=pl.len().cast(pl.Int64),
            parents=pl.col("row_id").head(args.examples),
            examples=pl.col("context").head(args.examples),
        )
    )
    groups = rows.select(_PERSON).unique(maintain_order=True).sort("group")
    cells = groups.join(labels, how="cross").join(having, on=["group", "label"], how="left", maintain_order="left")
    gaps = cells.with_columns(
        pl.col("prompts").fill_null(0),
        pl.col("parents", "examples").fill_null([]),
        quota=pl.lit(args.quota, dtype=pl.Int64),
        content=pl.format("{} {}", "group", "label"),
    ).filter(pl.col("prompts") < minimum)
    return Output(rows=gaps)


@step(
    makes=demo_tables.REQUESTS,
    name="expand",
    bound=bounds.drafted,
    fan_out=free("drafts are drawn until the quota is met"),
    libraries=("numba", "numpy"),
)
def expand_groups(
    rows: pl.DataFrame,
    args: GroupDrafting,
    requests: pl.DataFrame,
    model: LanguageModel,
    *,
    taxonomies: tuple[Taxonomy, ...],
    tau: int = 10,
    features: Features = Features(),
) -> Output:
    """Draw prompts for each group's gaps as `normloom.tasks.prompts.expand` does, saying who the person is.

    A draft is compared with the other prompts of its group only. It becomes the context of a conversation without
    a response.
    """
    outputs = [
        expand.function(
            gaps,
            args.model_copy(update={"template": _for_person(args.template, gaps.select(*AXES).row(0))}),
            requests.filter(group=group).select("row_id", prompt="context"),
            model,
            taxonomies=taxonomies,
            tau=tau,
            features=features,
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


@step(makes=demo_tables.GROUP_COVERAGE, name="coverage", fan_out=each())
def group_coverage(rows: pl.DataFrame, unique: pl.DataFrame) -> Output:
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
