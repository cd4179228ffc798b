"""The model of a chat: loaded once, it answers one message after another in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Literal

from normloom.core.errors import ModelError
from normloom.core.models.protocol import Closing, Completion, GenerateRequest, LanguageModel, ModelSpec
from normloom.models import load_model
from normloom.models.requests.progress import listening

log = logging.getLogger("normloom")

PATIENCE_S = 10.0
ModelState = Literal["loading", "ready", "failed"]
Answer = Callable[[Callable[[GenerateRequest], Completion]], None]


class Replier:
    """A resident model with a queue of messages to answer, by turn.

    `answer` of a turn is called in the thread with a function that asks the model, or raises what loading the model
    raised. If it raises, the turn has no reply and is not pending any more, and the thread answers the next one.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        if spec.engine == "openai":  # somebody waits for the answer: not for a day, nor for an endpoint that is away
            self.spec = spec.model_copy(update={"options": {"retries": 1, **spec.options, "batch": False}})
        self.state: ModelState = "loading"
        self.failure = ""
        self._model: LanguageModel | None = None
        self._waiting: dict[str, float | None] = {}
        self._asked: queue.SimpleQueue[tuple[str, Answer] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="chat", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> dict[str, float | None]:
        """The turns that wait for a reply, with the share that is written of the one at work."""
        return dict(self._waiting)

    def ask(self, turn: str, answer: Answer) -> bool:
        """Queue a turn; False if it is waiting already."""
        if turn in self._waiting:
            return False
        self._waiting[turn] = None
        self._asked.put((turn, answer))
        return True

    def close(self) -> None:
        """End after the message at work, for which it waits some seconds, and let go of the model."""
        self._asked.put(None)
        self._thread.join(PATIENCE_S)
        if isinstance(self._model, Closing) and not self._thread.is_alive():
            self._model.close()

    def _work(self) -> None:
        self._load()
        while (asked := self._asked.get()) is not None:
            turn, answer = asked
            if self._model is None:
                self._load()  # whatever was missing may be there now
            try:
                with listening(lambda share, turn=turn: self._tell(turn, share)):  # type: ignore[misc]  # of this turn
                    answer(self._complete)
            except Exception:
                log.exception("the reply to message %s could not be stored; ask again", turn)
            finally:
                self._waiting.pop(turn, None)

    def _tell(self, turn: str, share: float) -> None:
        self._waiting[turn] = share

    def _load(self) -> None:
        self.state = "loading"
        try:
            model = load_model(self.spec, threads=self.spec.threads)
        except Exception as error:  # noqa: BLE001  # whatever it is, the page shows it and what is said is kept
            self.state, self.failure = "failed", str(error) or type(error).__name__
            return
        assert isinstance(model, LanguageModel)
        self._model, self.state, self.failure = model, "ready", ""

    def _complete(self, request: GenerateRequest) -> Completion:
        if self._model is None:
            raise ModelError(self.failure)
        return self._model.generate([request])[0]
