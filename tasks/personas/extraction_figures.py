"""How well the extractor reads utterances that it was not trained on."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people.persona_tables import OK
from normloom.steps.step import step
from normloom.tasks.metrics.clustered import clustered, clustered_share
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output

UTTERANCES = "utterances"
_OF = "extractor"


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def extraction_figures(rows: pl.DataFrame) -> Output:
    """Return exact span F1 and relation accuracy, over all and by relation, with intervals that resample texts."""
    figures = [figure_row(_span_f1(rows), metric="span_f1", of=_OF), *_accuracies(rows)]
    read = clustered_share(rows, pl.col("parse_status") == OK, cluster="text", what=UTTERANCES)
    return figures_output([*figures, figure_row(read, metric="read", of=_OF)])


def _span_f1(rows: pl.DataFrame) -> Figure:
    counted = (
        rows.group_by("text")
        .agg(right=pl.col("span_right").sum(), found=pl.col("object").count(), all=pl.len())
        .sort("text")
    )
    counts = counted.select("right", "found", "all").cast(pl.Float64).to_numpy()
    return clustered(counts, lambda sums: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]), rows=rows.height, what=UTTERANCES)


def _accuracies(rows: pl.DataFrame) -> list[dict[str, object]]:
    right = pl.col("relation_right")
    figures = [
        figure_row(clustered_share(rows, right, cluster="text", what=UTTERANCES), metric="relation_accuracy", of=_OF)
    ]
    for (relation,), own in rows.sort("true_relation").group_by("true_relation", maintain_order=True):
        figure = clustered_share(own, right, cluster="text", what=UTTERANCES)
        figures.append(figure_row(figure, metric="relation_accuracy", of=_OF, slice_by="relation", slice=str(relation)))
    return figures
