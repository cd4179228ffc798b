"""The study of missing modalities: the counts of real memes, what a random split leaks, OCR, and built-in memes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from in_process import summary_of
from PIL import Image

from normloom.core.errors import ConfigError
from normloom.core.table import Manifest
from normloom.flows.missing_modality.summary import claim
from normloom.readers.media import MediaFolder
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.tasks.missing_modality.leak import AT_RANDOM, BY_TEMPLATE, leak_figures
from normloom.testing.inline import made

SCRIPTED = "models={text: {engine: scripted, model: t}, image: {engine: scripted, model: i}}"
QUICK = ("fits.width=8", "fits.epochs=2")


def built(store: Store, *assignments: str) -> dict[str, Manifest]:
    flow = stages_for("missing_modality", profile="local", assignments=[SCRIPTED, *QUICK, *assignments], store=store)
    return made("missing_modality", flow.ends, store)


def checks(store: Store, tables: dict[str, Manifest]) -> dict[tuple[str, str], bool]:
    rows = store.scan(tables["checks"].ref).select("check", "of", "passed").collect()
    return {(check, of): passed for check, of, passed in rows.iter_rows()}


class TestMulti3Hate:
    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, shared_data: Path, store: Store) -> dict[str, Manifest]:
        folder = shared_data / "multi3hate"
        source = f"source={{path: {folder / 'items.parquet'}, images: '{folder / 'images_*.parquet'}'}}"
        return built(store, source, "ocr.per_language=1", "missing.shares=[1.0, 0.0]")

    def test_counts_are_those_of_the_source(self, tables: dict[str, Manifest], store: Store) -> None:
        assert (tables["media"].count("rows"), tables["media"].count("quarantined")) == (1_475, 0)
        items = store.scan(tables["items"].ref).collect()
        assert items.height == 1_475
        assert items["template"].n_unique() == 45
        memes = items.unique("meme_id")
        assert (memes.height, memes["label"].sum()) == (295, 173)

    def test_templates_are_apart_and_scenarios_nested(self, tables: dict[str, Manifest], store: Store) -> None:
        found = checks(store, tables)
        assert all(passed for (check, _), passed in found.items() if check not in {"C4", "C12"})
        assert ("shared", "shared") in found

    def test_a_random_split_leaks_templates(self, tables: dict[str, Manifest], store: Store) -> None:
        items = store.scan(tables["items"].ref).filter(language="en").collect()
        folder = MediaFolder(store.folder(tables["media"].ref))
        small = [
            np.asarray(Image.open(io.BytesIO(folder.read(row))).convert("RGB").resize((12, 12)), np.float32).ravel()
            for row in items.iter_rows(named=True)
        ]
        matrix = np.stack(small) - np.mean(small, axis=0)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        vectors = items.select("item_id", vector=pl.Series(matrix.tolist()))
        shares = dict(leak_figures.function(items, vectors).rows.select("slice", "value").iter_rows())
        assert shares[BY_TEMPLATE] == 0
        assert shares[AT_RANDOM] > 0.9

    def test_ocr_reads_latin_and_chinese_and_no_hindi(self, tables: dict[str, Manifest], store: Store) -> None:
        figures = store.scan(tables["ocr_figures"].ref).filter(metric="ocr_median_error").collect()
        errors = dict(figures.select("slice", "value").iter_rows())
        assert max(errors["en"], errors["de"], errors["zh"]) <= 0.05
        assert errors["hi"] > 0.9


class TestBuiltIn:
    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, store: Store) -> dict[str, Manifest]:
        return built(store, "ocr.per_language=1")

    def test_every_item_has_a_picture_and_every_method_an_answer(
        self, tables: dict[str, Manifest], store: Store
    ) -> None:
        items = store.scan(tables["items"].ref).collect()
        assert items.height == tables["media"].count("rows") == 80
        predictions = store.scan(tables["predictions"].ref).collect()
        assert predictions.height == 80 * 5 * (1 + 7 + 7 + 2)
        by_ocr = store.scan(tables["ocr_predictions"].ref).collect()
        assert by_ocr.height == 5 * 5
        assert by_ocr["scenario_id"].unique().to_list() == ["ocr"]

    def test_curves_have_every_share_and_method(self, tables: dict[str, Manifest], store: Store) -> None:
        figures = store.scan(tables["curves"].ref).filter(metric="auroc").collect()
        assert figures.height == 2 * 7 * 5
        nothing = figures.filter(of="text_only", axis="text missing", slice="0 %").row(0, named=True)
        whole = figures.filter(slice="100 %").select("of", "axis", "value").unique(["of", "value"])
        assert whole.height == 5  # nothing is missing: both curves begin at one point
        assert nothing["value"] is not None
        assert all(row["low"] <= row["value"] <= row["high"] for row in figures.drop_nulls("low").iter_rows(named=True))

    def test_the_summary_compares_methods(self, tables: dict[str, Manifest], store: Store) -> None:
        said = summary_of("missing_modality", tables, store)
        assert store.scan(tables["curves"].ref).filter(metric="auroc_gain").collect().height
        assert re.search(r"(no finding|better) ", said), said

    def test_pictures_are_found_again_as_templates(self, tables: dict[str, Manifest], store: Store) -> None:
        gone = store.scan(tables["near_images"].ref, "dropped").collect()
        assert gone.height == 80 - tables["near_images"].count("rows")
        assert gone["winner"].null_count() == 0


def test_images_need_their_memes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the memes that they belong to"):
        stages_for("missing_modality", profile="local", assignments=["source={images: x}"], store=Store(tmp_path))


def test_a_claim_is_made_if_the_interval_carries_it() -> None:
    axis = "over concat, text missing"
    assert claim(axis, 0.05, 0.01, 0.09).startswith("text missing: shared is better than concat by 0.050")
    assert claim(axis, -0.05, -0.09, -0.01).startswith("text missing: concat is better than shared")
    assert claim(axis, 0.05, -0.01, 0.09).startswith("text missing: no finding between shared and concat")
