from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from prefect_home import Prefect

from normloom.core.outlook import Forecast, Outlook
from normloom.core.table import Manifest, PartRecord
from normloom.prefect.reach import ServerReach
from normloom.prefect.run_progress import RunProgress
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage


class Shown:
    """Progress that keeps what it is told of stage `echo`."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def begin(self, stage: str, *, total: int, done: int) -> None:
        if stage == "echo":
            self.calls.append(("begin", total, done))

    def note(self, stage: str, text: str) -> None:
        if stage == "echo":
            self.calls.append(("note", text))

    def advance(self, stage: str, part: PartRecord) -> None:
        if stage == "echo":
            self.calls.append(("advance", part.index))

    def within(self, stage: str, part: int, rows: int) -> None:
        if stage == "echo":
            self.calls.append(("within", part, rows))

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        if manifest.stage == "echo":
            self.calls.append(("end", reused))

    def whole(self, outlook: Outlook) -> None:
        self.calls.append(str(outlook).partition(",")[0])


class Kept(logging.Handler):
    """Keeps what is logged, without figures of time."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(re.sub(r"[\d.]+ s$", "0 s", record.getMessage()))


def test_the_run_s_log_tells_what_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared_prefect: Prefect
) -> None:
    from prefect import flow, task

    shown = Shown()
    loom = replace(runner(Store(tmp_path)), progress=RunProgress(shown, Forecast("toy", {"words": None, "echo": None})))
    words = words_stage(*"abc")
    stage = echo_stage(words, drop="b", part_rows=2)

    @task
    def make() -> Manifest:
        first, _ = loom.run(words, [], [])
        loom.run(stage, [first.ref], [])
        return loom.run(stage, [first.ref], [])[0]

    @flow
    def weave() -> Manifest:
        return make()

    with shared_prefect.used():
        told, kept = logging.getLogger("prefect.task_runs"), Kept()
        caplog.set_level(logging.INFO, told.name)
        told.addHandler(kept)
        try:
            key = weave().key
        finally:
            told.removeHandler(kept)
    assert [line for line in kept.lines if line.startswith("echo: ")] == [
        "echo: starts, 3 rows in",
        "echo: loads toy",
        "echo: part 0, rows 0 to 2: 1 out, 1 dropped, 0 quarantined, 0 s",
        "echo: part 1, rows 2 to 3: 1 out, 0 dropped, 0 quarantined, 0 s",
        "echo: checks",
        f"echo: published, 2 rows, 1 dropped, 0 quarantined, key {key}",
        f"echo: reused from build test, 2 rows, 1 dropped, 0 quarantined, key {key}",
    ]
    assert "words: starts" in kept.lines  # it reads no rows
    tables = ["0 of 2 tables", "1 of 2 tables"]
    assert shown.calls == [
        *(tables[0], tables[0], tables[1]),  # words: begins, has its part, ends
        *(("begin", 3, 0), tables[1], ("note", "loads toy")),
        *(("advance", 0), tables[1], ("advance", 1), tables[1], ("note", "checks")),
        *(("end", False), "2 of 2 tables", ("end", True), "2 of 2 tables"),
    ]


def test_a_server_that_is_lost_and_answers_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    reach = ServerReach()
    for _ in range(2):
        reach.lost(OSError("refused\nby the host"))
    assert not reach.worth_trying()
    for _ in range(2):
        reach.back()
    assert reach.worth_trying()
    lost, again = (record.getMessage() for record in caplog.records)
    assert lost.startswith("Prefect's server does not answer (refused): the build continues")
    assert again == "Prefect's server answers again"


def test_what_others_tell_of_the_whole_is_passed_on() -> None:
    shown = Shown()
    forecast = Forecast("toy", {"words": None})
    RunProgress(shown, forecast).whole(forecast.outlook())
    assert shown.calls == ["0 of 1 tables"]
