"""The options that several commands share, declared once: which settings, which system, which stages.

A command that is decorated with `taking(BuildOptions)` has these options and is given their values as one object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from normloom.cli.common import (
    DEFAULT_PROFILE,
    DEFAULT_STORE,
    LimitOption,
    MaxCostOption,
    MaxRequestsOption,
    ProfileOption,
    SetOption,
    SourceOption,
    StoreOption,
    SystemArgument,
    TextColumnOption,
    assignments,
)

if TYPE_CHECKING:
    from normloom.steps.selection import Selection


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    """The settings: a profile, options for single settings, and the store."""

    profile: ProfileOption = DEFAULT_PROFILE
    source: SourceOption = None
    text_column: TextColumnOption = None
    limit: LimitOption = None
    store: StoreOption = DEFAULT_STORE
    set_: SetOption = None

    @property
    def assignments(self) -> list[str]:
        """The options that stand for settings, as assignments."""
        return assignments(source=self.source, text_column=self.text_column, limit=self.limit, settings=self.set_)


@dataclass(frozen=True, kw_only=True)
class SystemOptions(SettingsOptions):
    """A system with its settings."""

    system: SystemArgument


@dataclass(frozen=True, kw_only=True)
class BuildOptions(SystemOptions):
    """The request for a build of a system."""

    max_requests: MaxRequestsOption = None
    max_cost: MaxCostOption = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Build only this stage, from existing tables; repeatable. 'STAGE where CONDITION' builds only the "
            "parts that read matching rows, and its inputs.",
            show_default=False,
        ),
    ] = None
    from_: Annotated[str | None, typer.Option("--from", help="Build this stage and everything downstream.")] = None
    force: Annotated[
        list[str] | None,
        typer.Option(help="Rebuild this stage even if nothing changed; repeatable.", show_default=False),
    ] = None
    fresh: Annotated[bool, typer.Option("--fresh", help="Rebuild every stage even if nothing changed.")] = False

    @property
    def assignments(self) -> list[str]:
        """The options that stand for settings, as assignments."""
        return assignments(
            source=self.source,
            text_column=self.text_column,
            limit=self.limit,
            settings=self.set_,
            max_requests=self.max_requests,
            max_cost=self.max_cost,
        )

    @property
    def selection(self) -> Selection:
        """The stages that are chosen."""
        from normloom.history.fresh import fresh_since
        from normloom.settings.systems import name_of
        from normloom.steps.selection import Selection
        from normloom.store.store import Store

        return Selection(
            only=tuple(self.only or ()),
            start=self.from_,
            force=tuple(self.force or ()),
            fresh=fresh_since(Store(self.store), name_of(self.system)) if self.fresh else None,
        )


def taking(kind: type[SettingsOptions]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a kind: its first parameter is their values, the others are its own."""
    declared = get_type_hints(kind, include_extras=True)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]
        hints = get_type_hints(command, include_extras=True)
        shared = [_parameter(field, declared[field.name]) for field in fields(kind)]
        mine = [one.replace(kind=one.KEYWORD_ONLY, annotation=hints[one.name]) for one in own]
        # A system comes before the arguments of the command itself, the other options after them.
        system = [one for one in shared if one.default is one.empty]
        arguments = [one for one in mine if _is_argument(one)]
        options = [one for one in shared if one not in system] + [one for one in mine if one not in arguments]

        @wraps(command)
        def called(*positional: Any, **given: Any) -> None:
            given |= dict(zip((one.name for one in mine), positional, strict=False))  # a call from Python
            values = kind(**{field.name: given.pop(field.name) for field in fields(kind) if field.name in given})
            command(values, **given)

        parameters = [*system, *arguments, *options]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorate


def _parameter(field: Field[Any], annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_argument(parameter: inspect.Parameter) -> bool:
    return any(isinstance(one, typer.models.ArgumentInfo) for one in getattr(parameter.annotation, "__metadata__", ()))
