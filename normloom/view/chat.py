"""The chat of a user with a model, as the page asks for it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from normloom.settings.faces.chat_face import Conversation
from normloom.settings.systems import chat_systems
from normloom.store.store import Store

_Id = Annotated[str, Field(min_length=1, max_length=100)]


class Said(BaseModel):
    """A message; `key` is the page's own, so that one that is sent twice is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = Field(max_length=20_000)
    task: str = Field(max_length=1_000)
    key: _Id


class AboutRow(BaseModel):
    """A message or a fact, by its id."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    row: _Id


class Corrected(BaseModel):
    """What a fact is instead; with `none` it is no fact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fact: _Id
    none: bool = False
    relation: str = Field(default="", max_length=1_000)
    object: str = Field(default="", max_length=1_000)
    task: str = Field(default="", max_length=1_000)
    topic: str = Field(default="", max_length=1_000)


def add_chat(app: FastAPI, store: Store, chat: Conversation | None) -> None:
    """Let the page show the conversation that is open, or say how to open one."""

    @app.get("/api/chat")
    def state(version: Annotated[str, Query(max_length=100)] = "") -> dict[str, Any]:
        if chat is None:
            return {"open": False, "systems": sorted(set(chat_systems()) & set(store.systems()))}
        found = _told(chat)
        if found["version"] == version:  # nothing new but how much of a reply is written
            return {name: found[name] for name in ("open", "version", "pending")}
        return found

    if chat is not None:
        _talk(app, chat)


def _talk(app: FastAPI, chat: Conversation) -> None:
    @app.post("/api/chat/say")
    def say(given: Said) -> dict[str, Any]:
        chat.say(given.text, task=given.task, key=given.key)
        return _told(chat)

    @app.post("/api/chat/again")
    def again(given: AboutRow) -> dict[str, Any]:
        chat.ask_again(given.row)
        return _told(chat)

    @app.post("/api/chat/correct")
    def correct(given: Corrected) -> dict[str, Any]:
        values = () if given.none else (given.relation, given.object, given.task, given.topic)
        chat.correct(given.fact, values)
        return _told(chat)

    @app.post("/api/chat/reach")
    def reach(given: AboutRow) -> dict[str, Any]:
        return chat.reach(given.row)

    @app.post("/api/chat/delete")
    def delete(given: AboutRow) -> dict[str, Any]:
        return {"deleted": chat.delete(given.row), **_told(chat)}


def _told(chat: Conversation) -> dict[str, Any]:
    return {"open": True, **chat.state()}
