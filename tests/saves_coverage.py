"""Ray's workers import it under `make coverage`, which without it sees little of what an actor does.

Ray kills its workers, so what they reach is saved as they go. It calls methods of actors that work at several parts in
threads of its own, which Python 3.11 does not trace by itself.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from coverage import Coverage
from ray._private.function_manager import FunctionActorManager

SECONDS = 0.5


def _save(measured: Coverage) -> None:
    while True:
        time.sleep(SECONDS)
        with suppress(Exception):  # what changes while it is read is saved the next time
            measured.save()


def _traced(make: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(make)
    def making(*arguments: Any) -> Any:
        execute = make(*arguments)

        @wraps(execute)  # Ray reads its attributes
        def executing(*given: Any, **named: Any) -> Any:
            if sys.gettrace() is None:
                sys.settrace(threading.gettrace())
            return execute(*given, **named)

        return executing

    return making


if measured := Coverage.current():
    threading.Thread(target=_save, args=(measured,), daemon=True).start()
    FunctionActorManager._make_actor_method_executor = _traced(FunctionActorManager._make_actor_method_executor)
