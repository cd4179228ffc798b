"""A page of this machine, served until Ctrl-C."""

from __future__ import annotations

import ipaddress
import webbrowser
from typing import TYPE_CHECKING

from normloom.cli.common import err, escaped, out

if TYPE_CHECKING:
    from normloom.view.serving import ViewServer


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_page(server: ViewServer, url: str, *, host: str, open_: bool) -> None:
    """Print the page's address, warn if other machines can reach it, open it if asked, and serve until Ctrl-C."""
    if not is_loopback(host):
        err.print(f"[yellow]{escaped(host)} can be reached by other machines, and the connection is not encrypted")
    out.print(escaped(url), highlight=False, soft_wrap=True)
    err.print("[dim]Ctrl-C ends it")
    if open_:
        webbrowser.open(url)
    server.run()
