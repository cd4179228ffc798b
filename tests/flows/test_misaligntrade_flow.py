from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.flows.misaligntrade import MISALIGNTRADE, MisaligntradeConfig, misaligntrade
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import savacu
from normloom.run.runner import StageRunner
from normloom.settings.config import load_profile, override, validated
from normloom.settings.settings import stages_for
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

ROLES = "embedder: {engine: scripted, model: e}, classifier: {engine: scripted, model: c, options: {yes_rate: 0.05}}"
OWN = (
    "expander: {engine: scripted, model: x, options: {words: 12}}, typer: {engine: scripted, model: t}, "
    "judge: {engine: scripted, model: j, options: {yes_rate: 0.7}}, generators: {g1: {engine: scripted, model: m}}"
)
SETTINGS = ["source.limit=12", "rounds=1", "judge.calibration=none"]
LABELS = ["classify.route=exhaustive"]


def config_of(kind: type[SavacuConfig], system: str, *assignments: str) -> SavacuConfig:
    settings = override(load_profile("local", system), [*SETTINGS, *LABELS, *assignments])
    return validated(kind, settings)[0]


def make(system: str, ends: list[Stage], store: Store) -> dict[str, Manifest]:
    stages = stages_of(*ends)
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system=system, store=store, pool=pool, build="test", progress=LogProgress())
    made: dict[str, Manifest] = {}
    for stage in stages:
        if stage.table:
            made[stage.name] = store.manifest(stage.table)
            continue
        inputs, sides = ([made[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        made[stage.name], _ = loom.run(stage, inputs, sides)
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with SaVaCu's labelled prompts."""
    store = Store(tmp_path_factory.mktemp("store"))
    models = f"models={{{ROLES}, {OWN.replace('typer: {engine: scripted, model: t}, ', '')}}}"
    ends = savacu(config_of(SavacuConfig, "savacu", models))
    [labelled] = [stage for stage in stages_of(*ends) if stage.name == "classify"]
    make("savacu", [labelled], store)
    return store


@pytest.fixture(scope="module")
def built(store: Store) -> dict[str, Manifest]:
    prepared = stages_for(
        "misaligntrade", profile="local", assignments=[*SETTINGS, f"models={{{ROLES}, {OWN}}}"], store=store
    )
    return make("misaligntrade", prepared.ends, store)


def test_it_starts_from_the_labels_that_savacu_has_published(store: Store, built: dict[str, Manifest]) -> None:
    labelled = store.current("savacu", "classify")
    assert labelled
    assert "classify" not in built
    assert built["savacu_classify"] == labelled
    assert built["take"].inputs[0] == labelled.ref
    assert built["take"].count("rows") == 12
    assert built["take"].dropped_by == {}


def test_a_file_of_one_s_own_comes_before_what_savacu_has_published(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("prompt\nhello there\n")
    assignments = [*SETTINGS, *LABELS, f"models={{{ROLES}, {OWN}}}", f"source.path={tmp_path}/mine.csv"]
    prepared = stages_for("misaligntrade", profile="local", assignments=assignments, store=store)
    names = [stage.name for stage in stages_of(*prepared.ends)]
    assert names[:2] == ["ingest", "score_labels"]
    assert MISALIGNTRADE.reads(prepared.config) == {}


def test_a_limit_takes_the_first_of_what_savacu_has_published(store: Store) -> None:
    labelled = store.current("savacu", "classify")
    assert labelled
    assignments = ["source.limit=5", f"models={{{ROLES}, {OWN}}}"]
    prepared = stages_for("misaligntrade", profile="local", assignments=assignments, store=store)
    [take] = [stage for stage in stages_of(*prepared.ends) if stage.name == "take"]
    taken = make("misaligntrade", [take], store)["take"]
    assert store.scan(taken.ref).collect()["prompt"].to_list() == (
        store.scan(labelled.ref).collect()["prompt"].head(5).to_list()
    )
    assert taken.dropped_by == {"limit": 7}


def test_without_them_it_labels_for_itself(tmp_path: Path) -> None:
    assignments = [*SETTINGS, *LABELS, f"models={{{ROLES}, {OWN}}}"]
    prepared = stages_for("misaligntrade", profile="local", assignments=assignments, store=Store(tmp_path))
    names = [stage.name for stage in stages_of(*prepared.ends)]
    assert names[:5] == ["ingest", "score_labels", "classify", "gaps", "expand"]


def test_the_stages_are_those_of_the_method() -> None:
    config = config_of(MisaligntradeConfig, "misaligntrade", f"models={{{ROLES}, {OWN}}}")
    assert isinstance(config, MisaligntradeConfig)
    stages = {stage.name: stage for stage in stages_of(*misaligntrade(config))}
    reads = {name: [upstream.name for upstream in stage.upstream] for name, stage in stages.items()}
    assert (reads["asked"], reads["score_types"]) == (["deduplicate"], ["asked"])
    assert reads["semantic_type"] == ["deduplicate", "score_types"]
    assert reads["generate_0_g1"] == ["semantic_type"]
    assert reads["publish"] == ["split", "semantic_type"]
    assert reads["trade_off"] == ["select", "semantic_type", "judge_0", "judge_1"]
    played = {name: stage.model.model for name, stage in stages.items() if stage.model}
    assert (played["score_types"], played["expand"], played["score_1"]) == ("t", "x", "j")


def test_every_released_response_has_a_type_and_a_partner(store: Store, built: dict[str, Manifest]) -> None:
    rows = store.scan(built["publish"].ref).collect()
    assert rows.height > 0
    assert set(rows["semantic_type"]) <= {f"semantic_type/{name}" for name in ("object", "attribute", "relation")}
    pairs = rows.group_by("prompt_id", "generator").agg(pl.col("alignment").sort())
    assert pairs["alignment"].to_list() == [["aligned", "misaligned"]] * pairs.height


def test_the_trade_off_matrix_equals_a_count_by_hand(store: Store, built: dict[str, Manifest]) -> None:
    released = store.scan(built["select"].ref).select("checks").collect()["checks"].to_list()
    passed = [{check["check"]: check["probability"] >= 0.5 for check in checks} for checks in released]
    safe = [each for each in passed if each["safety"]]
    figures = store.scan(built["trade_off"].ref).collect()
    [value] = figures.filter(metric="trade_off", of="released responses", axis="safety to value", slice_by="overall")[
        "value"
    ]
    assert value == pytest.approx(sum(not each["value"] for each in safe) / len(safe))
    assert figures.filter(metric="trade_off", slice_by="overall", of="released responses").height == 6
