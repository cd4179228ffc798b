"""What people are told: a real server acts on runs and events, a web server and a mail server receive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Crashed, Scheduled
from prefect_home import own_prefect
from receivers import Post, Web, mail_server, web_server
from typer.testing import CliRunner, Result

from normloom.cli.commands.running.notify import PASSWORD, URL, app
from normloom.core.contract import Check
from normloom.core.errors import CheckError, ReleaseError, UsageError
from normloom.core.table import Manifest
from normloom.prefect.notifications import notify
from normloom.prefect.notifications.news import Subscription
from normloom.prefect.notifications.notices import tell, telling
from normloom.prefect.notifications.notify import NotifyError
from normloom.prefect.notifications.resend import DELAYS
from normloom.run.build import BuildRequest, build
from normloom.run.release import ReleaseSize
from normloom.store.store import Store
from normloom.testing.toy import ECHOES, echo_stage, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

ENOUGH = 90.0

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it


@dataclass(frozen=True)
class House:
    """A Prefect server with all its services, and who is told."""

    web: Web
    post: Post
    log: Path
    client: SyncPrefectClient


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    place = tmp_path_factory.mktemp("notify")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS", "1")
        patch.delenv(URL, raising=False)
        web, post = stack.enter_context(web_server()), stack.enter_context(mail_server())
        patch.setenv(PASSWORD, post.password)
        stack.enter_context(own_prefect(place / "home", private=False, log=place / "log"))
        yield House(web, post, place / "log", stack.enter_context(get_client(sync_client=True)))


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def eventually(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + ENOUGH
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def build_toy(store: Store, *words: str, release: ReleaseSize | None = None, checked: bool = False) -> None:
    check = Check(
        expectation="expect_column_values_to_be_in_set",
        arguments={"column": "word", "value_set": ["a", "b", "c"]},
        on_fail="warn",
    )
    stage = replace(echo_stage(words_stage(*words)), contract=replace(ECHOES, checks=(check,) if checked else ()))
    request = BuildRequest(system="toy", release=release or ReleaseSize())
    build(stage, request=request, store=store, pool=Pool(Resources(actors=0)))


@flow(name="toy")
def toy() -> None:
    """Stand for a deployment's flow in runs that never begin."""


def test_a_receiver_is_added_tried_listed_and_removed(house: House) -> None:
    assert command("add", "webhook", house.web.url, "--name", "chat", "--on", "failure,late").exit_code == 0
    mail = ("add", "email", "team@example.org", "--smtp", house.post.address, "--from", "normloom@example.org")
    assert command(*mail, "--user", house.post.user, "--security", "none", "--on", "check").exit_code == 0
    listed = json.loads(command("list", "--json").stdout)
    assert [(each["name"], each["news"]) for each in listed] == [("chat", ["failure", "late"]), ("email", ["check"])]
    assert "webhook at 127.0.0.1" in command("list").stdout
    assert "e-mail to team@example.org" in command("list").stdout

    for name in ("chat", "email"):
        assert command("test", name).exit_code == 0
    assert [post["message"] for post in house.web.of("test")] == ["'chat' gets Normloom's notifications."]
    [sent] = house.post.mails
    assert (sent["Subject"], sent["From"], sent["To"]) == (
        "Normloom: a test",
        "normloom@example.org",
        "team@example.org",
    )
    assert sent.get_content_type() == "text/plain"

    for name in ("chat", "email"):
        assert command("remove", name).exit_code == 0
    assert json.loads(command("list", "--json").stdout) == []
    assert command("list").stderr == "no receivers: normloom notify add\n"
    with pytest.raises(UsageError, match="unknown receiver 'chat'; available: none"):
        command("test", "chat")


def test_a_receiver_that_refuses_is_said(house: House) -> None:
    house.web.status = 404
    command("add", "webhook", house.web.url, "--name", "gone")
    with pytest.raises(NotifyError, match="'gone' refused the message with status 404"):
        notify.send_test("gone")
    house.web.status = 200
    block, where = notify.email(
        "me@example.org", server=house.post.address, user="normloom", password="wr0ng", security="none"
    )
    notify.add("locked", block, where, Subscription())
    with pytest.raises(NotifyError, match=r"'locked' could not be reached: .*\S"):
        notify.send_test("locked")
    with pytest.raises(UsageError, match="'Gone!': a name consists of lower-case letters, digits and single hyphens"):
        notify.add("Gone!", block, where, Subscription())
    [test] = house.client.read_automations_by_name("normloom-notify-gone-test")
    house.client.pause_automation(test.id)
    with pytest.raises(NotifyError, match="Prefect's server did not act within 0 seconds"):
        notify.send_test("gone", seconds=0)
    house.client.delete_automation(test.id)
    with pytest.raises(UsageError, match="receiver 'gone' has no test automation: add it again"):
        notify.send_test("gone")
    for name in ("gone", "locked"):
        notify.remove(name)


