"""The Prefect server that commands about a store talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normloom.core.errors import UsageError
from normloom.prefect.server import serving, using_server


@contextmanager
def at_server(store: Path) -> Iterator[None]:
    """Use the server that PREFECT_API_URL names, or that serves the store; raises UsageError if there is none."""
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        yield
    elif url := serving(store):
        with using_server(url):
            yield
    else:
        raise UsageError(f"no Prefect server serves {store}: start normloom serve, or set PREFECT_API_URL")
