"""The study of deepfakes: on real speech its baselines, on published scores their rates, and built-in sounds."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import polars as pl
import pytest
from clips import clip
from in_process import summary_of
from scalars import number

from normloom.core.errors import ConfigError
from normloom.core.table import Manifest
from normloom.flows.conllm.summary import claim
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.tasks.deepfakes.spoof_figures import spoof_figures
from normloom.testing.inline import made

# METHODS-2, logistic regression on spectral statistics: mean over six speakers and range, in percent
REFERENCE = {"world": (0.0, 13.7), "griffin_lim": (16.3, 33.7), "espeak_ng": (8.2, 24.1), "flite": (12.2, 50.0)}


def built(store: Store, *assignments: str) -> dict[str, Manifest]:
    flow = stages_for("conllm", profile="local", assignments=list(assignments), store=store)
    return made("conllm", flow.ends, store)


class TestSpeech:
    @pytest.fixture(scope="class")
    @classmethod
    def figures(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
        """Of baselines alone: nothing is trained but regressions."""
        store = Store(tmp_path_factory.mktemp("store"))
        source = f"source.path={shared_data / 'speech_spoof' / 'digits.parquet'}"
        flow = stages_for("conllm", profile="local", assignments=[source], store=store)
        [figures] = [stage for stage in flow.ends if stage.name == "spoof_figures"]
        baselines = figures.inputs[1]
        tables = made("conllm", [baselines], store)
        assert tables["media"].count("rows") == 820
        return spoof_figures.function(store.scan(tables["baseline_scores"].ref).collect(), against="only_spectral").rows

    def test_the_spectral_view_gives_the_rates_of_the_reference(self, figures: pl.DataFrame) -> None:
        by = figures.filter(of="only_spectral", metric="eer", slice_by="generator")
        found = {name: 100 * rate for name, rate in by.select("slice", "value").iter_rows()}
        assert found.keys() == REFERENCE.keys()
        for generator in ("world", "griffin_lim", "espeak_ng"):
            low, high = REFERENCE[generator]
            assert low <= found[generator] <= high
        assert found["flite"] <= REFERENCE["flite"][1]  # ours are better

    def test_the_speaker_view_alone_is_near_chance(self, figures: pl.DataFrame) -> None:
        by = figures.filter(of="only_speaker", metric="eer", slice_by="generator")
        assert by.filter(slice="world")["value"].item() > 0.4
        assert number(by["value"].min()) > 0.35
        ranges = figures.filter(of="only_speaker", slice="flite").select("metric", "value")
        told = dict(ranges.iter_rows())
        assert told["eer_least"] < told["eer"] < told["eer_most"]


def test_published_scores_give_their_rates(shared_data: Path) -> None:
    scores = pl.read_parquet(shared_data / "audio_spoof_scores" / "asvspoof2019_la_eval.parquet")
    real = scores.filter(key="bonafide")
    attacks = {name: pl.concat([real, scores.filter(attack_id=name)]) for name in ("A13", "A18")}
    rows = pl.concat(
        some.select(
            variant=pl.lit("released"),
            held_out=pl.lit(attack),
            fold=pl.lit(0, pl.Int64),
            item_id="utterance_id",
            label=pl.when(pl.col("key") == "bonafide").then(pl.lit("real")).otherwise(pl.lit("fake")),
            source_item="utterance_id",
            score="score",
            threshold=pl.lit(0.0),
        )
        for attack, some in attacks.items()
    )
    figures = spoof_figures.function(rows, against="released").rows.filter(metric="eer", slice_by="generator")
    found = {row["slice"]: row for row in figures.iter_rows(named=True)}
    assert found["A13"]["rows"] == real.height + 4_914
    assert round(100 * found["A13"]["value"], 3) == 0.098
    assert round(100 * found["A18"]["value"], 3) == 24.304
    assert found["A18"]["low"] < found["A18"]["value"] < found["A18"]["high"]


class TestBuiltIn:
    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, store: Store) -> dict[str, Manifest]:
        return built(store, "align={width: 16, epochs: 4}", "refine={width: 16, epochs: 3}", "items.folds=2")

    def test_every_variant_scores_what_was_held_out_from_it(self, tables: dict[str, Manifest], store: Store) -> None:
        assert tables["media"].count("rows") == tables["items"].count("rows") == 128
        scores = store.scan(tables["scores"].ref).collect()
        assert scores["variant"].n_unique() == 4
        assert scores.height == 4 * 3 * 4 * (8 + 8)  # variants, generators, speakers (two a fold): real and fake words
        assert set(tables["refiners"].attached) == {
            f"{variant}-{generator}-{fold}.safetensors"
            for variant in ("conllm", "no_contrast", "no_refiner", "mean_fusion")
            for generator in ("steady", "coarse", "scrambled")
            for fold in range(2)
        }

    def test_the_summary_compares_variants(self, tables: dict[str, Manifest], store: Store) -> None:
        assert re.search(r"all generators: .*conllm .*points of EER \(", summary_of("conllm", tables, store))

    def test_nothing_leaks_and_costs_are_measured(self, tables: dict[str, Manifest], store: Store) -> None:
        checks = store.scan(tables["checks"].ref).filter(check="C3").collect()
        assert checks.height == 4
        assert checks["passed"].all()
        cost = store.scan(tables["cost"].ref).collect()
        assert set(cost["of"]) == {"encode_spectral", "encode_speaker", "align", "refine"}
        assert (cost["value"] > 0).all()


def test_videos_are_seen_and_heard(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    rows = []
    for speaker, source, generator in itertools.product(("x", "y", "z"), range(4), ("", "blurs", "jumps")):
        name = f"{speaker}{source}{generator}"
        pitch = 200.0 + 40 * source
        (folder / f"{name}.mp4").write_bytes(
            clip(10 * ord(speaker) + source, flicker=40.0 * bool(generator), pitch=pitch, seconds=0.25)
        )
        label = "fake" if generator else "real"
        rows.append((name, label, speaker, generator, f"{speaker}{source}", f"{name}.mp4"))
    (folder / "silent.mp4").write_bytes(clip(pitch=None, seconds=0.5))
    rows.append(("silent", "real", "x", "", "silent", "silent.mp4"))
    columns = ["item_id", "label", "speaker", "generator", "source_item", "file"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(folder / "clips.csv")
    store = Store(tmp_path / "store")
    tables = built(
        store,
        f"source.path={folder / 'clips.csv'}",
        "models={sound: {spectral: {engine: spectral, model: statistics}}}",
        "models.frames={frames: {engine: scripted, model: f}}",
        "align={width: 8, epochs: 1}",
        "refine={width: 8, epochs: 1}",
        "quarantine_budget=0.2",
    )
    assert store.scan(tables["media"].ref).collect()["kind"].unique().to_list() == ["video"]
    dropped = store.scan(tables["items"].ref, "dropped").collect()
    assert dropped["reason"].to_list() == ["no_sound"]
    frames = store.scan(tables["frames_vectors"].ref).collect()
    assert (frames.height, frames["modality"].unique().to_list()) == (36, ["video"])
    scores = store.scan(tables["scores"].ref).collect()
    assert scores["variant"].n_unique() == 4
    assert set(scores["held_out"]) == {"blurs", "jumps"}
    assert set(scores.group_by("variant", "held_out", "fold").len()["len"]) == {4 + 4}  # real clips and fakes
    assert "only_frames" in set(store.scan(tables["spoof_figures"].ref).collect()["of"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models={sound: {}}", "name at least one view"),
        ("models.frames={spectral: {engine: vision, model: efficientnet-lite0}}", "names a view of the sound and one"),
        ("against=nothing", "unknown variant 'nothing'; available: conllm, "),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stages_for("conllm", profile="local", assignments=[setting], store=Store(tmp_path))


def test_a_claim_is_made_if_the_interval_carries_it() -> None:
    axis = "over only_spectral"
    assert claim("conllm", axis, "world", 0.05, 0.01, 0.09) == (
        "world: conllm is better than only_spectral by 5.0 points of EER (+1.0 to +9.0)"
    )
    assert claim("conllm", axis, "world", -0.05, -0.09, -0.01).startswith("world: only_spectral is better than conllm")
    assert claim("conllm", axis, "world", 0.05, -0.01, 0.09).startswith("world: no finding between")
