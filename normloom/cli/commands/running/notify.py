"""normloom notify."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from normloom.cli.common import DEFAULT_STORE, JsonOption, StoreOption, err, escaped, out
from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text

if TYPE_CHECKING:
    from prefect.blocks.core import Block

    from normloom.prefect.notifications.news import Subscription

URL, PASSWORD = "NORMLOOM_WEBHOOK_URL", "NORMLOOM_SMTP_PASSWORD"

app = typer.Typer(no_args_is_help=True, help="Get notified of failed and late builds, checks and releases.")
add_app = typer.Typer(no_args_is_help=True, help="Add a receiver, or replace the one with the same name.")
app.add_typer(add_app, name="add")

NameOption = Annotated[str | None, typer.Option(help="Name of the receiver (default: webhook or email).")]
OnOption = Annotated[
    str,
    typer.Option(
        "--on",
        help="What to send, comma-separated: failure, late (a scheduled build has not started), check (it warns or "
        "failed), shrunken (a release was held back), stale (a release is older than release.fresh_hours).",
    ),
]
SystemOption = Annotated[
    list[str] | None, typer.Option(help="Only for this system; repeatable (default: all).", show_default=False)
]
LateOption = Annotated[int, typer.Option(min=1, help="Minutes after which a scheduled build counts as late.")]
EVERYTHING = "failure,late,check,shrunken,stale"


@add_app.command()
def webhook(
    url: Annotated[str | None, typer.Argument(help=f"Its address; safer in {URL} or asked for.", envvar=URL)] = None,
    name: NameOption = None,
    on: OnOption = EVERYTHING,
    system: SystemOption = None,
    late_after: LateOption = 15,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Post JSON (text, news, system, subject, message, time) to a webhook, for example of Slack or Mattermost.

    The URL is stored encrypted in a Prefect block and never shown.

    Examples:

        normloom notify add webhook https://hooks.example.org/T0/B0 --on failure,late
    """
    from normloom.prefect.notifications import notify

    block, where = notify.webhook(url or typer.prompt("Address of the webhook", hide_input=True))
    _add(name or "webhook", block, where, _wanted(on, system, late_after), store)


@add_app.command()
def email(
    to: Annotated[str, typer.Argument(help="Recipient.", show_default=False)],
    smtp: Annotated[str, typer.Option(help="Mail server, HOST or HOST:PORT.", show_default=False)],
    sender: Annotated[str | None, typer.Option("--from", help="Sender (default: the recipient).")] = None,
    user: Annotated[str, typer.Option(help=f"Login at the server; {PASSWORD} or a prompt gives the password.")] = "",
    security: Annotated[Literal["starttls", "ssl", "none"], typer.Option(help="How the connection is secured.")] = (
        "starttls"
    ),
    name: NameOption = None,
    on: OnOption = EVERYTHING,
    system: SystemOption = None,
    late_after: LateOption = 15,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Send e-mail through an SMTP server. Login and password are stored encrypted in a Prefect block.

    Examples:

        normloom notify add email team@example.org --smtp mail.example.org --user normloom --on failure
    """
    from normloom.prefect.notifications import notify

    password = os.environ.get(PASSWORD) or typer.prompt("Password", hide_input=True) if user else ""
    block, where = notify.email(to, server=smtp, sender=sender, user=user, password=password, security=security)
    _add(name or "email", block, where, _wanted(on, system, late_after), store)


@app.command("list")
def list_(store: StoreOption = DEFAULT_STORE, json_: JsonOption = False) -> None:
    """List the receivers and what each is notified of."""
    from normloom.prefect.notifications.notify import receivers
    from normloom.prefect.serving.at_server import at_server

    with at_server(store):
        found = receivers()
    if json_:
        print(json_text([vars(receiver) for receiver in found]))
        return
    for receiver in found:
        out.print(f"[bold]{receiver.name}[/]  {escaped(receiver.where)}  {', '.join(receiver.news)}", highlight=False)
    if not found:
        err.print("no receivers: normloom notify add")


@app.command("test")
def trial(
    name: Annotated[str, typer.Argument(help="The receiver.", show_default=False)], store: StoreOption = DEFAULT_STORE
) -> None:
    """Have the server send a test message as it sends all others, and wait for it."""
    from normloom.prefect.notifications.notify import send_test
    from normloom.prefect.serving.at_server import at_server

    with at_server(store):
        send_test(name)
    out.print(f"{name} was sent a message", highlight=False)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The receiver.", show_default=False)], store: StoreOption = DEFAULT_STORE
) -> None:
    """Remove a receiver with its address and secrets."""
    from normloom.prefect.notifications import notify
    from normloom.prefect.serving.at_server import at_server

    with at_server(store):
        notify.remove(name)
    out.print(f"{name} gets no more messages", highlight=False)


def _wanted(on: str, systems: list[str] | None, late_minutes: int) -> Subscription:
    from normloom.prefect.notifications.news import NEWS, Subscription
    from normloom.settings.systems import system_named

    asked = [word.strip() for word in on.split(",") if word.strip()]
    if not asked or not {*asked} <= {*NEWS}:
        raise UsageError(f"--on {on!r}: expected some of {', '.join(NEWS)}, separated by commas")
    for name in systems or ():
        system_named(name)
    news = [known for known in NEWS if known in asked]
    return Subscription(news=news, systems=tuple(systems or ()), late=timedelta(minutes=late_minutes))


def _add(name: str, block: Block, where: str, wanted: Subscription, store: Path) -> None:
    from normloom.prefect.notifications import notify
    from normloom.prefect.serving.at_server import at_server

    with at_server(store):
        notify.add(name, block, where, wanted)
    told = ", ".join(wanted.news)
    out.print(
        f"[bold]{name}[/] ({escaped(where)}) gets: {told}. Try it: normloom notify test {name}",
        highlight=False,
    )
