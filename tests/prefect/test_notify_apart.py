"""Notifications by a Prefect server that people start themselves, as docker-compose.yml does, with a login."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect_home import prefect_home
from receivers import free_port, mail_server, web_server
from test_notify import build_toy, command

from normloom.cli.commands.running.notify import PASSWORD
from normloom.prefect.names import SERVER_PASSWORD
from normloom.prefect.server import CONSOLE_LEVEL, reachable, using_server
from normloom.store.store import Store

LOGIN = "admin:s3same"
ENOUGH = 120.0


def eventually(what: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + ENOUGH
    while not what():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture
def server_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the server and yield its log; it knows Normloom only as an installed package."""
    home, log, port = prefect_home(tmp_path / "home"), tmp_path / "log", free_port()
    monkeypatch.setenv(SERVER_PASSWORD, LOGIN)
    loud = {CONSOLE_LEVEL: "NOTSET"}  # whatever a command that a test ran in this process has silenced
    environment = {**os.environ, **loud, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"}
    start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/api"
    with (
        log.open("wb") as output,
        subprocess.Popen(start, cwd=tmp_path, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            eventually(lambda: server.poll() is None and reachable(url), log)
            with using_server(url):
                yield log
        finally:
            server.terminate()


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it
def test_mail_and_webhooks_arrive_though_they_were_refused_first(
    server_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()  # of a receiver that is not up yet
    with ExitStack() as stack:
        post = stack.enter_context(mail_server())
        monkeypatch.setenv(PASSWORD, post.password)
        mail = ("add", "email", "team@example.org", "--smtp", post.address, "--from", "normloom@example.org")
        command(*mail, "--user", post.user, "--security", "none", "--on", "check")
        command("add", "webhook", f"http://127.0.0.1:{port}/hook/s3cret-path", "--on", "check")
        assert command("test", "email").exit_code == 0
        assert [sent["Subject"] for sent in post.mails] == ["Normloom: a test"]

        post.refusals[:] = ["451 4.7.1 Greylisted, try again later"]
        build_toy(Store(tmp_path / "store"), "a", "b", "c", "d", checked=True)
        eventually(lambda: server_log.read_text().count("trying again in 5 seconds") == 2, server_log)
        assert len(post.mails) == 1
        web = stack.enter_context(web_server(port))
        eventually(lambda: len(post.mails) == 2 and web.posts, server_log)
    assert (post.mails[1]["Subject"], post.mails[1]["To"]) == ("toy: a check of echo warns", "team@example.org")
    assert "1 of 4 rows" in post.mails[1].get_payload()
    assert [told["subject"] for told in web.posts] == ["toy: a check of echo warns"]
    log = server_log.read_text()
    assert "normloom-notify-email refused a message" in log
    assert not [secret for secret in ("s3cret", "p%40ss", "p@ss", LOGIN) if secret in log]
