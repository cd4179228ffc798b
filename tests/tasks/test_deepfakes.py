"""Deepfake detection: what is held out, pairs, the loss by hand, networks that train and resume, figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2Model

from normloom.core.errors import SourceError, StageError
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.readers import locate
from normloom.schemas.media.deepfake_tables import FAKE, REAL
from normloom.tasks.deepfakes.aligners import Aligning, aligners
from normloom.tasks.deepfakes.checks import check_detection
from normloom.tasks.deepfakes.held_out import HeldOut, held_out, parts
from normloom.tasks.deepfakes.items import Holding, held_items
from normloom.tasks.deepfakes.networks import anchors_of, contrastive_loss, cosines
from normloom.tasks.deepfakes.pairs import Pairing, pairs
from normloom.tasks.deepfakes.recordings import Recordings, builtin_recordings, read_recordings
from normloom.tasks.deepfakes.refiners import FULL, NO_CONTRAST, NO_REFINER, VARIANTS, Refining, refiners
from normloom.tasks.deepfakes.scores import baseline_scores, scores
from normloom.tasks.deepfakes.spoof_figures import spoof_figures
from normloom.tasks.media.fitted import file_name

VIEWS = ("a", "b")
SMALL = Aligning(width=16, epochs=8, learning_rate=0.005, dropout=0)
Trained = TypeVar("Trained", Aligning, Refining)
SHORT = Refining(width=16, epochs=4, learning_rate=0.005, layers=1, dropout=0)


def diverging(args: Trained) -> Trained:
    return args.model_copy(update={"learning_rate": 1e20})


def recordings() -> pl.DataFrame:
    rows = builtin_recordings.function(Recordings()).rows
    voices = pl.DataFrame(
        [("tts-0", FAKE, "robot", "tts", "tts-0"), ("tts-1", FAKE, "robot", "tts", "tts-1")],
        schema=["item_id", "label", "speaker", "generator", "source_item"],
        orient="row",
    )
    return pl.concat([rows.select(voices.columns), voices]).with_columns(row_id="item_id")


def media(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        "item_id",
        media_id="item_id",
        kind=pl.lit("sound"),
        sample_rate=pl.lit(8_000),
        width=pl.lit(None, pl.Int64),
        shard=pl.lit("s"),
        offset=pl.lit(0),
        size=pl.lit(1),
    )


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    rows = recordings()
    return held_items.function(rows, Holding(), media(rows), key="item_id", kinds=("sound",)).rows


@pytest.fixture(scope="module")
def few(items: pl.DataFrame) -> pl.DataFrame:
    """Two generators and two folds: four held-out pairs."""
    rows = items.filter(pl.col("generator").is_in(["none", "coarse", "steady"])).select(recordings().columns)
    return held_items.function(rows, Holding(folds=2), media(rows), key="item_id", kinds=()).rows


@pytest.fixture(scope="module")
def vectors(items: pl.DataFrame) -> list[pl.DataFrame]:
    """One view that tells real from fake, and one of noise."""
    drawing = np.random.default_rng(0)
    told = (items["label"] == REAL).to_numpy()[:, None] + 0.3 * drawing.normal(size=(items.height, 5))
    return [
        items.select("item_id", vector=pl.Series(matrix.tolist()), encoder=pl.lit("e"), modality=pl.lit(view))
        for view, matrix in zip(VIEWS, (told, drawing.normal(size=(items.height, 7))), strict=True)
    ]


class TestHeldOut:
    def test_nothing_that_is_tested_is_known(self, items: pl.DataFrame) -> None:
        jobs = held_out(items)
        assert {job.generator for job in jobs} == {"coarse", "scrambled", "steady", "tts"}
        for job in jobs:
            split = parts(items, job)
            assert not (split.learn & split.development).any()
            known, tested = (
                items.filter(pl.Series(split.learn | split.development)),
                items.filter(pl.Series(split.test)),
            )
            for column in ("speaker", "source_item", "media_id"):
                assert not set(known[column]) & set(tested[column])
            assert job.generator not in set(known["generator"])
            assert set(tested["generator"]) == {"none", job.generator}
            learned, set_aside = (set(items.filter(pl.Series(part))["source_item"]) for part in split[:2])
            assert not learned & set_aside

    def test_a_voice_that_only_a_generator_has_is_tested_with_every_speaker(self, items: pl.DataFrame) -> None:
        for fold in range(4):
            tested = items.filter(pl.Series(parts(items, HeldOut("tts", fold)).test))
            assert set(tested.filter(label=FAKE)["item_id"]) == {"tts-0", "tts-1"}
            assert tested.filter(label=REAL)["speaker"].n_unique() == 1

    def test_one_speaker_or_generator_cannot_be_held_out(self) -> None:
        rows = recordings()
        some = rows.filter(pl.col("speaker") == "ada")
        with pytest.raises(StageError, match="1 speakers with real recordings: expected at least two"):
            held_items.function(some, Holding(), media(some), key="item_id", kinds=())
        one = rows.filter(pl.col("generator").is_in(["none", "coarse"]))
        made = held_items.function(one, Holding(), media(one), key="item_id", kinds=()).rows
        with pytest.raises(StageError, match="no generator can be held out"):
            held_out(made)

    def test_what_a_view_cannot_see_is_dropped(self) -> None:
        rows = recordings()
        lacking = media(rows).with_columns(
            sample_rate=pl.when(pl.col("item_id") == "tts-0").then(None).otherwise("sample_rate")
        )
        made = held_items.function(rows, Holding(), lacking.slice(1), key="item_id", kinds=("sound",))
        assert dict(made.dropped.select("row_id", "reason").rows()) == {
            "ada-0-none": "no_media",
            "tts-0": "no_sound",
        }


class TestRecordings:
    def test_what_cannot_be_used_is_quarantined(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text(
            "item_id,label,speaker,generator,source_item\n"
            "a,bonafide,s1,-,1\na,bonafide,s1,-,1\n,spoof,s1,A07,1\nb,,s1,A07,1\nc,spoof,s1,,1\nd,spoof,,A07,\n"
        )
        made = read_recordings.function(Recordings(real="bonafide"), source=locate(path))
        assert made.rows.select("item_id", "label", "speaker", "generator", "source_item").rows() == [
            ("a", REAL, "s1", "none", "1"),
            ("d", FAKE, "d", "A07", "d"),
        ]
        rules = ["repeated_id", "missing_id", "missing_label", "missing_generator"]
        assert made.quarantined["rule"].to_list() == rules
        path.write_text("item_id,label,speaker,generator,source_item\n,real,,,\n")
        with pytest.raises(SourceError, match="its only record cannot be used"):
            read_recordings.function(Recordings(), source=locate(path))


class TestPairs:
    def test_real_items_are_pulled_together_and_every_anchor_has_negatives(self, items: pl.DataFrame) -> None:
        made = pairs.function(items, Pairing(negatives=2), views=VIEWS).rows
        labels = dict(items.select("item_id", "label").rows())
        told = made.with_columns(pl.col("anchor", "other").replace_strict(labels))
        assert (told["anchor"] == REAL).all()
        assert (told["other"] == pl.Series(["real" if one else "fake" for one in told["positive"]])).all()
        by_anchor = made.group_by("anchor", "anchor_view").agg(pl.col("positive").sum(), pl.len())
        assert by_anchor["positive"].unique().to_list() == [1]  # the other view: no two real items share a source
        assert by_anchor["len"].unique().to_list() == [1 + 4 * 2]
        assert made.equals(pairs.function(items, Pairing(negatives=2), views=VIEWS).rows)

    def test_one_view_without_shared_sources_has_nothing_to_bring_together(self, items: pl.DataFrame) -> None:
        with pytest.raises(StageError, match="no pair is positive"):
            pairs.function(items, Pairing(), views=("a",))


def test_the_loss_by_hand() -> None:
    aligned = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    anchors = anchors_of([(0, [1, 2, 3], [True, False, False]), (1, [0, 2], [True, False])])
    first = -math.log(math.exp(0.6 / 0.5) / (math.exp(0.6 / 0.5) + math.exp(0) + math.exp(-1 / 0.5)))
    second = -math.log(math.exp(0.6 / 0.5) / (math.exp(0.6 / 0.5) + math.exp(0.8 / 0.5)))
    loss = contrastive_loss(cosines(aligned, anchors), anchors, temperature=0.5)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)


class TestTraining:
    def run(self, folder: Path, name: str) -> Run:
        for path in (folder / "scratch", folder / name):
            path.mkdir(parents=True, exist_ok=True)
        return Run(folder / "scratch", folder / name)

    def test_it_trains_resumes_and_tells_real_from_fake(
        self, few: pl.DataFrame, vectors: list[pl.DataFrame], tmp_path: Path
    ) -> None:
        paired = pairs.function(few, Pairing(), views=VIEWS).rows
        align = tmp_path / "align"
        run = self.run(tmp_path / "diverged", "files")
        with pytest.raises(StageError, match=r"the loss is (nan|inf): lower align.learning_rate"):
            aligners.function(few, diverging(SMALL), paired, *vectors, views=VIEWS, run=run)
        with pytest.raises(StageError, match="no anchor has both a positive and a negative"):
            aligners.function(
                few, SMALL, paired.clear(), *vectors, views=VIEWS, run=self.run(tmp_path / "none", "files")
            )
        aligned = aligners.function(few, SMALL, paired, *vectors, views=VIEWS, run=self.run(align, "files")).rows
        first = files(align / "files")
        kept, gone = (align / "scratch" / file_name("aligner", "coarse", fold) for fold in (0, 1))
        written = kept.stat().st_mtime_ns
        gone.with_suffix(".json").unlink()  # as if it was killed while the weights were written
        again = aligners.function(few, SMALL, paired, *vectors, views=VIEWS, run=self.run(align, "again")).rows
        assert again.equals(aligned)
        assert kept.stat().st_mtime_ns == written
        assert {path.name: path.read_bytes() for path in (align / "again").iterdir()} == first
        refine = tmp_path / "refine"
        weights = ProductFiles(model="aligners", product="aligners", folder=str(align / "files"))
        fits = refiners.function(few, SHORT, *vectors, views=VIEWS, aligned=weights, run=self.run(refine, "files")).rows
        assert set(fits["network"]) == set(VARIANTS)
        with pytest.raises(StageError, match=r"the loss is (nan|inf): lower refine.learning_rate"):
            refiners.function(few, diverging(SHORT), *vectors, views=VIEWS, aligned=weights, run=run)
        trained = ProductFiles(model="refiners", product="refiners", folder=str(refine / "files"))
        judged = scores.function(few, SHORT, *vectors, views=VIEWS, fits=trained).rows
        baselines = baseline_scores.function(few, *vectors, views=VIEWS).rows
        found = check_detection.function(few, paired, fits, aligned, judged, *vectors).rows
        assert found["passed"].all(), found.filter(~pl.col("passed")).select("check", "of", "found").rows()
        moved = dict(fits.group_by("network").agg(pl.col("moved").min()).rows())
        assert moved[NO_REFINER] == 0 < moved[FULL]
        from_aligner = files(align / "files")[file_name("aligner", "coarse", 0)]
        assert from_aligner != files(refine / "files")[file_name(FULL, "coarse", 0)]
        self.frozen(align / "files", refine / "files")
        figures = spoof_figures.function(pl.concat([judged, baselines], how="diagonal"), against="only_b").rows
        eer = dict(figures.filter(metric="eer", slice="all").select("of", "value").rows())
        assert eer["only_a"] < 0.15
        assert eer["only_b"] > 0.3
        gain = figures.filter(metric="eer_gain", of="only_a", slice="all").row(0, named=True)
        assert gain["value"] == pytest.approx(eer["only_b"] - eer["only_a"])
        assert 0 < gain["low"] < gain["value"] < gain["high"]
        by = figures.filter(of=FULL, slice="coarse").select("metric", "value")
        ranges = dict(by.rows())
        folds = figures.filter(pl.col("slice").str.starts_with("coarse, fold"), of=FULL)["value"]
        assert (ranges["eer_least"], ranges["eer_most"]) == (folds.min(), folds.max())
        assert ranges["eer"] == pytest.approx(folds.mean())

    def test_without_pairs_of_development_no_distance_is_told(
        self, few: pl.DataFrame, vectors: list[pl.DataFrame], tmp_path: Path
    ) -> None:
        paired = pairs.function(few, Pairing(), views=VIEWS).rows
        learned = paired.filter(~pl.col("anchor").is_in(few.filter("development")["item_id"].implode()))
        run = self.run(tmp_path, "files")
        curve = aligners.function(few, SMALL, learned, *vectors, views=VIEWS, run=run).rows
        assert curve["loss"].drop_nulls().len() > 0
        assert curve["positive"].null_count() == curve.height

    def frozen(self, aligned: Path, refined: Path) -> None:
        """The refiner leaves the aligner as it is; without the contrastive stage the projections learn too."""
        from safetensors.torch import load_file

        own = load_file(aligned / file_name("aligner", "coarse", 0))
        full, alone = (load_file(refined / file_name(one, "coarse", 0)) for one in (FULL, NO_CONTRAST))
        assert all(torch.equal(weights, full[f"aligner.{name}"]) for name, weights in own.items())
        assert not all(torch.equal(weights, alone[f"aligner.{name}"]) for name, weights in own.items())

    def test_the_refiner_starts_from_a_gpt2(
        self, few: pl.DataFrame, vectors: list[pl.DataFrame], tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        shape = GPT2Config(vocab_size=11, n_embd=24, n_layer=3, n_head=2, n_positions=8)
        GPT2Model(shape).save_pretrained(tmp_path / "gpt2")
        spec = ModelSpec(engine="transformers", model=str(tmp_path / "gpt2"), device="cpu")
        folder = tmp_path / "align"
        paired = pairs.function(few, Pairing(), views=VIEWS).rows
        aligners.function(few, SMALL, paired, *vectors, views=VIEWS, run=self.run(folder, "files"))
        weights = ProductFiles(model="aligners", product="aligners", folder=str(folder / "files"))
        args = Refining(width=16, epochs=1, layers=2)
        run = self.run(tmp_path / "refine", "files")
        refiners.function(few, args, *vectors, views=VIEWS, aligned=weights, refiner=spec, run=run)
        trained = ProductFiles(model="refiners", product="refiners", folder=str(tmp_path / "refine" / "files"))
        judged = scores.function(few, args, *vectors, views=VIEWS, fits=trained, refiner=spec).rows
        assert judged["score"].is_finite().all()
        from safetensors.torch import load_file

        state = load_file(tmp_path / "refine" / "files" / file_name(FULL, "coarse", 0))
        before = load_file(tmp_path / "gpt2" / "model.safetensors")
        layers = {name.split(".")[2] for name in state if name.startswith("blocks.h.")}
        assert layers == {"0", "1"}
        name = "h.0.attn.c_attn.weight"
        assert not torch.equal(state[f"blocks.{name}"], before[name])
        assert (state[f"blocks.{name}"] - before[name]).abs().max() < 0.1  # it started there


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_few_sources_have_no_figure() -> None:
    rows = pl.DataFrame(
        [
            {"variant": FULL, "held_out": "tts", "fold": 0, "item_id": f"{source}-{label}", "source_item": source}
            | {"label": label, "score": float(label == REAL), "threshold": 0.5}
            for source in "ab"
            for label in (REAL, FAKE)
        ]
    )
    told = spoof_figures.function(rows, against=FULL).rows.filter(metric="eer", slice_by="overall")
    assert told["undefined"].to_list() == ["fewer than 5 sources"]
