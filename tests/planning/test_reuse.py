"""A plan counts the parts that need not be made: what it says is what the build then does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl

import normloom as nl
from normloom.core.stage import Stage
from normloom.history.removal.forget import ask, forget
from normloom.planning.costs.ceiling import bounds
from normloom.planning.plan import Plan, plan
from normloom.planning.reuse import kept_without
from normloom.store.store import Store
from normloom.testing import made, scripted
from normloom.workers.resources import Resources

PROMPTS = [f"How do I write letter number {number}?" for number in range(12)]


@nl.step(makes={"prompt": pl.String, "draft": pl.String}, part_rows=3, fan_out=nl.each())
def draft(rows: pl.DataFrame, model: nl.LanguageModel) -> pl.DataFrame:
    assert model
    return rows.with_columns(draft="Re: " + pl.col("prompt"))


@nl.step(makes={"letters": pl.Int64, "of": pl.String}, part_rows=2, fan_out=nl.each())
def count(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", letters=pl.col("draft").str.len_chars().cast(pl.Int64), of="row_id")


@nl.step(makes={"letters": pl.Int64}, part_rows=4, sides_on="of", fan_out=nl.each())
def counted(rows: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id").join(counts.select(row_id="of", letters="letters"), on="row_id", maintain_order="left")


@nl.step(makes={"letters": pl.Int64}, fan_out=nl.each())
def whole(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def flow(prompts: list[str] = PROMPTS) -> list[Stage]:
    drafts = draft(nl.table([{"prompt": prompt} for prompt in prompts]), model=scripted())
    return [drafts.inputs[0], drafts, counts := count(drafts), joined := counted(drafts, counts), whole(joined)]


def planned(stages: list[Stage], store: Store) -> Plan:
    return plan(stages, system="toy", store=store, resources=Resources(actors=0))


def parts(found: Plan) -> dict[str, tuple[int, int | None]]:
    return {one.stage.name: ((one.parts or 0) - one.parts_done, one.parts) for one in found.to_do}


def test_after_a_row_was_taken_back_the_plan_counts_what_the_build_makes(tmp_path: Path) -> None:
    store, stages = Store(tmp_path), flow()
    before = made("toy", stages, store)
    row = store.scan(before["table"].ref).collect()["row_id"][4]
    forget(store, ask(store, [row]), reason="withdrawn")
    found = planned(stages, store)
    assert {one.stage.name: one.state for one in found.stages} == {
        "table": "changed",
        **dict.fromkeys(("draft", "count", "counted", "whole"), "waiting"),
    }
    assert found["draft"].rows_left == 3
    after = made("toy", stages, store)
    assert parts(found) == {
        name: (table.work.parts if table.work else 0, len(table.parts)) for name, table in after.items()
    }
    assert parts(found) == {"table": (1, 1), "draft": (1, 4), "count": (1, 6), "counted": (1, 3), "whole": (1, 1)}


def test_of_tables_that_are_there_the_plan_counts_exactly_and_asks_for_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made("toy", flow(), store)
    stages = flow([*PROMPTS, "One more letter?"])
    made("toy", stages[:1], store)
    found = planned(stages, store)
    draft_stage = found["draft"]
    assert (draft_stage.state, draft_stage.parts, draft_stage.parts_done, draft_stage.rows_left) == ("changed", 5, 4, 1)
    assert (found["count"].state, found["count"].parts_done) == ("waiting", 0)
    assert sum(part.stop - part.start for part in draft_stage.done) == 12
    sizes = bounds(found.stages, sources={}, store=store)
    assert sizes["draft"].size.rows == 13
    after = made("toy", stages, store)
    assert after["draft"].work
    assert after["draft"].work.parts == 1


def test_other_changes_leave_nothing_to_count_on(tmp_path: Path) -> None:
    store, stages = Store(tmp_path), flow()
    made("toy", stages, store)
    row = store.scan(store.newest("toy")[0].ref).collect()["row_id"][0]
    forget(store, ask(store, [row]), reason="withdrawn")
    found = planned(flow(PROMPTS[1:]), store)
    assert {one.stage.name: one.parts_done for one in found.stages} == dict.fromkeys(
        ("table", "draft", "count", "counted", "whole"), 0
    )


def test_what_is_gone_from_a_side_table_or_cannot_be_read_leaves_nothing_to_count_on(tmp_path: Path) -> None:
    store, stages = Store(tmp_path), flow()
    table = made("toy", stages, store)["counted"]
    whole_side = replace(stages[3], sides_on=None)
    side = store.scan(table.sides[0]).collect()["row_id"][0]
    assert kept_without(whole_side, table, {side}, store) is None
    found = kept_without(whole_side, table, {"another"}, store)
    assert found
    assert (found.parts, found.done) == (3, 3)
    shutil.rmtree(store.table_directory(table.inputs[0]))
    assert kept_without(whole_side, table, {"another"}, Store(tmp_path)) is None
