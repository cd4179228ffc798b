from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from normloom.prefect.server import CONSOLE_LEVEL
from normloom.prefect.warm import held
from normloom.prefect.warm.ask import SIZE
from normloom.prefect.warm.files import MARGIN, UNSURE, ReadFiles
from normloom.prefect.warm.held import WarmProcess, warm_process

LONG = 120.0
AGED = 1.1 * MARGIN / 1e9  # seconds: what is read later than this after a change is not imported twice
ANOTHER = {"NORMLOOM_TEST": "é 1"}
NEW = "imports all it needs itself"  # says a run that is no copy
KEEPS = """
import subprocess, sys
from normloom.prefect.warm.held import warm_process
with warm_process() as warm:
    run = subprocess.Popen(warm.command(), env={**warm.environment, "PREFECT__FLOW_RUN_ID": sys.argv[1]})
    print(warm.process.pid, run.pid, flush=True)
    run.wait()
"""
STRANGER = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(chr(0) + sys.argv[1])
print(connection.recv(1))
"""
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(999,), daemon=True).start()"
LEFT = """
import importlib, sys
from normloom.prefect.warm.forks import LIBRARIES
for library in LIBRARIES:
    importlib.import_module(library)
warm = {name.partition(".")[0] for name in sys.modules}
import normloom.cli.deployed
from normloom.run.imports import import_ahead
import_ahead([])
print(*sorted({name.partition(".")[0] for name in sys.modules} - warm))
"""
CODE = "import atexit; atexit.register(print, {!r})"


def test_a_file_that_changes_vanishes_or_comes_is_noticed(tmp_path: Path) -> None:
    kept, edited, moved, missing = (tmp_path / name for name in ("kept", "edited", "moved", "missing"))
    for path in (kept, edited, moved):
        path.write_text("1")

    def read() -> ReadFiles:
        return ReadFiles.since(time.time_ns() + 2 * MARGIN, [kept, edited, moved, missing])

    before = read()
    assert before.changed() is None
    status = edited.stat()
    edited.write_text("2")
    os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert before.changed() == str(edited)
    before = read()
    (tmp_path / "other").write_text("1")
    (tmp_path / "other").replace(moved)
    assert before.changed() == str(moved)
    before = read()
    missing.touch()
    assert before.changed() == str(missing)
    before = read()
    kept.unlink()
    assert before.changed() == str(kept)


def test_a_file_that_changed_after_the_process_began_may_have_been_read_before_that(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert ReadFiles.since(time.time_ns() - MARGIN, [file]).states[str(file)] == UNSURE


def test_a_copy_has_only_polars_and_normloom_left_to_import() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["_polars_runtime_32", "polars"]


def test_a_module_that_was_imported_is_among_them_and_another_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "read_by_test_warm.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "second"))
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    __import__("read_by_test_warm")
    read = ReadFiles.since(time.time_ns() + 2 * MARGIN)
    assert {str(tmp_path / "second" / "read_by_test_warm.py"), subprocess.__file__} <= set(read.states)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "of_no_concern.py").touch()
    assert read.changed() is None
    (tmp_path / "first" / "read_by_test_warm").mkdir()
    assert read.changed() == str(tmp_path / "first")


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing, so that runs wait for it."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api"


@pytest.fixture(scope="module")
def warm(silent: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    """A warm process that has imported `sitecustomize`, which prints a word at the end of each process."""
    code = tmp_path_factory.mktemp("code")
    (code / "sitecustomize.py").write_text(CODE.format("old"))
    time.sleep(AGED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", silent)
        for name in (CONSOLE_LEVEL, "PREFECT_LOGGING_INTERNAL_LEVEL"):  # by a command that a test ran in this process
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")]))
        with warm_process() as process:
            assert process
            yield process


def start(warm: WarmProcess, run: str, **changed: Any) -> subprocess.Popen[str]:
    environment = {**warm.environment, "PREFECT__FLOW_RUN_ID": run, **changed}
    pipe = subprocess.PIPE
    return subprocess.Popen(warm.command(), env=environment, text=True, stdout=pipe, stderr=pipe)


def ended(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end of a run; return its exit code and what it printed."""
    said, wrong = run.communicate(timeout=LONG)
    return run.returncode, said, wrong


def process_of(warm: WarmProcess) -> int:
    assert warm.process
    return warm.process.pid


def waiting_copy(warm: int) -> psutil.Process:
    """Wait for a copy of the warm process that waits for the silent server, and return it."""
    deadline = time.monotonic() + LONG
    while True:
        for child in psutil.Process(warm).children():
            with suppress(psutil.NoSuchProcess):  # a fork that ends threads and itself
                if child.net_connections():
                    return child
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_ends_as_prefect_says_with_what_it_prints(warm: WarmProcess) -> None:
    code, said, wrong = ended(start(warm, "nonsense"))
    assert (code, said) == (1, "old\n")
    assert "Invalid flow run id" in wrong
    assert NEW not in wrong


def test_the_warm_process_has_no_thread_but_its_own(warm: WarmProcess) -> None:
    ended(start(warm, "nonsense"))
    assert warm.process
    assert psutil.Process(warm.process.pid).num_threads() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_a_signal_ends_is_ended_by_it_for_the_runner_too(warm: WarmProcess, number: int) -> None:
    run = start(warm, str(uuid4()))
    waiting_copy(process_of(warm)).send_signal(number)
    assert ended(run)[0] == -number


