"""Demo-SafetyBench from the flow to the released table, with scripted models in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from normloom.core.errors import ConfigError
from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.flows.demo_safetybench.config import DemoSafetybenchConfig
from normloom.flows.demo_safetybench.flow import DEMO_SAFETYBENCH, demo_safetybench
from normloom.run.runner import StageRunner
from normloom.schemas.taxonomy import builtin_taxonomies
from normloom.settings.config import override, validated
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

SCRIPTED = (
    "models={embedder: {engine: scripted, model: e}, "
    "classifier: {engine: scripted, model: c, options: {yes_rate: 0.1}}, "
    "expander: {engine: scripted, model: x, options: {words: 12}}, "
    "raters: {r1: {engine: scripted, model: a}, r2: {engine: scripted, model: b}, "
    "deaf: {engine: scripted, model: d, options: {overflow_on: Conversation}}}}"
)
FIGURES = ["rater_figures", "human_figures", "sweep_delta", "sweep_tau"]


def config(*assignments: str) -> DemoSafetybenchConfig:
    checked, _ = validated(DemoSafetybenchConfig, override({}, [SCRIPTED, *assignments]))
    return checked


def flow(*assignments: str) -> list[Stage]:
    return stages_of(*demo_safetybench(config(*assignments)))


def test_the_flow_is_the_paper_s_pipeline_step_by_step() -> None:
    assert [stage.name for stage in flow()] == [
        "ingest",
        "conversations",
        "score_labels",
        "classify",
        "requests",
        "gaps",
        "expand",
        "duplicates",
        "deduplicate",
        "asked",
        "rate_r1",
        "rate_r2",
        "rate_deaf",
        "rated",
        "publish",
        "coverage",
        *FIGURES,
    ]
    assert DEMO_SAFETYBENCH.flow(config())[0].name == "publish"


def test_stages_read_what_the_pipeline_says() -> None:
    reads = {stage.name: [upstream.name for upstream in stage.upstream] for stage in flow()}
    assert reads["classify"] == ["conversations", "score_labels"]
    assert reads["requests"] == ["ingest", "classify"]
    assert reads["duplicates"] == ["requests", "expand"]  # originals first, so that they are what is kept
    assert reads["deduplicate"] == ["requests", "expand", "duplicates"]
    assert reads["rate_r1"] == reads["rate_r2"] == ["asked"]
    assert reads["rated"] == ["rate_r1", "rate_r2", "rate_deaf", "deduplicate"]
    assert reads["publish"] == ["ingest", "classify", "deduplicate", "rated"]


@pytest.mark.parametrize(
    ("assignments", "stages"),
    [
        (["classify.route=shortlist"], {"shortlist": "c", "score_labels": "c"}),
        (["classify.route=shortlist", "classify.shortlist_by=embedding"], {"shortlist": "e", "score_labels": "c"}),
        (["classify.route=embedding"], {"calibrate": "e", "embed": "e"}),
    ],
)
def test_each_route_of_labelling_has_its_stages_and_models(assignments: list[str], stages: Mapping[str, str]) -> None:
    roles = {"expand": "x", "rate_r1": "a", "rate_r2": "b", "rate_deaf": "d"}
    assert {stage.name: stage.model.model for stage in flow(*assignments) if stage.model} == {**stages, **roles}


def test_a_rater_may_fail_altogether_and_no_other_stage_may() -> None:
    assert {stage.name: stage.quarantine_budget for stage in flow()} == {
        stage.name: 1.0 if stage.name.startswith("rate_") else None for stage in flow()
    }


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("models.raters={a-b: {model: m}}", "'a-b' names stages and tables"),
        ("models.raters={}", "setting models.raters"),
        ("source.items=b.csv", "^source: items names conversations, but path names no ratings of them"),
        ("rate.answers.maybe=M", "unknown setting rate.answers.maybe"),
    ],
)
def test_settings_that_make_no_sense_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(assignment)


@dataclass(frozen=True)
class Built:
    store: Store
    manifests: Mapping[str, Manifest]

    def rows(self, stage: str) -> pl.DataFrame:
        return self.store.scan(self.manifests[stage].ref).collect()


def build(folder: Path, *assignments: str) -> Built:
    store, stages = Store(folder), flow(*assignments)
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system="demo_safetybench", store=store, pool=pool, build="test", progress=LogProgress())
    manifests: dict[str, Manifest] = {}
    for stage in stages:
        inputs, sides = ([manifests[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        manifests[stage.name], _ = loom.run(stage, inputs, sides)
    return Built(store, manifests)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A whole build of the built-in conversations: 8, each to be rated as 6 persons."""
    return build(tmp_path_factory.mktemp("store"), "expand.minimum=1", "expand.quota=2", "rate.part_rows=8")


def test_every_stage_accounts_for_its_rows_and_keeps_each_id_once(built: Built) -> None:
    ids: list[str] = []
    for name, manifest in built.manifests.items():
        assert manifest.attempts == sum(manifest.count(kind) for kind in ("rows", "dropped", "quarantined"))
        ids += built.rows(name)["row_id"].to_list()
    assert len(ids) == len(set(ids))


