"""Builds that share a store, an orphan and its successor, a disk that fills up: by the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command_line import Command
from kills import Builder, is_target, scripted_builder
from prefect_home import Prefect

from normloom.history.unfinished import unfinished
from normloom.store.store import Store


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, shared_prefect: Prefect) -> Builder:
    return scripted_builder(tmp_path_factory.mktemp("builder"), shared_prefect, "source.limit=8", "rounds=0")


def contents(store: Path) -> dict[str, str]:
    return {manifest.stage: manifest.content for manifest in Store(store).newest("savacu")}


@pytest.fixture(scope="module")
def undisturbed(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return builder.undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def resume(
    builder: Builder, shared_prefect: Prefect, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], None]:
    """Give the command again, in this process, for the store of a build that did not end well."""

    def again(store: Path) -> None:
        arguments = [*builder.arguments, "--store", str(store), "--set", "resources.actors=0"]
        with shared_prefect.used():
            done = Command(capsys, monkeypatch)("build", "savacu", *arguments)
        assert done.code == 0, done.err

    return again


def makers(store: Path) -> dict[str, list[str]]:
    """Return by which builds the tables of each stage were made."""
    found: dict[str, list[str]] = {}
    for path in store.glob("savacu/*/*/manifest.json"):
        manifest = Store(store).published("savacu", path.parent.parent.name, path.parent.name)
        assert manifest is not None
        found.setdefault(manifest.stage, []).append(manifest.build)
    return found


def test_two_builds_at_once_share_tables_and_make_each_once(
    builder: Builder, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    both = [builder.start(tmp_path, actors=0) for _ in range(2)]
    for process in both:
        builder.finish(process)
    assert contents(tmp_path) == undisturbed
    assert all(len(builds) == 1 for builds in makers(tmp_path).values())
    assert len(list(tmp_path.glob("savacu/builds/*.yaml"))) == 2


def test_an_orphaned_flow_and_its_successor_never_write_one_table_together(
    builder: Builder, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """The runner that started a flow is killed; the flow lives on, held up until the next run waits for it."""
    arguments = ["build", "savacu", *builder.arguments, "--store", str(tmp_path), "--set", "resources.actors=0"]
    starting = (
        "import subprocess, sys; "
        "flow = subprocess.Popen([sys.executable, '-m', 'normloom', *sys.argv[1:]], stdout=subprocess.DEVNULL); "
        "print(flow.pid, flush=True); flow.wait()"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", starting, *arguments],
        cwd=Path(__file__).parents[2],
        env=builder.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert runner.stdout is not None
    orphan = int(runner.stdout.readline())
    try:
        while not list(tmp_path.glob("savacu/score_*/*/part-00000.json")):  # the first of several parts
            assert orphan_lives(orphan)
            time.sleep(0.02)
        os.kill(orphan, signal.SIGSTOP)
        runner.kill()
        runner.communicate()
        successor, said = builder.start(tmp_path, actors=0), ""
        assert successor.stderr is not None
        for line in successor.stderr:
            said += line.decode()
            if f"(process {orphan} on " in said:  # for whom it waits
                os.kill(orphan, signal.SIGCONT)
        assert successor.wait() == 0, said
        while orphan_lives(orphan):
            time.sleep(0.2)
    finally:
        if orphan_lives(orphan):
            os.kill(orphan, signal.SIGKILL)
    assert f"(process {orphan} on " in said
    assert contents(tmp_path) == undisturbed
    assert all(len(builds) == 1 for builds in makers(tmp_path).values())


def orphan_lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_signal_frees_the_actors_and_leaves_a_store_that_goes_on(
    builder: Builder, undisturbed: dict[str, str], resume: Callable[[Path], None], tmp_path: Path
) -> None:
    """Interrupted, resumed, terminated and resumed again."""
    for times, (number, code) in enumerate([(signal.SIGINT, 130), (signal.SIGTERM, 143)], start=1):
        process = builder.start(tmp_path, actors=1)
        crew = actors_of(process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code
        assert "interrupted; finished parts are kept, rerun the command to resume" in said.decode()
        assert "***" not in said.decode()  # the beginning of a native stack
        assert [build.state for build in unfinished(Store(tmp_path), "savacu")] == ["cancelled"] * times
        assert len(rays_of(process)) == 1  # a call after the end of Ray would start another
        _, left = psutil.wait_procs(crew, timeout=30)
        assert left == []
    resume(tmp_path)
    assert contents(tmp_path) == undisturbed


def rays_of(flow: subprocess.Popen[bytes]) -> list[Path]:
    """Return the folders of each Ray that a flow has started."""
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return list(Path(temporary).glob(f"ray/session_*_{flow.pid}"))


def actors_of(flow: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Wait until a flow has actors and return them."""
    while flow.poll() is None:
        family = psutil.Process(flow.pid).children(recursive=True)
        if crew := [process for process in family if is_target(process, "actor")]:
            return crew
        time.sleep(0.1)
    raise AssertionError(f"the build ended before it had actors: {flow.communicate()[1].decode()[-2000:]}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_fails_cleanly_and_the_next_build_goes_on(
    builder: Builder, undisturbed: dict[str, str], resume: Callable[[Path], None], small_disk: Path
) -> None:
    failing = builder.start(small_disk / "store", actors=0)
    _, said = failing.communicate(timeout=600)
    assert failing.returncode == 1
    assert "No space left on device; free some space and rerun the command, finished parts are kept" in said.decode()
    assert "Traceback" not in said.decode()
    assert not list(small_disk.rglob(".*.tmp"))
    done = {path: path.stat().st_mtime_ns for path in small_disk.glob("store/savacu/*/*/part-*.json")}
    assert done
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    resume(small_disk / "store")
    assert contents(small_disk / "store") == undisturbed
    assert {path: path.stat().st_mtime_ns for path in done} == done
