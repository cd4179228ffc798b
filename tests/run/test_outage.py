"""An outage is no result: what it took is asked for again, and only that; what rows do to themselves is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from openai_toys import VARIABLE, spec_of
from scripted_server import KEY, OVERFLOW, ScriptedServer, serving

from normloom.core.contract import Check, Contract
from normloom.core.errors import CheckError, ModelError, QuarantineBudgetError
from normloom.core.models.protocol import GenerateRequest, LanguageModel, Sampling
from normloom.core.stage import Output, Stage, quarantined_frame, unanswered
from normloom.core.table import Manifest
from normloom.run.budget import Budget
from normloom.run.runner import StageRunner
from normloom.steps.selection import Again
from normloom.store.store import Store
from normloom.testing.toy import ECHOES, Echo, runner, words_stage

WORDS = ("a", "b", "c", "d", "e", "f")
OVERLOADED = {"message": "upstream overloaded", "code": 503}
ALL_SIX = Contract(
    columns=ECHOES.columns,
    checks=(Check(expectation="expect_table_row_count_to_be_between", arguments={"min_value": 6}),),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv(VARIABLE, KEY)
    with serving() as scripted:
        yield scripted


def answer(rows: pl.DataFrame, arguments: Echo, model: LanguageModel) -> Output:  # noqa: ARG001
    """Ask about each word; what is not answered goes into quarantine, as in every stage of a system."""
    asked = list(rows.iter_rows(named=True))
    requests = [
        GenerateRequest(instruction="echo", prompt=row["word"], seeds=(1,), sampling=Sampling(max_tokens=8))
        for row in asked
    ]
    answers = list(zip(asked, model.generate(requests), strict=True))
    made = [
        {"row_id": row["row_id"], "word": row["word"], "echo": completion.candidates[0].text}
        for row, completion in answers
        if completion.error is None
    ]
    return Output(
        rows=pl.DataFrame(made, schema={"row_id": pl.String, "word": pl.String, "echo": pl.String}),
        quarantined=quarantined_frame([unanswered(row, given) for row, given in answers if given.error is not None]),
    )


def stage(server: ScriptedServer, *words: str, contract: Contract = ECHOES, budget: float | None = None) -> Stage:
    return Stage(
        name="answers",
        function=answer,
        arguments=Echo(),
        contract=contract,
        inputs=(words_stage(*words),),
        model=spec_of(server.base_url, retries=0, concurrency=2),
        part_rows=2,
        quarantine_budget=budget,
    )


def made(loom: StageRunner, answers: Stage, again: Again | None = None) -> Manifest:
    [words] = answers.inputs
    table, _ = loom.run(words, [], [])
    manifest, _ = loom.run(answers, [table.ref], [], again=again)
    return manifest


def fresh(store: Store, *, budget: float = 0.1) -> StageRunner:
    """Return a runner as each command has its own."""
    return runner(store, budget=budget)


def test_the_same_command_asks_again_when_the_endpoint_is_back(server: ScriptedServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    server.outage = OVERLOADED
    with pytest.raises(
        QuarantineBudgetError,
        match=r"put 6 of 6 rows into quarantine \(outage 6\), more than its budget of 10%: '.*upstream overloaded.*' "
        r"\(row \w+\); rerun the command once the model answers: only the parts with these rows",
    ):
        made(fresh(store), stage(server, *WORDS, contract=ALL_SIX))
    server.outage, server.bodies = None, []
    table = made(fresh(store), stage(server, *WORDS, contract=ALL_SIX))
    assert (table.count("rows"), table.count("quarantined"), len(server.bodies)) == (6, 0, 6)
    assert len(list(store.table_directory(table.ref).glob("rows-*"))) == len(table.parts)


def test_only_the_parts_that_an_outage_took_rows_of_are_made_again(server: ScriptedServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    answers = stage(server, "one", "two", "three", "four", "bad 1", "bad 2", "bad 3", "six")
    server.statuses = {"bad": (429, {"message": "slow down"})}
    with pytest.raises(QuarantineBudgetError, match=r"3 of 8 rows .*\(outage 3\)"):
        made(fresh(store), answers)
    server.statuses, server.bodies = {}, []
    assert made(fresh(store), answers).count("rows") == 8
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert sorted(asked) == ["bad 1", "bad 2", "bad 3", "six"]


def test_rows_that_the_model_cannot_take_are_not_asked_again_unless_that_is_wanted(
    server: ScriptedServer, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    answers = stage(server, f"{OVERFLOW} 1", f"{OVERFLOW} 2", "c", "d")
    refused = pytest.raises(
        QuarantineBudgetError,
        match=r"2 of 4 rows into quarantine \(model 2\).*does not fit.*; fix the input, or raise quarantine_budget",
    )
    with refused:
        made(fresh(store), answers)
    server.bodies = []
    with refused:
        made(fresh(store), answers)
    assert server.bodies == []
    with refused:
        made(fresh(store), answers, again="quarantined")
    assert len(server.bodies) == 2
    with refused:
        made(fresh(store), answers, again="all")
    assert len(server.bodies) == 6
    assert made(fresh(store, budget=0.5), answers).count("rows") == 2  # a budget gates a table and does not change it
    assert len(server.bodies) == 6


def test_a_check_that_refuses_the_table_remembers_no_outage_either(server: ScriptedServer, tmp_path: Path) -> None:
    store = Store(tmp_path)
    answers = stage(server, "bad", *WORDS[1:], contract=ALL_SIX)
    server.statuses = {"bad": (500, {"message": "out of order"})}
    with pytest.raises(CheckError, match="observed 5"):  # one row is within the budget
        made(fresh(store), answers)
    server.statuses, server.bodies = {}, []
    assert made(fresh(store), answers).count("rows") == 6
    assert len(server.bodies) == 2


def test_a_budget_that_forgives_what_a_model_cannot_do_forgives_no_outage(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """A panel continues without a rater that is not up to it, and not without one whose server was down."""
    store = Store(tmp_path)
    server.outage = OVERLOADED
    with pytest.raises(QuarantineBudgetError, match=r"6 of 6 .*budget of 10%.*once the model answers"):
        made(fresh(store), stage(server, *WORDS, budget=1.0))
    server.outage, server.statuses = None, {}
    overflowing = made(fresh(store), stage(server, *(f"{OVERFLOW} {n}" for n in range(6)), budget=1.0))
    assert overflowing.quarantined_by == {"model": 6}


def test_an_outage_in_the_middle_leaves_parts_that_are_done_and_parts_that_are_not(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """The build dies of the outage itself: eight requests in succession without an answer."""
    store = Store(tmp_path)
    answers = stage(server, *(f"fine {n}" for n in range(4)), *(f"bad {n}" for n in range(12)))
    server.statuses = {"bad": (503, {"message": "upstream overloaded"})}
    with pytest.raises(ModelError, match="8 requests unanswered"):
        made(fresh(store), answers)
    server.statuses, server.bodies = {}, []
    assert made(fresh(store), answers).count("rows") == 16
    assert sorted(body["messages"][-1]["content"] for body in server.bodies) == sorted(f"bad {n}" for n in range(12))


class TestBudget:
    def test_a_single_row_never_is_too_much_unless_it_is_all_and_an_outage_took_it(self) -> None:
        budget = Budget(stage="s", share=0.1, transient=0.1)
        assert budget.holds({"poison": 1}, 1)
        assert budget.holds({"outage": 1}, 2)
        assert not budget.holds({"outage": 1}, 1)
        assert not budget.holds({"outage": 1, "poison": 1}, 5)

    def test_the_commonest_reason_is_told_whatever_the_numbers_in_it(self) -> None:
        budget = Budget(stage="s", share=0.1, transient=0.1)
        ledger = pl.DataFrame(
            {
                "row_id": ["r1", "r2", "r3"],
                "rule": ["text", "model", "model"],
                "reason": ["no text", "12 tokens\n  are too many", "907 tokens are too many"],
            }
        )
        with pytest.raises(
            QuarantineBudgetError,
            match=r"3 of 9 rows into quarantine \(model 2, text 1\), .*: mostly '12 tokens are too many' \(row r2\);",
        ):
            budget.require({"text": 1, "model": 2}, 9, lambda: ledger)
