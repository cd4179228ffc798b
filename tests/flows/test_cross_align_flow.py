"""CROSS-ALIGN+: the counts of real memes, every cited id, the control, and built-in memes with drawn pictures."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from in_process import SCRIPTED, summary_of
from tiny_models import save_tiny_llama

from normloom.core.errors import ConfigError
from normloom.core.table import Manifest
from normloom.flows.cross_align.config import NONE, KnowledgeSettings
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.tasks.cross_align.claim import claims
from normloom.tasks.cross_align.explanations import SLOTS, ids_in
from normloom.testing.inline import made


def built(store: Store, *assignments: str, only: str | None = None) -> dict[str, Manifest]:
    given = [*SCRIPTED["cross_align"], *assignments]
    ends = stages_for("cross_align", profile="local", assignments=given, store=store).ends
    chosen = [stage for stage in stages_of(*ends) if stage.name == only] if only else ends
    return made("cross_align", chosen, store)


def rows(store: Store, tables: dict[str, Manifest], stage: str) -> pl.DataFrame:
    return store.scan(tables[stage].ref).collect()


def passed(store: Store, tables: dict[str, Manifest]) -> dict[tuple[str, str], bool]:
    found = pl.concat([rows(store, tables, stage) for stage in ("checks", "explanation_checks")])
    return {(check, of): done for check, of, done in found.select("check", "of", "passed").iter_rows()}


class TestHarMeme:
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, shared_data: Path) -> str:
        return f"source.path={shared_data / 'memes_text' / 'harmeme.parquet'}"

    @pytest.fixture(scope="class")
    @classmethod
    def sampled(cls, shared_data: Path, store: Store, source: str) -> dict[str, Manifest]:
        lexicon = shared_data / "hate_speech_tweets" / "refined_ngram_lexicon.csv"
        assertions = shared_data / "conceptnet_excerpt" / "assertions.parquet"
        sources = f"knowledge={{lexicon: {lexicon}, conceptnet: {assertions}}}"
        return built(store, source, sources, "source.sample=400", "delete.draws=1")

    def test_one_empty_label_is_quarantined_and_the_others_are_counted(self, store: Store, source: str) -> None:
        tables = built(store, source, only="memes")
        assert (tables["memes"].count("rows"), tables["memes"].quarantined_by) == (6_996, {"no_label": 1})
        labels = rows(store, tables, "memes")["label"].value_counts()
        assert dict(labels.iter_rows()) == {"not harmful": 4_014, "somewhat harmful": 2_630, "very harmful": 352}

    def test_every_slot_cites_mentions_and_facts_of_its_meme(self, sampled: dict[str, Manifest], store: Store) -> None:
        mentions, facts = rows(store, sampled, "mentions"), rows(store, sampled, "facts")
        known = {*mentions["mention_id"], *facts["fact_id"]}
        explained = rows(store, sampled, "explanations")
        assert explained.height > 30
        for row in explained.iter_rows(named=True):
            cited = [one for slot in SLOTS for one in ids_in(row[slot], row["meme_id"])]
            assert all(ids_in(row[slot], row["meme_id"]) for slot in SLOTS)
            assert set(cited) == set(row["cited_ids"]) <= known
            assert {one.rpartition(":")[0] for one in cited} == {row["meme_id"]}

    def test_the_control_is_there_and_gains_stand_absolute_and_relative(
        self, sampled: dict[str, Manifest], store: Store
    ) -> None:
        assert passed(store, sampled)["control", "shuffled"]
        figures = rows(store, sampled, "figures")
        gains = figures.filter(of="enriched").filter(pl.col("metric").is_in(["gain", "relative_gain"]))
        assert set(gains["axis"]) == {
            f"over {than}, {by}" for than in ("plain", "shuffled") for by in ("head", "adapter")
        }
        wide = gains.pivot(on="metric", on_columns=("gain", "relative_gain"), index=("axis", "slice"), values="value")
        scores = figures.filter(metric="macro_f1").with_columns(
            axis=pl.concat_str(pl.lit("over "), "of", pl.lit(", "), "axis")
        )
        both = wide.join(scores.select("axis", "slice", than="value"), on=("axis", "slice"))
        assert both.height == wide.height == 8
        assert both.filter((pl.col("gain") / pl.col("than") - pl.col("relative_gain")).abs() > 1e-9).is_empty()

    def test_sources_say_how_often_they_mention_each_class(self, sampled: dict[str, Manifest], store: Store) -> None:
        figures = rows(store, sampled, "link_figures")
        rates = figures.filter(metric="link_rate", of="symbols").drop_nulls("value")
        assert rates["value"].is_between(0.2, 1).all()
        alone = figures.filter(metric="lexicon_alone_f1")["value"]
        assert alone.max() < 0.7  # type: ignore[operator]  # a number: a hit in the lexicon is not the label


class TestBuiltIn:
    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, store: Store) -> dict[str, Manifest]:
        return built(store, "reading.check=1", "adapter.epochs=3")

    def test_every_check_of_tables_passes(self, tables: dict[str, Manifest], store: Store) -> None:
        found = passed(store, tables)
        assert all(done for (check, _), done in found.items() if check != "C14")  # which words without sense decide
        assert {check for check, _ in found} >= {"C2", "C3", "C4", "C5", "offsets", "pairs", "cited", "verdict", "C14"}

    def test_the_summary_claims_what_intervals_carry(self, tables: dict[str, Manifest], store: Store) -> None:
        said = " ".join(summary_of("cross_align", tables, store).split())
        for claim in claims(store.scan(tables["figures"].ref).collect()):
            assert claim in said

    def test_pictures_are_drawn_and_read(self, tables: dict[str, Manifest], store: Store) -> None:
        assert tables["media"].count("rows") == tables["texts"].count("rows") == 52
        assert rows(store, tables, "ocr")["character_error"].to_list() == [pytest.approx(0, abs=0.2)]

    def test_all_four_sources_bring_facts(self, tables: dict[str, Manifest], store: Store) -> None:
        facts = rows(store, tables, "facts")
        assert set(facts["source"]) == {"symbols", "lexicon", "conceptnet", "wordnet"}
        assert facts.group_by("meme_id").len()["len"].max() == 5
        weights = facts.with_columns(number=pl.col("fact_id").str.extract(r":f(\d+)$").cast(pl.Int64))
        falls = weights.sort("meme_id", "number").select(pl.col("weight").diff().over("meme_id") <= 0)
        assert falls["weight"].drop_nulls().all()

    def test_verdicts_stand_for_every_variant_and_method(self, tables: dict[str, Manifest], store: Store) -> None:
        verdicts = rows(store, tables, "verdicts")
        assert verdicts.height == 52 * 3 * 2
        assert tables["adapter"].attached.keys() == {f"groups-{_digest()}-{one}.safetensors" for one in VARIANTS}


VARIANTS = ("plain", "enriched", "shuffled")


def _digest() -> str:
    import hashlib

    return hashlib.blake2b(b"groups", digest_size=3).hexdigest()


def test_a_model_by_id_is_tuned_in_place_of_the_frozen_encoder(tmp_path: Path) -> None:
    base = f"models.tuned={{engine: transformers, model: {save_tiny_llama(tmp_path / 'llama')}, dtype: float32}}"
    store = Store(tmp_path / "store")
    tables = built(store, base, "tune={max_steps: 1, modules: [q_proj], tokens: 32}", "adapter.epochs=1")
    assert tables["tune"].count("rows") == 3
    assert len(tables["tune"].attached) == 6  # weights and configuration of three variants
    assert rows(store, tables, "tuned_vectors")["item_id"].n_unique() == 52 * 3
    assert tables["verdicts"].count("rows") == 52 * 3 * 2
    assert passed(store, tables)["cited", "explanations"]


def test_a_source_is_left_out_on_request_but_not_all_of_them() -> None:
    some = KnowledgeSettings(wordnet=NONE, lexicon=NONE)
    assert some.located_wordnet is None
    assert some.located("lexicon") is None
    assert some.located("symbols") is not None
    with pytest.raises(ConfigError, match="every source is left out"):
        KnowledgeSettings(**dict.fromkeys(("conceptnet", "wordnet", "lexicon", "symbols"), NONE))


def test_images_need_their_memes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the memes that they belong to"):
        stages_for("cross_align", profile="local", assignments=["source={images: x}"], store=Store(tmp_path))
