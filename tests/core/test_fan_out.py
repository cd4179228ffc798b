"""What a stage owes is held row by row, whatever the stage says of itself."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hand_made import ANY, Forgetful, Writer, carry_out
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import AccountingError, ConfigError
from normloom.core.fan_out import FanOut, each, free
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.stage import Output, dropped, dropped_frame, quarantined, quarantined_frame
from normloom.settings.config import load_profile, validated
from normloom.settings.systems import system_named, system_names
from normloom.steps.graph import stages_of
from normloom.steps.step import step
from normloom.testing.toy import SCRIPTED

READ = pl.DataFrame({"row_id": ["a", "b"], "copies": [1, 2]})


def made(*ids: str, out: tuple[str, ...] = (), aside: tuple[str, ...] = ()) -> Output:
    return Output(
        rows=pl.DataFrame({"row_id": ids}, schema={"row_id": pl.String}),
        dropped=dropped_frame([dropped({"row_id": one}, "out") for one in out]),
        quarantined=quarantined_frame([quarantined({"row_id": one}, "rule", "aside") for one in aside]),
    )


@pytest.mark.parametrize(
    ("fan_out", "output"),
    [
        (each(), made("b", "a")),
        (each(), made("a", out=("b",))),
        (each(3), made("a", "a", "a", aside=("b",))),
        (each(3, by_part=True), made("a", "a", "a", "b", aside=("b", "b"))),
        (each(3, by_part=True), made("a", "a", "b", "b", out=("a",), aside=("b",))),
        (each(3, by_part=True), made("a", "a", "a", out=("b",), aside=("b", "b"))),
        (each("copies"), made("a", "b", "b")),
        (each(pl.col("copies") - 1), made("b")),
        (free("as many as it likes"), made()),
    ],
)
def test_what_is_owed_or_told_of_is_accounted_for(fan_out: FanOut, output: Output) -> None:
    fan_out.hold(READ, output, where="here")


@pytest.mark.parametrize(
    ("fan_out", "output", "row", "owed", "got", "listed"),
    [
        (each(), made("a"), "b", 1, 0, 0),
        (each(), made("a", "a", "b"), "a", 1, 2, 0),
        (each(2), made("a", "a", "b"), "b", 2, 1, 0),
        (each(3, by_part=True), made("a", "a", "a", "b", aside=("b",)), "b", 3, 1, 1),
        (each(3, by_part=True), made("a", "a", "a", aside=("b",)), "b", 3, 0, 1),
        (each(3), made("a", "a", "a", "b", aside=("b", "b")), "b", 3, 1, 2),
        (each(3), made("a", "a", "a", out=("b",), aside=("b",)), "b", 3, 0, 2),
        (each(), made("a", "b", "b", out=("b",)), "b", 1, 2, 1),
        (each(), made("a", "b", "z"), "z", 0, 1, 0),
    ],
)
def test_what_is_not_is_an_error_that_names_the_row(
    fan_out: FanOut, output: Output, row: str, owed: int, got: int, listed: int
) -> None:
    account = rf"row {row} should give {owed} rows but gave {got}, and the ledgers list {listed} more"
    with pytest.raises(AccountingError, match=rf"here: 1 of 2 .*: {account}"):
        fan_out.hold(READ, output, where="here")


def test_rows_that_are_read_twice_are_told_from_those_of_two_rows() -> None:
    read = pl.DataFrame({"row_id": ["a", "b", "a"]})
    with pytest.raises(AccountingError, match="2 of 3 rows are not accounted for: row a should give 1 rows but gave 2"):
        each().hold(read, made("a", "b", "a"), where="here")


def test_rows_that_do_not_say_where_they_came_from_cannot_be_owed() -> None:
    with pytest.raises(AccountingError, match="each row must keep the row_id of the row it came from"):
        each().hold(READ, Output(rows=pl.DataFrame({"parents": [["a"], ["b"]]})), where="here")


@step(makes={"text": pl.String}, fan_out=each(3, by_part=True))
def write(rows: pl.DataFrame, *, model: LanguageModel) -> Output:
    """Draw three texts for each row; an empty one is in quarantine alone, under the id of its row."""
    asked = [
        GenerateRequest(instruction="", prompt=row, seeds=(0, 1, 2), sampling=Sampling()) for row in rows["row_id"]
    ]
    drawn = pl.DataFrame(
        [
            {"row_id": request.prompt, "text": candidate.text}
            for request, done in zip(asked, model.generate(asked), strict=True)
            for candidate in done.candidates
        ]
    ).with_row_index("attempt")
    empty = [quarantined(row, "empty", "no text") for row in drawn.filter(text="").iter_rows(named=True)]
    return Output(
        rows=drawn.filter(pl.col("text") != "").select("row_id", "text", content=pl.col("attempt").cast(pl.String)),
        quarantined=quarantined_frame(empty),
    )


def test_a_candidate_that_is_lost_shows_though_another_of_its_row_is_in_quarantine() -> None:
    asked = pl.DataFrame({"row_id": ["a"]})
    whole = carry_out(write(ANY, model=SCRIPTED), asked, model=Writer("x", "", "y"))
    assert (whole.rows["text"].to_list(), whole.quarantined.height) == (["x", "y"], 1)
    with pytest.raises(AccountingError, match="row a should give 3 rows but gave 1, and the ledgers list 1 more"):
        carry_out(write(ANY, model=SCRIPTED), asked, model=Forgetful("x", "", "y"))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8), st.booleans()
)
def test_the_account_is_that_of_every_row(rows: list[tuple[int, int, int]], by_part: bool) -> None:
    """Each row owes, gave and is listed as drawn; the account holds if it does for each alone."""
    names = [str(place) for place in range(len(rows))]
    read = pl.DataFrame({"row_id": names, "owed": [owed for owed, _, _ in rows]})
    ids = [name for name, (_, got, _) in zip(names, rows, strict=True) for _ in range(got)]
    output = made(
        *ids, out=tuple(name for name, (_, _, listed) in zip(names, rows, strict=True) for _ in range(listed))
    )
    if by_part:
        holds = all(got <= owed <= got + listed for owed, got, listed in rows)
    else:
        holds = all(got == owed or (got, listed) == (0, 1) for owed, got, listed in rows)

    def hold() -> Any:
        return each("owed", by_part=by_part).hold(read, output, where="here")

    if holds:
        hold()
    else:
        with pytest.raises(AccountingError):
            hold()


@pytest.mark.parametrize("name", system_names())
@pytest.mark.parametrize("profile", ["local", "paper"])
def test_every_stage_of_the_product_says_what_it_owes(name: str, profile: str) -> None:
    """One without inputs, a source, counts the records that it was given."""
    system = system_named(name)
    config, _ = validated(system.config, load_profile(profile, system.name))
    stages = stages_of(*system.flow(config))
    assert [stage.name for stage in stages if stage.inputs and stage.fan_out is None] == []


@pytest.mark.parametrize("rows", [2.5, -1, True, ["copies"]])
def test_a_fan_out_is_a_count_a_column_or_an_expression(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r'a count, a column or an expression, such as each\(2\) or each\("copies"\)'):
        each(rows)
