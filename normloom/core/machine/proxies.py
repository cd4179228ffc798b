"""Proxy variables of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY): loopback is kept out of them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from urllib.parse import urlsplit

from normloom.core.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SCHEMES = ("http", "https", "socks5", "socks5h")
_NAMES = ("http_proxy", "https_proxy", "all_proxy")


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep clients of this process, and of those it starts, from reaching this machine through a proxy.

    Clients set up all proxies of the environment before they read NO_PROXY, so an unusable one breaks every request.
    Raises UsageError with the variable's name, never its value, which may hold a password.
    """
    found = [(name, value.strip()) for name, value in environment.items() if name.lower() in _NAMES and value.strip()]
    for name, value in found:
        scheme = value.partition("://")[0].lower() if "://" in value else "http"
        if scheme == "socks":  # as desktops write it
            environment[name] = f"socks5{value[len(scheme) :]}"
        elif scheme not in SCHEMES or not _is_address(value):
            raise UsageError(
                f"the environment variable {name} is not a usable proxy; unset it, or set it to an address "
                f"such as http://proxy.example.com:3128 ({', '.join(SCHEMES)})"
            )
    if found:
        listed = [entry.strip() for entry in _proxies().get("no", "").split(",") if entry.strip()]
        spared = ",".join([*listed, *(name for name in LOOPBACK if name not in listed)])
        environment["no_proxy"] = environment["NO_PROXY"] = spared


def proxy_variable(url: str) -> str | None:
    """Return the name of the variable whose proxy is used for `url`, None for a direct connection."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _spared(host, parts.port):
        return None
    kinds = [kind for kind in (parts.scheme, "all") if _proxies().get(kind)]
    names = [f"{kind}_proxy" for kind in kinds]
    return next((name for name in os.environ if name.lower() in names), names[0] if names else None)


def _spared(host: str, port: int | None) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_loopback or any(address in network for network in _networks()):
            return True
    from urllib.request import proxy_bypass

    return bool(proxy_bypass(f"{host}:{port}" if port else host))


def _proxies() -> dict[str, str]:
    from urllib.request import getproxies  # of all that a command imports to say --help, a tenth

    return getproxies()


def _networks() -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Yield the networks of NO_PROXY, which urllib does not read."""
    for entry in _proxies().get("no", "").split(","):
        if "/" in entry:
            with suppress(ValueError):
                yield ipaddress.ip_network(entry.strip(), strict=False)


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
