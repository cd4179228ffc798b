"""What a step returns is looked at before anything is made of it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.core.errors import ContractError
from normloom.core.stage import Output, quarantined_frame
from normloom.steps.step import step

ROWS = pl.DataFrame({"row_id": ["a"], "parents": [["x"]], "word": ["one"]})
SHORT = pl.DataFrame({"row_id": ["a"], "reason": ["asked"]})


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "its step must return a polars.DataFrame or an Output, not None"),
        (ROWS.lazy(), "its step must return a polars.DataFrame or an Output, not a polars.LazyFrame"),
        (Output(rows=ROWS.lazy()), "`rows` of its Output must be a polars.DataFrame, not a polars.LazyFrame"),  # type: ignore[arg-type]  # as users write
        (Output(rows=ROWS.to_pandas()), "`rows` of its Output must be a polars.DataFrame, not a pandas.DataFrame"),  # type: ignore[arg-type]  # likewise
        (Output(rows=ROWS, dropped=[]), "`dropped` of its Output must be a polars.DataFrame, not a builtins.list"),  # type: ignore[arg-type]  # likewise
        (Output(rows=ROWS[1:], dropped=SHORT), "`dropped` of its Output lacks 'winner', 'payload': a ledger has the"),
        (
            Output(rows=ROWS[1:], quarantined=quarantined_frame([{"row_id": "a", "rule": None, "reason": "bad"}])),
            "`quarantined` of its Output has entries without 'rule': say why rows go",
        ),
        (Output(rows=ROWS, attempts="1"), "`attempts` of its Output must be a count, not '1'"),  # type: ignore[arg-type]  # likewise
        (Output(rows=ROWS, attempts=-1), "`attempts` of its Output must be a count, not -1"),
        (Output(rows=ROWS, tokens_in=None), "`tokens_in` of its Output must be a count, not None"),  # type: ignore[arg-type]  # likewise
        (Output(rows=ROWS, metrics={"m": "x"}), "`metrics` of its Output must be numbers by name, not {'m': 'x'}"),  # type: ignore[dict-item]  # likewise
        (Output(rows=ROWS, metrics=None), "`metrics` of its Output must be numbers by name, not None"),  # type: ignore[arg-type]  # likewise
    ],
)
def test_what_is_no_output_is_refused(returned: Any, told: str) -> None:
    @step(makes={"word": pl.String})
    def giving(rows: pl.DataFrame, *, text: str) -> Any:  # noqa: ARG001  # as every step
        return returned

    with pytest.raises(ContractError) as caught:
        carry_out(giving(ANY, text=""), ROWS)
    assert f"stage 'giving': {told}" in str(caught.value)
