"""Files of web servers."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from normloom.core.errors import SourceError
from normloom.readers.opening import FORMATS, format_of
from normloom.readers.remote.cache import Download, keep

_TIMEOUT = 60.0  # seconds without a byte


def fetch_http(url: str, name: str) -> Path:
    """Return the local copy of a file; `name` is how the URL is called in messages. Raises SourceError."""
    filename = unquote(urlsplit(url).path).rstrip("/").rsplit("/", 1)[-1]
    if not format_of(filename):
        raise SourceError(
            f"{name} does not end in the name of a file that can be read: expected one of {', '.join(FORMATS)}"
        )

    def fetch(target: Path, known: str | None) -> str | None:
        import httpx

        # No transport encoding: what a server compresses on the way would be another file than the one it has
        headers = {"Accept-Encoding": "identity", **({"If-None-Match": known} if known else {})}
        with (
            httpx.Client(follow_redirects=True, timeout=_TIMEOUT, trust_env=not _is_loopback(url)) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code == httpx.codes.NOT_MODIFIED:
                return known
            if answer.status_code != httpx.codes.OK:
                raise SourceError(f"{name} cannot be fetched: the server answered {answer.status_code}")
            with target.open("wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            tag: str | None = answer.headers.get("ETag")
            return tag

    return keep(Download(address=url, filename=filename, fetch=fetch))


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
