"""What steps refuse, with the words that say why, and figures that have no value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from normloom.core.errors import ConfigError, SourceError, StageError
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.labelling.asking import Asking
from normloom.labelling.questions import LabelSchema, Question
from normloom.readers import locate
from normloom.schemas.template import templates_of
from normloom.tasks.alignx.merge import merge
from normloom.tasks.audit.audit import frame
from normloom.tasks.audit.auditing import Auditing
from normloom.tasks.audit.bounds import Bound, missed
from normloom.tasks.audit.rogan_gladen import rogan_gladen
from normloom.tasks.audit.stratified import Rate
from normloom.tasks.cross_align.memes import MemeReading, read_labelled_memes
from normloom.tasks.cross_align.training.hard_pairs import matrix
from normloom.tasks.deepfakes.pairs import Pairing, pairs
from normloom.tasks.knowledge.by_rows import lexicon
from normloom.tasks.knowledge.wordnet import locate_wordnet
from normloom.tasks.labels.ask import answered, queue
from normloom.tasks.media.fitted import matrix_of
from normloom.tasks.media.read_text import Recognition, read_text
from normloom.tasks.metrics.clustered import clustered_share
from normloom.tasks.metrics.figure import Figure
from normloom.tasks.missing_modality.curves import Measured
from normloom.tasks.missing_modality.items import ItemSettings, pair_items
from normloom.tasks.personas.extractor import Extracting, extractor
from normloom.tasks.personas.utterances import TEXTS, ReadUtterances, read_utterances
from normloom.tasks.tradeoff.axis_rows import published_axes
from normloom.tasks.tradeoff.axis_sets import ReadAxisSet, read_axis_set
from normloom.tasks.tradeoff.recorded_wins import read_judged

AUDITING = Auditing(verdict="alignment", of="misaligned", values=("aligned", "misaligned"), show=("text",), budget=2)
VECTORS = pl.DataFrame({"item_id": ["a", "b"], "encoder": "e", "vector": [[1.0, 0.0], [0.0, 1.0]]})

UTTERANCE = "text,subject,object,relation\nI like tea.,I,coffee,likes\n"


def judged(**columns: Any) -> pl.DataFrame:
    rows = {"row_id": ["1", "2"], "parents": [["p"], ["q"]], "text": ["one", "two"]}
    return pl.DataFrame(rows | {"alignment": ["aligned", "misaligned"]} | columns)


class TestAudit:
    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            (judged().drop("text"), "the table has no column 'text'; available: "),
            (judged(alignment=["aligned", "maybe"]), "column 'alignment' has 'maybe', which is none of aligned, mis"),
            (judged(alignment=["aligned", None]), "1 rows have no 'alignment'"),
        ],
    )
    def test_a_table_that_cannot_be_audited_is_refused(self, rows: pl.DataFrame, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            frame.function(rows, AUDITING)

    def test_margins_come_from_the_rows_that_the_table_was_made_of(self) -> None:
        asked = AUDITING.model_copy(update={"margin": "margin"})
        margins = pl.DataFrame({"row_id": ["q", "p"], "margin": [0.9, 0.1]})
        made = frame.function(judged(), asked, margins).rows
        assert made["audit_margin"].to_list() == [0.1, 0.9]
        assert "audit_parent" not in made.columns
        with pytest.raises(ConfigError, match="neither the table nor one that it was made of has the column 'margin'"):
            frame.function(judged(), asked, margins.drop("margin"))

    def test_a_bound_of_a_figure_that_has_no_value_is_missed(self) -> None:
        figure = {"axis": "", "metric": "precision", "of": "misaligned", "slice_by": "overall", "value": None}
        figures = pl.DataFrame([{**figure, "low": None, "rows": 3, "undefined": "3 answers, fewer than 5"}])
        asked = [Bound.parse("precision misaligned 0.9"), Bound.parse("share misaligned 0.1")]
        said = list(missed(figures, asked))
        assert said[0].endswith("it has no value (3 answers, fewer than 5)")
        assert said[1].endswith("lower bound: the audit has no such figure; it has precision of misaligned")

    def test_a_judge_that_is_a_coin_corrects_nothing(self) -> None:
        coin = Rate(value=0.5, low=0.4, high=0.6, effective=90, variance=0.0025)
        found = rogan_gladen(30, 100, coin, coin)
        assert (found.value, found.undefined) == (None, "the judge's verdict says next to nothing of the truth")


def asking(**changed: Any) -> Asking:
    asks = LabelSchema(questions={"fair": Question(options=("yes", "no"))})
    return Asking(**{"name": "fairness", "asks": asks, "show": ("text",), "order": "random"} | changed)


def test_a_table_with_a_column_of_the_queue_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"ask 'fairness': column 'fair' is also a name of the queue or of a question; rename it",
    ):
        queue.function(judged(fair=["yes", "no"]), asking())


def test_of_several_options_those_stand_that_more_than_half_chose() -> None:
    asked = asking(asks=LabelSchema(questions={"topics": Question(options=("a", "b", "c"), several=True)}), people=3)
    rows = queue.function(judged().head(1), asked).rows
    chosen = {"ada": ["a", "c"], "bob": ["c", "b"], "cyd": ["c", "a"]}
    answers = [
        {"row_id": who, "asked": "1", "question": "topics", "value": json.dumps(given), "who": who, "shown": None}
        for who, given in chosen.items()
    ]
    made = answered.function(rows, asked, pl.DataFrame(answers)).rows
    assert made["topics"].to_list() == [["a", "c"]]
    assert made["answers"].to_list() == [3]


@pytest.mark.parametrize(
    ("name", "words"),
    [("juge.txt", r"unknown template .*juge.txt; did you mean judge.txt"), ("zzz.txt", "; templates are ")],
)
def test_a_template_that_nothing_reads_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[instruction]\nSay.\n")
    with pytest.raises(ConfigError, match=words), templates_of(tmp_path):
        pass


def csv(folder: Path, text: str) -> Any:
    path = folder / "given.csv"
    path.write_text(text)
    return locate(str(path))


def of_vectors(second: list[float] | None) -> pl.DataFrame:
    return VECTORS.with_columns(vector=pl.Series([[1.0, 0.0], second]))


def sided(label: str) -> pl.DataFrame:
    columns = ("item_id", "row_id", "generator", "source_item")
    return pl.DataFrame([dict.fromkeys(columns, "a") | {"label": label}])


PUBLISHED = {"row_id": "a", "prompt_id": "p", "prompt": "Why?", "response": "So.", "alignment": "aligned"} | {
    "split": "train",
    "safety": [],
}
MEME = pl.DataFrame(
    {"row_id": ["1"], "meme_id": ["1"], "template": ["t"], "texts": [[{"language": "en", "text": "x"}]]}
    | {"labels": [[{"country": "us", "label": 1}]]}
)
PICTURE = pl.DataFrame(
    {"meme_id": ["1"], "language": ["en"], "media_id": ["m"], "shard": ["s"], "offset": [0], "size": [1]}
)


REFUSED: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "items without a vector": (
        lambda _: matrix_of(VECTORS, of_vectors(None), "image"),
        StageError,
        "1 of 2 items have no vector of their image",
    ),
    "vectors of two widths": (
        lambda _: matrix_of(VECTORS, of_vectors([1.0]), "image"),
        StageError,
        r"vectors of image have \[1, 2\] numbers: expected one width",
    ),
    "memes of two widths": (lambda _: matrix(of_vectors([1.0])["vector"]), StageError, "expected one width for all"),
    "real items alone": (
        lambda _: pairs.function(sided("real"), Pairing(), views=("a", "b")),
        StageError,
        "1 real items and 0 fakes: expected some of both",
    ),
    "a share that is no number": (
        lambda folder: lexicon(csv(folder, "ngram,prophate\nword,much\n")),
        SourceError,
        "record 1: prophate is 'much', expected a share from 0 to 1",
    ),
    "a folder without WordNet": (locate_wordnet, SourceError, "is not a WordNet folder: it lacks data.noun"),
    "labelled memes without a label": (
        lambda folder: read_labelled_memes.function(
            MemeReading(), source=csv(folder, "id,text,label\n1,Hello,\n"), pictures=False
        ),
        SourceError,
        r"given.csv: its only record cannot be used \(no_label; record 1: the label is empty\)",
    ),
    "an axis set of another split": (
        lambda folder: read_axis_set.function(
            ReadAxisSet(), source=csv(folder, "axis,prompt,split\nkind,Why?,later\n"), layout="axes"
        ),
        SourceError,
        r"given.csv: its only record cannot be used \(unknown_split; record 1: split is 'later', expected train, dev",
    ),
    "judgements of nobody": (
        lambda folder: read_judged.function(
            source=csv(folder, "model,instruction,baseline_reply,model_reply,preference\n,Why?,a,b,1\n"), judge="j"
        ),
        SourceError,
        r"given.csv: its only record cannot be used \(missing_value; record 1: no model\)",
    ),
    "a published table without labels": (
        lambda _: published_axes.function(pl.DataFrame([PUBLISHED]), dimensions=("safety",)),
        SourceError,
        "the published table has no prompt with a label of safety",
    ),
    "utterances of one relation": (
        lambda folder: extractor.function(
            pl.DataFrame({"split": ["train"], "relation": ["likes"]}), Extracting(), run=Run(folder, folder)
        ),
        StageError,
        "the training utterances state fewer than two relations",
    ),
    "fewer templates than folds": (
        lambda _: pair_items.function(MEME, ItemSettings(folds=3), PICTURE),
        StageError,
        "1 templates with pictures: expected at least one for each of 3 folds",
    ),
    "experts that are no files": (
        lambda folder: merge.function(
            pl.DataFrame({"axis": ["kind"]}),
            experts=RolesSpec(model="experts", roles={"kind": ModelSpec(model="m")}),
            weight=1.0,
            run=Run(folder, folder),
        ),
        TypeError,
        "expert of 'kind': the files of a product are expected",
    ),
    "utterances without the object": (
        lambda folder: read_utterances.function(ReadUtterances(), source=csv(folder, UTTERANCE), columns=TEXTS),
        SourceError,
        "its only record cannot be used",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call(tmp_path)


def test_a_picture_that_cannot_be_read_costs_its_row(tmp_path: Path) -> None:
    (tmp_path / "shard.bin").write_bytes(b"no image!")
    place = {"row_id": "1", "item_id": "1", "media_id": "m", "shard": "shard.bin", "offset": 0, "size": 9}
    media = ProductFiles(model="media", product="media", folder=str(tmp_path))
    made = read_text.function(pl.DataFrame([place]), Recognition(), media=media)
    assert made.rows.is_empty()
    assert made.quarantined["rule"].to_list() == ["unreadable"]


UNDEFINED: dict[str, Callable[[], Figure]] = {
    "no rows": lambda: clustered_share(judged().clear(), pl.lit(value=True), cluster="row_id", what="rows"),
    "nothing to compare": lambda: Measured(auroc={}, f1={}, items=9, templates=9).figure(np.full(1_001, np.nan)),
}


@pytest.mark.parametrize("reason", UNDEFINED)
def test_a_figure_of_nothing_says_so(reason: str) -> None:
    found = UNDEFINED[reason]()
    assert (found.value, found.undefined) == (None, reason)
