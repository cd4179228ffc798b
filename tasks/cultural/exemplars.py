"""The nearest training meme of each item, as the example of a one-shot prompt, and how far texts are translations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each, free
from normloom.core.models.protocol import Embedder
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import cultural_tables
from normloom.schemas.media.cultural_tables import TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.cultural.memes import PIVOT

if TYPE_CHECKING:
    import numpy as np

LOWEST = 0.05


class ExemplarEncoding(Args):
    """How texts become vectors."""

    part_rows: int = Field(2_048, ge=1, exclude=True, description="texts in one part")


@step(makes=cultural_tables.VECTORS, name="vectors", libraries=("numpy",), fan_out=each())
def encode(rows: pl.DataFrame, args: ExemplarEncoding, model: Embedder) -> pl.DataFrame:  # noqa: ARG001  # sizes of parts
    """Return the sentence vector of each text."""
    vectors = model.embed(rows["text"].to_list())
    return rows.select("row_id", "item_id", vector=pl.Series(vectors.tolist(), dtype=pl.List(pl.Float32)))


@step(
    makes=cultural_tables.EXEMPLARS,
    bound=bounds.as_many,
    libraries=("numpy",),
    fan_out=each(pl.when(pl.col("split") == TEST).then(1).otherwise(0)),
)
def exemplars(rows: pl.DataFrame, vectors: pl.DataFrame) -> Output:
    """Return for each item of the test split the nearest training item of its language, by cosine.

    The labels wanted alternate from meme to meme, the same in every language, so that half of the examples are
    hateful; if the training split has none of the label, the other one is taken. Training memes have other pictures,
    so an item never sees its own meme in another language. An item without any is dropped as `no_exemplar`.
    """
    found, lost = [], []
    told = rows.join(vectors.select("item_id", "vector"), on="item_id", how="left", maintain_order="left")
    wanted = {
        meme: position % 2
        for position, meme in enumerate(rows.filter(split=TEST)["meme_id"].unique(maintain_order=True))
    }
    for _, items in told.group_by("language", maintain_order=True):
        train, test = items.filter(split=TRAIN), items.filter(split=TEST)
        if train.is_empty():
            lost.append(test)
            continue
        cosines = _matrix(test) @ _matrix(train).T
        labels = train["label"].to_numpy()
        for item, near in zip(test.iter_rows(named=True), cosines, strict=True):
            of_label = labels == wanted[item["meme_id"]]
            best = int((near - 4 * ~of_label).argmax())  # a cosine is at most 2 from another
            shot = train.row(best, named=True)
            found.append(
                {
                    "row_id": item["row_id"],
                    "item_id": item["item_id"],
                    "shot_id": shot["item_id"],
                    "shot_text": shot["text"],
                    "shot_translation": shot["translation"],
                    "shot_label": shot["label"],
                    "cosine": float(near[best]),
                }
            )
    return Output(
        rows=pl.DataFrame(found, schema={"row_id": pl.String, **cultural_tables.EXEMPLARS.columns}),
        dropped=pl.concat(
            dropped_rows(gone, reason="no_exemplar", leaving_out=("vector",)) for gone in (*lost, told.clear())
        ),
        attempts=rows.filter(split=TEST).height,
    )


@step(
    makes=cultural_tables.BACK_CHECK,
    libraries=("numpy",),
    fan_out=free("one row for each item that has a translation"),
)
def back_check(rows: pl.DataFrame, vectors: pl.DataFrame) -> pl.DataFrame:
    """Return the cosine of each text and its English version; the lowest 5 % of a language are marked to be read."""
    import numpy as np

    told = rows.join(vectors.select("item_id", "vector"), on="item_id", maintain_order="left")
    pivot = told.filter(language=PIVOT).select("meme_id", pivot="vector")
    both = told.filter(pl.col("language") != PIVOT).join(pivot, on="meme_id", maintain_order="left")
    cosines = np.einsum("ij,ij->i", _matrix(both), _matrix(both, "pivot"))
    near = both.select("row_id", "item_id", "language", cosine=pl.Series(cosines, dtype=pl.Float64))
    least = pl.col("cosine").rank("ordinal").over("language") <= (LOWEST * pl.len().over("language")).ceil()
    return near.with_columns(lowest=least)


def _matrix(rows: pl.DataFrame, column: str = "vector") -> np.ndarray:
    """Return the vectors as (rows, dimensions), float64."""
    import numpy as np

    return np.array(rows[column].to_list(), dtype=np.float64).reshape(rows.height, -1)
