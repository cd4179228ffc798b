"""What makes the study of missing modalities honest: noise unseen, one block, folds by template, AUROC by hand."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from normloom.core.errors import StageError
from normloom.core.run import Run
from normloom.schemas.media.modality_tables import CONCAT, IMAGE, IMAGE_ONLY, METHODS, SHARED, TEXT, TEXT_ONLY
from normloom.tasks.media.fitted import file_name
from normloom.tasks.missing_modality.fits import Fitting, fits
from normloom.tasks.missing_modality.network import NETWORKS, digest, new_network, passed
from normloom.tasks.missing_modality.predictions import best_threshold, judged
from normloom.tasks.missing_modality.scenarios import Missing, scenarios
from normloom.tasks.missing_modality.weighted import auroc, draws_by, weighted_f1

ROWS = 24


def vectors(seed: int = 0, rows: int = ROWS) -> dict[str, torch.Tensor]:
    drawing = torch.Generator().manual_seed(seed)
    return {TEXT: torch.randn(rows, 6, generator=drawing), IMAGE: torch.randn(rows, 9, generator=drawing)}


@cache
def networks() -> dict[str, Any]:
    torch.manual_seed(1)
    return {name: new_network(name, vectors(), width=8, dropout=0.5).eval() for name in NETWORKS}


class TestNetworks:
    @settings(max_examples=10)
    @given(seed=st.integers(0, 10_000), hidden=st.lists(st.sampled_from([TEXT, IMAGE, "none"]), min_size=5, max_size=5))
    def test_noise_in_place_of_an_absent_modality_changes_nothing(self, seed: int, hidden: list[str]) -> None:
        there = {one: np.array([name != one for name in hidden]) for one in (TEXT, IMAGE)}
        given_ = {one: array.numpy() for one, array in vectors(seed, 5).items()}
        noise = {one: array.numpy() * 1e6 for one, array in vectors(seed + 1, 5).items()}
        mixed = {one: np.where(there[one][:, None], given_[one], noise[one]) for one in given_}
        broken = {one: np.where(there[one][:, None], given_[one], np.float32("nan")) for one in given_}
        nets = networks()
        first = judged(nets, given_, there)
        assert list(first) == list(METHODS)
        for other in (mixed, broken):
            for method, probabilities in judged(nets, other, there).items():
                assert probabilities.tolist() == first[method].tolist()

    def test_a_method_without_its_modality_knows_nothing_and_late_fusion_the_other_one(self) -> None:
        there = {TEXT: np.array([True, False, True]), IMAGE: np.array([True, True, False])}
        found = judged(networks(), {one: a.numpy() for one, a in vectors(3, 3).items()}, there)
        assert found[TEXT_ONLY][1] == found[IMAGE_ONLY][2] == 0.5
        assert found["late_fusion"].tolist() == pytest.approx(
            [(found[TEXT_ONLY][0] + found[IMAGE_ONLY][0]) / 2, found[IMAGE_ONLY][1], found[TEXT_ONLY][2]]
        )

    def test_both_modalities_pass_through_the_same_weights(self) -> None:
        shared = copy.deepcopy(networks()[SHARED])
        assert passed(shared, TEXT) == passed(shared, IMAGE)
        assert passed(networks()[TEXT_ONLY], IMAGE) is None
        before = digest(shared)
        text = {TEXT: torch.ones(ROWS, dtype=torch.bool), IMAGE: torch.zeros(ROWS, dtype=torch.bool)}
        image = {TEXT: ~text[TEXT], IMAGE: ~text[IMAGE]}
        told = shared(vectors(), image).detach()
        loss = shared.train().loss(vectors(), text, torch.arange(ROWS).float() % 2, alignment=0.1)
        loss.backward()
        with torch.no_grad():
            for weights in shared.parameters():
                if weights.grad is not None:
                    weights.sub_(weights.grad)
        assert digest(shared) != before
        assert not torch.allclose(shared.eval()(vectors(), image).detach(), told)  # trained on text, images moved

    def test_the_distance_counts_where_both_are_there(self) -> None:
        shared = networks()[SHARED]
        labels = torch.arange(ROWS).float() % 2
        both = {one: torch.ones(ROWS, dtype=torch.bool) for one in (TEXT, IMAGE)}
        states = shared.states(vectors(), both)
        apart = (states[TEXT] - states[IMAGE]).square().sum(1).mean()
        plain, aligned = (shared.loss(vectors(), both, labels, alignment=weight) for weight in (0.0, 2.0))
        assert (aligned - plain).item() == pytest.approx(2 * apart.item(), rel=1e-4)


class TestFits:
    @pytest.fixture
    def study(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        names = [f"m{n}" for n in range(45)]
        labels = [n % 2 for n in range(45)]
        items = pl.DataFrame(
            {"row_id": names, "item_id": names, "label": labels, "fold": [n // 2 % 3 for n in range(45)]},
            schema_overrides={"label": pl.Int8},
        )
        drawing = np.random.default_rng(0)
        told = np.array(labels)[:, None] + 0.5 * drawing.normal(size=(45, 4))

        def table(matrix: np.ndarray) -> pl.DataFrame:
            return pl.DataFrame({"item_id": names, "vector": matrix.tolist(), "encoder": ["e"] * 45})

        return items, table(told), table(drawing.normal(size=(45, 5)))

    def run(self, tmp_path: Path, name: str) -> Run:
        scratch, files = tmp_path / "scratch", tmp_path / name
        scratch.mkdir(exist_ok=True)
        files.mkdir()
        return Run(scratch, files)

    def test_a_killed_run_goes_on_with_what_is_missing(
        self, study: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame], tmp_path: Path
    ) -> None:
        args = Fitting(width=8, epochs=3, batch=16)
        whole = fits.function(study[0], args, *study[1:], run=self.run(tmp_path, "first")).rows
        kept, gone = (tmp_path / "scratch" / file_name(SHARED, fold) for fold in (0, 1))
        written = kept.stat().st_mtime_ns
        gone.with_suffix(".json").unlink()  # as if it was killed while the weights were written
        again = fits.function(study[0], args, *study[1:], run=self.run(tmp_path, "second")).rows
        assert again.equals(whole)
        assert kept.stat().st_mtime_ns == written
        files = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
        assert len(files) == 3 * len(NETWORKS)
        shared = whole.filter(network=SHARED)
        assert (shared["text_block"] == shared["image_block"]).all()
        assert shared.filter(fold=0)["weights"].n_unique() == 4

    def test_one_class_is_refused(self, study: tuple[pl.DataFrame, ...], tmp_path: Path) -> None:
        items = study[0].with_columns(label=pl.lit(1, pl.Int8))
        with pytest.raises(StageError, match="training items are all of one class"):
            fits.function(items, Fitting(), study[1], study[2], run=self.run(tmp_path, "files"))

    def test_a_batch_of_one_joins_the_one_before_it(self, study: tuple[pl.DataFrame, ...], tmp_path: Path) -> None:
        args = Fitting(width=8, epochs=1, batch=14)  # of 15 items outside of two folds
        made = fits.function(study[0], args, study[1], study[2], run=self.run(tmp_path, "files")).rows
        assert made.filter(pl.col("epoch") == 1)["loss"].is_finite().all()

    def test_a_loss_that_is_not_finite_names_the_setting(self, study: tuple[pl.DataFrame, ...], tmp_path: Path) -> None:
        args = Fitting(width=8, epochs=3, batch=16).model_copy(update={"learning_rate": 1e20})
        with pytest.raises(StageError, match=r"the loss is (nan|inf): lower fits.learning_rate"):
            fits.function(study[0], args, study[1], study[2], run=self.run(tmp_path, "files"))

    def test_an_encoder_that_reads_nothing_is_refused(self, study: tuple[pl.DataFrame, ...], tmp_path: Path) -> None:
        same = study[2].with_columns(vector=pl.lit([1.0, 2.0]))
        with pytest.raises(StageError, match="all vectors of image are the same: the encoder 'e' reads nothing"):
            fits.function(study[0], Fitting(), study[1], same, run=self.run(tmp_path, "files"))


class TestScenarios:
    @settings(max_examples=50)
    @given(
        count=st.integers(1, 60),
        shares=st.lists(st.floats(0, 1), min_size=2, max_size=5, unique_by=lambda s: round(100 * s)),
    )
    def test_they_are_nested_and_of_the_asked_share(self, count: int, shares: list[float]) -> None:
        names = [f"m{n}" for n in range(count)]
        rows = pl.DataFrame({"row_id": names, "item_id": names})
        made = scenarios.function(rows, Missing(shares=tuple(shares))).rows
        for modality, other in ((TEXT, IMAGE), (IMAGE, TEXT)):
            some = made.filter(missing=modality)
            assert some[f"{other}_of"].null_count() == 0
            sets = [
                (group["present"][0], set(group.drop_nulls(f"{modality}_of")["item_id"]))
                for _, group in some.sort("present").group_by("scenario_id", maintain_order=True)
            ]
            for (share, here), (_, more) in zip(sets, [*sets[1:], (1.0, set(names))], strict=True):
                assert here <= more
                assert len(here) == round(share * count)


class TestMeasures:
    @settings(max_examples=50)
    @given(data=st.data())
    def test_auroc_and_f1_are_those_of_scikit_learn(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(2, 20))
        labels = np.array([True, False, *data.draw(st.lists(st.booleans(), min_size=count - 2, max_size=count - 2))])
        scores = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.7]), min_size=count, max_size=count)))
        weights = np.array(data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count)), dtype=float)
        both = np.stack([np.ones(count), weights])
        assert auroc(scores, labels, both) == pytest.approx(
            [roc_auc_score(labels, scores), roc_auc_score(labels, scores, sample_weight=weights)]
        )
        said = scores >= 0.5
        assert weighted_f1(said, labels, both)[1] == pytest.approx(
            f1_score(labels, said, average="macro", sample_weight=weights, zero_division=0)
        )

    def test_draws_are_of_whole_groups(self) -> None:
        groups = np.array([0, 0, 1, 2, 2, 2])
        drawn = draws_by(groups, draws=50, seed=0)
        assert drawn.shape == (51, 6)
        assert (drawn[0] == 1).all()
        assert (drawn[:, 0] == drawn[:, 1]).all()
        assert (drawn[:, [0, 2, 3]].sum(1) == 3).all()

    def test_the_threshold_has_the_best_macro_f1(self) -> None:
        labels = np.array([0, 0, 0, 1, 1], dtype=np.int8)
        probabilities = np.array([0.1, 0.2, 0.3, 0.4, 0.45])
        cut = best_threshold(labels, probabilities)
        assert 0.3 < cut <= 0.4
        assert best_threshold(labels[:0], probabilities[:0]) == 0.5


def test_concat_sees_zeros_for_what_is_absent() -> None:
    concat = networks()[CONCAT]
    there = {TEXT: torch.tensor([True]), IMAGE: torch.tensor([False])}
    one = vectors(5, 1)
    middle = {TEXT: one[TEXT], IMAGE: concat.standards[IMAGE].mean[None]}  # the mean is 0 in standard units
    assert torch.equal(concat(one, there), concat(middle, {TEXT: there[TEXT], IMAGE: ~there[IMAGE]}))
