"""The report of a whole SaVaCu build by scripted models."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
from scripted_profile import SETTINGS

from normloom.core.progress import LogProgress
from normloom.core.table import Manifest
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import savacu
from normloom.history.builds import BuildLock, StageLock
from normloom.report.blocks import Plot, Table
from normloom.report.material import find_material
from normloom.report.report import report
from normloom.report.sections.results.labels import draw as draw_labels
from normloom.run.runner import StageRunner
from normloom.settings.config import load_profile, override, validated
from normloom.steps.graph import model_uses, stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

BUILD = "20261122T000000-abcd"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A build of twelve built-in prompts by scripted models, in this process, with its lock."""
    store = Store(tmp_path_factory.mktemp("store"))
    config, _ = validated(SavacuConfig, override(load_profile("local", "savacu"), list(SETTINGS)))
    stages = stages_of(*savacu(config))
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = StageRunner(system="savacu", store=store, pool=pool, build=BUILD, progress=LogProgress())
    made: dict[str, Manifest] = {}
    for stage in stages:
        inputs, sides = ([made[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        made[stage.name], _ = loom.run(stage, inputs, sides)
    locks = {
        name: StageLock(key=manifest.key, content=manifest.content, rows=manifest.count("rows"))
        for name, manifest in made.items()
    }
    lock = BuildLock(system="savacu", build=BUILD, stages=locks, profile="local")
    store.write_build("savacu", BUILD, lock.model_dump_json())
    return store


@pytest.fixture(scope="module")
def sections(store: Store) -> dict[str, dict[str, Any]]:
    made = report(find_material(store, "savacu", title="SaVaCu"))
    return {section["name"]: section["data"] for section in made["sections"]}


def rows(store: Store, stage: str) -> pl.DataFrame:
    manifest = store.current("savacu", stage)
    assert manifest is not None
    return store.scan(manifest.ref).collect()


def test_all_sections_apply_but_figures_of_merit(sections: dict[str, dict[str, Any]]) -> None:
    assert list(sections) == [
        *("build", "examples", "rows", "labels", "acceptance", "margins", "splits", "duplicates", "references", "work")
    ]


def test_select_takes_in_every_judged_candidate(store: Store, sections: dict[str, Any]) -> None:
    [account] = [stage for stage in sections["rows"]["stages"] if stage["stage"] == "select"]
    heights = {name: rows(store, name).height for name in ("deduplicate", "judge_0", "judge_1")}
    assert account["reads"] == heights
    assert account["attempts"] == heights["judge_0"] + heights["judge_1"] == account["rows"] + account["dropped"]


def test_every_candidate_is_counted_once_by_round_and_generator(store: Store, sections: dict[str, Any]) -> None:
    judged = pl.concat([rows(store, "judge_0"), rows(store, "judge_1")])
    verdicts = ("aligned", "misaligned", "discarded")
    rounds = sections["acceptance"]["rounds"]
    assert {(row["round"], row["generator"]) for row in rounds} == set(judged.select("round", "generator").iter_rows())
    assert sum(row[verdict] for row in rounds for verdict in verdicts) == judged.height
    assert sum(map(sum, sections["margins"]["counts"].values())) == judged.height
    counts: Counter[tuple[str, str]] = Counter()
    for prompt, labels in rows(store, "deduplicate").select("row_id", "labels").iter_rows():
        for verdict in judged.filter(prompt_id=prompt)["verdict"]:
            counts.update((label["label"], verdict) for label in labels)
    by_label = sections["acceptance"]["labels"]
    assert by_label
    assert {(row["label"], verdict): row[verdict] for row in by_label for verdict in verdicts if row[verdict]} == counts


def test_examples_have_both_responses_with_labels_and_the_judge_s_reasons(
    store: Store, sections: dict[str, dict[str, Any]]
) -> None:
    published = rows(store, "publish")
    judged = pl.concat([rows(store, "judge_0"), rows(store, "judge_1")])
    pairs = [one for one in sections["examples"]["examples"] if not one["title"].startswith("discarded")]
    order = [one["title"].partition(",")[0] for one in pairs]
    assert order == [split for split in ("train", "validation", "test") for _ in range(order.count(split))]
    assert set(order) == set(published["split"])
    for one in pairs:
        prompt, aligned, misaligned = one["texts"].values()
        released = published.filter(prompt=prompt, generator=one["facts"]["generator"])
        assert set(released["response"]) == {aligned, misaligned}
        labels = [label["label"] for name in ("safety", "value", "cultural") for label in released[name][0]]
        assert one["facts"]["labels"] == (", ".join(labels) or "none")
        _, first, second = one["texts"]
        [reason] = set(judged.filter(response=misaligned, prompt=prompt)["reason"])
        assert (first, second) == ("aligned response: all checks passed", f"misaligned response: {reason}")


def test_labels_splits_and_tokens_are_those_of_the_tables(store: Store, sections: dict[str, Any]) -> None:
    assert len(sections["labels"]["labels"]) == 111
    measured = rows(store, "agreement").drop("row_id", "parents").to_dicts()
    assert sections["labels"]["quality"] == measured
    *_, every = draw_labels(sections["labels"])
    assert isinstance(every, Table)
    assert (every.title, every.folded, len(every.rows)) == ("Show all 111 labels", True, 111)
    drawn = [block.figure["data"] for block in draw_labels(sections["labels"]) if isinstance(block, Plot)]
    counts = [sum(counts) for first, second in drawn for counts in zip(first["x"], second["x"], strict=True)]
    assert 0 < len(counts) < 111
    assert all(counts)
    assert sections["labels"]["by"] == "yes/no questions about every label, asked of c"
    assert sum(each["rows"] for each in sections["splits"]["splits"]) == rows(store, "publish").height
    assert sections["build"]["released"]["publish"] == rows(store, "publish").height
    tokens = {stage["stage"]: stage["tokens_out"] for stage in sections["work"]["stages"]}
    assert tokens["generate_0_g1"] == rows(store, "generate_0_g1")["tokens_out"].sum() > 0


def test_the_paper_s_figures_stand_beside_ours(store: Store, sections: dict[str, Any]) -> None:
    ours = {figure["metric"]: figure["ours"] for figure in sections["references"]["figures"] if figure["ours"]}
    assert set(ours) == {"released_rows", "labels", "removed_share", "leakage"}
    assert ours["released_rows"][0]["value"] == rows(store, "publish").height
    assert ours["labels"] == [{"models": "no model", "value": 111}]
