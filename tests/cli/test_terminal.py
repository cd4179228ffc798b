from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from normloom.cli.common import console
from normloom.cli.output.terminal import TerminalProgress, busy, printing_above
from normloom.core.outlook import Outlook
from normloom.core.table import PartRecord
from normloom.readers import read_source
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage


class Bars(TerminalProgress):
    """The bars, with how far the stage `echo` was at each call."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.seen: list[float] = []

    def advance(self, stage: str, part: PartRecord) -> None:
        super().advance(stage, part)
        self._see(stage)

    def within(self, stage: str, part: int, rows: int) -> None:
        super().within(stage, part, rows)
        self._see(stage)

    def _see(self, stage: str) -> None:
        if stage == "echo":
            self.seen += [task.completed for task in self._progress.tasks if task.description == "echo"]


def test_rows_of_a_part_in_work_count_until_the_part_is_done(tmp_path: Path) -> None:
    words = words_stage(*"abcdef")
    loom = runner(Store(tmp_path))
    first, _ = loom.run(words, [], [])
    manifest, _ = loom.run(echo_stage(words, part_rows=3, model=SCRIPTED), [first.ref], [])
    one, two = manifest.parts
    with Bars(Console(file=io.StringIO())) as bars:
        bars.begin("echo", total=6, done=0)
        bars.within("echo", 0, 2)
        bars.within("echo", 1, 1)
        bars.advance("echo", one)
        bars.within("echo", 1, 2)
        bars.advance("echo", two)
        bars.end(manifest, reused=False)
    assert bars.seen == [2, 3, 4, 5, 6]


def test_what_starts_is_said_on_standard_error_if_there_is_no_terminal(capsys: Any) -> None:
    with busy(Console(file=io.StringIO()), "starting Prefect's server"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" starting Prefect's server\n")


def test_what_readers_found_is_printed_above_the_bars_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a [1].csv").write_text("id;prompt\n1;one\n")
    logging.getLogger("normloom").setLevel(logging.INFO)
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=500, no_color=True)
    with printing_above(console):
        read_source(tmp_path / "a [1].csv", text_column="prompt")
    read_source(tmp_path / "a [1].csv", text_column="prompt")
    said = printed.getvalue()
    assert said.count("a [1].csv: 1 records; fields separated by a semicolon") == 1


def test_a_terminal_shows_bars_with_notes_rates_and_what_is_left(tmp_path: Path) -> None:
    words = words_stage(*"abcdef")
    loom = runner(Store(tmp_path))
    first, _ = loom.run(words, [], [])
    manifest, _ = loom.run(echo_stage(words, part_rows=3, drop="a"), [first.ref], [])
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=200, no_color=True)
    with busy(console, "starting Ray"):
        pass
    with TerminalProgress(console) as bars:
        bars.note("echo", "is not shown before it begins")
        bars.end(first, reused=True)
        bars.begin("echo", total=6, done=0)
        bars.note("echo", "waits for a GPU")
        bars._progress.refresh()
        for part in manifest.parts:
            bars.advance("echo", part.model_copy(update={"tokens_in": 900, "tokens_out": 60}))
            bars._progress.refresh()
        bars.whole(Outlook(tables=1, of=2, share=0.5, seconds=90, untimed=False))
        bars._progress.refresh()
        bars.end(manifest, reused=False)
        bars.whole(Outlook(tables=2, of=2, share=1, seconds=0, untimed=False))
    said = printed.getvalue()
    for text in (
        "starting Ray",
        "reused, 6 rows",
        "waits for a GPU",
        "out tokens/s",
        "tables, 50% of the work",
        "about 2 min left",
        "5 rows, 1 dropped",
    ):
        assert text in said
    assert "before it begins" not in said


def test_piped_output_is_not_cut_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS")
    table = Table("stage", "what")
    table.add_row(stage := "generate_" * 12, "unfinished")
    console().print(table)
    assert stage in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    assert console().width == 60
