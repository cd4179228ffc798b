"""What a user's source brings besides its prompts, through whole builds by scripted models in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_benchmark_flow import made as made_benchmark
from test_demo_flow import build as build_demo
from test_demo_flow import flow as flow_demo
from test_misaligntrade_flow import OWN, ROLES, make
from test_savacu_flow import Built, flow

from normloom.core.errors import SourceError
from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.run.runner import StageRunner
from normloom.settings.settings import stages_for
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

QUICK = (
    "pairs=false",
    "classify.route=exhaustive",
    "rounds=1",
    "expand.dimensions=[safety]",
    "expand.minimum=1",
    "expand.quota=1",
)


def made(stages: list[Stage], root: Path) -> tuple[Built, set[str]]:
    """Build the stages and return the tables and which of them were made now."""
    store = Store(root)
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system="savacu", store=store, pool=pool, build="test", progress=LogProgress())
    manifests: dict[str, Manifest] = {}
    fresh: set[str] = set()
    for stage in stages:
        inputs, sides = ([manifests[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        manifests[stage.name], reused = loom.run(stage, inputs, sides)
        if not reused:
            fresh.add(stage.name)
    return Built(store, manifests), fresh


def prompts_of(path: Path, **changed: object) -> Path:
    texts = [
        "How do I calm down a neighbour who shouts?",
        "Write a note to my landlord about the heating.",
        "What should a new nurse know before a night shift?",
        "Explain to a child why some people fast.",
        "My colleague takes credit for my reports. What now?",
        "Give me three arguments against paying for plastic bags.",
    ]
    records = [
        {"id": f"q-{number}", "prompt": text, "licence": "CC0", "stars": number, "tags": [text[:3]], **changed}
        for number, text in enumerate(texts)
    ]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def source(path: Path) -> str:
    return f"source.path={json.dumps(str(path))}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def by_id(rows: pl.DataFrame) -> Mapping[str, dict[str, Any]]:
    return {row["id"]: row for row in rows.to_dicts()}


def test_own_columns_reach_the_release_and_a_change_in_one_remakes_no_other_table(root: Path, tmp_path: Path) -> None:
    path = prompts_of(tmp_path / "a.jsonl")
    first, _ = made(flow(source(path), *QUICK), root)
    released = first.rows("publish")
    given = by_id(pl.read_ndjson(path))
    own = released.filter(origin="source")
    assert own.height > 0
    for row in own.to_dicts():
        record = given[row["id"]]
        assert {name: row[name] for name in record} == record
        assert row["source_row"] == record["stars"] + 1
    drawn = released.filter(origin="expansion")
    assert drawn.height > 0
    assert drawn.select("source_row", "id", "licence", "stars", "tags").null_count().row(0) == (drawn.height,) * 5
    assert (released["stars"].dtype, released["tags"].dtype) == (pl.Int64(), pl.List(pl.String))

    changed = prompts_of(path, licence="MIT")
    second, fresh = made(flow(source(changed), *QUICK), root)
    assert fresh == {"ingest", "source_columns", "publish"}
    assert second.rows("publish").drop("licence").equals(released.drop("licence"))
    assert second.rows("publish").filter(origin="source")["licence"].unique().to_list() == ["MIT"]


def test_conversations_are_released_as_messages_that_data_sets_reads(
    root: Path, tmp_path: Path, shared_data: Path
) -> None:
    import datasets

    path = shared_data / "cases" / "messages_chat" / "chat.jsonl"
    built, _ = made(flow(source(path), *QUICK), root)
    released = built.rows("publish")
    given = {row: json.loads(line)["messages"] for row, line in enumerate(path.read_text().splitlines(), start=1)}
    own = released.filter(origin="source")
    assert {len(given[row]) for row in own["source_row"]} == {2, 4}  # both kinds come through
    for row in own.to_dicts():
        assert row["messages"] == [*given[row["source_row"]], {"role": "assistant", "content": row["response"]}]
    for row in released.filter(origin="expansion").to_dicts():
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    kept = built.rows("deduplicate").filter(origin="source")
    assert kept.filter(prompt="It began about two weeks ago.").height == 4  # in four conversations
    datasets.disable_progress_bars()
    read = datasets.Dataset.from_parquet(built.files("publish"), cache_dir=str(tmp_path))
    assert read["messages"][:] == released["messages"].to_list()


def test_own_columns_survive_into_a_system_that_starts_from_the_labelled_prompts(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made(flow(source(prompts_of(tmp_path / "a.jsonl", semantic_type="mine")), *QUICK), store.root)
    models = f"models={{{ROLES}, {OWN}}}"
    assignments = [
        "rounds=1",
        "pairs=false",
        "expand.dimensions=[safety]",
        "expand.minimum=1",
        "expand.quota=1",
        models,
    ]
    prepared = stages_for("misaligntrade", profile="local", assignments=assignments, store=store)
    released = store.scan(make("misaligntrade", prepared.ends, store)["publish"].ref).collect()
    own = released.filter(origin="source")
    assert own.height > 0
    assert all(row["id"] == f"q-{row['source_row'] - 1}" for row in own.to_dicts())
    assert own["source_semantic_type"].unique().to_list() == ["mine"]
    assert "mine" not in own["semantic_type"]

    other = flow(source(prompts_of(tmp_path / "b.jsonl", prompt="Is this another file altogether?")), *QUICK)
    made([stage for stage in other if stage.name in {"ingest", "source_columns"}], store.root)  # and no further
    prepared = stages_for("misaligntrade", profile="local", assignments=assignments, store=store)
    assert "savacu_source_columns" not in [stage.name for stage in stages_of(*prepared.ends)]


def test_demo_safetybench_releases_the_other_columns_of_ratings_and_of_conversations(tmp_path: Path) -> None:
    said = {"1": ("USER: hello there", "Hello."), "2": ("USER: may I open it?", "No, please do not open it.")}
    ratings = [
        {"rater_id": f"r{rater}", "item_id": item, "Q_overall": "No", "phase": "Phase1", "answer_ms": 10 * rater}
        for item in said
        for rater in (1, 2)
    ]
    pl.DataFrame(ratings).write_parquet(tmp_path / "ratings.parquet")
    items = [
        {"item_id": int(item), "context": c, "response": r, "turns": 1, "phase": "x"} for item, (c, r) in said.items()
    ]
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    files = [f"source={{path: {tmp_path}/ratings.parquet, items: {tmp_path}/items.parquet}}"]
    done = build_demo(tmp_path / "store", *files, "expand.minimum=1", "expand.quota=1")
    released = done.rows("publish")
    own = released.filter(origin="source")
    found = own.select("item_id", "rater_id", "phase", "answer_ms", "turns", "source_phase").rows()
    assert found == [(row["item_id"], row["rater_id"], "Phase1", row["answer_ms"], 1, "x") for row in ratings]
    assert own["source_row"].to_list() == [1, 2, 3, 4]
    drawn = released.filter(origin="expansion")
    assert drawn.height > 0
    assert drawn.select("source_row", "answer_ms", "turns").null_count().row(0) == (drawn.height,) * 3
    with pytest.raises(SourceError, match=r"no column 'phases'.*did you mean 'phase'"):
        flow_demo(*files, "source.keep=[phases]")


def test_the_benchmark_has_own_columns_beside_each_verdict(tmp_path: Path) -> None:
    records = [
        {
            "prompt": f"Question {n}?",
            "response": text,
            "alignment": alignment,
            "licence": "CC0",
            "id": n,
            "model": "mine",
        }
        for n in (1, 2)
        for text, alignment in (("A fine answer.", "aligned"), ("A rude answer.", "misaligned"))
    ]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    store = Store(tmp_path / "store")
    done = made_benchmark(store, source(tmp_path / "a.jsonl"))
    verdicts = done.rows("detector_results")
    assert verdicts.height == done.rows("items").height * 3
    for row in verdicts.to_dicts():
        record = records[row["source_row"] - 1]
        assert {name: row[name] for name in ("prompt", "response", "alignment", "licence", "id")} == {
            name: record[name] for name in ("prompt", "response", "alignment", "licence", "id")
        }
        assert row["source_model"] == "mine"
    answers = done.rows("responder_results")
    given = {
        row["row_id"]: row
        for name in done.manifests
        if name.startswith("respond_")
        for row in done.rows(name).to_dicts()
    }
    assert answers.height == 2 * len(given)  # two judges
    assert set(answers["response"]) == {row["response"] for row in given.values()}
    assert answers.filter(id=2)["prompt"].unique().to_list() == ["Question 2?"]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps({**record, 'licence': 'MIT'})}\n" for record in records))
    again = made_benchmark(store, source(tmp_path / "a.jsonl"))
    assert again.manifests.keys() - again.reused == {
        "ingest",
        "source_columns",
        "detector_results",
        "responder_results",
    }
