from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.core.errors import ContractError
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.tasks.release.publish import publish

DIMENSIONS = ("safety", "value")


def split(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Selected responses of an id, a prompt and an alignment."""
    made = [
        {
            "row_id": row_id,
            "parents": [],
            "prompt_id": prompt,
            "prompt": f"{prompt}?",
            "generator": "g",
            "round": 1,
            "response": f"response {row_id}",
            "alignment": alignment,
            "checks": [],
            "margin": 0.1,
            "split": "test",
            "cluster": prompt,
        }
        for row_id, prompt, alignment in rows
    ]
    return pl.DataFrame(made, schema=tables.SPLIT.schema)


def unique(**prompts: list[tuple[str, str, float | None]]) -> pl.DataFrame:
    """Prompts with labels of a dimension, a label and a probability."""
    rows = [
        {
            "row_id": prompt,
            "source_row": number,
            "origin": "expansion" if any(label[2] is None for label in labels) else "source",
            "labels": [dict(zip(("dimension", "label", "probability"), label, strict=True)) for label in labels],
        }
        for number, (prompt, labels) in enumerate(prompts.items(), start=1)
    ]
    schema: dict[str, Any] = {"row_id": pl.String, "source_row": pl.Int64, "origin": pl.String, "labels": tables.LABELS}
    return pl.DataFrame(rows, schema=schema)


def published(rows: pl.DataFrame, prompts: pl.DataFrame) -> Output:
    stage = publish(ANY, ANY, dimensions=DIMENSIONS)
    return carry_out(stage, rows, prompts)


def test_each_response_carries_its_prompt_s_labels_by_dimension() -> None:
    prompts = unique(
        one=[("safety", "safety/a", 0.75), ("value", "value/b", 0.5), ("safety", "safety/c", 0.875)],
        two=[("value", "value/b", None)],
        three=[("safety", "safety/a", 1.0)],
    )
    made = published(split(("x", "two", "aligned"), ("y", "one", "aligned"), ("z", "one", "misaligned")), prompts)
    both = [{"label": "safety/a", "probability": 0.75}, {"label": "safety/c", "probability": 0.875}]
    assert made.rows.select("prompt_id", "response", "alignment", "safety", "value", "origin").rows() == [
        ("two", "response x", "aligned", [], [{"label": "value/b", "probability": None}], "expansion"),
        ("one", "response y", "aligned", both, [{"label": "value/b", "probability": 0.5}], "source"),
        ("one", "response z", "misaligned", both, [{"label": "value/b", "probability": 0.5}], "source"),
    ]
    assert made.rows["parents"].to_list() == [["x"], ["y"], ["z"]]


def test_the_released_columns_are_the_contract_s() -> None:
    made = published(split(("x", "one", "aligned")), unique(one=[("value", "value/b", 1.0)]))
    expected = [
        "row_id",
        "parents",
        "prompt_id",
        "prompt",
        "response",
        "messages",
        "alignment",
        "generator",
        "safety",
        "value",
        "split",
        "origin",
        "source_row",
    ]
    assert made.rows.columns == expected
    assert made.rows["split"].to_list() == ["test"]


def test_a_response_whose_prompt_is_unknown_is_refused() -> None:
    with pytest.raises(ContractError, match="column 'safety' may not be null, but is in 1 row "):
        published(split(("x", "gone", "aligned")), unique(one=[]))