def test_sigterm_reaches_the_run(warm: WarmProcess) -> None:
    run = start(warm, str(uuid4()))
    copy = waiting_copy(process_of(warm))
    run.terminate()
    assert ended(run)[0] == -signal.SIGTERM
    assert not copy.is_running()


def test_a_run_does_not_outlive_who_asked_for_it(warm: WarmProcess) -> None:
    run = start(warm, str(uuid4()))
    copy = waiting_copy(process_of(warm))
    run.kill()
    ended(run)
    psutil.wait_procs([copy], LONG)
    assert not copy.is_running()


def test_code_that_has_changed_is_imported_again(warm: WarmProcess) -> None:
    assert warm.process
    process = warm.process.pid
    place = Path(warm.environment["PYTHONPATH"].partition(os.pathsep)[0])
    (place / "sitecustomize.py").write_text(CODE.format("new"))
    time.sleep(AGED)
    _, said, wrong = ended(start(warm, "nonsense"))
    assert said == "new\n"
    if NEW in wrong:  # the change was so recent that it might have been read before or after
        _, said, wrong = ended(start(warm, "nonsense"))
    assert (said, NEW in wrong) == ("new\n", False)
    assert warm.process.pid == process


def test_another_environment_is_that_of_the_run(warm: WarmProcess) -> None:
    run = start(warm, str(uuid4()), **ANOTHER)
    copy = waiting_copy(process_of(warm))
    assert copy.environ().items() >= ANOTHER.items()  # as the kernel gave it to the process that was renewed
    run.kill()
    ended(run)
    psutil.wait_procs([copy], LONG)


def test_a_second_run_beside_one_at_work_is_a_copy_or_with_changed_code_a_new_process(warm: WarmProcess) -> None:
    first = start(warm, str(uuid4()), **ANOTHER)
    copy = waiting_copy(process_of(warm))
    _, _, wrong = ended(start(warm, "nonsense", **ANOTHER))
    assert NEW not in wrong
    _, said, wrong = ended(start(warm, "nonsense", NORMLOOM_TEST="2"))
    assert "imports all it needs itself: the environment has changed, and another run is at work" in wrong
    assert ("Invalid flow run id" in wrong, said) == (True, "new\n")
    assert copy.is_running()
    first.kill()
    ended(first)


def test_a_request_that_ends_early_is_passed_over(warm: WarmProcess) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{warm.command()[-1]}")
        socket.send_fds(connection, [(100).to_bytes(SIZE, "big")], [0, 1, 2])
    assert NEW not in ended(start(warm, "nonsense", **ANOTHER))[2]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a moment")
def test_another_user_has_no_run(warm: WarmProcess) -> None:
    done = subprocess.run(
        ["python3", "-I", "-S", "-c", STRANGER, warm.command()[-1]], user=65534, capture_output=True, check=True
    )
    assert done.stdout == b"b''\n"


def test_a_process_that_has_threads_is_not_copied(warm: WarmProcess) -> None:
    place = Path(warm.environment["PYTHONPATH"].partition(os.pathsep)[0]) / "sitecustomize.py"
    before = place.read_text()
    place.write_text(f"{before}\n{THREAD}")
    _, _, wrong = ended(start(warm, "nonsense", **ANOTHER))
    assert f"this run {NEW}: the warm process has 2 threads" in wrong
    place.write_text(before)
    warm.end()


def test_a_process_that_is_to_end_while_it_imports_is_killed(
    warm: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "END_SECONDS", 0.0)
    warm.command()
    process = warm.process
    warm.end()
    assert process
    assert process.returncode == -signal.SIGKILL


def test_a_warm_process_that_died_is_replaced_and_its_copies_end_with_it(warm: WarmProcess) -> None:
    run = start(warm, str(uuid4()))
    copy = waiting_copy(process_of(warm))
    assert warm.process
    warm.process.kill()
    assert ended(run)[0] == -signal.SIGKILL
    psutil.wait_procs([copy], LONG)
    assert not copy.is_running()
    asking = warm.command()  # of a process that is there
    _, _, wrong = ended(start(warm, "nonsense"))
    assert NEW not in wrong
    assert warm.command() == asking


def test_without_a_warm_process_a_run_is_a_new_process(warm: WarmProcess) -> None:
    command = [*warm.command()[:-1], "normloom-no-such-socket"]
    environment = {**warm.environment, "PREFECT__FLOW_RUN_ID": "nonsense"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "new\n")
    assert "the warm process does not answer" in done.stderr
    assert "Invalid flow run id" in done.stderr


def test_nothing_is_left_if_the_process_that_keeps_it_is_killed(silent: str) -> None:
    environment = {**os.environ, "PREFECT_API_URL": silent}
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS, str(uuid4())], env=environment, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout
        left = [psutil.Process(int(number)) for number in keeper.stdout.readline().split()]
        left.append(waiting_copy(left[0].pid))
        keeper.kill()
    psutil.wait_procs(left, LONG)
    assert not [process for process in left if process.is_running()]
