"""normloom metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normloom.cli.common import DEFAULT_STORE, StoreOption
from normloom.core.errors import UsageError


def metrics(
    store: StoreOption = DEFAULT_STORE,
    textfile: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file atomically, for the node exporter's textfile collector.", show_default=False
        ),
    ] = None,
) -> None:
    """Print Prometheus metrics of a store: rows, drops and quarantine by reason, tokens, cost, builds, releases.

    normloom serve --metrics-port and normloom watch serve the same over HTTP, plus waiting runs.

    Examples:

        normloom metrics --textfile /var/lib/node_exporter/normloom.prom
    """
    from prometheus_client import generate_latest, write_to_textfile

    from normloom.prefect.notifications.prometheus import registry
    from normloom.store.store import Store

    figures = registry(Store(store))
    if textfile:
        try:
            write_to_textfile(str(textfile), figures)
        except OSError as error:
            raise UsageError(f"cannot write {textfile}: {error.strerror}; name a file that can be written") from error
    else:
        print(generate_latest(figures).decode(), end="")
