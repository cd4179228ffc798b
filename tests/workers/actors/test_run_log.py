from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import certifi
import httpx
import pytest
from log_recorder import Recorded, recording
from patient import start_ray
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_RETRY_EXTRA_CODES,
    temporary_settings,
)
from prefect_home import Prefect

from normloom.workers.actors.log_server import BUSY, LogClient, LogServer
from normloom.workers.actors.run_log import LOGGERS, RunLog, current_run_log, drain, sending

PASSWORD = "user:a-secret-word"
log = logging.getLogger("normloom.actor")


class Worker:
    """The body of an actor that logs what it is told to, for whichever task run asks."""

    def say(self, text: str, run_log: RunLog | None) -> bool:
        with sending(run_log):
            log.info("says %s", text)
            log.debug("not for everybody's eyes")
            logging.getLogger("elsewhere").error("not ours")
            warnings.warn(f"mind {text}", stacklevel=1)
            try:
                dict[str, str]()[text]
            except KeyError:
                log.exception("could not find it")
        log.info("nobody asks")
        return run_log is not None

    def finish(self) -> None:
        drain(120)


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    import ray

    start_ray(num_cpus=1, logging_level="error", runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
    yield ray.remote(Worker).remote()
    ray.shutdown()


@pytest.fixture
def api() -> Iterator[Recorded]:
    with recording() as recorded:
        yield recorded


def run_log(url: str) -> RunLog:
    run = "00000000-0000-4000-8000-00000000000"
    return RunLog("stage", f"{run}1", f"{run}2", LogServer(url))


def test_the_lines_of_one_actor_arrive_under_the_task_run_it_worked_for(worker: Any, shared_prefect: Prefect) -> None:
    import ray
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter
    from prefect.context import TaskRunContext

    runs: dict[str, Any] = {}

    @task
    def stage(name: str) -> None:
        context = TaskRunContext.get()
        assert context is not None
        runs[name] = context.task_run
        assert ray.get(worker.say.remote(name, current_run_log()))

    @flow
    def weave() -> None:
        for name in "ab":
            stage.with_options(task_run_name=f"stage-{name}")(name)

    with shared_prefect.used(), get_client(sync_client=True) as client:
        weave()
        ray.get(worker.finish.remote())
        for name in "ab":
            wanted = LogFilter.model_validate({"task_run_id": {"any_": [runs[name].id]}})
            lines = [line for line in client.read_logs(wanted) if not line.name.startswith("prefect")]
            assert [(line.name, line.level) for line in lines] == [
                ("normloom.actor", logging.INFO),
                ("py.warnings", logging.WARNING),
                ("normloom.actor", logging.ERROR),
            ]
            said, warned, raised = (line.message for line in lines)
            assert said == f"stage-{name}: says {name}"
            assert f"UserWarning: mind {name}" in warned
            assert raised.startswith(f"stage-{name}: could not find it\nTraceback")
            assert raised.endswith(f"KeyError: {name!r}")
            assert {line.flow_run_id for line in lines} == {runs[name].flow_run_id}


def test_outside_of_a_task_there_is_no_log_and_nothing_is_done() -> None:
    before = [(logger.level, list(logger.handlers)) for logger in map(logging.getLogger, LOGGERS)]
    threads = threading.active_count()
    assert current_run_log() is None
    with sending(None):
        log.info("to nobody")
    assert [(logger.level, list(logger.handlers)) for logger in map(logging.getLogger, LOGGERS)] == before
    assert threading.active_count() == threads


def test_the_password_is_shown_to_the_server_alone(api: Recorded, capfd: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: api.url, PREFECT_API_AUTH_STRING: PASSWORD}):
        target = replace(run_log(api.url), server=LogServer.current())
    with sending(target):
        log.info("for %r", target)
    drain(120)
    [(path, authorization, entries)] = api.requests
    assert path == "/api/logs/"
    assert authorization == "Basic dXNlcjphLXNlY3JldC13b3Jk"
    assert target.server.url in repr(target)
    assert "a-secret-word" not in entries[0]["message"]
    assert capfd.readouterr() == ("", "")


