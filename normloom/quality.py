"""Checks of a whole table by Great Expectations, run before it publishes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from normloom.contract import Check, Contract
from normloom.errors import CheckError
from normloom.table import CheckResult

if TYPE_CHECKING:
    import polars as pl


def run_checks(table: pl.LazyFrame, contract: Contract) -> tuple[list[CheckResult], dict[str, str]]:
    """Run the contract's checks and return their results and the rows to quarantine (row id -> rule).

    A check that raises counts as failed: a gate that cannot look must not open.
    """
    if not contract.checks:
        return [], {}
    batch = _batch(table, contract)
    results, aside = [], {}
    for check in contract.checks:
        outcome = batch.validate(_expectation(check), result_format=_RESULT_FORMAT).to_json_dict()
        raised = _exception(outcome)
        passed = bool(outcome["success"]) and raised is None
        results.append(
            CheckResult(name=check.name, passed=passed, on_fail=check.on_fail, detail=raised or _detail(outcome))
        )
        if not passed and check.on_fail == "quarantine":
            if raised:
                raise CheckError(f"check {check.name} could not be made: {raised}")
            aside.update(dict.fromkeys(_failing_rows(outcome), check.name))
    return results, aside


def require(results: Sequence[CheckResult], *, stage: str) -> None:
    """Raise CheckError when a check that stops the build did not pass."""
    failed = [result for result in results if not result.passed and result.on_fail == "stop"]
    if failed:
        found = "; ".join(f"{result.name}: {result.detail}" for result in failed)
        raise CheckError(f"stage {stage!r} is not published, its table does not pass: {found}")


_RESULT_FORMAT = {"result_format": "COMPLETE", "unexpected_index_column_names": ["row_id"]}


def _batch(table: pl.LazyFrame, contract: Contract) -> Any:
    """Return the columns under test as a batch; pandas is what Great Expectations reads."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    # This one tells of a temporary directory for every context, at a level that it sets itself.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    wanted = {"row_id"}
    for check in contract.checks:
        wanted |= {
            value for name, value in check.arguments.items() if name.startswith("column") and isinstance(value, str)
        }
    frame = table.select(column for column in contract.schema if column in wanted).collect().to_pandas()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("table").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def _expectation(check: Check) -> Any:
    import great_expectations.expectations as gxe

    name = "".join(word.capitalize() for word in check.expectation.split("_"))
    kind = getattr(gxe, name, None)
    if kind is None:
        raise CheckError(f"there is no Great Expectations expectation {check.expectation!r}")
    return kind(**check.arguments)


def _exception(outcome: dict[str, Any]) -> str | None:
    info = outcome.get("exception_info") or {}
    nested = [info, *(value for value in info.values() if isinstance(value, dict))]
    return next((str(item.get("exception_message")) for item in nested if item.get("raised_exception")), None)


def _detail(outcome: dict[str, Any]) -> str:
    found = outcome.get("result", {})
    if "unexpected_count" in found:
        sample = json.dumps(found.get("partial_unexpected_list", [])[:3], default=str, ensure_ascii=False)
        return f"{found['unexpected_count']} of {found.get('element_count')} rows" + (
            f", such as {sample}" if found["unexpected_count"] else ""
        )
    return f"observed {json.dumps(found.get('observed_value'), default=str)}"


def _failing_rows(outcome: dict[str, Any]) -> list[str]:
    return [entry["row_id"] for entry in outcome["result"].get("unexpected_index_list") or []]
