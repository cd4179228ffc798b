from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray

from normloom.core.errors import ModelError
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, runner, words_stage
from normloom.workers import ray_agent, ray_start
from normloom.workers.pool import Pool
from normloom.workers.ray_start import may_pass, start_ray
from normloom.workers.resources import Resources

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def test_ray_starts_below_a_temporary_directory_with_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on clusters whose scheduler gives each job a directory; sockets have paths of at most 107 bytes."""
    long = tmp_path / ("scratch-of-a-job-with-a-name" * 3)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("normloom.workers.ray_start.SAY_SECONDS", 0.1)
    caplog.set_level(logging.INFO, "normloom.pool")
    before = signal.getsignal(signal.SIGTERM)
    pool = Pool(Resources(actors=1, threads=1))
    words = words_stage("a", "b")
    loom = replace(runner(Store(tmp_path / "store")), pool=pool)
    try:
        table, _ = loom.run(words, [], [])
        assert loom.run(echo_stage(words), [table.ref], [])[0].count("rows") == 2
        family = psutil.Process().children(recursive=True)
        assert [process.name() for process in family if process.name().startswith("ray::")].count("ray::IDLE") == 0
        started = commands()
        assert "/raylet " in started
        assert not [name for name in ("monitor.py", "log_monitor.py", "dashboard.py") if f"/{name} " in started]
        assert not [name for name in AGENTS if name in started]
        assert pool._ray
        folder = pool._ray.folder
        assert folder
        assert (folder / "session_latest").exists()
        assert signal.getsignal(signal.SIGTERM) == before  # Ray's own would end the process with a native stack
    finally:
        pool.close()
    *waiting, up = [record.getMessage() for record in caplog.records if record.name == "normloom.pool"]
    assert waiting
    assert all(line.startswith("Ray is not up yet after ") for line in waiting)
    assert up.startswith("Ray is up after ")
    assert not folder.exists()
    assert list(long.iterdir()) == []


def commands() -> str:
    """Return the command lines of all processes that this one has started and that are alive."""
    found: list[str] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a worker that ends meanwhile
            found += process.cmdline()
    return " ".join(found)


def test_what_asks_for_a_runtime_environment_gets_it() -> None:
    running = start_ray(address=None, processors=1, require_open=lambda: None)
    try:
        assert not [name for name in AGENTS if name in commands()]
        told = ray.remote(lambda: os.getenv("NORMLOOM_TEST_TOLD"))
        assert ray.get(told.remote()) is None
        assert not [name for name in AGENTS if name in commands()]
        for value in ("one", "two"):  # asked for the first time, and again
            assert ray.get(told.options(runtime_env={"env_vars": {"NORMLOOM_TEST_TOLD": value}}).remote()) == value
        assert [name for name in AGENTS if name in commands()] == ["ray::RuntimeEnvAgent"]
    finally:
        running.end()


def test_ray_outlives_the_thread_that_asked_for_it() -> None:
    """A flow's threads end before its build does, and `ray.shutdown` waits five seconds for a cluster that is dead."""
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(start_ray, address=None, processors=1, require_open=lambda: None).result()
    try:
        started = [child for child in psutil.Process().children() if child.name() in {"gcs_server", "raylet"}]
        assert len(started) == 2
        assert psutil.wait_procs(started, 1)[0] == []
    finally:
        running.end()
    assert psutil.wait_procs(started, 60)[1] == []


STARTED = """
import ray
from normloom.workers.ray_start import start_ray

start_ray(address=None, processors=1, require_open=lambda: None)
print(ray.get_runtime_context().runtime_env)
"""


def test_uv_run_makes_no_runtime_environment(tmp_path: Path) -> None:
    """Ray's default is to copy the working directory and to start each worker with `uv run` in the copy."""
    (tmp_path / "run").write_text('"$@"; exit $?\n')
    with_uv = ["uv", "run", sys.executable, "-c", STARTED]  # a shell by that name
    done = subprocess.run(with_uv, executable="/bin/sh", cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr


@pytest.mark.parametrize(
    ("agent", "ports"),
    [
        (ray_agent.DASHBOARD, ["metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"]),
        (ray_agent.RUNTIME_ENV, ["runtime_env_agent_port"]),
    ],
)
def test_a_stand_in_for_an_agent_writes_its_ports_and_exits_with_its_node(
    agent: str, ports: list[str], tmp_path: Path
) -> None:
    options = [f"--session-dir={tmp_path}", "--node-id=a1", "--node-ip-address=127.0.0.1", "--runtime-env-agent-port=0"]
    command = [sys.executable, "-I", "-S", ray_agent.__file__, agent, "agent.py", *options, "--head", "--log-dir=x=y"]
    files = [tmp_path / f"{name}_a1" for name in ports]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        while not all(file.exists() for file in files):
            assert process.poll() is None
        written = {int(file.read_text()) for file in files}
        assert (written == {-1}) == (agent == ray_agent.DASHBOARD)
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_start_that_cannot_succeed_is_tried_once() -> None:
    asked: list[None] = []
    with pytest.raises(ModelError, match="Ray does not start at 'local': Resource quantities"):
        start_ray(address=None, processors=-1, require_open=lambda: asked.append(None))
    assert len(asked) == 1


def test_a_start_that_is_too_slow_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    patience = partial(monkeypatch.delenv, "RAY_gcs_server_port_wait_time_s")
    for _ in range(5):  # on a busy machine the server may be there before it is looked for
        monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "0")
        running = start_ray(address=None, processors=1, require_open=patience)
        try:
            assert ray.is_initialized()
            assert running.folder is None
        finally:
            running.end()
        if "start 1 of 5 of Ray failed" in caplog.text:
            break
    else:
        pytest.fail("no start was too slow")


def test_without_a_folder_with_a_short_path_it_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(ray_start, "SHORT_FOLDERS", (str(tmp_path / "gone"),))
    with pytest.raises(ModelError, match=r"none of .*/gone can be written: set RAY_TMPDIR to a directory with a short"):
        start_ray(address=None, processors=1, require_open=lambda: None)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), False),
        (ValueError("num_cpus must be positive"), False),
        (PermissionError(13, "Permission denied"), False),
        (FileNotFoundError(2, "no port file yet"), True),
        (TimeoutError("the raylet did not register in time"), True),
        (ConnectionError("the GCS is not there yet"), True),
        (RuntimeError("Failed to start GCS"), True),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, passing: bool) -> None:
    assert may_pass(error) is passing
