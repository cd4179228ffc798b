"""The benchmark on a table with labels by group: the newest release of Demo-SafetyBench, and a file."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from in_process import prepared

from normloom.core.errors import ConfigError
from normloom.core.stage import Output
from normloom.core.table import Manifest
from normloom.schemas.conversations import ITEMS, RATINGS
from normloom.schemas.people.demo_tables import RELEASED
from normloom.schemas.tables import TEXTS
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.testing import made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in persons with answers: women object to conversations with an even number, men to the others."""
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    objects = (pl.col("item_id") % 2 == 0) == (pl.col("rater_gender") == "Woman")
    answer = pl.when(objects).then(pl.lit("Yes")).otherwise(pl.lit("No"))
    pl.read_csv(RATINGS).with_columns(Q_overall=answer).write_csv(path)
    return path


@step(makes=RELEASED)
def publish(*, path: str) -> Output:
    """The columns of a release of Demo-SafetyBench that say who answered what; an expansion has no answer."""
    rows = pl.read_csv(path, schema_overrides={"item_id": pl.String}).join(
        pl.read_csv(ITEMS, schema_overrides={"item_id": pl.String}), on="item_id", maintain_order="left"
    )
    whole = pl.concat([rows, rows.tail(1).with_columns(item_id=pl.lit("drawn"), Q_overall=None)]).with_columns(
        answer="Q_overall", group="rater_gender", labels=pl.lit([]), ratings=pl.lit([]), origin=pl.lit("source")
    )
    filled = [
        pl.col(name).cast(dtype) if name in whole.columns else pl.lit(None).cast(dtype).alias(name)
        for name, dtype in RELEASED.columns.items()
    ]
    named = whole.with_row_index("content").select(
        *filled, content=pl.col("content").cast(pl.String), parents=pl.lit([]).cast(TEXTS)
    )
    return Output(rows=named, attempts=named.height)


@pytest.fixture(scope="module")
def released(store: Store, ratings: Path) -> Manifest:
    return made("demo_safetybench", [publish(path=str(ratings))], store)["publish"]


def test_raters_of_a_release_are_asked_after(released: Manifest, store: Store) -> None:
    ends = prepared("benchmark", store, "source.system=demo_safetybench", "groups.least=1").ends
    tables = made("benchmark", ends, store)
    answered = store.scan(released.ref).collect().drop_nulls("answer")
    items = store.scan(tables["items"].ref).collect()
    assert set(items["prompt_id"]) == set(answered["item_id"])
    labels = store.scan(tables["group_labels"].ref).collect()
    assert "rater_gender" in set(labels["axis"].unique())
    figures = store.scan(tables["follow_figures"].ref).collect()
    assert set(figures["of"].unique()) == {"g1", "g2"}
    assert set(figures["metric"].unique()) == {"agreement", "sides_with"}
    told = figures.filter(metric="agreement", of="g1", slice_by="rater_gender").row(0, named=True)
    assert told["rows"] == labels.filter(axis="rater_gender", group=told["axis"]).height
    assert store.scan(tables["group_figures"].ref).filter(metric="alpha").collect().height > 0
    assert store.scan(tables["leaderboard"].ref).filter(metric="as").collect().height == 2


def test_a_file_of_labels_is_asked_after_too(ratings: Path, tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "labels.csv"
    pl.read_csv(ratings).join(pl.read_csv(ITEMS), on="item_id").write_csv(path)
    columns = "groups={label_column: Q_overall, axes: [rater_gender], least: 1, reference: Man}"
    file = [f"source.path={path}", "source.labelled=true", columns]
    tables = made("benchmark", prepared("benchmark", store, *file).ends, store)
    figures = store.scan(tables["follow_figures"].ref).filter(of="g1").collect()
    pull = figures.filter(metric="sides_with_Man").row(0, named=True)
    items = tables["items"].count("rows")
    assert (pull["axis"], pull["rows"]) == ("Woman", items)  # they differ about every conversation
    by_gender = dict(figures.filter(metric="agreement").select("axis", "value").iter_rows())
    assert by_gender["Man"] == pytest.approx(pull["value"])
    assert by_gender["Woman"] == pytest.approx(1 - pull["value"])


def test_without_a_release_the_benchmark_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="demo_safetybench has no release in this store; build it first"):
        prepared("benchmark", Store(tmp_path), "source.system=demo_safetybench")
    with pytest.raises(ConfigError, match=r"source\.labelled: name the file"):
        prepared("benchmark", Store(tmp_path), "source.labelled=true")
