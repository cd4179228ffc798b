from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict

from normloom.cli.output.drift import label_drift
from normloom.core.contract import Contract
from normloom.core.stage import Output, Stage
from normloom.core.table import TableRef
from normloom.schemas.tables import LABELS
from normloom.store.store import Store
from normloom.testing.toy import runner, words_stage


class Labels(BaseModel):
    model_config = ConfigDict(frozen=True)
    rows: tuple[tuple[str, ...], ...]


def label_rows(arguments: Labels) -> Output:
    rows = [
        {
            "content": str(number),
            "parents": [],
            "labels": [{"dimension": label.partition("/")[0], "label": label, "probability": None} for label in labels],
        }
        for number, labels in enumerate(arguments.rows)
    ]
    schema: dict[str, Any] = {"content": pl.String, "parents": pl.List(pl.String), "labels": LABELS}
    return Output(rows=pl.DataFrame(rows, schema=schema), attempts=len(rows))


def labelled(store: Store, *rows: tuple[str, ...]) -> TableRef:
    contract = Contract(columns={"labels": LABELS})
    stage = Stage(name="labelled", function=label_rows, arguments=Labels(rows=rows), contract=contract)
    return runner(store).run(stage, [], [])[0].ref


def test_counts_shares_and_distance_by_hand(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = labelled(store, ("safety/a", "value/x"), ("safety/a",), ("safety/b",), ("safety/c",), ())
    after = labelled(store, ("safety/a", "value/x"), ("safety/b", "value/x"))
    safety, value = label_drift(before, after, store)
    assert (safety.dimension, safety.before, safety.after) == ("safety", 4, 2)
    assert [(label.label, label.before, label.after, label.shift) for label in safety.labels] == [
        ("safety/b", 1, 1, 0.25),
        ("safety/c", 1, 0, -0.25),
        ("safety/a", 2, 1, 0.0),
    ]
    assert safety.distance == 0.25
    assert (value.dimension, value.before, value.after, value.distance) == ("value", 1, 2, 0.0)


def test_the_largest_shift_comes_first_and_no_label_in_common_is_distance_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (drift,) = label_drift(
        labelled(store, ("v/a",), ("v/a",), ("v/a",), ("v/b",)), labelled(store, ("v/c",), ("v/d",)), store
    )
    assert [label.label for label in drift.labels] == ["v/a", "v/c", "v/d", "v/b"]
    assert drift.distance == pytest.approx(1.0)


def test_a_side_without_labels_has_no_distance(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (drift,) = label_drift(labelled(store, ("v/a",)), labelled(store, ()), store)
    assert (drift.before, drift.after, drift.distance) == (1, 0, None)
    assert [(label.before, label.after) for label in drift.labels] == [(1, 0)]


def test_a_table_without_labels_has_no_drift(tmp_path: Path) -> None:
    store = Store(tmp_path)
    words = runner(store).run(words_stage("a"), [], [])[0].ref
    assert label_drift(words, words, store) == []
    assert label_drift(words, labelled(store, ("v/a",)), store) == []
