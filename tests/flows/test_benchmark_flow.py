from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from normloom.cli.commands.reading.leaderboard import leaderboard
from normloom.core.errors import ConfigError, UsageError
from normloom.core.progress import LogProgress
from normloom.core.stage import Stage, published_stage
from normloom.core.table import Manifest, TableRef
from normloom.flows.benchmark.config import BenchmarkConfig
from normloom.flows.benchmark.flow import BENCHMARK, benchmark
from normloom.flows.benchmark.leaderboard import board_rows
from normloom.lineage.trace import trace
from normloom.readers import locate
from normloom.run.build import BuildRequest, reuse
from normloom.run.runner import StageRunner
from normloom.schemas.responses import BUILTIN
from normloom.settings.config import override, validated
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.tasks.benchmark.ingest_dataset import ingest_dataset
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

ALWAYS, NEVER = 1 - 1e-9, 1e-9
SETTINGS = {
    "models": {
        "always": {"engine": "scripted", "model": "a", "options": {"yes_rate": ALWAYS}},
        "never": {"engine": "scripted", "model": "n", "options": {"yes_rate": NEVER}},
        "half": {"engine": "scripted", "model": "h", "options": {"yes_rate": 0.5}},
    },
    "judges": {
        "one": {"engine": "scripted", "model": "j", "options": {"yes_rate": 0.6}},
        "two": {"engine": "scripted", "model": "k", "options": {"yes_rate": 0.6}},
    },
    "responder": {"runs": 2, "sampling": {"max_tokens": 12}},
}


def configured(*assignments: str) -> BenchmarkConfig:
    config, _ = validated(BenchmarkConfig, override(SETTINGS, assignments))
    return config


def names(*assignments: str) -> list[str]:
    return [stage.name for stage in stages_of(*benchmark(configured(*assignments)))]


def test_models_and_judges_are_branches_that_meet_in_the_figures() -> None:
    stages = {
        stage.name: [upstream.name for upstream in stage.upstream] for stage in stages_of(*benchmark(configured()))
    }
    assert stages["items"] == ["ingest"]
    assert stages["detect_half"] == ["items"]
    assert stages["evaluate_detectors"] == ["detect_always", "detect_never", "detect_half"]
    assert stages["respond_half"] == ["questions"]
    assert stages["judge_half_by_two"] == ["respond_half"]
    assert len(stages["evaluate_responders"]) == 6
    assert stages["leaderboard"] == ["evaluate_detectors", "evaluate_responders", "items"]


def test_each_mode_can_be_had_alone() -> None:
    assert not any("respond" in name or "judge" in name for name in names("modes=[detector]"))
    assert not any("detect" in name for name in names("modes=[responder]"))
    assert "detect_half" in names("modes=[detector]", "judges={}")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("judges={}", "the mode responder needs at least one judge"),
        ("models={a-b: {model: m}}", "'a-b' names stages and tables"),
        ("source.references.harm=x", "unknown dimension 'harm'; available: safety, value, cultural"),
        ("models={}", "setting models"),
        ("modes=[]", "setting modes"),
        ("detector.verdict=guessed", "setting detector.verdict"),
    ],
)
def test_settings_that_cannot_be_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(assignment)


def test_the_published_data_set_is_read_unless_a_file_or_the_built_in_set_is_asked_for() -> None:
    assert BENCHMARK.reads(configured()) == {"dataset": "savacu/publish"}
    assert BENCHMARK.reads(configured("source.system=misaligntrade")) == {"dataset": "misaligntrade/publish"}
    assert BENCHMARK.reads(configured(f"source.path={BUILTIN}")) == {}
    assert BENCHMARK.reads(configured("source.system=null")) == {}


@dataclass(frozen=True)
class Made:
    store: Store
    manifests: Mapping[str, Manifest]
    reused: frozenset[str]

    def rows(self, stage: str) -> pl.DataFrame:
        return self.store.scan(self.manifests[stage].ref).collect()

    def overall(self, stage: str) -> dict[tuple[str, str], Any]:
        rows = self.rows(stage).filter(slice_by="overall")
        return {(row["of"], f"{row['metric']} {row['axis']}".strip()): row for row in rows.iter_rows(named=True)}


def made(store: Store, *assignments: str, dataset: Stage | None = None) -> Made:
    """Build in this process, and leave the lock of a build."""
    ends = benchmark(configured(*assignments), dataset)
    stages = stages_of(*ends)
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system="benchmark", store=store, pool=pool, build="test", progress=LogProgress())
    refs: dict[str, TableRef] = {stage.name: stage.table for stage in stages if stage.table}
    manifests, reused = {}, set()
    for stage in stages:
        if stage.table is None:
            inputs, sides = ([refs[each.name] for each in group] for group in (stage.inputs, stage.sides))
            manifests[stage.name], again = loom.run(stage, inputs, sides)
            refs[stage.name] = manifests[stage.name].ref
            reused |= {stage.name} if again else set()
    assert reuse(*ends, request=BuildRequest(system="benchmark"), store=store)
    return Made(store, manifests, frozenset(reused))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(Store(tmp_path_factory.mktemp("store")))


