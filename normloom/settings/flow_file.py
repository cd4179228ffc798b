"""A system in a user's own file, without a package or an entry point."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, get_type_hints

from normloom.core.errors import ConfigError, NormloomError, cause
from normloom.core.stage import Stage
from normloom.settings.system import System
from normloom.settings.system_config import SystemConfig

FUNCTION = "flow"
PREFIX = "file_"  # of names that stand for files


class FlowConfig(SystemConfig):
    """The settings of a flow that declares none of its own."""


def attribute_of(name: str) -> str:
    """Return a name under which a module's `__getattr__` can find the file again, in any process of this machine."""
    file, colon, wanted = name.partition(":")
    return PREFIX + f"{Path(file).resolve()}{colon}{wanted}".encode().hex()


def named_by(attribute: str) -> str | None:
    """Return the `FILE.py` or `FILE.py:NAME` that `attribute_of` gave the name, None for any other name."""
    if not attribute.startswith(PREFIX):
        return None
    return bytes.fromhex(attribute.removeprefix(PREFIX)).decode()


def system_of(name: str) -> System:
    """Return the system of `FILE.py` or `FILE.py:NAME`, called as the file is.

    NAME is a `System`, or a function that returns the last stages: of its settings, if it takes some, whose type it
    declares. Without it the file has one System, or a function `flow`. Raises ConfigError.
    """
    file, _, wanted = name.partition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise ConfigError(f"{file} is not a file")
    module = _loaded(path, path.stat().st_mtime_ns)
    if wanted and not hasattr(module, wanted):
        raise ConfigError(f"{file} has no {wanted!r}; {_there(module)}")
    found = getattr(module, wanted) if wanted else _only(module, file)
    if isinstance(found, System):
        return found
    if not inspect.isfunction(found):
        raise ConfigError(f"{name}: expected a System or a function, got {type(found).__name__}")
    return System(name=path.stem, title=path.stem, config=_config(found, name), flow=_flow(found, path))


@cache
def _loaded(path: Path, changed: int) -> ModuleType:  # noqa: ARG001  # a file that has changed is imported again
    """Import a file under a name of its own; workers get its functions and classes by value."""
    from ray import cloudpickle

    place = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()  # keys find a module's source by its name
    spec = importlib.util.spec_from_file_location(f"normloom_flow_{path.stem}_{place}", path)
    assert spec is not None  # of a name that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise ConfigError(f"{path} cannot be imported: {cause(error)}{_line(error, path)}") from error
    cloudpickle.register_pickle_by_value(module)
    return module


def _only(module: ModuleType, file: str) -> object:
    systems = [value for value in vars(module).values() if isinstance(value, System)]
    if len(systems) == 1:
        return systems[0]
    if not systems and hasattr(module, FUNCTION):
        return getattr(module, FUNCTION)
    raise ConfigError(
        f"{file}: expected one System or a function {FUNCTION!r}; name one as {file}:NAME; {_there(module)}"
    )


def _there(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, System) or (inspect.isfunction(value) and value.__module__ == module.__name__)
    ]
    return f"it has {', '.join(own) or 'neither'}"


def _config(function: Callable[..., Any], name: str) -> type[SystemConfig]:
    parameters = list(inspect.signature(function).parameters)
    if not parameters:
        return FlowConfig
    kind = get_type_hints(function).get(parameters[0])
    if not (isinstance(kind, type) and issubclass(kind, SystemConfig)):
        raise ConfigError(f"{name}: parameter {parameters[0]!r} must be declared as a SystemConfig")
    return kind


def _flow(function: Callable[..., Any], path: Path) -> Callable[..., list[Stage]]:
    takes_settings = bool(inspect.signature(function).parameters)

    def stages(config: SystemConfig) -> list[Stage]:
        try:
            made = function(config) if takes_settings else function()
        except NormloomError:
            raise
        except Exception as error:
            told = f"{path}: {function.__name__}() failed: {cause(error)}{_line(error, path)}"
            raise ConfigError(told) from error
        return [made] if isinstance(made, Stage) else made

    return stages


def _line(error: BaseException, path: Path) -> str:
    """Name the last line of the file that an error passed; "" if the error names it itself or has passed none."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""