def test_other_settings_of_prefect_s_client_hold_for_actors_too() -> None:
    chosen = {
        PREFECT_API_URL: "https://prefect.example.org/api",
        PREFECT_API_KEY: "a-key",
        PREFECT_API_SSL_CERT_FILE: certifi.where(),
        PREFECT_API_REQUEST_TIMEOUT: 7.0,
        PREFECT_CLIENT_MAX_RETRIES: 2,
        PREFECT_CLIENT_RETRY_EXTRA_CODES: "500,504",
        PREFECT_CLIENT_CUSTOM_HEADERS: {"X-Team": "loom", "user-agent": "another"},
    }
    with temporary_settings(chosen):
        server = LogServer.current()
    assert server == LogServer(
        "https://prefect.example.org/api",
        {"X-Team": "loom", "Authorization": "Bearer a-key"},
        certificates=certifi.where(),
        seconds=7.0,
        retries=2,
        retried=BUSY | {500, 504},
    )
    with LogClient(server) as client:
        assert client


def test_a_busy_server_is_asked_again(api: Recorded) -> None:
    api.refusals += [503, 429]
    with LogClient(LogServer(api.url)) as client:
        client.send([{"message": "late"}])
        assert [entries for _, _, entries in api.requests] == [[{"message": "late"}]]
        api.refusals += [503, 503]
        with pytest.raises(httpx.HTTPStatusError, match="503"), LogClient(LogServer(api.url, retries=1)) as hasty:
            hasty.send([{"message": "lost"}])
        api.refusals += [422]
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            client.send([{"message": "never right"}])
    assert len(api.requests) == 1


def test_what_is_left_at_the_end_of_an_actor_reaches_a_busy_server(api: Recorded) -> None:
    api.refusals += [503, 503, 503]
    api.retry_after = "30"
    with sending(run_log(api.url)):
        log.info("last words")
    drain()
    assert api.messages == ["stage: last words"]


def test_a_server_protected_against_forged_requests_is_given_its_token(api: Recorded) -> None:
    api.refusals += [403, 403]
    with LogClient(LogServer(api.url)) as client:
        client.send([{"message": "once"}])
        client.send([{"message": "twice"}])
    assert api.messages == ["once", "twice"]
    assert api.refusals == [403]  # the token is kept


def test_a_flood_goes_in_few_requests_in_order(api: Recorded) -> None:
    with sending(run_log(api.url)):
        for number in range(1000):
            log.info("%d", number)
    drain(120)
    assert api.messages == [f"stage: {n}" for n in range(1000)]
    assert len(api.requests) <= 10


def test_threads_of_a_part_share_its_log(api: Recorded) -> None:
    with sending(run_log(api.url)):
        thread = threading.Thread(target=log.info, args=("from an engine's thread",))
        thread.start()
        thread.join()
    drain(120)
    [(_, _, [entry])] = api.requests
    assert entry["message"] == "stage: from an engine's thread"


def handlers() -> list[list[logging.Handler]]:
    return [[*logging.getLogger(name).handlers] for name in ("normloom", "py.warnings")]


def test_without_a_server_parts_go_on_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    before = handlers()
    with sending(run_log("http://127.0.0.1:9/api")):
        log.warning("to nobody")
    drain(120)
    with sending(run_log("http://127.0.0.1:9/api")):
        log.warning("to nobody again")
    drain(120)
    assert capfd.readouterr() == ("", "")
    assert handlers() == before


def test_another_run_s_server_gets_what_follows(api: Recorded) -> None:
    with sending(run_log("http://127.0.0.1:9/api")):
        pass
    with sending(run_log(api.url)):
        log.info("to the second")
    drain(120)
    assert api.messages == ["stage: to the second"]


def test_a_record_that_cannot_be_formatted_stops_nothing(
    api: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logging.getLogger("normloom"), "propagate", False)  # pytest's own handler raises
    monkeypatch.setattr(logging, "raiseExceptions", True)  # commands turn it off for their process
    with sending(run_log(api.url)):
        log.info("%d rows", "three")
        log.info("and on")
    drain(120)
    assert api.messages == ["stage: and on"]
    assert "--- Logging error ---" in capfd.readouterr().err


SENDS = """
import logging, sys
from normloom.workers.actors.log_server import LogServer
from normloom.workers.actors.run_log import RunLog, drain, sending
with sending(RunLog("stage", "1", "2", LogServer(sys.argv[1]))):
    logging.getLogger("normloom").info("from an actor")
drain(120)
print("prefect" in sys.modules)
"""


def test_sending_does_not_import_prefect(api: Recorded) -> None:
    done = subprocess.run([sys.executable, "-c", SENDS, api.url], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
    assert api.messages == ["stage: from an actor"]


def test_without_prefect_no_log_is_looked_for() -> None:
    imported = "import sys; from normloom.workers.actors.run_log import current_run_log"
    asked = f"{imported}; print(current_run_log(), 'prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "False"]
