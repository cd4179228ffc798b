"""CROSS-ALIGN+ by hand: hard pairs, the adapted head and its contrast, gains, evidence, and what is claimed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from normloom.core.errors import SourceError, StageError
from normloom.readers import locate
from normloom.tasks.cross_align.claim import claim
from normloom.tasks.cross_align.evidence import Unit, left
from normloom.tasks.cross_align.explanations import ids_in
from normloom.tasks.cross_align.figures import counts, gain, macro_f1, relative_gain
from normloom.tasks.cross_align.memes import Columns, MemeReading, read_labelled_memes
from normloom.tasks.cross_align.texts import Apart, keep_apart, near_memes
from normloom.tasks.cross_align.training.hard_pairs import hard_pairs, nearest
from normloom.tasks.cross_align.training.head import AdaptedHead, supervised_contrast
from normloom.tasks.cross_align.variants import variants

LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30)


def table(text: str, place: Path) -> Path:
    path = place / "memes.csv"
    path.write_text(text)
    return path


def test_the_nearest_of_each_class_is_found() -> None:
    unit = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels = np.array(["a", "b", "c", "c"] * 10, dtype=object)
    positive, negative, distance = nearest(unit, labels)
    near = unit.astype(np.float64) @ unit.T.astype(np.float64)
    for row in range(40):
        own = [other for other in range(40) if labels[other] == labels[row] and other != row]
        others = [other for other in range(40) if labels[other] != labels[row]]
        assert positive[row] == max(own, key=lambda other: near[row, other])
        assert negative[row] == max(others, key=lambda other: near[row, other])
        assert distance[row] == pytest.approx(1 - near[row, negative[row]], abs=1e-6)


def test_a_task_of_one_class_cannot_be_learned() -> None:
    memes = pl.DataFrame({"row_id": ["a"], "meme_id": ["a"], "task": ["t"], "split": ["train"], "label": ["x"]})
    with pytest.raises(StageError, match="task 't': its 1 training memes have 1 class, expected at least 2; 0 more"):
        hard_pairs.function(memes, pl.DataFrame(schema={"item_id": pl.String, "vector": pl.List(pl.Float32)}))


def test_an_update_changes_nothing_before_it_is_trained_and_has_its_rank() -> None:
    head = AdaptedHead(torch.randn(3, 6), torch.randn(3), rank=2, scale=2.0)
    vectors = torch.randn(5, 6)
    assert torch.equal(head(vectors), head.plain(vectors))
    with torch.no_grad():
        head.up.normal_()
    change = head(torch.eye(6)) - head.plain(torch.eye(6))
    assert int(torch.linalg.matrix_rank(change.T - change.T.mean(0) * 0)) == 2
    assert torch.allclose(head(vectors) - head.plain(vectors), 2 * vectors @ (head.up @ head.down).T, atol=1e-5)


def test_the_contrast_of_three_rows_by_hand() -> None:
    unit = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = supervised_contrast(unit, torch.tensor([0, 0, 1]), temperature=1.0)
    assert float(loss) == pytest.approx(math.log(math.e + 1) - 1)  # of both rows of class 0; the third has no positive
    alone = supervised_contrast(unit, torch.tensor([0, 1, 2]), temperature=1.0)
    assert float(alone) == 0


@given(pairs=LABELS)
def test_macro_f1_of_several_classes_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    rows = pl.DataFrame(pairs, schema=["label", "label_hat"], orient="row")
    sums = counts(rows, "abc").sum(axis=0, keepdims=True)
    there = sorted({*rows["label"], *rows["label_hat"]})
    expected = f1_score(rows["label"], rows["label_hat"], labels=there, average="macro", zero_division=0)
    assert macro_f1(sums)[0] == pytest.approx(expected)


def test_a_relative_gain_is_over_what_it_is_a_gain_over() -> None:
    better, worse = np.array([[4.0, 0, 0, 4, 0, 0]]), np.array([[2.0, 2, 2, 2, 2, 2]])
    assert (gain(better, worse)[0], relative_gain(better, worse)[0]) == (0.5, 1.0)


def gains(plain: tuple[float, float, float], shuffled: tuple[float, float, float]) -> dict[str, dict[str, Any]]:
    names = ("value", "low", "high")
    return {
        "plain": dict(zip(names, plain, strict=True)) | {"undefined": None},
        "shuffled": dict(zip(names, shuffled, strict=True)) | {"undefined": None},
    }


@pytest.mark.parametrize(
    ("plain", "shuffled", "said"),
    [
        (
            (0.05, 0.01, 0.09),
            (0.06, 0.02, 0.1),
            "memes: knowledge helps: +0.050 macro-F1 over plain (+0.010 to +0.090)",
        ),
        ((0.05, 0.01, 0.09), (0.01, -0.02, 0.1), "memes: facts of another meme do as well"),
        ((0.05, -0.01, 0.09), (0.06, 0.02, 0.1), "memes: no finding that knowledge helps"),
        ((-0.05, -0.09, -0.01), (0.06, 0.02, 0.1), "memes: knowledge hurts"),
    ],
)
def test_knowledge_is_called_a_help_if_it_beats_none_and_another_memes(
    plain: tuple[float, float, float], shuffled: tuple[float, float, float], said: str
) -> None:
    found = gains(plain, shuffled)
    assert claim("memes", found, found).startswith(said)


def test_evidence_goes_with_its_words_and_its_facts() -> None:
    mask = Unit(5, 9, ("a:m1",), ("a:f1", "a:f2"), ("mask covers faces", "mask is a thing"), ("wordnet",))
    virus = Unit(14, 19, ("a:m2",), ("a:f3",), ("virus spreads.",), ("symbols",))
    text = "Wear mask, no virus here"
    assert left([mask], [mask, virus], text) == "Wear , no virus here\nvirus spreads."
    assert left([mask, virus], [mask, virus], text) == "Wear , no here"
    assert left([], [mask, virus], text).splitlines()[1:] == [
        "mask covers faces.",
        "mask is a thing.",
        "virus spreads.",
    ]


def test_ids_are_read_out_of_slots() -> None:
    assert ids_in("Says “[sic]” [m1, f2] and [f10].", "a:b") == ["a:b:m1", "a:b:f2", "a:b:f10"]


def test_the_control_has_facts_of_another_meme_of_its_split() -> None:
    memes = pl.DataFrame(
        {
            "row_id": list("abcde"),
            "meme_id": list("abcde"),
            "task": ["t"] * 5,
            "split": ["train", "train", "test", "test", "test"],
            "text": ["x"] * 5,
        }
    )
    facts = pl.DataFrame({"meme_id": list("abcd"), "sentence": ["A", "B", "C", "D"]})
    made = variants.function(memes, facts).rows
    donors = dict(made.filter(variant="shuffled").select("meme_id", "donor").iter_rows())
    assert donors == {"a": "b", "b": "a", "c": "d", "d": "c"}
    assert made.filter(meme_id="e")["variant"].to_list() == ["plain"]
    assert made.filter(meme_id="a")["text"].to_list() == ["x", "x\nA.", "x\nB."]


def test_what_nearly_repeats_a_test_meme_is_not_learned() -> None:
    long = "the government will tell you that the virus is nothing to be afraid of at all my friends"
    memes = pl.DataFrame(
        {
            "row_id": ["a", "b", "c"],
            "parents": [[], [], []],
            "meme_id": ["a", "b", "c"],
            "split": ["train", "train", "test"],
            "text": [f"{long}!", "parked on the first try and nobody was watching", long],
            "media_id": [None, "p", "q"],
        },
        schema_overrides={"parents": pl.List(pl.String)},
    )
    near = near_memes.function(memes, Apart()).rows
    assert near.select("meme_id", "near_id", "by").rows() == [("a", "c", "text")]
    assert keep_apart.function(memes, near)["split"].to_list() == ["near_test", "train", "test"]
    media = pl.DataFrame({"media_id": ["p", "q"], "phash": [7, 5]}, schema_overrides={"phash": pl.UInt64})
    pictures = near_memes.function(memes, Apart(), media).rows
    assert pictures.select("meme_id", "by", "distance").rows()[1] == ("b", "picture", 1)
    none = media.filter(pl.col("media_id") == "p")  # the other split has no picture
    assert near_memes.function(memes, Apart(), none).rows["by"].to_list() == ["text"]


class TestReading:
    def test_columns_are_found_or_named_and_labels_renamed(self, tmp_path: Path) -> None:
        path = table("id,words,label,split\n1,Hello,very bad,val\n2,Bye,bad,\n", tmp_path)
        args = MemeReading(columns=Columns(text="words"), labels={"very bad": "bad"})
        read = read_labelled_memes.function(args, source=locate(path), pictures=False)
        assert read.rows.select("meme_id", "text", "label", "task").rows() == [
            ("1", "Hello", "bad", "memes"),
            ("2", "Bye", "bad", "memes"),
        ]
        assert read.rows["split"][0] == "validation"

    def test_each_fault_has_its_rule(self, tmp_path: Path) -> None:
        path = table(
            "id,text,label,split\n1,a,x,test\n1,a,x,test\n2,a,,test\n3,,x,test\n4,a,x,later\n,a,x,test\n", tmp_path
        )
        read = read_labelled_memes.function(MemeReading(), source=locate(path), pictures=False)
        assert read.quarantined["rule"].to_list() == [
            "repeated_id",
            "no_label",
            "no_text",
            "unknown_split",
            "missing_id",
        ]
        seen = read_labelled_memes.function(MemeReading(), source=locate(path), pictures=True)
        assert "no_text" not in seen.quarantined["rule"].to_list()

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        path = table("id,label\n1,x\n", tmp_path)
        with pytest.raises(
            SourceError, match=r"no column of the text \(text, ocr_text, caption\): name it with source"
        ):
            read_labelled_memes.function(MemeReading(), source=locate(path), pictures=False)
        args = MemeReading(columns=Columns(text="words"))
        with pytest.raises(SourceError, match=r"no column 'words' \(source.columns.text\); it has id, label"):
            read_labelled_memes.function(args, source=locate(path), pictures=False)
