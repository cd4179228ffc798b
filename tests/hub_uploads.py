"""A small server that speaks as much of the Hugging Face hub's protocol as uploading a data set takes.

Repositories are created, files come in by commit (small ones in it, large ones by LFS before it), commits are tagged,
and what is there can be listed and read. Whoever sends another token than the server's is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

BRANCH = "main"


@dataclass
class Hub:
    """What the server holds: data sets by name, each with its files, commits and tags."""

    token: str
    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: dict[str, list[str]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    full: bool = False  # refuses commits

    def commit(self, name: str) -> str:
        return hashlib.sha1(f"{name} {len(self.commits[name])}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, hub = urlsplit(self.path).path, self.hub
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._json({"files": modes})
        elif path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [{**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}} for one in wanted]
            self._json({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self._commit(path.removeprefix("/api/datasets/").partition("/commit/")[0], body)
        elif "/tag/" in path:
            name, _, revision = path.removeprefix("/api/datasets/").partition("/tag/")
            tag = json.loads(body)["tag"]
            hub.tags[name][tag] = unquote(revision)
            self._json({})
        else:
            self._json({"error": f"unknown {path}"}, 404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = urlsplit(self.path).path.removeprefix("/lfs/")
        good = hashlib.sha256(content).hexdigest() == oid
        if good:
            self.hub.large[oid] = content
        self._json({}, 200 if good else 400)

    def do_GET(self) -> None:
        path, hub = urlsplit(self.path).path, self.hub
        if path.startswith("/api/datasets/") and "/tree/" in path:
            name = path.removeprefix("/api/datasets/").partition("/tree/")[0]
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in sorted(hub.files[name].items())
            ]
            self._json(entries)
        elif "/resolve/" in path:
            name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            self._content(name, unquote(rest.partition("/")[2]))
        else:
            self._json({"error": f"unknown {path}"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _create(self, asked: dict[str, Any]) -> None:
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        if name in self.hub.files:
            self._json(
                {"error": "You already created this dataset repo", "url": f"{self.hub.url}/datasets/{name}"}, 409
            )
            return
        self.hub.files[name], self.hub.commits[name], self.hub.tags[name] = {}, [], {}
        self.hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
        self._json({"url": f"{self.hub.url}/datasets/{name}", "name": name})

    def _commit(self, name: str, body: bytes) -> None:
        if self.hub.full:
            self._json({"error": "Storage limit reached"}, 403)
            return
        files = dict(self.hub.files[name])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                summary = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.files[name] = files
        self.hub.commits[name].append(summary)
        commit = self.hub.commit(name)
        self._json({"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{commit}", "commitOid": commit})

    def _content(self, name: str, path: str) -> None:
        content = self.hub.files.get(name, {}).get(path)
        if content is None:
            self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.commit(name))
        self._end(content)

    def _json(self, answer: Any, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self._end(json.dumps(answer).encode())

    def _end(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def hub_for_uploads(token: str) -> Iterator[Hub]:
    """Serve an empty hub on loopback; its `url` is to be the value of HF_ENDPOINT."""
    hub = Hub(token=token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
