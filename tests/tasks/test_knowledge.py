"""Knowledge: each source's facts by hand, mentions with offsets, and which facts are taken."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import SourceError
from normloom.core.models.product_model import ProductFiles
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.readers import locate
from normloom.schemas.knowledge import ASSERTIONS, WORDNET
from normloom.tasks.knowledge.facts import Choosing, facts
from normloom.tasks.knowledge.index import Indexing, knowledge, looked_up
from normloom.tasks.knowledge.mentions import Mentioning, lemmas, mentions, spans_of
from normloom.tasks.knowledge.wordnet import locate_wordnet, senses

NO_SOURCES: dict[str, Any] = dict.fromkeys(("conceptnet", "wikidata", "wordnet", "lexicon", "symbols"))
EDGES = [
    ("IsA", "en/frog", "en/amphibian", {"weight": 3.0, "surfaceText": "*A [[frog]] is an [[amphibian]]"}),
    ("AtLocation", "en/tree_frog/n", "en/pond", {"weight": 1.0}),
    ("IsA", "de/frosch", "en/frog", {"weight": 1.0}),
]
ENTITIES: list[dict[str, Any]] = [
    {"id": "Q5", "labels": {"en": {"value": "human"}}, "descriptions": {}, "aliases": {}, "claims": {}},
    {
        "id": "Q1",
        "labels": {"en": {"value": "Ada Lovelace"}, "de": {"value": "Ada"}},
        "descriptions": {"en": {"value": "English mathematician"}},
        "aliases": {"en": [{"value": "Countess"}]},
        "claims": {"P31": [{"mainsnak": {"datavalue": {"value": {"id": "Q5"}}}}]},
    },
]


def indexed(place: Path, arguments: Indexing | None = None, **sources: Any) -> Output:
    scratch, files = place / "scratch", place / "files"
    scratch.mkdir()
    files.mkdir()
    return knowledge.function(arguments or Indexing(), **{**NO_SOURCES, **sources}, run=Run(scratch, files))


def product(place: Path) -> ProductFiles:
    return ProductFiles(model="knowledge", product="knowledge", folder=str(place / "files"))


def dumped(place: Path, *further: str) -> Path:
    path = place / "assertions.csv.gz"
    lines = [f"/a/{n}\t/r/{r}\t/c/{s}\t/c/{e}\t{json.dumps(told)}" for n, (r, s, e, told) in enumerate(EDGES)]
    with gzip.open(path, "wt") as stream:
        stream.write("\n".join([*lines, *further]) + "\n")
    return path


def test_a_dump_is_found_from_both_ends_of_its_assertions(tmp_path: Path) -> None:
    made = indexed(tmp_path, conceptnet=locate(dumped(tmp_path, "no assertion")))
    row = made.rows.row(0, named=True)
    assert (row["source"], row["read"], row["rejected"], row["facts"]) == ("conceptnet", 2, 1, 4)
    found = looked_up(tmp_path / "files", ["frog", "tree frog", "pond"])
    told = [(row["surface"], row["tail"], row["weight"], row["sentence"]) for row in found.iter_rows(named=True)]
    assert told == [
        ("frog", "amphibian", 0.75, "A frog is an amphibian"),
        ("pond", "tree frog", 0.5, "tree frog at location pond"),
        ("tree frog", "pond", 0.5, "tree frog at location pond"),
    ]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_entities_are_found_by_label_and_alias(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"entities.{form}"
    lines = [json.dumps(one) for one in ENTITIES]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n" if form == "json" else "\n".join(lines))
    indexed(tmp_path, wikidata=locate(path))
    found = looked_up(tmp_path / "files", ["countess", "ada lovelace", "ada"])
    told = [(row["surface"], row["relation"], row["tail"], row["reference"]) for row in found.iter_rows(named=True)]
    assert told == [
        (name, *fact, "Q1")
        for name in ("ada lovelace", "countess")
        for fact in (("Description", "English mathematician"), ("IsA", "human"))
    ]


def test_wordnet_has_glosses_and_what_a_thing_is(tmp_path: Path) -> None:
    frog = [one for one in senses(locate_wordnet(WORDNET), most=1) if one.lemma == "frog"]
    assert [(one.number, one.kind_of) for one in frog if one.synset.startswith("noun")] == [(1, "amphibian")]
    assert frog[0].gloss.startswith("any of various tailless stout-bodied amphibians")
    indexed(tmp_path, wordnet=locate_wordnet(WORDNET))
    weights = looked_up(tmp_path / "files", ["frog"]).filter(relation="Gloss")["weight"]
    assert weights.max() == 0.5  # of the first sense


def test_an_index_of_wordnet_that_names_a_missing_synset_is_damaged(tmp_path: Path) -> None:
    damaged = shutil.copytree(WORDNET, tmp_path / "wordnet")
    with (damaged / "index.noun").open("a") as stream:
        stream.write("zzz n 1 0 1 0 99999999\n")
    with pytest.raises(SourceError, match=r"index.noun: entry \d+ names the synset 99999999, which data.noun lacks"):
        list(senses(locate_wordnet(damaged), most=1))


def test_a_table_keeps_its_heaviest_facts_and_rejects_rows_without_a_source(tmp_path: Path) -> None:
    symbols = tmp_path / "symbols.csv"
    symbols.write_text("symbol,meaning,source\nPepe,a frog,book\nKek,a word,\n")
    made = indexed(tmp_path, Indexing(per_term=1), symbols=locate(symbols), conceptnet=locate(ASSERTIONS))
    counts = {row["source"]: (row["facts"], row["rejected"]) for row in made.rows.iter_rows(named=True)}
    assert counts["symbols"] == (1, 1)
    [fact] = looked_up(tmp_path / "files", ["pepe"]).iter_rows(named=True)
    assert (fact["sentence"], fact["reference"]) == ("Pepe: a frog", "row 1, book")
    assert looked_up(tmp_path / "files", ["person"]).height == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n', "is jsonl: expected conceptnet as one of csv, tsv, parquet"),
        ("a.csv.bz2", "a\tb", "recompress it with gzip or zstd"),
        ("a.csv", "x\ty\n" * 40, "cannot be read as conceptnet"),
    ],
)
def test_a_dump_of_another_kind_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        indexed(tmp_path, conceptnet=locate(path))


def test_a_lexicon_with_a_weight_that_is_no_share_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.csv"
    path.write_text("ngram,prophate\nbad,7\n")
    with pytest.raises(SourceError, match="record 1: prophate is '7', expected a share from 0 to 1"):
        indexed(tmp_path, lexicon=locate(path))


@given(text=st.text(max_size=60))
def test_spans_are_pieces_of_their_text(text: str) -> None:
    for span in spans_of(text, Mentioning()):
        piece = text[span.start : span.end]
        assert piece.strip() == piece != ""
        assert span.found_as[0] == " ".join(piece.lower().split())


def test_lemmas_are_those_of_suffixes() -> None:
    assert "face mask" in lemmas("face masks")
    assert "party" in lemmas("parties")
    assert "church" in lemmas("churches")
    assert "woman" in lemmas("women")
    assert lemmas("boss") == ()


class TestMentions:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        symbols = tmp_path / "symbols.csv"
        symbols.write_text("symbol,meaning,source\n88,a number,book\nthe,an article,book\n")
        indexed(tmp_path, symbols=locate(symbols), conceptnet=locate(dumped(tmp_path)))
        return tmp_path

    def found(self, place: Path, *texts: str) -> pl.DataFrame:
        memes = pl.DataFrame({"meme_id": [f"m{n}" for n in range(len(texts))], "text": texts})
        rows = memes.with_columns(row_id="meme_id")
        return mentions.function(rows, Mentioning(), knowledge=product(place)).rows

    def test_the_longest_span_is_taken_with_its_offsets(self, place: Path) -> None:
        text = "Look:  Tree\nfrogs in ponds"
        found = self.found(place, text)
        assert found.select("surface", "term", "source").rows() == [
            ("Tree\nfrogs", "tree frog", "conceptnet"),
            ("ponds", "pond", "conceptnet"),
        ]
        assert all(text[row["start"] : row["end"]] == row["surface"] for row in found.iter_rows(named=True))

    def test_a_number_is_a_symbol_or_nothing(self, place: Path) -> None:
        assert self.found(place, "88 of 77")["term"].to_list() == ["88"]

    def test_facts_are_the_heaviest_each_once(self, place: Path) -> None:
        found = self.found(place, "the frog and the frog in a pond 88")
        rows = found.with_columns(row_id="mention_id")
        told = facts.function(rows, Choosing(most=3, per_mention=1), knowledge=product(place)).rows
        assert told.select("fact_id", "sentence", "weight").rows() == [
            ("m0:f1", "the: an article", 1.0),
            ("m0:f2", "88: a number", 1.0),
            ("m0:f3", "A frog is an amphibian", 0.75),
        ]
        assert told["parents"].list.len().to_list() == [1, 1, 1]
