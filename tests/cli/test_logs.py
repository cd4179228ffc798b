"""Logs as JSON: one object a line, with what it is about."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from normloom.cli.logs import json_logs, json_wanted
from normloom.core.errors import UsageError
from normloom.core.machine.log_context import logged_as
from normloom.run.build import BuildRequest, build
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@pytest.mark.usefixtures("found_prefect")
def test_a_build_logs_one_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with json_logs():
        result = build(
            echo_stage(words_stage("a", "b")),
            request=BuildRequest(system="toy"),
            store=Store(tmp_path),
            pool=Pool(Resources(actors=0)),
        )
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    published = [line for line in lines if ": published " in line["message"]]
    assert {line["stage"] for line in published} == {"words", "echo"}
    for line in published:
        assert (line["system"], line["build"], line["level"]) == ("toy", result.build, "INFO")
        assert line["time"].endswith("+00:00")
        assert line["logger"] == "normloom.progress"


def test_an_error_is_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with json_logs(), logged_as(system="toy"):
        try:
            raise ValueError("two\nlines")  # noqa: TRY301
        except ValueError:
            logging.getLogger("normloom").exception("it\nfailed")
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["message"], line["level"], line["system"]) == ("it\nfailed", "ERROR", "toy")
    assert "ValueError: two\nlines" in line["exc_info"]


@pytest.mark.parametrize(("value", "wanted"), [("json", True), ("text", False)])
def test_the_variable_says_which(monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool) -> None:
    monkeypatch.setenv("NORMLOOM_LOGS", value)
    assert json_wanted() is wanted


def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLOOM_LOGS", "xml")
    with pytest.raises(UsageError, match="NORMLOOM_LOGS=xml: expected json or text"):
        json_wanted()
