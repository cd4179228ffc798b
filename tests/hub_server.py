"""A small server that speaks as much of the Hugging Face hub's protocol as reading a data set's files takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    """Serves `files` (revision and path -> content) of the data set `name`."""

    name: str
    files: Mapping[tuple[str, str], bytes]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        api, resolve = f"/api/datasets/{self.name}", f"/datasets/{self.name}/resolve/"
        if path == api:
            self._json({"id": self.name, "sha": SHA, "private": False, "siblings": [], "tags": []})
        elif path.startswith(f"{api}/revision/"):
            known = self._revision(path.removeprefix(f"{api}/revision/")) is not None
            self._json({"id": self.name, "sha": SHA, "siblings": [], "tags": []} if known else None, "RevisionNotFound")
        elif path.startswith(f"{api}/tree/"):
            revision, _, folder = path.removeprefix(f"{api}/tree/").partition("/")
            self._json(self._tree(self._revision(revision), unquote(folder)), "EntryNotFound")
        elif path.startswith(resolve):
            revision, _, file = path.removeprefix(resolve).partition("/")
            self._content(self.files.get((self._revision(revision) or "", unquote(file))))
        else:
            self._json(None, "RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = parse_qs(body).get("paths") or json.loads(body)["paths"]
        revision = self._revision(urlsplit(self.path).path.rpartition("/paths-info/")[2])
        inside = [entry for entry in self._entries(revision) if entry["path"] in paths]
        self._json(inside)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _revision(self, quoted: str) -> str | None:
        asked = unquote(quoted)
        known = {revision for revision, _ in self.files}
        return asked if asked in known else "main" if asked == SHA and "main" in known else None

    def _entries(self, revision: str | None) -> list[dict[str, Any]]:
        files = {path: content for (at, path), content in self.files.items() if at == revision}
        folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
        tags = {path: hashlib.sha1(content).hexdigest() for path, content in files.items()}
        return [{"type": "directory", "oid": SHA, "size": 0, "path": path} for path in sorted(folders)] + [
            {"type": "file", "oid": tags[path], "size": len(files[path]), "path": path} for path in sorted(files)
        ]

    def _tree(self, revision: str | None, folder: str) -> list[dict[str, Any]] | None:
        inside = [one for one in self._entries(revision) if one["path"].rpartition("/")[0] == folder]
        return inside or None

    def _json(self, answer: Any, error: str = "EntryNotFound") -> None:
        content = json.dumps({"error": error} if answer is None else answer).encode()
        self.send_response(404 if answer is None else 200)
        if answer is None:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self._end(content)

    def _content(self, content: bytes | None) -> None:
        if content is None:
            self._json(None)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self._end(content)

    def _end(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def hub(name: str, files: Mapping[tuple[str, str], bytes]) -> Iterator[str]:
    """Serve a data set on loopback and give the address, to be the value of HF_ENDPOINT."""
    handler = type("Handler", (_Handler,), {"name": name, "files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
