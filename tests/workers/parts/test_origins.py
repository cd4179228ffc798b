"""What a step's rows say of where they came from is held to the rows that it was given."""

from __future__ import annotations

import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.core.errors import ContractError
from normloom.core.fan_out import each
from normloom.core.rows.blocks import Blocks
from normloom.core.rows.ids import row_id
from normloom.core.stage import Output, dropped_frame
from normloom.steps.step import step

MADE = {"word": pl.String}
ANCESTOR = row_id("toy", "words", [], 0)
ROWS = pl.DataFrame({"row_id": ["a", "b"], "parents": [["x"], ["y"]], "word": ["one", "two"]})
SIDE = pl.DataFrame({"row_id": ["s", "t"], "parents": [["x"], ["y"]], "said": [1, 2]})


@step(makes=MADE)
def told(rows: pl.DataFrame, side: pl.DataFrame, *, columns: dict[str, list[object]]) -> pl.DataFrame:  # noqa: ARG001  # the side table is what rows may name
    return rows.select("word").with_columns(*(pl.Series(name, values) for name, values in columns.items()))


@step(makes=MADE)
def drawn(*, columns: dict[str, list[object]]) -> Output:
    return Output(rows=pl.DataFrame({"word": ["one"], **columns}), attempts=1)


@pytest.mark.parametrize(
    ("columns", "told_of"),
    [
        ({"row_id": ["a", None]}, "row_id of row 1 is null, expected the id of a row that the step was given"),
        ({"row_id": [1, 2]}, "row_id of its rows is Int64, expected the id of a row that the step was given"),
        ({"row_id": [["a"], ["b"]]}, r"row_id of its rows is List\(String\), expected the id of a row"),
        ({"row_id": ["a", "one"]}, "row_id of row 1 is 'one', expected the id of a row that the step was given"),
        ({"row_id": ["a", ANCESTOR]}, f"row_id of row 1 is '{ANCESTOR}', expected the id of a row that the step was"),
        ({"row_id": ["a", "b"], "through": ["s", None]}, "through of row 1 is null, expected the id of a row of a"),
        ({"row_id": ["a", "b"], "through": ["s", "one"]}, "through of row 1 is 'one', expected the id of a row of a"),
        ({"row_id": ["a", "b"], "through": [["s"], ["t", "one"]]}, "through of row 1 is 'one'"),
        ({"parents": [["a"], None]}, "parents of row 1 is null, expected a list of the ids of the rows"),
        ({"parents": [["a"], ["b", None]]}, "parents of row 1 is null, expected a list of the ids of the rows"),
        ({"parents": [[1], [2]]}, r"parents of its rows is List\(Int64\), expected a list of the ids"),
        ({"parents": ["a", "b"]}, "parents of its rows is String, expected a list of the ids"),
        ({"parents": [["a"], ["b", "one"]]}, "parents of row 1 is 'one', expected a list of the ids"),
        ({"parents": [["a"], ["a"]], "content": ["one", None]}, "content of row 1 is null, expected text"),
        ({"parents": [["a"], ["a"]], "content": [1, 2]}, "content of its rows is Int64, expected text"),
    ],
)
def test_rows_that_cannot_have_come_from_there_are_refused(columns: dict[str, list[object]], told_of: str) -> None:
    with pytest.raises(ContractError, match=f"stage 'told', part 0: {told_of}"):
        carry_out(told(ANY, ANY, columns=columns), ROWS, SIDE)


@pytest.mark.parametrize(
    ("columns", "parents"),
    [
        ({"row_id": ["b", "a"]}, [["b"], ["a"]]),
        ({"row_id": ["s", "a"]}, [["s"], ["a"]]),
        ({"row_id": ["a", "b"], "parents": [["x"], ["y"]]}, [["a"], ["b"]]),
        ({"row_id": ["a", "b"], "through": ["s", "t"]}, [["s"], ["t"]]),
        ({"row_id": ["a", "a"], "through": [["s", "a"], ["t"]]}, [["s", "a"], ["t"]]),
        ({"parents": [["a", "s"], []]}, [["a", "s"], []]),
        ({"parents": [["a", ANCESTOR], ["b"]]}, [["a", ANCESTOR], ["b"]]),
    ],
)
def test_rows_that_were_read_side_rows_and_ancestors_are_parents(
    columns: dict[str, list[object]], parents: list[list[str]]
) -> None:
    made = carry_out(told(ANY, ANY, columns=columns), ROWS, SIDE)
    assert made.rows["parents"].to_list() == parents


def test_categories_are_ids_too() -> None:
    @step(makes=MADE)
    def kept(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.reverse().with_columns(pl.col("row_id").cast(pl.Categorical))

    assert carry_out(kept(ANY), ROWS).rows["parents"].to_list() == [["b"], ["a"]]


def test_a_source_has_no_row_id_to_keep() -> None:
    with pytest.raises(ContractError, match="row_id of row 0 is 'a', expected none, since the step reads no rows"):
        carry_out(drawn(columns={"row_id": ["a"]}), None)
    assert carry_out(drawn(columns={"parents": [[]], "content": ["a"]}), None).rows["parents"].to_list() == [[]]


@pytest.mark.parametrize(
    ("row_id", "winner", "told_of"),
    [
        ("one", None, "row_id of a row in its ledgers is 'one', expected the id of a row"),
        ("a", "two", "winner of a row in its ledgers is 'two', expected the id of a row"),
    ],
)
def test_a_ledger_names_rows_that_there_can_be(row_id: str | None, winner: str | None, told_of: str) -> None:
    @step(makes=MADE)
    def dropping(rows: pl.DataFrame, side: pl.DataFrame, *, entry: dict[str, str | None]) -> Output:  # noqa: ARG001  # as above
        return Output(rows=rows[1:], dropped=dropped_frame([{"reason": "asked", "payload": "", **entry}]))

    with pytest.raises(ContractError, match=f"stage 'dropping', part 0: {told_of}"):
        carry_out(dropping(ANY, ANY, entry={"row_id": row_id, "winner": winner}), ROWS, SIDE)
    for one, other in ((None, None), ("a", None), ("a", "b"), ("a", "s"), ("a", ANCESTOR)):
        made = carry_out(dropping(ANY, ANY, entry={"row_id": one, "winner": other}), ROWS, SIDE)
        assert made.dropped.select("row_id", "winner").rows() == [(one, other)]


def test_a_fan_out_tells_first_that_a_row_id_is_none() -> None:
    @step(makes=MADE, fan_out=each())
    def lost(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(row_id=pl.lit(None, dtype=pl.String))

    with pytest.raises(ContractError, match="row_id of row 0 is null"):
        carry_out(lost(ANY), ROWS)


def test_parents_of_rows_read_in_blocks_have_the_form_of_ids() -> None:
    @step(makes=MADE, blocks=True)
    def gathered(rows: Blocks, *, parent: str) -> Output:
        words = pl.concat(rows)["word"]
        return Output(rows=pl.DataFrame({"word": words, "parents": [[parent]] * len(words)}))

    blocks = Blocks.of(ROWS, 1)
    made = carry_out(gathered(ANY, parent=ANCESTOR), blocks)
    assert made.rows["parents"].to_list() == [[ANCESTOR], [ANCESTOR]]
    with pytest.raises(ContractError, match="parents of row 0 is 'one'"):
        carry_out(gathered(ANY, parent="one"), blocks)
