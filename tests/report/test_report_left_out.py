"""Sections whose tables a build does not have, or that hold no figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
from PIL import Image

from normloom.readers.media import locate_media
from normloom.report.material import find_material
from normloom.report.sections.data import media
from normloom.report.sections.data.evidence import _claims, _facts
from normloom.report.sections.results.acceptance import _by_label
from normloom.report.sections.results.judgement import _cells
from normloom.store.store import Store
from normloom.tasks.media.read_media import Media, read_media
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage


def test_what_there_are_no_tables_or_figures_of_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (8, 8), "red").save(source / "red.png")
    store = Store(tmp_path / "store")
    pictures = read_media(Media(), source=locate_media(source))
    built(store, echo_stage(words_stage("a")), pictures, build=build_id(1))
    material = find_material(store, "toy")
    table = material.manifests[pictures.name]
    bare = table.model_copy(update={"parts": [part.model_copy(update={"attached": []}) for part in table.parts]})
    assert media.collect(replace(material, manifests={**material.manifests, pictures.name: bare})) is None
    assert _claims(material) == []
    assert _by_label(material, pl.LazyFrame()) == []
    assert list(_cells([])) == []
    told = {"label_hat": 1, "probability": 0.75, "label": 0, "drop_cited": None}
    assert _facts(told) == {"verdict": "1 (0.75)", "label": "0"}
