"""A step that trains a scikit-learn classifier on sentence vectors (files by skops), and one that uses it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import normloom as nl
from normloom.store.store import Store
from normloom.testing import made, scripted

WORDS = ["calm", "kind", "polite", "angry", "rude", "hostile"]
LABELLED = pl.DataFrame({"word": WORDS * 4, "rude": [False, False, False, True, True, True] * 4})


@nl.step(makes={"vector": pl.List(pl.Float32), "rude": pl.Boolean})
def embed(rows: pl.DataFrame, model: nl.Embedder) -> pl.DataFrame:
    vectors = pl.Series("vector", model.embed(rows["word"].to_list()).tolist(), dtype=pl.List(pl.Float32))
    return rows.select("row_id", "rude", vectors)


@nl.step(makes={"accuracy": pl.Float64}, files="classifier", libraries=("scikit-learn", "skops"))
def train(rows: pl.DataFrame, run: nl.Run) -> nl.Output:
    from sklearn.linear_model import LogisticRegression
    from skops.io import dump

    fitted = LogisticRegression().fit(rows["vector"].to_list(), rows["rude"].to_list())
    dump(fitted, run.files / "classifier.skops")
    told = {"parents": [rows["row_id"].to_list()], "accuracy": [fitted.score(rows["vector"].to_list(), rows["rude"])]}
    return nl.Output(rows=pl.DataFrame(told), attempts=1)


@nl.step(makes={"rude": pl.Boolean}, libraries=("scikit-learn", "skops"))
def apply(rows: pl.DataFrame, *, classifier: nl.ProductFiles) -> pl.DataFrame:
    from skops.io import load

    said = load(classifier.path / "classifier.skops").predict(rows["vector"].to_list())
    return rows.select("row_id", pl.Series("rude", said))


def test_a_classifier_is_a_product_that_later_steps_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    vectors = embed(nl.table(LABELLED), model=scripted())
    tables = made("rudeness", [apply(vectors, classifier=nl.files_of(train(vectors)))], store)
    assert list(tables["train"].attached) == ["classifier.skops"]
    assert store.scan(tables["train"].ref).collect()["accuracy"].item() == 1
    assert store.scan(tables["apply"].ref).collect()["rude"].to_list() == LABELLED["rude"].to_list()
    assert [ref.stage for ref in tables["apply"].sides] == ["train"]
