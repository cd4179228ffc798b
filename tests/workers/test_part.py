from __future__ import annotations

from pathlib import Path

from normloom.store.parts import Writer
from normloom.store.store import Store
from normloom.testing.toy import WORDS, Words, read_words
from normloom.workers.job import PartJob
from normloom.workers.part import run_part


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
