"""A store of PersoPilot to talk over, and requests to the page of a conversation."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from normloom.core.models.protocol import ModelSpec
from normloom.core.table import Manifest
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.tasks.personas.chat.conversation import PersonaChat
from normloom.tasks.personas.chat.talking import Talking
from normloom.testing.inline import made
from normloom.view import ViewServer

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
FACTS = [
    ("ada", "Leisure", "Outdoor", "likes", "maps"),
    ("bob", "Leisure", "Outdoor", "likes", "walking along the river"),
    ("bob", "Leisure", "Outdoor", "likes", HOSTILE),
    ("cyd", "Leisure", "Outdoor", "likes", HOSTILE),
    ("cyd", "Leisure", "Home", "likes", "playing chess"),
    ("cyd", "Work", "Job", "works_as", "a baker"),
]
PETS, WORK = ("a dog", "a cat", "a parrot", "two rabbits"), ("a baker", "a nurse", "a pilot", "a weaver")
SCRIPTED = ModelSpec(engine="scripted", model="chatty", options={"words": 6})


def talk_store(folder: Path) -> Store:
    """Return a store in which a build has published facts and an extractor that knows pets and professions."""
    store = Store(folder / "store")
    (folder / "facts.csv").write_text("username,task,topic,relation,object\n" + "".join(map(_line, FACTS)))
    said = [(f"i have {pet} .", "i", pet, "have_pet") for pet in PETS]
    said += [(f"i work as {work} .", "i", work, "has_profession") for work in WORK]
    told = [("well , " + text, *rest) for text, *rest in said]
    (folder / "utterances.csv").write_text("text,subject,object,relation\n" + "".join(map(_line, [*said, *told])))
    rebuilt(store)
    return store


def rebuilt(store: Store) -> dict[str, Manifest]:
    """Build it, with what was said meanwhile."""
    folder = store.root.parent
    given = [f"source.path={folder / 'facts.csv'}", f"source.utterances={folder / 'utterances.csv'}"]
    return made("persopilot", stages_for("persopilot", profile="local", assignments=given, store=store).ends, store)


def _line(values: tuple[str, ...]) -> str:
    return ",".join('"' + value.replace('"', '""') + '"' for value in values) + "\n"


@contextmanager
def talk(store: Store, who: str = "ada", *, model: ModelSpec = SCRIPTED, **talking: Any) -> Iterator[ViewServer]:
    """Serve the conversation of a user."""
    chat = PersonaChat(store, "persopilot", who, model=model, talking=Talking(**talking))
    try:
        with ViewServer(store, chat=chat) as server:
            yield server
    finally:
        chat.close()


def ask(
    server: ViewServer, path: str = "", body: object = None, *, headers: dict[str, str] | None = None, **query: object
) -> tuple[int, Any]:
    """Return status and answer of a request to the chat, with the token unless `headers` are given."""
    address = urlsplit(server.url)
    sent = {"Authorization": f"Bearer {address.fragment.removeprefix('token=')}"} if headers is None else headers
    url = f"http://{address.netloc}/api/chat{path}{'?' if query else ''}{urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **sent})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text) if text.startswith("{") else text


def say(server: ViewServer, text: str, *, key: str, task: str = "Leisure") -> dict[str, Any]:
    """Say something, and return the conversation once it is answered."""
    status, state = ask(server, "/say", {"text": text, "task": task, "key": key})
    assert status == 200, state
    return settled(server)


def settled(server: ViewServer) -> dict[str, Any]:
    """Return the conversation once nothing waits for a reply."""
    while True:
        state: dict[str, Any] = ask(server)[1]
        if not state["pending"]:
            return state
        time.sleep(0.01)