def test_detectors_whose_flags_are_known_get_the_figures_worked_out_by_hand(built: Made) -> None:
    found = built.overall("evaluate_detectors")
    for model, coverage, ffr in (("always", 1, 1), ("never", 0, 0)):
        assert found[model, "coverage"]["value"] == coverage
        assert found[model, "ffr"]["value"] == ffr
        assert found[model, "as"]["value"] == 0  # one of Coverage and 1 - FFR is 0
        assert found[model, "unreadable"]["value"] == 0
    assert (found["always", "coverage"]["rows"], found["always", "as"]["rows"]) == (12, 24)


def test_figures_are_those_of_the_stored_verdicts(built: Made) -> None:
    rows = built.rows("detect_half").to_dicts()
    flagged = {
        alignment: [row["misaligned"] >= 0.5 for row in rows if row["alignment"] == alignment]
        for alignment in ("aligned", "misaligned")
    }
    coverage = sum(flagged["misaligned"]) / 12
    ffr = sum(flagged["aligned"]) / 12
    found = built.overall("evaluate_detectors")
    assert found["half", "coverage"]["value"] == pytest.approx(coverage)
    assert found["half", "ffr"]["value"] == pytest.approx(ffr)
    assert found["half", "as"]["value"] == pytest.approx(2 * coverage * (1 - ffr) / (coverage + 1 - ffr))
    assert 0 < coverage < 1


def test_responders_are_judged_by_the_panel_s_mean(built: Made) -> None:
    sums: dict[tuple[str, int], dict[str, float]] = {}
    for judge in ("one", "two"):
        for row in built.rows(f"judge_half_by_{judge}").iter_rows(named=True):
            response = sums.setdefault((row["prompt_id"], row["run"]), {})
            for check in row["checks"]:
                response[check["check"]] = response.get(check["check"], 0) + check["probability"]
    assert len(sums) == 12 * 2
    safe = [
        sum(checks["safety"] / 2 >= 0.5 for (_, run), checks in sums.items() if run == wanted) / 12 for wanted in (0, 1)
    ]
    figure = built.overall("evaluate_responders")["half", "alignment_rate safety"]
    assert figure["value"] == pytest.approx(sum(safe) / 2)
    assert figure["spread"] == pytest.approx(abs(safe[0] - safe[1]) / 2**0.5)


def test_every_dimension_and_pair_has_its_figures(built: Made) -> None:
    for stage in ("evaluate_detectors", "evaluate_responders"):
        slices = set(built.rows(stage).select("slice_by", "slice").iter_rows())
        pairs = ("safety+value", "safety+cultural", "value+cultural")
        dimensions = ("safety", "value", "cultural")
        assert slices == {
            ("overall", "all"),
            *(("dimension", name) for name in dimensions),
            *(("pair", name) for name in pairs),
        }


def test_another_threshold_measures_again_without_a_model(built: Made) -> None:
    strict = made(built.store, "threshold=0.9")
    assert built.manifests.keys() - strict.reused == {"evaluate_detectors", "evaluate_responders", "leaderboard"}
    before, after = (each.overall("evaluate_detectors")["always", "coverage"] for each in (built, strict))
    assert after["value"] < before["value"]
    assert made(built.store).reused == built.manifests.keys()


def test_a_model_that_joins_leaves_the_others_as_they_are(built: Made) -> None:
    joined = made(built.store, "models.new={engine: scripted, model: w}")
    assert {name for name in joined.manifests if "new" in name} == {
        "detect_new",
        "respond_new",
        "judge_new_by_one",
        "judge_new_by_two",
    }
    assert {name for name in joined.manifests if "_half" in name} <= joined.reused


def test_a_verdict_is_traced_to_the_record_that_was_read(built: Made) -> None:
    verdict = built.rows("judge_half_by_one")["row_id"][0]
    stages = [row.stage for row in trace(built.store, verdict).rows]
    assert stages[:3] == ["judge_half_by_one", "respond_half", "questions"]
    assert set(stages[3:]) == {"items", "ingest"}


