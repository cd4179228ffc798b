"""Messages that are refused are sent again, to a real web server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from receivers import Web, free_port, mail_server, web_server

from normloom.prefect.notifications.email_block import EmailNotification
from normloom.prefect.notifications.resend import Refusal, try_again
from normloom.prefect.notifications.webhook_block import WebhookNotification

SOON = (0.01, 0.01, 0.01)
MESSAGE = '{"news": "check"}'


def send_again(web: Web, *, delays: Sequence[float] = SOON, wanted: Sequence[bool] = (True, True, True)) -> None:
    """Send what was refused once, as the server does."""
    answers = iter(wanted)

    async def known() -> bool:
        return next(answers)

    async def tries() -> None:
        block = WebhookNotification(url=web.url)
        await try_again("chat", lambda: block._again(MESSAGE), Refusal("status 503"), known, delays)

    asyncio.run(tries())


@pytest.mark.parametrize(
    ("refusals", "wanted", "posts"),
    [
        ([], (True,), 1),
        ([500, 429], (True, True, True), 3),
        ([408, 404], (True, True), 2),
        ([503] * 9, (True, True, True), 3),
        ([503] * 9, (True, False), 1),
    ],
    ids=["taken", "taken at last", "refused for good", "given up", "receiver removed"],
)
def test_tries_end_when_taken_refused_for_good_or_not_wanted(
    refusals: list[int], wanted: Sequence[bool], posts: int, caplog: pytest.LogCaptureFixture
) -> None:
    with web_server() as web:
        web.refusals[:] = refusals
        send_again(web, wanted=wanted)
    assert len(web.posts) == posts
    lost = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    last = {404: "status 404", 503: "status 503"}.get(refusals[-1] if refusals else 0)
    assert lost == ([f"chat refused a message ({last}): it is not sent again"] if last and all(wanted) else [])
    assert "s3cret" not in caplog.text


def test_a_receiver_that_is_down_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    send_again(Web(url=f"http://127.0.0.1:{free_port()}/s3cret"), delays=SOON[:1], wanted=[True])
    assert "ConnectError" in caplog.text
    assert "s3cret" not in caplog.text


def test_receivers_told_at_the_same_time_do_not_disturb_each_other() -> None:
    with web_server() as slow, web_server() as fast:
        slow.pause = 1.0

        async def both() -> tuple[int, int]:
            first = asyncio.create_task(WebhookNotification(url=slow.url).call(MESSAGE))
            await asyncio.sleep(0.3)
            second = await WebhookNotification(url=fast.url).call(MESSAGE)
            return second.status_code, (await first).status_code

        assert asyncio.run(both()) == (200, 200)
    assert len(slow.posts) == len(fast.posts) == 1


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # which Apprise imports
def test_a_mail_that_is_refused_again_says_so_to_who_sends_it_again() -> None:
    with mail_server() as post:
        post.refusals[:] = ["451 4.3.0 Busy"]
        server = f"{post.user}:{quote(post.password, safe='')}@{post.address}"
        block = EmailNotification(url=f"mailto://{server}?from=normloom@example.org&to=team@example.org")
        refused = asyncio.run(block._again("body", "subject"))
        assert isinstance(refused, Refusal)
        assert asyncio.run(block._again("body", "subject")) is None
    assert [mail["Subject"] for mail in post.mails] == ["subject"]
