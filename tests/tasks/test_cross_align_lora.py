"""LoRA in place of a frozen encoder: PEFT's own files, a loss that falls, and a run that resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_models import save_tiny_llama
from transformers import AutoTokenizer

from normloom.core.errors import StageError
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.tasks.cross_align.training.lora import Tuning, encode_tuned, tune
from normloom.tasks.tuning.lora import ADAPTER, CONFIG

LABELS = {"a": "bad", "b": "bad", "c": "good", "d": "good"}
TEXTS = {"a": "no cats here", "b": "no dogs here", "c": "yes health", "d": "yes weather"}
ARGS = Tuning(epochs=12, batch=4, learning_rate=1e-2, modules=("q_proj", "v_proj"), tokens=16)
ITEMS = pl.DataFrame(
    {"row_id": list(LABELS), "meme_id": list(LABELS), "task": ["t/1"] * 4, "label": list(LABELS.values())}
)


def texts(*, with_facts: str = "abcd") -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "row_id": f"{meme}-{variant}",
                "item_id": f"{meme}:{variant}",
                "meme_id": meme,
                "variant": variant,
                "text": text if variant == "plain" else f"{text}\nYes. {variant}",
            }
            for meme, text in TEXTS.items()
            for variant in ("plain", "enriched", "shuffled")
            if variant == "plain" or meme in with_facts
        ]
    )


def pairs() -> pl.DataFrame:
    found = [("a", "b", "c"), ("b", "a", "d"), ("c", "d", "a"), ("d", "c", "b")]
    rows = [("t/1", variant, *one) for variant in ("plain", "enriched", "shuffled") for one in found]
    return pl.DataFrame(rows, schema=["task", "variant", "anchor", "positive", "negative"], orient="row")


def run_in(place: Path) -> Run:
    run = Run(place / "scratch", place / "files")
    run.scratch.mkdir(exist_ok=True)
    run.files.mkdir()
    return run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")
    return ModelSpec(engine="transformers", model=str(folder), dtype="float32", device="cpu", threads=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, base: ModelSpec) -> Path:
    place = tmp_path_factory.mktemp("tuned")
    made = tune.function(ITEMS, ARGS, texts(), pairs(), base=base, run=run_in(place)).rows
    assert made.group_by("variant").len()["len"].to_list() == [12, 12, 12]
    for (_,), curve in made.sort("step").group_by("variant"):
        assert curve["loss"][-1] < curve["loss"][0]
    return place


def test_each_variant_has_an_adapter_in_pefts_files(place: Path) -> None:
    folders = sorted(path.name.rpartition("-")[2] for path in (place / "files").iterdir())
    assert folders == ["enriched", "plain", "shuffled"]
    weights = [(path / ADAPTER).read_bytes() for path in (place / "files").iterdir()]
    assert len(set(weights)) == 3
    assert all(str(place) not in (path / CONFIG).read_text() for path in (place / "files").iterdir())


def test_vectors_are_those_of_the_variants_adapter(place: Path, base: ModelSpec) -> None:
    tuned = ProductFiles(model="tune", product="tune", folder=str(place / "files"))
    made = encode_tuned.function(texts(with_facts="a"), ARGS, ITEMS, base=base, tuned=tuned).rows
    vectors = {item: np.array(vector) for item, vector in made.select("item_id", "vector").iter_rows()}
    assert len(vectors) == 12  # three of each meme, with facts or without
    assert not np.allclose(vectors["b:plain"], vectors["b:enriched"])  # one text, two adapters
    near, far = vectors["a:plain"] @ vectors["b:plain"], vectors["a:plain"] @ vectors["c:plain"]
    assert near > far
    without = pl.DataFrame({"row_id": ["x"], "item_id": ["a:m1"], "meme_id": ["a"], "text": [texts()["text"][1]]})
    [again] = encode_tuned.function(without, ARGS, ITEMS, base=base, tuned=tuned).rows["vector"].to_list()
    assert np.allclose(again, vectors["a:enriched"], atol=1e-5)


def test_what_a_killed_run_has_finished_is_not_trained_again(place: Path, base: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "scratch").symlink_to(place / "scratch")
    gone = base.model_copy(update={"model": str(tmp_path / "no model")})
    again = tune.function(ITEMS, ARGS, texts(), pairs(), base=gone, run=run_in(tmp_path))
    assert again.rows.height == 36
    assert len(list((tmp_path / "files").glob(f"*/{ADAPTER}"))) == 3


def test_a_loss_that_is_not_finite_names_step_and_setting(base: ModelSpec, tmp_path: Path) -> None:
    args = ARGS.model_copy(update={"learning_rate": 1e20})
    with pytest.raises(StageError, match=r"the loss is (nan|inf) in step \d+: lower tune.learning_rate"):
        tune.function(ITEMS, args, texts(), pairs(), base=base, run=run_in(tmp_path))


def test_texts_are_padded_by_the_end_token_of_a_model_that_has_no_other(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "llama")
    words = AutoTokenizer.from_pretrained(folder)
    words.pad_token = None
    words.save_pretrained(folder)
    spec = ModelSpec(engine="transformers", model=str(folder), dtype="float32", device="cpu", threads=1)
    tune.function(ITEMS, ARGS.model_copy(update={"epochs": 1}), texts(), pairs(), base=spec, run=run_in(tmp_path))
    assert len(list((tmp_path / "files").glob(f"*/{ADAPTER}"))) == 3