def test_released_are_all_source_rows_and_the_expansions_with_two_ratings_each(built: Built) -> None:
    released, drawn = built.rows("publish"), built.rows("expand")
    assert dict(released["origin"].value_counts().iter_rows()) == {"source": 48, "expansion": drawn.height}
    assert drawn.height > 0
    raters = {tuple(each["rater"] for each in row) for row in released["ratings"].to_list()}
    assert raters == {("r1", "r2")}
    asked = {(row["item_id"], row["group"]): row["labels"] for row in built.rows("deduplicate").to_dicts()}
    for row in released.to_dicts():
        assert [label["label"] for label in row["labels"]] == asked[row["item_id"], row["group"]]
        for each in row["ratings"]:
            assert each["p_no"] + each["p_unsure"] + each["p_yes"] == pytest.approx(1)
            assert each["rating"] == pytest.approx(each["p_yes"] + each["p_unsure"] / 2)


def test_the_rater_that_failed_is_counted_out(built: Built) -> None:
    coverage = {name: value for name, value in built.manifests["rated"].metrics.items() if name.startswith("coverage")}
    assert coverage == {"coverage_r1": 1, "coverage_r2": 1, "coverage_deaf": 0}
    assert built.manifests["rate_deaf"].count("quarantined") == built.rows("deduplicate").height


def test_a_released_row_is_traced_to_its_source_its_labels_and_its_ratings(built: Built) -> None:
    rows = {row["row_id"]: (stage, row) for stage in built.manifests for row in built.rows(stage).to_dicts()}
    for start, origin in built.rows("publish").select("row_id", "origin").iter_rows():
        stages, pending = set(), [start]
        while pending:
            stage, row = rows[pending.pop()]
            stages.add(stage)
            pending += row["parents"]
        assert {"publish", "deduplicate", "rated", "rate_r1", "rate_r2"} <= stages
        assert (
            {"ingest", "conversations", "classify", "requests"} if origin == "source" else {"expand", "gaps"}
        ) <= stages


def test_quotas_are_met_or_counted(built: Built) -> None:
    gaps, drawn = built.rows("gaps"), built.rows("expand")
    met = drawn.group_by("group", pl.col("labels").list.first()).len().filter(pl.col("len") == 2).height
    assert built.manifests["expand"].metrics["labels_short"] == gaps.height - met
    coverage = built.rows("coverage")
    assert coverage["added"].sum() == drawn.height  # none of them is a duplicate
    assert coverage.filter(pl.col("missing") > 0).height == gaps.height - met
    [check] = [check for check in built.manifests["coverage"].checks if check.on_fail == "warn"]
    assert check.passed == (gaps.height == met)


def test_deduplication_takes_nothing_from_another_group(built: Built) -> None:
    kept = built.rows("deduplicate").filter(origin="source")
    assert kept.group_by("group").len()["len"].to_list() == [8] * 6  # the six share all eight conversations


def test_figures_of_raters_are_there_and_those_of_people_say_that_nobody_rated(built: Built) -> None:
    figures = built.rows("rater_figures").filter(slice_by="overall")
    assert {"r1", "r2", "panel", "deaf"} <= set(figures["of"])
    [icc] = figures.filter(metric="icc2_1", of="panel").to_dicts()
    assert icc["value"] is not None
    people = built.rows("human_figures")
    assert people["value"].null_count() == people.height
    assert people["undefined"].unique().to_list() == ["there are no human answers"]


def test_sweeps_agree_with_the_stages_at_their_settings(built: Built) -> None:
    deltas, taus = built.rows("sweep_delta"), built.rows("sweep_tau")
    kept = built.rows("classify")["labels"].list.len().sum()
    assert deltas.filter(metric="labels_kept", slice="0.50")["value"].to_list() == [kept]
    removed = taus.filter(metric="removed", slice="10")["value"].to_list()
    assert removed == [built.manifests["deduplicate"].count("dropped")]


def test_labels_are_of_the_safety_taxonomy_alone(built: Built) -> None:
    [safety] = [taxonomy for taxonomy in builtin_taxonomies() if taxonomy.dimension == "safety"]
    found = set(built.rows("publish").explode("labels").unnest("labels")["label"].drop_nulls())
    assert found <= {label.id for label in safety.labels}
    assert built.rows("classify")["probabilities"].list.len().unique().to_list() == [len(safety.labels)]


@pytest.mark.parametrize("route", ["embedding", "shortlist"])
def test_other_routes_of_labelling_build_too(tmp_path: Path, route: str) -> None:
    made = build(tmp_path, f"classify.route={route}", "expand.minimum=0", "source.limit=2")
    assert made.rows("publish").height == 2 * 6


def test_conversations_of_dices_are_released_with_all_their_raters(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "dices"
    source = {"path": str(folder / "ratings_350.parquet"), "items": str(folder / "items_350.parquet"), "limit": 20}
    made = build(tmp_path, f"source={json.dumps(source)}", "expand.minimum=0")
    requests = made.manifests["requests"]
    assert requests.count("rows") == 20 * 30
    assert requests.metrics["calls_saved"] == (20 * 123 - 20 * 30) * 3
    released, gone = made.manifests["publish"].count("rows"), made.manifests["publish"].count("dropped")
    assert released + gone == 20 * 123
    people = made.rows("human_figures").filter(metric="icc2_k", slice_by="overall")
    assert people["value"][0] == pytest.approx(0.98, abs=0.02)  # the mean of 123 people is reliable