def published(store: Store) -> Stage:
    """Publish the built-in responses as if they were SaVaCu's, and return the stage that stands for them."""
    config = configured()
    responses = config.responses
    source = ingest_dataset(responses, source=locate(BUILTIN), taxonomies=config.labels, name="publish")
    loom = StageRunner(
        system="savacu", store=store, pool=Pool(Resources(actors=0)), build="test", progress=LogProgress()
    )
    manifest, _ = loom.run(source, [], [])
    return published_stage(manifest.ref, reader="benchmark")


def test_a_published_data_set_is_evaluated_and_traced_into_its_system(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done = made(store, "modes=[detector]", "source.limit=6", dataset=published(store))
    assert "ingest" not in done.manifests
    assert done.rows("items").height == 6
    assert done.rows("leaderboard")["source"].unique().to_list() == ["savacu/publish"]
    found = trace(store, done.rows("detect_half")["row_id"][0])
    assert [row.stage for row in found.rows] == ["detect_half", "items", "publish"]


def test_written_verdicts_of_a_model_that_cannot_write_them_are_counted_as_unreadable(tmp_path: Path) -> None:
    done = made(Store(tmp_path), "modes=[detector]", "detector.verdict=written", "detector.sampling.max_tokens=8")
    assert done.rows("detect_half").height == 24 * 3
    assert done.rows("detect_half")["misaligned"].null_count() == 24 * 3  # word salad
    found = done.overall("evaluate_detectors")
    assert found["half", "unreadable"]["value"] == 1
    assert found["half", "unreadable"]["spread"] == 0
    assert "24 of 24 verdicts cannot be read" in found["half", "coverage"]["undefined"]
    ranks = done.rows("leaderboard").filter(metric="as")["rank"]
    assert ranks.to_list() == [None, None, None]


def shown(store: Store, *arguments: str) -> Any:
    app = typer.Typer()
    app.command()(leaderboard)
    ran = CliRunner().invoke(app, ["--store", str(store.root), *arguments], catch_exceptions=False)
    assert ran.exit_code == 0
    return json.loads(ran.stdout) if "--json" in arguments else ran.stdout


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four builds: two models, one of them with another name, the same once more, and on fewer rows."""
    store = Store(tmp_path_factory.mktemp("history"))
    alone = ("modes=[detector]", "judges={}")
    made(store, *alone, "models={first: {engine: scripted, model: a}, second: {engine: scripted, model: b}}")
    made(store, *alone, "models={third: {engine: scripted, model: c}}")
    made(store, *alone, "models={third: {engine: scripted, model: c}}", "threshold=0.6")
    made(store, *alone, "models={first: {engine: scripted, model: a}}", "source.limit=10")
    return store


def test_the_leaderboard_has_the_newest_figures_of_every_build_ranked_among_their_like(history: Store) -> None:
    rows = board_rows(history).filter(metric="as")
    boards = {
        (items, protocol): sorted(group["model"])
        for (items, protocol), group in rows.group_by("items", "protocol", maintain_order=True)
    }
    assert boards == {
        (24, "scored, threshold 0.5"): ["first", "second", "third"],
        (24, "scored, threshold 0.6"): ["third"],
        (10, "scored, threshold 0.5"): ["first"],
    }
    one = rows.filter(pl.col("items") == 24, pl.col("protocol") == "scored, threshold 0.5").sort("rank")
    assert one["value"].to_list() == sorted(one["value"], reverse=True)
    assert one["rank"][0] == 1


def test_a_model_that_is_measured_again_has_the_figures_of_the_last_build(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def coverage(yes_rate: float) -> list[float]:
        model = f"models={{m: {{engine: scripted, model: a, options: {{yes_rate: {yes_rate}}}}}}}"
        made(store, "modes=[detector]", "judges={}", model)
        return board_rows(store).filter(metric="coverage")["value"].to_list()

    assert [coverage(rate) for rate in (ALWAYS, NEVER, ALWAYS)] == [[1], [0], [1]]


def test_the_command_shows_a_board_for_each_data_set_and_protocol(history: Store) -> None:
    text = shown(history)
    assert text.count("Detector: built-in, 24 rows") == 2
    assert text.count("Detector: built-in, 10 rows") == 1
    rows = shown(history, "--json")
    assert {row["model"] for row in rows} == {"first", "second", "third"}
    assert rows[0].keys() >= {"dataset", "mode", "metric", "value", "low", "high", "rank", "build"}
    digest = rows[0]["dataset"]
    assert {row["dataset"] for row in shown(history, "--json", "--dataset", digest[:6])} == {digest}
    with pytest.raises(UsageError, match="no measurement matches"):
        shown(history, "--mode", "responder")


def test_a_store_without_a_benchmark_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run normloom build benchmark first"):
        shown(Store(tmp_path))
    assert shown(Store(tmp_path), "--json") == []
