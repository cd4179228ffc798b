from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pytest

from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import savacu
from normloom.run.runner import StageRunner
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.settings.config import load_profile, override, validated
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.store.views import query
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

SCRIPTED = (
    "models={embedder: {engine: scripted, model: e}, expander: {engine: scripted, model: m, options: {words: 12}}, "
    "classifier: {engine: scripted, model: c, options: {yes_rate: 0.05}}, "
    "judge: {engine: scripted, model: j, options: {yes_rate: 0.7}}, "
    "generators: {g1: {engine: scripted, model: m}, g2: {engine: scripted, model: n}}}"
)
LAST = ["select", "prompt_splits", "split", "publish", "coverage", "agreement"]


def flow(*assignments: str) -> list[Stage]:
    settings = override(load_profile("local", "savacu"), [SCRIPTED, *assignments])
    config, _ = validated(SavacuConfig, settings)
    return stages_of(*savacu(config))


def names(*assignments: str) -> list[str]:
    return [stage.name for stage in flow(*assignments)]


def round_names(round: int) -> list[str]:
    again = [f"shortfall_{round}", f"diagnose_{round}"] if round else []
    return [*again, f"generate_{round}_g1", f"generate_{round}_g2", f"score_{round}", f"judge_{round}"]


def test_the_exhaustive_route_is_the_paper_s_algorithm_step_by_step() -> None:
    assert names("classify.route=exhaustive") == [
        "ingest",
        "score_labels",
        "classify",
        "gaps",
        "expand",
        "duplicates",
        "deduplicate",
        *round_names(0),
        *round_names(1),
        *round_names(2),
        *LAST,
    ]


@pytest.mark.parametrize(
    ("assignments", "labelling"),
    [
        (["classify.route=exhaustive"], ["score_labels", "classify"]),
        (["classify.route=shortlist"], ["shortlist", "score_labels", "classify"]),
        (["classify.route=shortlist", "classify.shortlist_by=embedding"], ["shortlist", "score_labels", "classify"]),
        (["classify.route=embedding"], ["embed", "ingest_calibration", "calibrate", "score_labels", "classify"]),
    ],
)
def test_each_route_has_its_stages_of_labelling(assignments: list[str], labelling: list[str]) -> None:
    found = names(*assignments)
    assert found[: found.index("gaps")] == ["ingest", *labelling]


@pytest.mark.parametrize(
    ("assignments", "models"),
    [
        (["classify.route=exhaustive"], {"score_labels": "c"}),
        (["classify.route=shortlist"], {"shortlist": "c", "score_labels": "c"}),
        (["classify.route=shortlist", "classify.shortlist_by=embedding"], {"shortlist": "e", "score_labels": "c"}),
        (["classify.route=embedding"], {"calibrate": "e", "embed": "e"}),
    ],
)
def test_each_role_is_played_by_its_model(assignments: list[str], models: Mapping[str, str]) -> None:
    roles = {"expand": "m", "generate_0_g1": "m", "generate_0_g2": "n", "score_0": "j", "diagnose_1": "j"}
    found = {stage.name: stage.model.model for stage in flow("rounds=1", *assignments) if stage.model}
    assert found == {**models, **roles, "generate_1_g1": "m", "generate_1_g2": "n", "score_1": "j"}


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_resampling_rounds_are_stages_of_their_own(rounds: int) -> None:
    found = names(f"rounds={rounds}")
    wanted = [name for round in range(rounds + 1) for name in round_names(round)]
    assert found[found.index("deduplicate") + 1 : found.index("select")] == wanted


def test_stages_read_what_the_algorithm_says() -> None:
    stages = {stage.name: stage for stage in flow("rounds=1")}
    reads = {name: [upstream.name for upstream in stage.upstream] for name, stage in stages.items()}
    assert reads["expand"] == ["gaps", "classify"]
    assert reads["duplicates"] == ["classify", "expand"]  # originals first, so that they are what is kept
    assert reads["deduplicate"] == ["classify", "expand", "duplicates"]
    assert reads["generate_0_g1"] == ["deduplicate"]
    assert reads["classify"] == ["ingest", "score_labels"]
    assert reads["score_0"] == ["generate_0_g1", "generate_0_g2"]
    assert reads["judge_0"] == ["generate_0_g1", "generate_0_g2", "score_0"]
    assert reads["shortfall_1"] == ["deduplicate", "judge_0"]
    assert reads["generate_1_g2"] == ["diagnose_1"]
    assert reads["select"] == ["deduplicate", "judge_0", "judge_1"]
    assert reads["publish"] == ["split", "deduplicate"]