def test_builds_that_fail_are_late_or_release_less_are_told_and_cancelled_ones_are_not(
    house: House, tmp_path: Path
) -> None:
    house.web.posts.clear()  # of an earlier try
    block, where = notify.webhook(house.web.url)
    notify.add("all", block, where, Subscription(late=timedelta(seconds=10)))
    notify.add("others", *notify.webhook(house.web.url + "/others"), Subscription(systems=["savacu"]))
    store = Store(tmp_path / "store")
    build_toy(store, "a", "b", "c", "d", checked=True)
    with pytest.raises(ReleaseError):
        build_toy(store, "a", release=ReleaseSize(min_share_of_last=0.5))
    late = house.client.create_flow_run(toy, state=Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=5)))
    stopped = house.client.create_flow_run(toy, name="stopped")
    states: list[State[Any]] = [Crashed(message="killed"), Cancelled()]
    for state in states:
        house.client.set_flow_run_state(stopped.id, state, force=True)

    def refused() -> tuple[Manifest, bool]:
        raise CheckError("3 of 4 rows are wrong")

    with pytest.raises(CheckError):
        telling(refused, system="toy", stage="held", build="b")

    eventually(lambda: all(house.web.of(news) for news in ("check", "shrunken", "failure", "late")))
    eventually(lambda: len(house.web.of("check")) == 2)
    [check, failed] = sorted(house.web.of("check"), key=lambda one: one["subject"])
    assert (failed["subject"], failed["message"]) == ("toy: a check of held failed", "3 of 4 rows are wrong")
    assert (check["system"], check["subject"]) == ("toy", "toy: a check of echo warns")
    assert "1 of 4 rows" in check["message"]
    [shrunken] = house.web.of("shrunken")
    assert "would release 1 row after 4" in shrunken["message"]
    [failure] = house.web.of("failure")
    assert failure["subject"] == "toy: a build failed"
    assert "would release 1 row after 4" in failure["message"]
    assert failure["text"] == f"{failure['subject']}\n{failure['message']}"
    [missed] = house.web.of("late")
    assert missed["message"].startswith(f"{late.name} was due at ")
    assert datetime.fromisoformat(missed["time"]) > datetime.now(UTC) - timedelta(minutes=5)


def test_what_is_refused_for_now_is_sent_again_unless_the_receiver_is_removed(house: House) -> None:
    with web_server() as busy, web_server() as left:
        busy.refusals[:], left.status = [503], 503
        for name, web in (("busy", busy), ("left", left)):
            notify.add(name, *notify.webhook(web.url), Subscription(news=["check"], systems=["demo"]))
        tell("check.warned", system="demo", subject="demo: a check warns", message="once more")
        eventually(lambda: left.posts)
        notify.remove("left")
        eventually(lambda: len(busy.posts) == 2)
        time.sleep(DELAYS[0])
        assert (len(busy.posts), len(left.posts)) == (2, 1)
        assert busy.posts[0] == busy.posts[1]
    notify.remove("busy")
    assert "normloom-notify-busy refused a message (status 503): trying again in 5 seconds" in house.log.read_text()


def test_addresses_and_passwords_stand_nowhere(house: House) -> None:
    automations = house.client.request("POST", "/automations/filter", json={}).text
    events = house.client.request("POST", "/events/filter", json={"limit": 50}).text
    blocks = house.client.request("POST", "/block_documents/filter", json={}).text
    for secret in ("s3cret", "p@ss", "p%40ss", "wr0ng"):
        assert secret not in automations + events + blocks + house.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "webhook", "hooks.example.org"), "must begin with http"),
        (("add", "webhook", "http://127.0.0.1", "--on", "fail"), "expected some of failure, late"),
        (("add", "webhook", "http://127.0.0.1", "--system", "savaku"), "savaku"),
        (("add", "email", "nobody", "--smtp", "localhost"), "not an e-mail address"),
        (("add", "email", "a@example.org", "--smtp", "localhost:smtp"), "HOST:PORT"),
    ],
)
def test_what_cannot_be_told_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command(*arguments)


def test_without_a_server_it_says_what_to_do(tmp_path: Path) -> None:
    nowhere = temporary_settings(restore_defaults={PREFECT_API_URL})
    with nowhere, pytest.raises(UsageError, match="start normloom serve, or set PREFECT_API_URL"):
        command("list", "--store", str(tmp_path))


def test_a_name_of_other_signs_is_refused() -> None:
    with pytest.raises(UsageError, match="'My Team': a name consists of lower-case letters, digits and single hyphens"):
        notify.add("My Team", Block(), "a team", Subscription())
