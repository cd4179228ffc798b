"""normloom view."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from normloom.cli.common import DEFAULT_STORE, StoreOption
from normloom.cli.pages import serve_page


def view(
    system: Annotated[str | None, typer.Argument(help="Open the released table of this system.")] = None,
    table: Annotated[str | None, typer.Option(help="Open the table of this stage.", show_default="the release")] = None,
    store: StoreOption = DEFAULT_STORE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
    label: Annotated[
        bool, typer.Option("--label", help="Take answers to queues; without it the page is read-only.")
    ] = False,
    who: Annotated[
        str | None,
        typer.Option(help="Who answers.", envvar="NORMLOOM_WHO", show_default="the user of this machine"),
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Browse the rows of a store: filter, sort, search, SQL, one row's history, two builds compared.

    The page is read-only; with --label it also records answers. It listens on this machine only, and its address
    contains a token, so that other users of the machine cannot read it. Images and texts that may be offensive are
    blurred until revealed. To use it from another machine, forward the port: ssh -L 8765:127.0.0.1:8765 HOST.

    Keys: / search, j and k move, Enter opens a row, Esc closes it, b shows or blurs texts. Labels: 1 to 9 choose, Enter
    saves, s skips, u undoes the last answer.

    Examples:

        normloom view

        normloom view savacu --port 8765 --no-open

        normloom view savacu --table judge_0

        normloom view --label --who ada
    """
    from normloom.core.errors import UsageError
    from normloom.labelling.queue import person
    from normloom.settings.systems import name_of
    from normloom.store.store import Store
    from normloom.view.serving import ViewServer

    where = Store(store)
    chosen = name_of(system) if system else None
    where.require(chosen)
    if table and (chosen is None or where.current(chosen, table) is None):
        raise UsageError(
            f"{chosen} has no table {table!r}: normloom tables {chosen} lists them"
            if chosen
            else "--table needs a system: normloom view SYSTEM --table STAGE"
        )
    server = ViewServer(where, who=person(who) if label else None, host=host, port=port)
    given = {"system": chosen, "stage": table}
    url = server.url + "".join(f"&{name}={quote(value)}" for name, value in given.items() if value)
    serve_page(server, url, host=host, open_=open_)
