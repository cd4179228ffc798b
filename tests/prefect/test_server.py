from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from ssl import create_default_context
from urllib.parse import urlsplit

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings
from prefect_home import Prefect, prefect_home
from rich.console import Console

from normloom.cli.commands.running.serve import serve
from normloom.cli.run import _server
from normloom.core.errors import UsageError
from normloom.prefect.names import HEARTBEAT_SECONDS
from normloom.prefect.server import (
    CONSOLE_LEVEL,
    SERVED,
    ServerError,
    _local,
    announced,
    prefect_server,
    reachable,
    sending_heartbeats,
    serving,
    starting_server,
    using_server,
)
from normloom.prefect.serving.at_server import at_server
from normloom.store.store import Store

PARENT = """
import time
from normloom.prefect.server import prefect_server
with prefect_server() as url:
    print(url, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = prefect_home(tmp_path_factory.mktemp("server") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(place))
        yield place


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with prefect_server() as url:
        yield url


def test_a_server_answers_and_shows_its_ui_with_an_api_that_is_right_under_every_name(url: str) -> None:
    assert reachable(url, timeout=30)
    root = url.removesuffix("/api")
    settings = json.load(urllib.request.urlopen(f"{root}/ui-settings"))
    assert settings["api_url"] == "/api"
    assert b"<html" in urllib.request.urlopen(f"{root}/v2").read()


def test_the_database_is_in_prefect_home(url: str, home: Path) -> None:
    with using_server(url), get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("kept")
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        assert database.execute("SELECT id FROM flow WHERE name = 'kept'").fetchone() == (str(flow),)


def test_clients_of_a_server_without_tls_read_one_certificate() -> None:
    before = PREFECT_API_SSL_CERT_FILE.value()
    with using_server("http://127.0.0.1:1/api"):
        assert len(create_default_context(cafile=PREFECT_API_SSL_CERT_FILE.value()).get_ca_certs()) == 1
    with using_server("https://prefect.example.org/api"):
        assert PREFECT_API_SSL_CERT_FILE.value() == before


def test_a_server_for_a_build_tells_no_blocks_and_leaves_that_to_one_for_good(url: str, home: Path) -> None:
    assert json.load(urllib.request.urlopen(urllib.request.Request(f"{url}/block_types/filter", method="POST"))) == []
    assert not (home / "memo_store.toml").exists()  # by which Prefect knows what was told


def test_a_server_that_is_not_told_to_serve_touches_nothing_and_ends_with_its_parent_s_pipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with starting_server() as server:
        assert server.process.stdin
        server.process.stdin.close()  # as when the parent is killed
        assert server.process.wait(60) == 0
    assert not list(tmp_path.iterdir())


def test_a_server_that_has_begun_is_taken_along_by_what_fails_before_it_serves() -> None:
    with pytest.raises(KeyboardInterrupt), starting_server() as server:
        raise KeyboardInterrupt
    assert server.process.poll() is not None


def test_a_build_starts_no_server_for_good_if_a_profile_of_prefect_names_one(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    others = set(psutil.Process().children())
    with (
        temporary_settings({PREFECT_API_URL: url}),  # as a profile does: not in the environment
        _server(Store(tmp_path / "store"), [], Console(quiet=True)) as interface,
    ):
        assert interface == url.removesuffix("/api")
        assert not [one for one in set(psutil.Process().children()) - others if one.status() != psutil.STATUS_ZOMBIE]


def test_a_taken_port_is_named(url: str) -> None:
    port = urlsplit(url).port
    with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1"), prefect_server(port=port):
        pass


def test_a_host_that_is_not_this_machine_is_named() -> None:
    with pytest.raises(UsageError, match="nowhere"), prefect_server(host="nowhere.invalid"):
        pass


@pytest.mark.parametrize("quiet", [False, True], ids=["alone", "for a build"])
def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet: bool) -> None:
    if quiet:
        for name in (CONSOLE_LEVEL, "PREFECT_LOGGING_INTERNAL_LEVEL"):  # as quiet_libraries does
            monkeypatch.setenv(name, "CRITICAL")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/missing/prefect.db")
    with pytest.raises(ServerError, match="unable to open database file"), prefect_server():
        pass


def test_the_death_of_a_server_is_told(home: Path) -> None:  # noqa: ARG001  # the database
    told = threading.Event()
    others = set(psutil.Process().children())
    with prefect_server(died=told.set):
        [server] = set(psutil.Process().children()) - others
        assert not told.wait(2)
        server.kill()
        assert told.wait(30)


def test_the_server_of_a_parent_that_is_killed_ends_too() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert reachable(url, timeout=30)
        [server] = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
    server.wait(timeout=60)
    assert not reachable(url)


def test_using_a_server_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before = PREFECT_API_URL.value()
    with using_server("http://127.0.0.1:1/api"):
        assert PREFECT_API_URL.value() == os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
        assert PREFECT_API_AUTH_STRING.value() == "me:secret"
    assert PREFECT_API_URL.value() == before
    assert "PREFECT_API_URL" not in os.environ


@pytest.mark.parametrize("chosen", [None, "60"])
def test_heartbeats_are_sent_even_if_prefect_read_its_settings_before(
    chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import get_current_settings

    assert get_current_settings().flows.heartbeat_frequency != int(HEARTBEAT_SECONDS)  # read by now
    name = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
    monkeypatch.setenv(name, "")  # so that what is set below is undone
    if chosen is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, chosen)
    with sending_heartbeats():
        assert get_current_settings().flows.heartbeat_frequency == int(chosen or HEARTBEAT_SECONDS)


def test_nothing_is_reachable_where_nothing_listens_or_something_else_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/api", timeout=0.1)
    assert not reachable("http://127.0.0.1:1/api")
    assert not reachable("not an address")


def test_builds_and_commands_find_the_server_of_a_store_while_it_serves(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    assert serving(store) is None
    with announced(store, url):
        assert serving(store) == url
        assert json.loads((store / SERVED).read_text())["pid"] == os.getpid()
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
        with at_server(store):
            assert PREFECT_API_URL.value() == url
        with _server(Store(store), [], Console(quiet=True)) as interface:
            assert (interface, PREFECT_API_URL.value()) == (url.removesuffix("/api"), url)
        with pytest.raises(UsageError, match=f"is being served already, at {interface}"):
            serve(store=store)
    assert serving(store) is None


def test_events_go_to_the_server_of_their_time(url: str, shared_prefect: Prefect) -> None:
    for server, name in ((shared_prefect.url, "first"), (url, "second"), (shared_prefect.url, "third")):
        with using_server(server):
            emit_event(f"toy.{name}", resource={"prefect.resource.id": "toy"})

    def told(server: str) -> set[str]:
        asked = urllib.request.Request(
            f"{server}/events/filter",
            data=json.dumps({"filter": {"event": {"prefix": ["toy."]}}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        return {event["event"] for event in json.load(urllib.request.urlopen(asked))["events"]}

    deadline = time.monotonic() + 60
    while (told(shared_prefect.url), told(url)) != ({"toy.first", "toy.third"}, {"toy.second"}):
        assert time.monotonic() < deadline, (told(shared_prefect.url), told(url))
        time.sleep(0.2)


def test_what_a_killed_server_left_behind_is_not_believed(url: str, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for left in (
        {"pid": ended.pid, "api": url},
        {"pid": os.getpid(), "api": "http://127.0.0.1:1/api"},
        {"pid": os.getpid()},
    ):
        (tmp_path / SERVED).write_text(json.dumps(left))
        assert serving(tmp_path) is None
    (tmp_path / SERVED).write_text("{")
    assert serving(tmp_path) is None


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")],
)
def test_a_server_of_every_address_is_reached_by_this_machine_s(host: str, reached: str) -> None:
    assert _local(host) == reached
