"""One user's conversation: what is said is kept, read for facts and answered; facts are corrected and deleted."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from normloom.core.errors import UsageError
from normloom.core.models.protocol import Completion, GenerateRequest, ModelSpec
from normloom.schemas.people.persona_tables import UNKNOWN
from normloom.store.forgotten import forgettings
from normloom.store.store import Store
from normloom.tasks.personas.chat.reading import UtteranceReader, topic_of
from normloom.tasks.personas.chat.record import ChatRecord, Learned, Turn
from normloom.tasks.personas.chat.replier import Replier
from normloom.tasks.personas.chat.scene import Scene
from normloom.tasks.personas.chat.taking_back import take_back, would_take_back
from normloom.tasks.personas.chat.talking import Asked, Talking, request_for

LONGEST = 2_000  # characters of a message
LONGEST_VALUE = 200  # of a corrected fact


class PersonaChat:
    """The conversation of a user (`who`) with a model about what is known of them, over the tables of a build.

    Any number of threads may call it. Raises UsageError if no build has published facts and an extractor.
    """

    def __init__(self, store: Store, system: str, who: str, *, model: ModelSpec, talking: Talking) -> None:
        self.store, self.system, self.who, self.talking = store, system, who, talking
        self.record = ChatRecord(store, system)
        self.reader = UtteranceReader(store, system)
        self.reader.find("I am here.", least=1)  # what it imports is there before somebody waits for it
        self._lock = threading.RLock()
        self._scene: tuple[str, Scene] | None = None
        self._look()
        self.replier = Replier(model)
        for turn in self._look().turns:  # said, but not read before the last process ended
            if not turn.read:
                self._learn(turn)

    def state(self) -> dict[str, Any]:
        """Return all that the page shows."""
        with self._lock:
            scene = self._look()
            pending = self.replier.pending
            model = {"title": self.replier.spec.title, "state": self.replier.state, "error": self.replier.failure}
            return {
                "system": self.system,
                "who": self.who,
                "model": model,
                "pending": pending,
                "version": _digest([scene.version, *sorted(pending), *model.values()]),
                "tasks": {**scene.tasks},
                "relations": sorted({*scene.relations, *self.reader.relations}),
                "turns": scene.told_turns(),
                "facts": scene.own_facts,
                "recommendations": scene.recommendations,
            }

    def say(self, text: str, *, task: str, key: str) -> None:
        """Keep a message, learn from it, and let the model answer it."""
        text = text.strip()
        with self._lock:
            scene = self._look()
            if not text or len(text) > LONGEST:
                raise UsageError(f"a message has 1 to {LONGEST:,} characters, this one {len(text):,}")
            if task not in scene.tasks:
                raise UsageError(f"unknown task {task!r}; available: {', '.join(scene.tasks)}")
            turn = self.record.turn_id(key)
            if scene.turn(turn) is not None:  # sent again by a page that did not hear the answer
                return
            self.record.say(self.who, text, task, key)
            said = self._look().turn(turn)
            if said is None:
                raise UsageError("this message was deleted: write it again")
            self._learn(said)
        self._ask(said)

    def ask_again(self, turn: str) -> None:
        """Let the model answer a message that has no reply."""
        with self._lock:
            scene = self._look()
            said = scene.turn(turn)
            if said is None:
                raise UsageError(f"unknown message {turn!r}")
            reply = scene.reply(turn)
            if reply is not None and reply.text is not None:
                raise UsageError("this message has a reply")
        self._ask(said)

    def correct(self, fact: str, values: Sequence[str]) -> None:
        """Keep what the user says a fact of theirs is (relation, object, task, topic), or that it is none."""
        with self._lock:
            scene = self._look()
            scene.require_own(fact)
            given = tuple(value.strip() for value in values)
            if given:
                _, _, task, topic = given
                if not all(given) or max(map(len, given)) > LONGEST_VALUE:
                    raise UsageError(f"a fact has a relation and an object, each of at most {LONGEST_VALUE} characters")
                if task not in scene.tasks or topic not in {*scene.tasks[task], UNKNOWN}:
                    raise UsageError(f"unknown topic {topic!r} of task {task!r}")
            self.record.correct(fact, given, self.who)

    def reach(self, row: str) -> dict[str, Any]:
        """Return what would be deleted with a message or fact of this user."""
        with self._lock:
            self._look().require_own(row)
            return would_take_back(self.record, row).as_json()

    def delete(self, row: str) -> dict[str, Any]:
        """Delete a message or fact of this user with everything derived from it."""
        with self._lock:
            self._look().require_own(row)
            return take_back(self.record, row, self.who).as_json()

    def close(self) -> None:
        """Let go of the model."""
        self.replier.close()

    def _learn(self, turn: Turn) -> None:
        facts = self._look().source
        found = self.reader.find(turn.text, least=self.talking.learn_at)
        learned = [
            Learned(
                id=self.record.fact_id(turn.id, number),
                turn=turn.id,
                fact=(
                    one.relation,
                    one.object,
                    turn.task,
                    topic_of(facts, turn.task, f"{one.relation} {one.object}", margin=self.talking.topic_margin),
                ),
                start=one.start,
                stop=one.stop,
                confidence=one.confidence,
            )
            for number, one in enumerate(found)
        ]
        self.record.learn(turn.id, learned, self.reader.title)

    def _ask(self, turn: Turn) -> None:
        self.replier.ask(turn.id, lambda complete: self._reply(turn, complete))

    def _reply(self, turn: Turn, complete: Callable[[GenerateRequest], Completion]) -> None:
        text, failure = None, ""
        drew_on: Sequence[str] = ()
        try:
            asked = self._request(turn)
            drew_on = asked.drew_on
            completion = complete(asked.request)
            failure = completion.error or ""
            text = completion.candidates[0].text.strip() if not failure else None
            if text == "":
                text, failure = None, "the model wrote nothing"
        except Exception as error:  # noqa: BLE001  # shown on the page, and the message is kept
            failure = str(error) or type(error).__name__
        with self._lock:
            gone = {row for one in forgettings(self.store) for row in one.reached}
            if gone.isdisjoint({turn.id, *drew_on}):  # else it would bring back what was deleted meanwhile
                model = self.replier.spec.title
                self.record.reply(turn.id, text, model, drew_on=drew_on, failure=failure)

    def _request(self, turn: Turn) -> Asked:
        with self._lock:
            scene = self._look()
            return request_for(
                turn,
                self.talking,
                earlier=scene.earlier(turn),
                facts=scene.own_facts,
                suggestions=[one for one in scene.recommendations if one["task"] == turn.task],
                attempt=scene.tries(turn.id),
            )

    def _look(self) -> Scene:
        """Return what there is now, put together again only if something was added."""
        version = Scene.version_of(self.record)
        if self._scene is None or self._scene[0] != version:
            self._scene = version, Scene.of(self.record, self.who, version=version)
        return self._scene[1]


def _digest(values: Iterable[object]) -> str:
    return hashlib.sha256("\x1f".join(map(str, values)).encode()).hexdigest()[:16]
