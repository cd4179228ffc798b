from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from normloom.core.contract import Contract
from normloom.core.errors import CheckError, ContractError
from normloom.run.checks.table_checks import require, run_checks
from normloom.schemas import tables
from normloom.schemas.taxonomy import DIMENSIONS

CONTRACTS: dict[str, Contract] = {
    **{name: value for name, value in vars(tables).items() if isinstance(value, Contract)},
    "published": tables.published(DIMENSIONS),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_name_columns_that_are_there(name: str) -> None:
    contract = CONTRACTS[name]
    columns = set(contract.schema)
    assert contract.nullable <= columns
    assert set(contract.keys) <= columns
    assert {check.arguments["column"] for check in contract.checks if "column" in check.arguments} <= columns


@pytest.mark.parametrize("name", CONTRACTS)
def test_an_empty_table_passes_unless_rows_are_asked_for(name: str) -> None:
    contract = CONTRACTS[name]
    table = contract.enforce(pl.DataFrame(schema=contract.schema), stage="s")
    results, aside = run_checks(table.lazy(), contract)
    failed = [result.name for result in results if not result.passed and result.on_fail == "stop"]
    wanted = [tables.NOT_EMPTY.name] if tables.NOT_EMPTY in contract.checks else []
    assert (failed, aside) == (wanted, {})


def prompts(**columns: object) -> pl.DataFrame:
    good = {
        "row_id": ["a", "b"],
        "parents": [[], []],
        "source_row": [1, 2],
        "history": [None, None],
        "prompt": ["x", "y"],
    }
    good |= {"origin": ["source", "source"], "reference": [None, ["safety/x"]]}
    return pl.DataFrame({**good, **columns}, schema=tables.PROMPTS.schema, strict=False)


def failing(rows: pl.DataFrame, contract: Contract) -> list[str]:
    results, _ = run_checks(contract.enforce(rows, stage="s").lazy(), contract)
    return [result.name for result in results if not result.passed]


def test_prompts_hold_text_and_a_known_origin() -> None:
    assert failing(prompts(), tables.PROMPTS) == []
    assert failing(prompts(prompt=["x", ""]), tables.PROMPTS) == ["expect_column_value_lengths_to_be_between(prompt)"]
    assert failing(prompts(origin=["source", "web"]), tables.PROMPTS) == ["expect_column_values_to_be_in_set(origin)"]


def test_what_may_not_be_null_is_refused() -> None:
    with pytest.raises(ContractError, match="column 'prompt' may not be null, but is in 1 row \\(row b\\)"):
        tables.PROMPTS.enforce(prompts(prompt=["x", None]), stage="ingest")


def test_a_second_response_of_one_alignment_is_refused() -> None:
    row = dict.fromkeys(tables.SELECTED.columns)
    row |= {"prompt_id": "p", "prompt": "x", "generator": "g", "round": 0, "response": "y", "alignment": "aligned"}
    row |= {"checks": [], "margin": 0.1, "parents": []}
    rows = pl.DataFrame([{"row_id": name, **row} for name in "ab"], schema=tables.SELECTED.schema)
    with pytest.raises(ContractError, match=r"'alignment'.* is not unique"):
        tables.SELECTED.enforce(rows, stage="select")


@pytest.mark.parametrize("margin", [-0.01, 1.01])
def test_a_margin_outside_the_unit_interval_stops_the_build(margin: float) -> None:
    row = {"row_id": "a", "parents": [], "prompt_id": "p", "prompt": "x", "targets": [], "generator": "g", "round": 0}
    row |= {"attempt": 0, "seed": 1, "response": "y", "finish": "stop", "tokens_out": 1, "checks": []}
    row |= {"wanted": None, "diagnosis": None, "verdict": "aligned", "reason": "", "margin": margin}
    table = tables.JUDGED.enforce(pl.DataFrame([row], schema=tables.JUDGED.schema), stage="judge")
    results, _ = run_checks(table.lazy(), tables.JUDGED)
    with pytest.raises(CheckError, match=r"between\(margin\): 1 of 1 rows"):
        require(results, stage="judge")


def test_a_quota_that_was_missed_warns_and_does_not_stop() -> None:
    row: dict[str, Any] = {"row_id": "a", "parents": [], "dimension": "safety", "label": "safety/x"}
    row |= {"before": 0, "quota": 3, "added": 1, "missing": 2}
    table = tables.COVERAGE.enforce(pl.DataFrame([row], schema=tables.COVERAGE.schema), stage="coverage")
    results, _ = run_checks(table.lazy(), tables.COVERAGE)
    assert [(result.passed, result.on_fail) for result in results] == [(False, "warn")]
    require(results, stage="coverage")
