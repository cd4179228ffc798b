"""The batch interface of the scripted server: files, and batches that end when the test says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

Answer = Callable[[dict[str, Any], str], JSONResponse]


@dataclass
class Batches:
    """What was sent, and how it ends: `ends` is the status of batches, `expires` how many requests are left unanswered.

    A `kept` False says that files are gone; `forgets` says that metadata is not kept. `refusals` are the status and the
    message of answers to the next attempts to make a batch; `odd` says that answers are no chat
    completions.
    """

    ends: str = "in_progress"
    expires: int = 0
    kept: bool = True
    forgets: bool = False
    odd: bool = False
    refusals: list[tuple[int, str]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def add_to(self, app: FastAPI, answer: Answer) -> None:
        self._answer = answer
        app.add_api_route("/v1/files", self._upload, methods=["POST"], response_model=None)
        app.add_api_route("/v1/files/{name}/content", self._content, methods=["GET"], response_model=None)
        app.add_api_route("/v1/batches", self._create, methods=["POST"], response_model=None)
        app.add_api_route("/v1/batches/{name}/cancel", self._cancel, methods=["POST"], response_model=None)
        app.add_api_route("/v1/batches", self._list, methods=["GET"], response_model=None)

    async def _upload(self, request: Request) -> JSONResponse:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        parts: Any = message_from_bytes(head + await request.body()).get_payload()
        for part in parts:
            if 'name="file"' in part["Content-Disposition"]:
                name = f"file-{len(self.files)}"
                self.files[name] = part.get_payload(decode=True).decode()
                told = {
                    "object": "file",
                    "bytes": 1,
                    "created_at": 0,
                    "filename": "f",
                    "purpose": "batch",
                    "status": "processed",
                }
                return JSONResponse({"id": name, **told})
        return JSONResponse({"error": {"message": "no file"}}, 400)

    async def _content(self, name: str) -> Response:
        if not self.kept:
            return JSONResponse({"error": {"message": "no such file"}}, 404)
        return PlainTextResponse(self.files[name])

    async def _create(self, request: Request) -> JSONResponse:
        if self.refusals:
            status, message = self.refusals.pop(0)
            return JSONResponse({"error": {"message": message, "code": "refused"}}, status)
        batch = {
            **await request.json(),
            "id": f"batch_{len(self.sent)}",
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "key": request.headers.get("authorization", ""),
        }
        if self.forgets:
            batch["metadata"] = None
        self.sent.append(batch)
        return JSONResponse(batch)

    async def _cancel(self, name: str) -> JSONResponse:
        batch = next(one for one in self.sent if one["id"] == name)
        batch["status"] = "cancelled"
        return JSONResponse(batch)

    async def _list(self) -> JSONResponse:
        for batch in self.sent:
            if batch["status"] == "in_progress" and self.ends != "in_progress":
                self._end(batch)
        return JSONResponse({"object": "list", "data": self.sent[::-1], "has_more": False})

    def _end(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.ends
        if self.ends == "failed":
            batch["errors"] = {"object": "list", "data": [{"message": "enqueued token limit reached"}]}
            return
        asked = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        answered = asked[self.expires :]
        lines = []
        for line in answered:
            reply = self._answer(line["body"], batch["key"])
            body = json.loads(bytes(reply.body))
            body = ["no completion"] if self.odd else body
            response = {"status_code": reply.status_code, "request_id": "r", "body": body}
            lines.append({"custom_id": line["custom_id"], "response": response, "error": None})
        batch["output_file_id"] = self._kept(lines)
        gone = {"code": "batch_expired", "message": "This request could not be executed before the window ended."}
        late = [{"custom_id": line["custom_id"], "response": None, "error": gone} for line in asked[: self.expires]]
        batch["error_file_id"] = self._kept(late) if late else None

    def _kept(self, lines: list[dict[str, Any]]) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = "\n".join(json.dumps(line) for line in lines)
        return name
