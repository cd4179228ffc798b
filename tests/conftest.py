from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from prefect_home import Prefect, running_prefect
from resting import resting

from normloom.core.machine.collector import collect_rarely, exempt_existing
from normloom.core.machine.processors import share_processors

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, here and by children
if "PYTEST_XDIST_WORKER" in os.environ:
    atexit.register(os._exit, 0)  # runs last: freeing what all test modules import takes seconds
collect_rarely()
share_processors()  # tests side by side, and what they start, want the same ones
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread of numpy waits for no other
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start keep what they compile: half of a start
if os.path.ismount("/dev/shm") and shutil.disk_usage("/dev/shm").free > 8e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")  # in memory: a store flushes every file that it writes
    tempfile.tempdir = "/dev/shm"  # this process only: Ray's files could fill it
if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
    with pytest.MonkeyPatch.context() as patch:  # what tests start has Polars as users do, and so has the first worker
        patch.setenv("POLARS_MAX_THREADS", "1")  # of small tables its threads take a seventh more time than one
        import polars as pl  # noqa: F401  # reads it when it is imported
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # a machine under load is slow: no test asks how long something took
os.environ["COLUMNS"] = "200"  # tables are printed for a terminal of this width, whatever the tests run in

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def kept_prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prefect, ExitStack]]:
    """A Prefect server for this process, and the stack that wakes it."""
    with running_prefect(tmp_path_factory.mktemp("prefect") / "home") as prefect, ExitStack() as rest:
        yield prefect, rest


@pytest.fixture(scope="module")
def shared_prefect(kept_prefect: tuple[Prefect, ExitStack]) -> Iterator[Prefect]:
    """A Prefect server for all tests of this process that run flows and do not mind those of others."""
    prefect, rest = kept_prefect
    rest.close()
    yield prefect
    rest.enter_context(resting(prefect.process))


@pytest.fixture
def found_prefect(shared_prefect: Prefect) -> Iterator[None]:
    """Builds find a Prefect server and start none of their own."""
    with shared_prefect.used():
        yield


# Long files go first, so that none is left for one process when the others are done. Each process is given two
# files at once: behind the longest comes one that is shorter.
LONG = (
    "services",
    "killed_training",
    "durable",
    "kills",
    "serve",
    "prefect_ui",
    "nodes",
    "run_ends",
    "notify",
    "cli_build",
    "pool",
    "report_page",
    "places",
    "hosted_build",
    "build",
    "bounds",
    "openai_vllm",
    "openvino_engine",
    "s3_removal",
    "s3_build",
    "examples",
    "register",
    "server",
    "api",
    "s3_nodes",
    "dpo_training",
    "openai_endpoint",
    "over_ray",
    "conllm_flow",
    "s3_store",
    "dpo_processes",
    "persodpo_flow",
    "view_page",
    "notify_apart",
    "outage",
    "waiting",
    "persodpo_training",
    "calibration",
)


ELSEWHERE = pytest.StashKey[bool]()  # whether this process began to collect in another folder than the first


def pytest_configure(config: pytest.Config) -> None:
    """Start each worker's collection in another folder: on a fresh clone they share the compiling of modules."""
    tests = Path(__file__).parent
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if worker and [Path(argument).absolute() for argument in config.args] == [tests]:
        places = sorted(
            path
            for path in tests.iterdir()
            if path.match("test_*.py") or (path.is_dir() and path.name != "__pycache__")
        )
        first = len(places) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        config.args = [str(path) for path in (*places[first:], *places[:first])]
        config.stash[ELSEWHERE] = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.stash.get(ELSEWHERE, False):
        items.sort(key=lambda item: item.path)  # the same order in all processes
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    exempt_existing()  # libraries that test modules import
