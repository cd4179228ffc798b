"""A small endpoint that speaks OpenAI's chat completions, looks at the images it is sent and hears the sounds.

It says whether all images are red and all sounds are loud.
"""

from __future__ import annotations

import base64
import io
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import soundfile
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image

from normloom.models import ModelSpec, load_model
from normloom.models.openai.engine import OpenaiModel

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
IMAGE_TOKENS = 85  # and of a sound
LOUD = 0.1


@dataclass
class SeeingServer:
    """What it was sent: (format, width, height, bytes) of each image, (format, rate, seconds, bytes) of each sound, and
    the bodies. If `blind` it refuses images, if `deaf` sounds, if `busy` whatever holds one.
    """

    base_url: str = ""
    blind: bool = False
    busy: bool = False
    deaf: bool = False
    images: list[tuple[str, int, int, int]] = field(default_factory=list)
    sounds: list[tuple[str, int, float, int]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def complete(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.bodies.append(body)
        found, words = [], 0
        for message in body["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if part["type"] == "text":
                    words += len(part["text"].split())
                    continue
                is_image = part["type"] == "image_url"
                if self.busy:
                    return JSONResponse({"error": {"message": "overloaded"}}, 503)
                if self.blind if is_image else self.deaf:
                    told = {"message": f"this model does not support {part['type']}", "code": "invalid"}
                    return JSONResponse({"error": told}, 400)
                try:
                    found.append(
                        self._is_red(part["image_url"]["url"]) if is_image else self._is_loud(part["input_audio"])
                    )
                except (ValueError, OSError, soundfile.LibsndfileError) as error:
                    return JSONResponse({"error": {"message": f"Invalid part: {error}", "code": "invalid"}}, 400)
        answer = "a" if all(found) else "b"
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": answer},
            "finish_reason": "stop",
        }
        if body.get("logprobs"):
            listed = [{"token": one, "logprob": math.log(0.8 if one == answer else 0.1)} for one in ("a", "b")]
            choice["logprobs"] = {"content": [{"token": answer, "logprob": math.log(0.8), "top_logprobs": listed}]}
        usage = {"prompt_tokens": words + IMAGE_TOKENS * len(found), "completion_tokens": 1}
        return JSONResponse({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    def _is_loud(self, part: dict[str, str]) -> bool:
        data = base64.b64decode(part["data"], validate=True)
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if str(sound.format).lower() != part["format"]:
                raise ValueError(f"{part['format']} is said, {sound.format} is sent")
            samples = sound.read(dtype="float32", always_2d=True)
            self.sounds.append((part["format"], sound.samplerate, len(samples) / sound.samplerate, len(data)))
        return float(abs(samples).mean()) > LOUD

    def _is_red(self, url: str) -> bool:
        head, _, encoded = url.partition(";base64,")
        data = base64.b64decode(encoded, validate=True)
        image = Image.open(io.BytesIO(data))
        if head != f"data:{TYPES[str(image.format)]}":
            raise ValueError(f"{head} is {image.format}")
        self.images.append((str(image.format), *image.size, len(data)))
        red, green, _ = image.convert("RGB").resize((1, 1)).tobytes()
        return bool(red > green)


@contextmanager
def seeing() -> Iterator[SeeingServer]:
    """Serve on loopback, in a thread."""
    server = SeeingServer()
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", server.complete, methods=["POST"], response_model=None)
    listening = socket.create_server(("127.0.0.1", 0))
    server.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    serving = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield server
    finally:
        serving.should_exit = True
        thread.join()
        listening.close()


def asked(server: SeeingServer, **options: object) -> OpenaiModel:
    """Return a model behind the server, which forgets what it was sent before."""
    for sent in (server.images, server.sounds, server.bodies):
        sent.clear()
    spec = ModelSpec(
        engine="openai", model="m", options={"base_url": server.base_url, "key_variable": None, "retries": 0, **options}
    )
    model = load_model(spec)
    assert isinstance(model, OpenaiModel)
    return model
