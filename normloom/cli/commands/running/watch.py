"""normloom watch."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, StoreOption, out

WAKE_SECONDS = 1.0  # a wait without an end would not see Ctrl-C: Polars' handler of it lets waits continue


def watch(
    store: StoreOption = DEFAULT_STORE,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at http://HOST:PORT/metrics.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve the metrics on.")] = "127.0.0.1",
) -> None:
    """Watch a store: notify of stale releases and serve Prometheus metrics.

    normloom serve does this too; use watch with a Prefect server and workers started in other ways.

    Examples:

        PREFECT_API_URL=http://server:4200/api normloom watch --store /store --metrics-port 9464
    """
    from normloom.prefect.notifications.watch import watching
    from normloom.prefect.serving.at_server import at_server
    from normloom.store.store import Store

    with (
        suppress(KeyboardInterrupt),
        at_server(Store(store).home),
        watching(store, metrics_port=metrics_port, host=host),
    ):
        out.print("Ctrl-C stops it.")
        while True:
            time.sleep(WAKE_SECONDS)
