"""The chat as its page asks for it, with a scripted model; and the page itself in a real browser with a real one."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import pytest
from browsing import CHROMIUM, CONTRAST, chromium
from command_line import until_ctrl_c
from openai_toys import spec_of
from playwright.sync_api import Page, expect
from receivers import free_port
from scripted_server import serving
from talks import HOSTILE, SCRIPTED, ask, rebuilt, say, settled, talk, talk_store
from typer.testing import CliRunner

from normloom.cli.app import app
from normloom.core.errors import UsageError
from normloom.core.models.protocol import ModelSpec, Sampling
from normloom.labelling.book import LabelBook
from normloom.store.store import Store
from normloom.tasks.personas.chat.record import ChatRecord
from normloom.tasks.personas.chat.replier import Replier
from normloom.tasks.personas.chat.scene import Scene
from normloom.view import ViewServer


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    talk_store(folder)
    return folder


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    shutil.copytree(built, tmp_path / "own")
    return Store(tmp_path / "own" / "store")


def test_a_message_is_read_for_facts_and_answered(store: Store) -> None:
    with talk(store) as server:
        before = ask(server)[1]
        assert [one["object"] for one in before["facts"]] == ["maps"]
        state = say(server, "Hello! 🙂 I have a parrot. Do you have a dog?", key="k1")
        [turn] = state["turns"]
        [fact] = turn["facts"]
        assert turn["text"][fact["start"] : fact["stop"]] == "a parrot"
        assert fact["now"] == {"relation": "have_pet", "object": "a parrot", "task": "Leisure", "topic": "unknown"}
        assert (fact["origin"], fact["confidence"] > 0.5) == ("model", True)
        assert turn["reply"]["text"].endswith(".")
        assert set(turn["reply"]["drew_on"]) == {one["fact"] for one in state["facts"]}  # maps, and the parrot
        assert state["model"]["state"] == "ready"


def test_a_recommendation_names_the_facts_it_rests_on(store: Store) -> None:
    with talk(store) as server:
        state = ask(server)[1]
        [first, *_] = [one for one in state["recommendations"] if one["topic"] == "Outdoor"]
        assert (first["object"], first["users"], len(first["facts"])) == (HOSTILE, 2, 2)
        assert first["own"] == [state["facts"][0]["fact"]]
        known = set(store.scan(store.current("persopilot", "facts").ref).collect()["row_id"])  # type: ignore[union-attr]  # it is there
        assert set(first["facts"]) <= known


def test_what_is_said_lasts_and_two_pages_see_the_same(store: Store) -> None:
    with talk(store) as server:
        one = say(server, "I have a dog.", key="k1")
        other = say(server, "I work as a pilot.", key="k2", task="Work")
        assert [turn["text"] for turn in other["turns"]] == ["I have a dog.", "I work as a pilot."]
        assert ask(server, version=other["version"])[1] == {"open": True, "version": other["version"], "pending": {}}
        assert ask(server, version=one["version"])[1]["turns"] == other["turns"]
        say(server, "I have a dog.", key="k1")  # sent again: its answer was lost on the way
        assert len(ask(server)[1]["turns"]) == 2
    with talk(store) as server:  # of another process
        assert ask(server)[1]["turns"] == other["turns"]
    with talk(store, "bob") as server:
        assert ask(server)[1]["turns"] == []
        [fact] = other["turns"][0]["facts"]
        for path in ("/reach", "/delete"):
            status, told = ask(server, path, {"row": fact["fact"]})
            assert (status, "is not a message or fact of bob" in told["error"]) == (422, True)


def test_a_model_that_fails_loses_nothing_and_its_reply_is_null(store: Store) -> None:
    failing = ModelSpec(engine="scripted", model="m", options={"overflow_on": "dog", "raise_on": "cat"})
    with talk(store, model=failing, turns=0, facts=0) as server:
        state = say(server, "I have a dog.", key="k1")
        state = say(server, "I have a cat.", key="k2")
        dog, cat = (turn["reply"] for turn in state["turns"])
        assert (dog["text"], cat["text"]) == (None, None)
        assert "do not fit" in dog["failure"]
        assert "scripted failure" in cat["failure"]
        assert [turn["facts"][0]["now"]["object"] for turn in state["turns"]] == ["a dog", "a cat"]
    answers = LabelBook(store, "chat_persopilot", "model").answers()
    assert [answer.value for answer in answers if answer.question == "reply"] == [None, None]
    with talk(store) as server:
        turn = state["turns"][0]["turn"]
        assert ask(server, "/again", {"row": turn})[0] == 200
        state = settled(server)
        assert state["turns"][0]["reply"]["text"]
        assert ask(server, "/again", {"row": turn}) == (422, {"error": "this message has a reply"})


def test_an_endpoint_replies_and_one_that_is_away_is_named(store: Store) -> None:
    with serving(key=None) as endpoint:
        away = endpoint.base_url
        with talk(store, model=spec_of(away, key_variable=None, batch=True)) as server:
            assert say(server, "I have a dog.", key="k1")["turns"][0]["reply"]["text"]
    with (
        serving(key=None, messages={"bird": {"content": " "}}) as silent,
        talk(store, model=spec_of(silent.base_url, key_variable=None)) as server,
    ):
        assert say(server, "I have a bird.", key="k0")["turns"][-1]["reply"]["failure"] == "the model wrote nothing"
    with talk(store, model=spec_of(away, key_variable=None)) as server:
        reply = say(server, "I have a cat.", key="k2")["turns"][-1]["reply"]
        assert (reply["text"], reply["failure"] != "") == (None, True)


def test_a_model_that_cannot_be_loaded_is_named_and_messages_are_kept(store: Store) -> None:
    with talk(store, model=ModelSpec(engine="scripted", model="m", options={"wrong": 1})) as server:
        state = say(server, "I have a dog.", key="k1")
        assert state["model"]["state"] == "failed"
        assert "wrong" in state["model"]["error"]
        assert state["turns"][0]["reply"]["text"] is None
        assert state["turns"][0]["facts"][0]["now"]["object"] == "a dog"


def test_a_kill_between_message_and_reply_is_made_up_for(store: Store) -> None:
    with talk(store) as server:
        pass
    from normloom.tasks.personas.chat.record import ChatRecord

    turn = ChatRecord(store, "persopilot").say("ada", "I have a cat.", "Leisure", "k1")  # and there it ended
    with talk(store) as server:
        [found] = ask(server)[1]["turns"]
        assert (found["turn"], found["facts"][0]["now"]["object"], found["reply"]) == (turn, "a cat", None)
        assert ask(server, "/again", {"row": turn})[0] == 200
        assert settled(server)["turns"][0]["reply"]["text"]


def test_a_corrected_fact_counts_here_and_in_the_next_build(store: Store) -> None:
    with talk(store) as server:
        state = say(server, "I have a dog.", key="k1")
        [fact] = state["turns"][0]["facts"]
        given = {"fact": fact["fact"], "relation": "have_pet", "object": "a wolf", "task": "Leisure", "topic": "Home"}
        assert ask(server, "/correct", given)[0] == 200
        state = ask(server, "/correct", {"fact": state["facts"][0]["fact"], "none": True})[1]
        assert [(one["object"], one["origin"]) for one in state["facts"]] == [("a wolf", "person")]
        told = state["turns"][0]["facts"][0]
        assert (told["read"]["object"], told["now"]["object"], told["origin"]) == ("a dog", "a wolf", "person")
        assert {one["topic"] for one in state["recommendations"]} == {"Outdoor", "Home"}
        for wrong in ({"topic": "Moon"}, {"task": "Moon"}, {"object": " "}, {"object": "x" * 201}, {"fact": "f"}):
            assert ask(server, "/correct", {**given, **wrong})[0] == 422
    known = store.scan(rebuilt(store)["known"].ref).collect().filter(username="ada")
    assert known.select("object", "topic", "origin").rows() == [("a wolf", "Home", "person")]


def test_a_deletion_is_shown_first_and_reaches_replies_tables_and_the_next_build(store: Store) -> None:
    with talk(store) as server:
        state = say(server, "I have a dog.", key="k1")
        state = say(server, "Is it so?", key="k2")
        fact = state["turns"][0]["facts"][0]["fact"]
        assert fact in state["turns"][1]["reply"]["drew_on"]
        rebuilt(store)
        reach = ask(server, "/reach", {"row": fact})[1]
        assert [one["text"] for one in reach["messages"]] == ["I have a dog."]
        assert (len(reach["facts"]), reach["replies"]) == (1, 2)
        assert {"persopilot/turns", "persopilot/known", "persopilot/personas"} <= {
            one["table"] for one in reach["tables"]
        }
        assert len(ask(server)[1]["turns"]) == 2
        state = ask(server, "/delete", {"row": fact})[1]
        assert state["deleted"] == reach
        assert [(turn["text"], turn["reply"], turn["reply_deleted"]) for turn in state["turns"]] == [
            ("Is it so?", None, True)
        ]
        assert [one["object"] for one in state["facts"]] == ["maps"]
        assert ask(server, "/delete", {"row": fact})[0] == 422
        state = ask(server, "/delete", {"row": state["facts"][0]["fact"]})[1]
        assert (state["facts"], state["recommendations"]) == ([], [])
    tables = rebuilt(store)
    assert "ada" not in set(store.scan(tables["known"].ref).collect()["username"])
    assert tables["facts"].dropped_by == {"forgotten": 1}


def test_a_message_that_is_unknown_or_was_deleted_gets_no_reply(store: Store) -> None:
    with talk(store) as server:
        state = say(server, "I have a dog.", key="k1")
        [turn] = state["turns"]
        assert ask(server, "/again", {"row": turn["turn"]}) == (422, {"error": "this message has a reply"})
        assert ask(server, "/again", {"row": "x"}) == (422, {"error": "unknown message 'x'"})
        ask(server, "/delete", {"row": turn["turn"]})
        body = {"text": "I have a dog.", "task": "Leisure", "key": "k1"}
        assert ask(server, "/say", body) == (422, {"error": "this message was deleted: write it again"})


def test_messages_that_are_none_and_requests_without_the_token_are_refused(store: Store) -> None:
    with talk(store) as server:
        for body in ({"text": " "}, {"text": "x" * 2001}, {"task": "Moon"}, {"key": ""}, {"more": 1}):
            assert ask(server, "/say", {"text": "Hello", "task": "Leisure", "key": "k", **body})[0] == 422
        for path in ("", "/say", "/again", "/correct", "/reach", "/delete"):
            sent = None if not path else {"row": "x"}
            assert ask(server, path, sent, headers={})[0] == 403
            assert ask(server, path, sent, headers={"Authorization": "Bearer wrong"})[0] == 403
        token = server.url.partition("token=")[2]
        foreign = {"Authorization": f"Bearer {token}", "Origin": "http://evil.example"}
        assert ask(server, "/say", {"text": "Hello", "task": "Leisure", "key": "k"}, headers=foreign)[0] == 403
        assert ask(server)[1]["turns"] == []
    with ViewServer(store) as server:  # normloom view: it only reads
        assert ask(server)[1] == {"open": False, "systems": ["persopilot"]}
        assert ask(server, "/say", {"text": "Hello", "task": "Leisure", "key": "k"})[0] in (404, 405)


def test_systems_without_a_chat_and_stores_without_a_build_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["chat", "savacu", "--no-open"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == "savacu has no chat; systems with one: persopilot"
    result = CliRunner().invoke(app, ["chat", "persopilot", "--no-open", "--store", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "run normloom build persopilot first" in str(result.exception)
    result = CliRunner().invoke(app, ["chat", "persopilot", "--no-open", "--set", "models.assistant=null"])
    assert isinstance(result.exception, UsageError)
    assert "models.assistant: the chat needs a model that replies" in str(result.exception)
    with pytest.raises(UsageError, match="no extractor of persopilot"), talk(Store(tmp_path), model=SCRIPTED):
        pass
    with pytest.raises(UsageError, match="no facts of persopilot"):
        Scene.of(ChatRecord(Store(tmp_path), "persopilot"), "ada", version="")


def test_the_page_of_the_command_is_served_until_ctrl_c(store: Store) -> None:
    port = free_port()
    given = ["--no-open", "--port", str(port), "--who", "ada", "--set", "models.assistant={engine: scripted, model: m}"]
    ran = until_ctrl_c(f"http://127.0.0.1:{port}/", "chat", "persopilot", *given, "--store", str(store.root))
    assert ran.code == 130
    assert ran.out.endswith("&view=chat\n")


def test_a_message_that_waits_for_its_reply_is_not_asked_twice() -> None:
    replied = threading.Event()
    replier = Replier(SCRIPTED)

    def wait(_: object) -> None:
        replied.wait()

    assert replier.ask("one", wait)
    assert not replier.ask("one", lambda _: None)
    replied.set()
    replier.close()
    assert replier.pending == {}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to talk in")
def test_by_keyboard_with_the_embedded_model_in_two_tabs_light_and_dark(store: Store) -> None:
    embedded = ModelSpec(model="SmolLM2-135M-Instruct", threads=1)
    with (
        chromium() as browser,
        talk(store, model=embedded, sampling=Sampling(max_tokens=4)) as server,
    ):
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}&view=chat")
        expect(page.get_by_role("textbox", name="Message")).to_be_focused()
        page.keyboard.type(f"Well, I have a dog. {HOSTILE}")
        page.reload()  # a message that is not sent yet is still there
        expect(page.get_by_role("textbox", name="Message")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".message.mine .prose")).to_contain_text(HOSTILE)
        expect(page.locator(".message.mine mark").first).to_have_text("a dog")
        expect(page.locator(".message.reply .prose")).to_have_text(re.compile(r"\w"))
        other = browser.new_page(color_scheme="light")
        other.goto(f"{server.url}&view=chat")
        say_on(other, "I work as a nurse.")
        expect(page.locator(".message.mine")).to_have_count(2)
        expect(page.locator(".message.reply .prose")).to_have_count(2)
        expect(other.locator("#known")).to_contain_text("have pet: a dog")
        for one in (page, other):
            assert one.evaluate(CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        correct_and_delete(page)
        expect(other.locator(".message.mine")).to_have_count(1)
        page.reload()
        expect(page.locator(".message.mine")).to_have_count(1)
        page.get_by_text("Why? 2 others have it").click()
        expect(page.locator("#offers")).to_contain_text(HOSTILE)
        expect(page.locator("#offers li", has_text=HOSTILE)).to_contain_text("likes: maps")
        assert [page.title(), other.title()] == ["Normloom", "Normloom"]
        assert page.locator("main img, dialog img").count() == 0
        assert complaints == []


def say_on(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".message.reply .prose")).to_have_count(2)


def correct_and_delete(page: Page) -> None:
    """Correct what was learned first, then delete it, by keyboard."""
    page.get_by_role("button", name="Correct have pet: a dog").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Object")).to_be_focused()
    assert page.evaluate(CONTRAST) == []
    page.get_by_label("Object").fill("a wolf")
    page.keyboard.press("Enter")
    expect(page.locator(".learned").first).to_contain_text("have pet: a wolf")
    expect(page.locator(".learned").first).to_contain_text("corrected by you")
    page.get_by_role("button", name="Delete have pet: a wolf").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_contain_text("Well, I have a dog.")
    expect(page.locator("dialog")).to_contain_text("2 replies of the model")
    expect(page.get_by_role("button", name="Delete all of it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#deleted")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".message.reply").first).to_contain_text("The reply was deleted")
