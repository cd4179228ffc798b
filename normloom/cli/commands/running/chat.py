"""normloom chat."""

from __future__ import annotations

from typing import Annotated

import typer

from normloom.cli.common import (
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    ProfileOption,
    SetOption,
    StoreOption,
    SystemArgument,
)
from normloom.cli.pages import serve_page


def chat(
    system: SystemArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    who: Annotated[
        str | None,
        typer.Option(
            help="The user who talks: one in the data, or a new one.",
            envvar="NORMLOOM_WHO",
            show_default="the user of this machine",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Talk with a model about what is known of you, in a browser.

    The extractor trained by a build finds facts in your messages: the page shows which words state which fact, what is
    recommended and which facts support it. A fact can be corrected; a fact or message can be deleted with everything
    derived from it, after the page has shown what that is. Messages, facts and corrections are stored at once and used
    from the next build on.

    The model is the profile's; it is loaded once. If it fails, the page says why, and the messages are kept. It is the
    page of normloom view, on this machine only and with a token in its address. docs/persopilot.md.

    Keys: Enter sends, Shift+Enter starts a new line, Esc closes a dialog.

    Examples:

        normloom build persopilot, then normloom chat persopilot

        normloom chat persopilot --who person_03 --profile ollama

        normloom chat persopilot --set chat.sampling.max_tokens=60 --port 8765 --no-open
    """
    from normloom.core.errors import UsageError
    from normloom.labelling.queue import person
    from normloom.settings.config import load_profile, override, validated
    from normloom.settings.systems import chat_systems, system_named
    from normloom.store.store import Store
    from normloom.view.serving import ViewServer

    chosen = system_named(system)
    if chosen.chat is None:
        raise UsageError(f"{chosen.name} has no chat; systems with one: {', '.join(chat_systems())}")
    config, _ = validated(
        chosen.config, override(load_profile(profile, chosen.name, chosen.config.roles()), set_ or [])
    )
    where = Store(store)
    talk = chosen.chat(config, where, person(who))
    try:
        server = ViewServer(where, chat=talk, host=host, port=port)
        serve_page(server, f"{server.url}&view=chat", host=host, open_=open_)
    finally:
        talk.close()
