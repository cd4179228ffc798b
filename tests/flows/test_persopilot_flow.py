"""PersoPilot: the published seed gives its known figures, and the built-in people every table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from in_process import SCRIPTED

from normloom.core.errors import ConfigError
from normloom.core.table import Manifest
from normloom.lineage.trace import trace
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.personas.extractor import FILE
from normloom.testing.inline import made


def built(store: Store, *assignments: str, only: str | None = None) -> dict[str, Manifest]:
    given = [*SCRIPTED["persopilot"], *assignments]
    ends = stages_for("persopilot", profile="local", assignments=given, store=store).ends
    return made("persopilot", [one for one in stages_of(*ends) if one.name == only] if only else ends, store)


def rows(store: Store, tables: Mapping[str, Manifest], stage: str) -> pl.DataFrame:
    return store.scan(tables[stage].ref).collect()


class TestSeed:
    """The published seed data (synthetic)."""

    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, shared_data: Path, store: Store) -> dict[str, Manifest]:
        return built(store, f"source.path={shared_data / 'persopilot'}", "models.assistant=null")

    def test_facts_users_relations_and_topics_that_no_task_lists(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        known = rows(store, tables, "personas")
        assert (known.height, known["username"].n_unique(), known["relation"].n_unique()) == (824, 91, 43)
        assert known.filter(~pl.col("listed")).height == 152

    def test_labels_that_join_and_orphans(self, tables: dict[str, Manifest], store: Store) -> None:
        assert (tables["labels"].count("rows"), tables["labels"].dropped_by) == (72, {"no facts": 5})
        orphans = store.scan(tables["labels"].ref, "dropped").collect()
        assert sorted(orphans["payload"].str.json_path_match("$.username")) == [f"user_{n}" for n in range(61, 66)]

    def test_leaving_one_user_out(self, tables: dict[str, Manifest], store: Store) -> None:
        predicted = rows(store, tables, "leave_one_out").with_columns(right=pl.col("predicted") == pl.col("accepted"))
        counted = predicted.group_by("classification_task").agg(
            right=pl.col("right").sum(),
            all=pl.len(),
            covered=pl.col("covered").sum(),
            covered_right=(pl.col("covered") & pl.col("right")).sum(),
        )
        assert {task: counts for task, *counts in counted.iter_rows()} == {
            "Camping Enthusiast": [20, 20, 14, 14],
            "Career Path Preference": [13, 20, 1, 1],
            "Gamer Identification": [6, 17, 2, 0],
            "Bookworm": [4, 15, 1, 0],
        }
        assert predicted["origin"].unique().to_list() == ["model"]

    def test_the_books_that_the_community_recommends_to_user_01(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        books = rows(store, tables, "recommendations").filter(username="user_01", topic="Book").sort("rank")
        assert books.select("relation", "object", "users").rows() == [
            ("likes", "occasionally reads news articles", 10),
            ("recently_read", "The Catcher in the Rye", 7),
            ("likes", "reading graphic novels", 5),
        ]

    def test_every_strategy_has_its_curve_and_is_held_against_random(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        figures = rows(store, tables, "loop_figures")
        gains = figures.filter(metric="gain")
        assert gains.height == 8
        assert gains.select((pl.col("low") <= pl.col("value")) & (pl.col("value") <= pl.col("high"))).to_series().all()
        camping = figures.filter(metric="accuracy", of="random", slice="Camping Enthusiast")
        assert camping.height == 8  # 20 users, 4 known at first, 2 in a round


def test_the_utterances_of_persona_ext_are_read_whole(shared_data: Path, tmp_path: Path) -> None:
    source = f"source.utterances={shared_data / 'persona_ext' / 'triples.parquet'}"
    store = Store(tmp_path)
    tables = built(store, source, "source.marked=true", only="utterances")
    said = rows(store, tables, "utterances")
    assert (said.height, said["relation"].n_unique()) == (22_566, 76)
    counts = dict(said["relation"].value_counts().iter_rows())
    assert (counts["like_activity"], counts["have_pet"]) == (3_310, 1_728)
    texts = said.select(text=pl.col("tokens").list.join(" "), split="split").unique()
    assert texts["text"].is_unique().all()  # no text is on both sides


def test_a_file_that_is_named_comes_before_that_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("username,task,topic,relation,object\nada,T,A,likes,x\nbob,T,A,likes,y\n")
    for name, label in (("classification_labels.csv", "old"), ("mine.csv", "new")):
        (tmp_path / name).write_text(f"classification_task,username,label\nW,ada,{label}\n")
    store = Store(tmp_path / "store")
    found = {
        given: rows(store, built(store, f"source.path={tmp_path}", *more, only="labels"), "labels")["label"].to_list()
        for given, more in {"folder": [], "named": [f"source.labels={tmp_path / 'mine.csv'}"]}.items()
    }
    assert found == {"folder": ["old"], "named": ["new"]}
    sampled = built(store, f"source.path={tmp_path}", "source.sample=1", only="labels")["labels"]
    assert sampled.count("rows") + sampled.count("dropped") == 1  # a sample is drawn of the facts alone


class TestBuiltIn:
    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, store: Store) -> dict[str, Manifest]:
        return built(store)

    def test_the_extractor_reads_utterances_that_it_has_not_seen(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        assert [record.name.rpartition("/")[2] for record in tables["extractor"].attached.values()] == [FILE]
        curve = rows(store, tables, "extractor")
        for _, own in curve.group_by("model"):
            losses = own.sort("epoch")["loss"].to_list()
            assert losses[-1] < losses[0]
        read = rows(store, tables, "triples")
        for row in read.drop_nulls("object").iter_rows(named=True):
            assert row["object"] in row["text"]
        figures = {
            row["metric"]: row
            for row in rows(store, tables, "extraction_figures").iter_rows(named=True)
            if row["slice"] == "all"
        }
        assert figures["span_f1"]["value"] > 0.6
        assert figures["relation_accuracy"]["value"] > 0.8

    def test_a_recommendation_leads_to_the_facts_that_it_rests_on(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        row = rows(store, tables, "recommendations").row(0, named=True)
        found = trace(store, row["row_id"])
        assert len([one for one in found.rows if one.stage == "facts"]) == row["users"]

    def test_the_assistant_is_asked_and_failures_are_null(self, tables: dict[str, Manifest], store: Store) -> None:
        told = rows(store, tables, "assistance")
        assert told.height == tables["labels"].count("rows")
        assert (
            told.filter(pl.col("parse_status") != "ok")["score"].null_count()
            == told.filter(pl.col("parse_status") != "ok").height
        )


def test_a_folder_without_facts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file of facts in it, such as facts.parquet"):
        built(Store(tmp_path / "store"), f"source.path={tmp_path}")
