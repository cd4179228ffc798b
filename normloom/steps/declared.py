"""What a declaration of a step may say: the type of each option, with an example for messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from normloom.core.compared import Compared
from normloom.core.contract import Contract
from normloom.core.fan_out import FanOut
from normloom.core.models.needs import Needs

Allows = Callable[[Any], bool]


def _is_text(given: Any) -> bool:
    return isinstance(given, str) and bool(given)


def _are_texts(given: Any) -> bool:
    return isinstance(given, tuple) and all(map(_is_text, given))


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given > 0


def _is_share(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= 1


def _a(*kinds: type) -> Allows:
    return lambda given: isinstance(given, kinds)


_OPTIONS: Mapping[str, tuple[Allows, str]] = {
    "makes": (
        lambda given: isinstance(given, Contract | Mapping) or callable(given),
        'columns with their Polars types, such as {"prompt": pl.String}, a Contract, or a function that returns one',
    ),
    "name": (_is_text, 'text, such as "rate_{rater}"'),
    "part_rows": (_is_count, "a whole number of at least 1, such as 128"),
    "sides_on": (_is_text, 'the name of a column, such as "prompt_id"'),
    "looks_up": (_are_texts, 'names of columns in a tuple, such as ("prompt_id",)'),
    "reads": (
        lambda given: _are_texts(given) or callable(given),
        'names of columns in a tuple, such as ("prompt",), or a function that returns them',
    ),
    "side_reads": (
        lambda given: callable(given) or (isinstance(given, tuple) and all(x is None or _are_texts(x) for x in given)),
        'names of columns, or None, for each side table, such as (("label",), None), or a function that returns them',
    ),
    "blocks": (_a(bool), "True or False"),
    "compares": (_a(bool, Compared), "True, False or a Compared"),
    "quarantine_budget": (_is_share, "a share from 0 to 1, such as 0.1"),
    "bound": (callable, "a function of the stage and the sizes of its tables that returns a Bound"),
    "libraries": (_are_texts, 'names of packages in a tuple, such as ("numpy",)'),
    "fan_out": (
        lambda given: isinstance(given, FanOut) or callable(given),
        'each(1), each(n), free("one row for each group"), or a function that returns one of these',
    ),
    "files": (_is_text, 'the kind of files, such as "adapter"'),
    "needs": (_a(Needs), "processes with their resources, such as Needs(gpus=1)"),
    "images": (_is_text, 'the name of a value, such as "media"'),
    "sounds": (_is_text, 'the name of a value, such as "media"'),
}


_NEVER_NONE = frozenset({"looks_up", "side_reads", "blocks", "compares", "libraries"})


def wrong(option: str, given: Any) -> str | None:
    """Say what is wrong with what is given for an option, None if nothing is."""
    allows, expected = _OPTIONS[option]
    if allows(given) or (given is None and option not in _NEVER_NONE):
        return None
    return f"{option} must be {expected}; got {given!r}"


def declared(step: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a declaration, lists as tuples; raises TypeError for one that is wrong."""
    found = {option: listed(given) for option, given in options.items()}
    for option, given in found.items():
        if fault := wrong(option, given):
            raise TypeError(f"step {step!r}: {fault}")
    return found


def listed(given: Any) -> Any:
    """Return lists, also those in lists, as tuples, and anything else as it is."""
    return tuple(map(listed, given)) if isinstance(given, list | tuple) else given
