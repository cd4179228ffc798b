"""normloom watch."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, StoreOption, out


def watch(
    store: StoreOption = DEFAULT_STORE,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve figures for Prometheus at http://HOST:PORT/metrics.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address of the figures.")] = "127.0.0.1",
) -> None:
    """Look after a store that builds are scheduled on: tell of stale releases, and serve figures for Prometheus.

    normloom serve does this too: it is for a Prefect server and workers that are started otherwise.

    Examples:

        PREFECT_API_URL=http://server:4200/api normloom watch --store /store --metrics-port 9464
    """
    from normloom.prefect.notifications.watch import watching
    from normloom.prefect.serving.at_server import at_server

    with at_server(store), watching(store, metrics_port=metrics_port, host=host):
        out.print("Ctrl-C stops it.")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
