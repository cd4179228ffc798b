"""Notifications of builds: receivers are Prefect blocks, what they are notified of are Prefect automations.

A receiver NAME is the block document `normloom-notify-NAME`, which holds its address and secrets, and an automation
`normloom-notify-NAME-KIND` for each kind of news. The server sends; nothing else has to run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from prefect.automations import Automation
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from normloom.core.errors import NormloomError, UsageError
from normloom.prefect.notifications.email_block import EmailNotification
from normloom.prefect.notifications.news import NEWS, TEST, Subscription, trigger, words
from normloom.prefect.notifications.notices import PREFIX, tell
from normloom.prefect.notifications.webhook_block import WebhookNotification

AUTOMATION = f"{PREFIX}-notify-"
TEST_SECONDS = 40.0  # that a server may take to act and to record it
_PAGE = 200
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

Security = Literal["starttls", "ssl", "none"]


class NotifyError(NormloomError):
    """A notification did not arrive."""


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A receiver as the server has it; `where` names it without its secrets."""

    name: str
    where: str
    news: Sequence[str]


def webhook(url: str) -> tuple[Block, str]:
    """Return the block of a webhook, and what may be shown of it; raises UsageError if it is not an address."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("the address of a webhook must begin with http:// or https:// and name a host")
    block = WebhookNotification(url=url, headers={"Content-Type": "application/json"})
    return block, f"webhook at {parts.hostname}"


def email(
    to: str, *, server: str, sender: str | None = None, user: str = "", password: str = "", security: Security
) -> tuple[Block, str]:
    """Return the block of an e-mail address, and what may be shown of it; `server` is HOST or HOST:PORT."""
    host, _, port = server.partition(":")
    if not host or (port and not port.isdecimal()):
        raise UsageError(f"--smtp {server}: expected HOST or HOST:PORT")
    if "@" not in to:
        raise UsageError(f"{to!r} is not an e-mail address")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    port = port or {"ssl": "465", "starttls": "587", "none": "25"}[security]
    mode = {"none": "insecure"}.get(security, security)
    query = urlencode({"from": sender or to, "to": to, "smtp": host, "mode": mode, "format": "text"})
    scheme = "mailto" if security == "none" else "mailtos"
    block = EmailNotification(url=f"{scheme}://{login}{host}:{port}?{query}")
    return block, f"e-mail to {to}"


def add(name: str, block: Block, where: str, wanted: Subscription) -> None:
    """Add a receiver; one of that name is replaced."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r}: a name consists of lower-case letters, digits and single hyphens")
    with get_client(sync_client=True) as client:
        _forget(client, name, _automations(client, name))
    document = str(block.save(f"{AUTOMATION}{name}", overwrite=True))
    for news in [*dict.fromkeys(wanted.news), TEST]:
        Automation.model_validate(
            {
                "name": f"{AUTOMATION}{name}-{news}",
                "description": where,
                "trigger": trigger(news, wanted if news != TEST else Subscription(systems=[name])),
                "actions": [_action(document, block, news, wanted)],
            }
        ).create()


def receivers() -> list[Receiver]:
    """Return all receivers, by name."""
    found: dict[str, list[Automation]] = {}
    with get_client(sync_client=True) as client:
        for automation in _automations(client):
            found.setdefault(_split(automation.name)[0], []).append(automation)
    return [
        Receiver(
            name=name,
            where=automations[0].description,
            news=[news for news in NEWS if news in {_split(one.name)[1] for one in automations if one.enabled}],
        )
        for name, automations in sorted(found.items())
    ]


def send_test(name: str, *, seconds: float = TEST_SECONDS) -> None:
    """Let the server send a receiver a test and wait until it says that it has; raises NotifyError if not."""
    with get_client(sync_client=True) as client:
        automation = next((one for one in _known(client, name) if _split(one.name)[1] == TEST), None)
        if automation is None:
            raise UsageError(f"receiver {name!r} has no test automation: add it again")
        before = {outcome["id"] for outcome in _outcomes(client, automation)}
        tell(
            "notify.test",
            system=name,
            subject="Normloom: a test",
            message=f"{name!r} gets Normloom's notifications.",
        )
        deadline = time.monotonic() + seconds
        while not (new := [one for one in _outcomes(client, automation) if one["id"] not in before]):
            if time.monotonic() > deadline:
                raise NotifyError(f"Prefect's server did not act within {seconds:g} seconds: is it running?")
            time.sleep(0.5)
    payload = new[0]["payload"]
    if new[0]["event"].endswith("failed"):
        why = payload.get("notification_log") or payload.get("reason")
        raise NotifyError(f"{name!r} could not be reached: {' '.join(str(why).split())}")
    if (status := payload.get("status_code", 200)) >= HTTPStatus.BAD_REQUEST:
        raise NotifyError(f"{name!r} refused the message with status {status}")


def remove(name: str) -> None:
    """Remove a receiver and forget its address."""
    with get_client(sync_client=True) as client:
        _forget(client, name, _known(client, name))


def _forget(client: SyncPrefectClient, name: str, automations: Sequence[Automation]) -> None:
    for automation in automations:
        automation.delete()
    for kind in (WebhookNotification, EmailNotification, Webhook):  # the last: of receivers added by earlier versions
        try:
            document = client.read_block_document_by_name(f"{AUTOMATION}{name}", kind.get_block_type_slug())
        except ObjectNotFound:
            continue
        client.delete_block_document(document.id)


def _action(document: str, block: Block, news: str, wanted: Subscription) -> dict[str, Any]:
    said = words(news, wanted)
    if isinstance(block, Webhook):
        return {"type": "call-webhook", "block_document_id": document, "payload": said.payload(news)}
    kind = {"type": "send-notification", "block_document_id": document}
    return {**kind, "subject": said.subject, "body": said.message}


def _automations(client: SyncPrefectClient, name: str | None = None) -> list[Automation]:
    found: list[Automation] = []
    while True:
        page = client.request("POST", "/automations/filter", json={"offset": len(found), "limit": _PAGE}).json()
        found += [Automation.model_validate(each) for each in page]
        if len(page) < _PAGE:
            ours = [one for one in found if one.name.startswith(AUTOMATION)]
            return [one for one in ours if name is None or _split(one.name)[0] == name]


def _known(client: SyncPrefectClient, name: str) -> list[Automation]:
    automations = _automations(client, name)
    if not automations:
        known = ", ".join(one.name for one in receivers()) or "none"
        raise UsageError(f"unknown receiver {name!r}; available: {known}")
    return automations


def _split(automation: str) -> tuple[str, str]:
    """Return the name of the receiver and the kind of news that an automation is for."""
    name, _, news = automation.removeprefix(AUTOMATION).rpartition("-")
    return name, news


def _outcomes(client: SyncPrefectClient, automation: Automation) -> list[dict[str, Any]]:
    """Return the events that tell what became of an automation's actions, the newest first."""
    wanted = {
        "event": {"name": [f"prefect.automation.action.{how}" for how in ("executed", "failed")]},
        "resource": {"id": [f"prefect.automation.{automation.id}"]},
    }
    found: list[dict[str, Any]] = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
    return found
