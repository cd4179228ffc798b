"""The function of a step as the runner calls it, apart from the declaration: it is part of every step's source."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import polars as pl

from normloom.core.stage import NoArguments, Output

ARGS = "args"


class StepFunction:
    """The function of a step as the runner calls it; a process elsewhere imports it by name, if it has one."""

    def __init__(self, function: Callable[..., Output | pl.DataFrame]) -> None:
        functools.update_wrapper(self, function)
        self._takes_arguments = ARGS in inspect.signature(function).parameters

    def __call__(self, *given: Any, **named: Any) -> Output:
        """Call the function; a frame that it returns is all that it made."""
        if not self._takes_arguments:
            given = tuple(one for one in given if not isinstance(one, NoArguments))
        made: Output | pl.DataFrame = self.__wrapped__(*given, **named)  # type: ignore[attr-defined]  # update_wrapper's
        return Output(rows=made) if isinstance(made, pl.DataFrame) else made

    def __reduce__(self) -> tuple[Callable[..., StepFunction], tuple[Any, ...]]:
        function = self.__wrapped__  # type: ignore[attr-defined]  # update_wrapper's
        if _is_importable(function.__module__, function.__qualname__):
            return _imported, (function.__module__, function.__qualname__)
        return StepFunction, (function,)


def _is_importable(module: str, name: str) -> bool:
    """Return whether another process finds the step by its name: not in a script, a notebook or a file on its own."""
    from ray import cloudpickle

    if module == "__main__" or "<locals>" in name or module in cloudpickle.list_registry_pickle_by_value():
        return False
    return hasattr(getattr(sys.modules.get(module), name, None), "called")


def _imported(module: str, name: str) -> StepFunction:
    called: StepFunction = getattr(importlib.import_module(module), name).called
    return called
