"""What a build and its commands do while Prefect's server is away, refuses what it is sent, or does not know a run."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
from httpx import HTTPStatusError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import FailedRun
from prefect.states import Failed, Running
from prefect_home import Prefect

from normloom.core.outlook import Forecast
from normloom.prefect import server
from normloom.prefect.flow_run import Account, RunRequest, _OwnRun, _sigterm_by
from normloom.prefect.notifications.prometheus import runs_waiting
from normloom.prefect.notifications.watch import watching
from normloom.prefect.pages.artifact import publish
from normloom.prefect.pages.progress_page import _tell
from normloom.prefect.reach import ServerReach
from normloom.prefect.run_marks import RUNS, HeldRun, RunMark, settle
from normloom.prefect.server import ServerError, using_server
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

pytestmark = pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow or task run:FutureWarning")

AWAY = "http://127.0.0.1:9/api"


class Refusing(BaseHTTPRequestHandler):
    """Knows nothing of what it is asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_PATCH = do_POST  # noqa: N815  # the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/api"
        listening.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    built(store, words_stage("a"), build=build_id(1))
    return store


def test_runs_that_wait_are_unknown_while_the_server_is_away(store: Store) -> None:
    with using_server(AWAY):
        assert runs_waiting(store) is None


def test_pages_that_are_refused_are_logged_and_missing(refusing: str, caplog: pytest.LogCaptureFixture) -> None:
    reach, ended = ServerReach(), threading.Event()
    ended.set()
    with using_server(refusing):
        assert publish("a-page", "# Page", "", reach) is None
        _tell("a-page", Forecast("toy", {"words": None}), reach, ended)
    assert "the page a-page is not in Prefect's UI: " in caplog.text
    assert "the progress of the build is not in Prefect's UI: " in caplog.text
    assert reach.worth_trying()
    with using_server(AWAY):
        _tell("a-page", Forecast("toy", {"words": None}), reach, ended)
    assert not reach.worth_trying()


def test_ends_of_runs_are_kept_for_a_server_that_answers_and_knows_them(
    tmp_path: Path, shared_prefect: Prefect, caplog: pytest.LogCaptureFixture
) -> None:
    mark = RunMark(run=uuid4(), state=uuid4())
    path = tmp_path / RUNS / f"{mark.run}.{mark.state}.json"
    path.parent.mkdir()
    path.write_text(mark.model_dump_json())
    with using_server(AWAY):
        assert settle(tmp_path) == 0
    assert "could not be given the end of 1 runs whose process is gone" in caplog.text
    with using_server(shared_prefect.url):
        assert settle(tmp_path) == 0
    assert path.exists()


def test_a_store_with_a_damaged_lock_is_watched_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (store.root / "toy" / "builds" / f"{build_id(1)}.yaml").write_text("{")
    with watching(store.root):
        deadline = time.monotonic() + 60
        while f"cannot watch {store.root}: " not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def own(tmp_path: Path) -> _OwnRun[None]:
    request = RunRequest(flow="toy", name="b", tags=(), parameters={}, store=tmp_path)
    pool = Pool(Resources(actors=0))
    return _OwnRun(work=lambda: None, request=request, pool=pool, reach=ServerReach(), account=lambda _: Account(0, 0))


def test_why_work_failed_is_kept_for_a_server_that_is_gone(own: _OwnRun[None], tmp_path: Path) -> None:
    own.held = HeldRun.hold(tmp_path, FlowRun(flow_id=uuid4(), state=Running()))
    assert own.held
    own.failure = ValueError("no rows")
    own._lost(OSError("refused"))
    assert (own.held.mark.outcome, own.held.mark.message) == ("failed", "ValueError: no rows")
    own.held.release(told=False)


def test_what_prefect_made_of_a_run_that_did_nothing_is_raised(own: _OwnRun[None], refusing: str) -> None:
    with pytest.raises(FailedRun, match="its engine is gone"):
        own._outcome(Failed(message="its engine is gone"))
    with using_server(refusing), pytest.raises(HTTPStatusError):
        own._withdraw()


def test_without_a_handler_of_its_own_a_process_leaves_sigterm_to_prefect() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with _sigterm_by(None):
        assert signal.getsignal(signal.SIGTERM) == before


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); "


def test_a_server_that_neither_answers_nor_ends_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.1)
    command = [sys.executable, "-S", "-c", STUBBORN + "time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(ServerError, match=r"(?s)did not answer within 0 seconds.*its last words"):
            server._await(process, AWAY, io.BytesIO(b"its last words"), 0.0)
        server._stop(process)
        assert process.returncode == -signal.SIGKILL


def test_a_server_whose_parent_is_gone_ends_though_it_is_stubborn() -> None:
    code = STUBBORN + "import normloom.prefect.server as s; s.GRACE_SECONDS = 0; s._end_with(-1)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 1


def test_an_automation_that_has_changed_is_brought_in_line(shared_prefect: Prefect, tmp_path: Path) -> None:
    from normloom.prefect.serving.automations import AUTOMATIONS, install

    file = tmp_path / "automations.yaml"
    text = AUTOMATIONS.read_text().replace("normloom-crash-silent-runs", "test-in-line")
    text = text.replace("within: 90", "within: 9000")
    with shared_prefect.used(), get_client(sync_client=True) as client:
        for words in ("Mark a run Crashed", "Mark a silent run Crashed"):
            file.write_text(text.replace("Mark a run Crashed", words))
            assert install(file) == ["test-in-line"]
        [found] = client.read_automations_by_name("test-in-line")
        client.delete_automation(found.id)
    assert found.description.startswith("Mark a silent run Crashed")
