"""What is told of a trained model: on its page in Prefect, in the report, in OpenLineage's events."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import attr
import polars as pl
import pytest
from openlineage_schemas import validate
from tiny_models import save_tiny_llama
from typer.testing import CliRunner

from normloom.cli.app import app
from normloom.core.models.protocol import LanguageModel, ModelSpec
from normloom.core.run import Run
from normloom.core.stage import Output, dropped, dropped_frame
from normloom.lineage.openlineage import LineageEvents
from normloom.lineage.openlineage_facets import run_facets
from normloom.lineage.openlineage_models import model_datasets
from normloom.lineage.training import POINTS, TrainingRecord, training_of
from normloom.models.identity import IdentifiedSpec
from normloom.prefect.pages.lineage_page import Lineage, _look_at_training, stage_page
from normloom.report.blocks import Plot, Table
from normloom.report.material import find_material
from normloom.report.page import page
from normloom.report.report import report
from normloom.report.sections import products
from normloom.steps.args import Args
from normloom.steps.products import with_adapter
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.testing import words_stage
from normloom.testing.builds import built
from normloom.testing.toy import SCRIPTED

STEPS = 150
BUILD = "20261127T000001-ab01"


class Inner(Args):
    rank: int = 8
    modules: tuple[str, ...] = ("q_proj", "v_proj")


class Rates(Args):
    rate: float = 0.1
    lora: Inner = Inner()


@step(makes={"step": pl.Int64, "accuracy": pl.Float64, "loss": pl.Float64}, files="adapter")
def tune(rows: pl.DataFrame, args: Rates, *, policy: ModelSpec, run: Run) -> Output:
    """Leave a file and a curve whose loss is 1/step; it does not learn from the word `left`."""
    assert policy.model
    (run.files / "adapter_model.safetensors").write_bytes(b"\0" * 2_000_000)
    (run.files / "<b>odd|name").write_text(str(args.rate))
    numbers = range(1, STEPS + 1)
    curve = pl.DataFrame({"step": numbers, "accuracy": [0.5] * STEPS, "loss": [1 / number for number in numbers]})
    out = [dropped(row, "left out") for row in rows.iter_rows(named=True) if row["word"] == "left"]
    made = curve.with_columns(parents=pl.lit([], dtype=pl.List(pl.String)), content=pl.col("step").cast(pl.String))
    return Output(rows=made, dropped=dropped_frame(out), attempts=STEPS + len(out))


@step(makes={"word": pl.String}, files="pictures")
def draw(rows: pl.DataFrame, run: Run) -> Output:
    (run.files / "one.txt").write_text("a picture")
    return Output(rows=rows.select("row_id", "word"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    where = Store(tmp_path_factory.mktemp("store"))
    words = words_stage("a", "left", "b")
    built(where, tune(words, Rates(), policy=SCRIPTED), draw(words), build=BUILD)
    return where


def test_the_trace_of_a_row_says_which_model_learned_from_it(store: Store) -> None:
    words = store.current("toy", "words")
    assert words
    [row] = store.scan(words.ref).filter(word="a").collect()["row_id"]
    shown = CliRunner().invoke(app, ["trace", row, "--forward", "--store", str(store.root)])
    assert "tune" in shown.output


def training(store: Store) -> TrainingRecord:
    manifest = store.current("toy", "tune")
    assert manifest
    found = training_of(store, manifest)
    assert found
    return found


def test_a_trained_model_has_base_rows_settings_and_curve(store: Store) -> None:
    found = training(store)
    assert found.base_names == [SCRIPTED.model]
    assert found.learned_from == {"toy/words": 2}
    assert (found.product, found.files) == ("adapter", 2)
    assert dict(found.settings) == {"rate": 0.1, "lora.rank": 8, "lora.modules": ["q_proj", "v_proj"]}
    assert found.curve
    assert found.curve.figures == ["loss", "accuracy"]


def test_a_drawn_point_is_the_mean_of_its_rows(store: Store) -> None:
    curve = training(store).curve
    assert curve
    points = curve.points("loss")
    assert len(points) <= POINTS
    assert points[0] == pytest.approx((3, (1 + 1 / 2 + 1 / 3) / 3))
    assert points[-1][0] == STEPS
    short = replace(curve, rows=curve.rows.head(2).with_columns(loss=pl.Series([1.0, float("nan")])))
    assert short.points("loss") == [(1, 1.0)]


def test_files_that_are_no_model_are_listed_only(store: Store) -> None:
    manifest = store.current("toy", "draw")
    assert manifest
    assert training_of(store, manifest) is None


def test_the_page_shows_files_base_rows_curve_and_hyperparameters(store: Store) -> None:
    manifest = store.current("toy", "tune")
    assert manifest
    lineage = Lineage(
        system="toy",
        build=BUILD,
        graph={"tune": []},
        manifests={"tune": manifest},
        trainings={"tune": training(store)},
        store=str(store.root),
    )
    shown = stage_page(lineage, "tune")
    assert "The product is adapter: 2 files, 2.0 MB." in shown
    digest = manifest.attached["adapter_model.safetensors"].sha256[:12]
    assert f"| adapter\\_model.safetensors | 2,000,000 | `{digest}` |" in shown
    assert "| \\<b\\>odd\\|name |" in shown
    assert "| base (policy) | toy, scripted 2 |" in shown
    assert "| learned from | 2 rows of toy/words |" in shown
    assert "xychart-beta" in shown
    assert "| lora.rank | 8 |" in shown
    assert f"| {STEPS} | 0.006667 | 0.5 |" in shown


def test_the_report_lists_files_and_trained_models(store: Store) -> None:
    data = products.collect(find_material(store, "toy"))
    assert data
    blocks = list(products.draw(data))
    tables = {block.title: block for block in blocks if isinstance(block, Table)}
    assert tables["Trained models"].rows == [
        ["tune", "adapter", SCRIPTED.model, "2 rows of toy/words", 2, 2_000_003, STEPS]
    ]
    assert [row[:4] for row in tables["Files"].rows] == [
        ["tune", "adapter", "<b>odd|name", 3],
        ["tune", "adapter", "adapter_model.safetensors", 2_000_000],
        ["draw", "pictures", "one.txt", 9],
    ]
    assert ["lora.modules", "q_proj, v_proj"] in tables["Hyperparameters"].rows
    [plot] = [block for block in blocks if isinstance(block, Plot)]
    assert plot.title == "Training: loss"
    drawn = page(report(find_material(store, "toy")))
    assert "Trained models" in drawn
    assert "<b>odd|name" not in drawn


@step(makes={"word": pl.String})
def say(rows: pl.DataFrame, model: LanguageModel) -> pl.DataFrame:
    assert model
    return rows.select("row_id", "word")


def test_events_have_models_as_datasets(store: Store) -> None:
    """The base of a model that is trained, the model itself where it is made and where it is used, each once."""
    hub = ModelSpec(engine="transformers", model="org/base", revision="main")
    weights = {"engine": "transformers 1", "model": "org/base", "revision": "main", "weights": "commit abc"}
    known = IdentifiedSpec(**dict(hub), identity=weights)
    words = words_stage("a", "left", "b")
    trained = tune(words, Rates(), policy=SCRIPTED)
    tuned = with_adapter(SCRIPTED, trained)
    reads, product = (store.current("toy", name) for name in ("words", "tune"))
    assert reads
    assert product
    told = say(words, model={"one": tuned, "two": known, "three": SCRIPTED})
    lineage = LineageEvents(system="toy", build="b1", store=store)
    with lineage:
        for stage, tables, manifest in ((trained, [reads.ref], product), (told, [reads.ref, product.ref], reads)):
            lineage.run_stage(stage.name, tables, partial(lambda made: (made, True), manifest), models=stage.specs)
    events = [json.loads(line) for line in lineage.path.read_text().splitlines()]
    for event in events:
        validate(event)
    _, _, training, _, using, _ = events
    base = ("scripted", SCRIPTED.model)
    place = str(store.root / "toy" / "tune")
    assert _names(training["inputs"]) == [("file", str(store.root / "toy" / "words")), base]
    assert training["inputs"][1]["facets"]["normloom_model"]["engine"] == "scripted 2"
    [made] = training["outputs"]
    assert _names([made]) == [("file", place)]
    facet = made["facets"]["normloom_trained_model"]
    assert (facet["bases"], facet["learnedFrom"], facet["settings"]["lora.rank"]) == (["toy"], {"toy/words": 2}, 8)
    assert _names(using["inputs"])[1:] == [("file", place), base, ("hf://models", "org/base")]
    read = using["inputs"][1:]
    assert read[0]["facets"]["normloom_trained_model"]["bytes"] == 2_000_003
    assert read[2]["facets"]["version"]["datasetVersion"] == "commit abc"


def _names(datasets: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["namespace"], one["name"]) for one in datasets]


def test_a_dataset_is_named_by_where_its_model_is(tmp_path: Path) -> None:
    address = "https://models.example.org/v1"
    hosted = ModelSpec(engine="openai", model="large", options={"base_url": address})
    folder = save_tiny_llama(tmp_path / "model")
    local = ModelSpec(engine="transformers", model=str(folder))
    assert _names([attr.asdict(one) for one in model_datasets([hosted, local, local])]) == [
        ("https://models.example.org", "large"),
        ("file", str(folder)),
    ]


def test_models_by_role_and_whole_weights_have_a_facet(store: Store) -> None:
    """Their identity has no revision of its own."""
    manifest = store.current("toy", "tune")
    assert manifest
    of_roles = {
        **manifest.key_fields,
        "model": {"engine": "roles", "model": "policy a + judge b", "policy.engine": "x"},
    }
    facet = run_facets(manifest.model_copy(update={"key_fields": of_roles}), reused=True)["normloom_model"]
    assert (facet.model, facet.revision) == ("policy a + judge b", None)  # type: ignore[attr-defined]  # the client leaves facets untyped


def test_a_product_whose_curve_cannot_be_read_has_a_page_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = Store(tmp_path)
    built(where, tune(words_stage("a"), Rates(), policy=SCRIPTED), build=BUILD)
    manifest = where.current("toy", "tune")
    assert manifest
    for file in where.table_directory(manifest.ref).glob("rows-*.parquet"):
        file.write_bytes(b"x" * file.stat().st_size)
    lineage = Lineage(system="toy", build=BUILD, graph={"tune": []}, manifests={"tune": manifest}, store=str(tmp_path))
    _look_at_training(lineage, "tune")
    assert lineage.trainings == {}
    assert "the page of tune does not show its training: " in caplog.text
