from __future__ import annotations

import logging
from pathlib import Path

import pytest

from normloom.store.parts import Writer
from normloom.store.store import Store
from normloom.workers import stage_run
from normloom.workers.stage_run import run_in


def test_without_a_listener_progress_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, writer = tmp_path / "table", Writer.of("b")
    caplog.set_level(logging.INFO, logger="normloom.crew")
    with (
        Store(tmp_path).lock(table, writer, waiting=print),
        run_in(table, stage="train", writer=writer.token) as run,
    ):
        run.progress(1, 2, loss=0.5)
    [line] = caplog.messages
    assert line.startswith("train: ")
    assert "loss 0.5" in line


def test_progress_says_how_long_the_rest_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_run, "TELL_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger="normloom.crew")
    table, writer = tmp_path / "table", Writer.of("b")
    with (
        Store(tmp_path).lock(table, writer, waiting=print),
        run_in(table, stage="train", writer=writer.token) as run,
    ):
        for step in (1, 2, 3):
            run.progress(step, 3)
    assert [line.endswith(" left") for line in caplog.messages] == [False, True, False]
