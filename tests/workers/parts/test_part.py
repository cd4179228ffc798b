from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from normloom.core.errors import AccountingError
from normloom.core.stage import NoArguments, Output
from normloom.store.parts import Writer
from normloom.store.store import Store
from normloom.testing.toy import WORDS, Words, read_words, runner, words_stage
from normloom.workers.parts.job import PartJob
from normloom.workers.parts.part import run_part


def test_a_part_that_a_copy_has_made_is_not_made_again(tmp_path: Path) -> None:
    table, writer = tmp_path / "table", Writer.of("b")
    job = PartJob(
        system="toy",
        stage="words",
        function=read_words,
        arguments=Words(words=("a", "b")),
        contract=WORDS,
        directory=table,
        writer=writer.token,
        index=0,
        start=0,
        stop=2,
        inputs=None,
        sides=(),
    )
    with Store(tmp_path).lock(table, writer, waiting=print):
        first = run_part(job)
        files = {path: path.stat().st_mtime_ns for path in table.iterdir()}
        assert run_part(job) == first
        assert {path: path.stat().st_mtime_ns for path in table.iterdir()} == files
    assert first.files["rows"].rows == 2


def test_a_step_that_makes_more_rows_than_it_said_is_told_what_to_return(tmp_path: Path) -> None:
    words = words_stage("a", "b")
    store = Store(tmp_path)
    source, _ = runner(store).run(words, [], [])
    stage = replace(words, name="more", function=more, arguments=NoArguments(), inputs=(words,))
    with pytest.raises(AccountingError, match="return an Output with the number of rows that it sets out to make"):
        runner(store).run(stage, [source.ref], [])


def more(rows: pl.DataFrame, _: NoArguments) -> Output:
    return Output(rows=rows, attempts=1)