def test_a_file_without_reference_labels_has_no_agreement(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,harm\nhello there,None\n")
    path = f"source.path={json.dumps(str(tmp_path / 'a.csv'))}"
    assert "agreement" not in names(path)
    assert "agreement" in names(path, "source.references.safety=harm")


@dataclass(frozen=True)
class Built:
    store: Store
    manifests: Mapping[str, Manifest]

    def rows(self, stage: str) -> pl.DataFrame:
        return self.store.scan(self.manifests[stage].ref).collect()

    def dropped(self, stage: str) -> pl.DataFrame:
        return self.store.scan(self.manifests[stage].ref, "dropped").collect()

    def judged(self) -> pl.DataFrame:
        return pl.concat([self.rows(name) for name in self.manifests if name.startswith("judge_")])

    def files(self, stage: str) -> list[str]:
        manifest = self.manifests[stage]
        return [str(path) for path, _ in manifest.files(self.store.table_directory(manifest.ref))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A whole build of twelve built-in prompts by scripted models, in this process."""
    store = Store(tmp_path_factory.mktemp("store"))
    settings = [
        "classify.route=exhaustive",
        "source.limit=12",
        "expand.minimum=1",
        "rounds=1",
        "generate.part_rows=8",
        "judge.calibration=none",
    ]
    settings += ["split.train=0.5", "split.validation=0.25", "split.test=0.25"]
    stages = flow(*settings)
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system="savacu", store=store, pool=pool, build="test", progress=LogProgress())
    manifests: dict[str, Manifest] = {}
    for stage in stages:
        inputs, sides = ([manifests[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        manifests[stage.name], _ = loom.run(stage, inputs, sides)
    return Built(store, manifests)


def test_released_rows_are_pairs_that_join_back_to_their_prompts(built: Built) -> None:
    released, prompts = built.rows("publish"), built.rows("deduplicate")
    assert released.height > 10
    prompts = prompts.drop("parents").rename({"row_id": "prompt_id"})
    joined = released.join(prompts, on="prompt_id", how="left", suffix="_there")
    assert joined["prompt"].to_list() == joined["prompt_there"].to_list()
    assert joined["origin"].to_list() == joined["origin_there"].to_list()
    for row in joined.iter_rows(named=True):
        labels = [(name, label["label"]) for name in DIMENSIONS for label in row[name]]
        assert labels == [(label["dimension"], label["label"]) for label in row["labels"]]
    pairs = released.group_by("prompt_id", "generator").agg(pl.col("alignment").sort())
    assert pairs["alignment"].to_list() == [["aligned", "misaligned"]] * pairs.height


def test_every_candidate_is_released_or_in_the_ledger_of_select(built: Built) -> None:
    judged, selected, out = built.judged(), built.rows("select"), built.dropped("select")
    assert judged.height == selected.height + out.height
    assert sorted(judged["row_id"]) == sorted([*selected["parents"].explode(), *out["row_id"]])
    discarded = judged.filter(verdict="discarded")
    assert discarded.height == out.filter(pl.col("reason").str.starts_with("discarded: ")).height
    assert built.manifests["publish"].count("rows") == selected.height


def test_a_released_row_is_traced_to_its_source_over_its_parents(built: Built) -> None:
    rows = {row["row_id"]: (stage, row) for stage in built.manifests for row in built.rows(stage).to_dicts()}
    seen = set()
    for start, origin in built.rows("publish").select("row_id", "origin").iter_rows():
        stages, pending = set(), [start]
        while pending:
            stage, row = rows[pending.pop()]
            stages.add(stage)
            pending += row["parents"]
        assert {"publish", "split", "select", "deduplicate"} <= stages
        assert ({"classify", "ingest"} if origin == "source" else {"expand", "gaps"}) <= stages
        seen |= stages
    assert {"score_0", "judge_0", "score_1", "judge_1", "diagnose_1", "shortfall_1"} <= seen
    assert {"expand", "gaps", "score_labels", "classify"} <= seen


def test_every_stage_accounts_for_its_rows_and_keeps_each_id_once(built: Built) -> None:
    ids: list[str] = []
    for name, manifest in built.manifests.items():
        assert manifest.attempts == sum(manifest.count(kind) for kind in ("rows", "dropped", "quarantined"))
        ids += built.rows(name)["row_id"].to_list()
    assert len(ids) == len(set(ids))


def test_quotas_are_met_or_reported(built: Built) -> None:
    coverage, gaps = built.rows("coverage"), built.rows("gaps")
    assert coverage.height == 111
    assert coverage.filter(pl.col("quota") > 0)["label"].sort().to_list() == gaps["label"].sort().to_list()
    short = coverage.filter(pl.col("missing") > 0)
    assert (coverage["missing"] == (coverage["quota"] - coverage["added"]).clip(0)).all()
    [check] = [check for check in built.manifests["coverage"].checks if check.on_fail == "warn"]
    assert check.passed == short.is_empty()


def test_splits_share_no_prompt(built: Built) -> None:
    splits = built.rows("publish").group_by("prompt_id").agg(pl.col("split").n_unique())
    assert splits["split"].unique().to_list() == [1]
    assert built.manifests["prompt_splits"].metrics["leakage"] == 0


def test_the_released_table_is_read_by_polars_duckdb_and_hugging_face_datasets(built: Built, tmp_path: Path) -> None:
    import datasets

    files = built.files("publish")
    rows = pl.read_parquet(files).to_dicts()
    assert duckdb.read_parquet(files).pl().to_dicts() == rows
    datasets.disable_progress_bars()
    read = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path))
    assert read.to_list() == rows
    counts = "SELECT count(*) AS rows, count(DISTINCT prompt_id) AS prompts FROM savacu_publish"
    assert query(built.store, counts) == (
        ["rows", "prompts"],
        [(len(rows), len({row["prompt_id"] for row in rows}))],
    )
    lost = query(built.store, "SELECT reason FROM savacu_select_dropped")[1]
    assert [reason for (reason,) in lost] == built.dropped("select")["reason"].to_list()
