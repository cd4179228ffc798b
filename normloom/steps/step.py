"""`@step`: a plain function, declared once, that makes a table.

A step is called like its function, with stages in place of frames and a model spec in place of the model:

    @step(makes=tables.JUDGED, name="judge_{round}", sides_on="candidate_id")
    def judge(rows: pl.DataFrame, args: Judging, scores: pl.DataFrame, *, round: int) -> Output: ...

    judged = judge(candidates, config.judge, scores, round=0)      # a Stage; nothing runs
    judge.function(frame, Judging(), scores_frame, round=0)        # the function itself, as in a test

Parameters are recognised by name: `rows` is the input (a step without it is a source), `args` the arguments (a section
of the settings), `model` the model, `run` the folders of a long-running step (`Run`); further parameters are side
tables, and those after `*` plain values of a call. A value may be a model spec, which the step gets as is.
A call may pass several models by role: `model={"policy": ..., "reference": ...}`, which the step gets as a mapping.
Arguments and values enter the stage key. The decorator builds the `Stage` and does nothing else.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar

import polars as pl
from pydantic import BaseModel

from normloom.core.bounds import BoundOf
from normloom.core.compared import Compared
from normloom.core.contract import Contract
from normloom.core.errors import ConfigError, cause
from normloom.core.fan_out import FanOut
from normloom.core.machine.loaded import note_loaded
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.core.rows.text import shown
from normloom.core.stage import NoArguments, Output, SideReads, Stage
from normloom.steps.args import Args
from normloom.steps.declared import declared, listed, wrong
from normloom.steps.step_function import StepFunction

P = ParamSpec("P")
R = TypeVar("R", bound=Output | pl.DataFrame)

ROWS, ARGS, MODEL, RUN = "rows", "args", "model", "run"
_OF_THE_CALL = frozenset({"name", "part_rows", "contract"})
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Step(Generic[P, R]):
    """A declared step. Calling it returns its `Stage` in a flow; `function` is the bare function."""

    def __init__(self, function: Callable[P, R], options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.called = StepFunction(function)
        self._stage = declared(options["name"] or function.__name__, options)
        self.name: str = self._stage.pop("name") or function.__name__
        self.makes: Contract | Callable[[Mapping[str, Any]], Contract] | None = self._stage.pop("makes")
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters
        self._given = self._signature.replace(parameters=[one for one in parameters.values() if one.name != RUN])
        if taken := sorted(_OF_THE_CALL & set(parameters)):
            raise TypeError(f"step {self.name!r}: parameter {taken[0]!r} is an option of every step's call; rename it")
        sides = [one.name for one in parameters.values() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        for one in {MODEL, RUN} & set(sides):  # the runner hands side tables over by place
            if set(sides[sides.index(one) :]) - {MODEL, RUN}:
                raise TypeError(f"step {self.name!r}: parameter {one!r} must come after the side tables")
        if options["files"] and RUN not in parameters:
            raise TypeError(f"step {self.name!r} has files: it needs a parameter 'run', and writes them to run.files")
        self._args = _declared(function) if ARGS in parameters else None
        self._require_media()

    def __repr__(self) -> str:
        return f"<step {self.function.__module__}.{self.function.__qualname__}>"

    def __call__(
        self,
        *stages: Any,
        name: str | None = None,
        part_rows: int | None = None,
        contract: Contract | None = None,
        **named: Any,
    ) -> Stage:
        """Return the stage.

        `name`, `part_rows` and `contract` override the declaration. Raises ConfigError for a call that does not match
        the function's signature.
        """
        try:
            bound = self._given.bind(*stages, **named)
        except TypeError as error:
            raise ConfigError(f"step {self.name!r}: {error}; it takes {self._given}") from None
        arguments = self._arguments(bound)
        values = {
            one.name: bound.arguments.get(one.name, one.default)
            for one in self._signature.parameters.values()
            if one.kind is inspect.Parameter.KEYWORD_ONLY and one.name not in {MODEL, RUN}
        }
        model = bound.arguments.get(MODEL)
        options, given = dict(self._stage), {**dict(arguments), **values}
        for option in ("fan_out", "reads", "side_reads"):
            if callable(options[option]):
                options[option] = listed(options[option](given))
        options["compares"] = Compared() if options["compares"] is True else options["compares"] or None
        for kind in ("images", "sounds"):
            options[kind] = given.get(options[kind]) is not None if options[kind] else False
        made = contract or (self.makes(given) if callable(self.makes) else self.makes)
        if made is None:
            raise ConfigError(f"step {self.name!r}: its declaration has no `makes`, so its call needs a `contract`")
        if fault := wrong("name", name):
            raise ConfigError(f"step {self.name!r}: {fault}")
        if not isinstance(made, Contract):
            raise ConfigError(f"step {self.name!r}: its contract must be a Contract, not {type(made).__name__}")
        sizes = (part_rows, given.get("part_rows"), options["part_rows"])
        options["part_rows"] = next((size for size in sizes if size is not None), None)
        for option in ("fan_out", "reads", "side_reads", "part_rows"):
            if fault := wrong(option, options[option]):
                raise ConfigError(f"step {self.name!r}: {fault}")
        return Stage(
            name=name or self._named(given),
            function=self.called,
            arguments=arguments,
            values=values,
            contract=made,
            inputs=self._inputs(bound),
            sides=tuple(self._sides(bound)),
            model=_spec(model, self.name) if MODEL in self._signature.parameters else None,
            run=RUN in self._signature.parameters,
            **options,
        )

    def _named(self, given: Mapping[str, Any]) -> str:
        try:
            return self.name.format_map(given)
        except (LookupError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"step {self.name!r}: its name cannot be filled in ({cause(error)}); it may contain "
                f"{', '.join(f'{{{one}}}' for one in given) or 'no arguments, as it takes none'}"
            ) from None

    def _require_media(self) -> None:
        """Raise TypeError if the value with the media, by its name, is none that the step has."""
        parameters = self._signature.parameters
        if ARGS in parameters and not self._args:
            return
        values = [one.name for one in parameters.values() if one.kind is inspect.Parameter.KEYWORD_ONLY]
        there = [*(self._args.model_fields if self._args else ()), *(one for one in values if one not in {MODEL, RUN})]
        for kind in ("images", "sounds"):
            if (named := self._stage[kind]) and named not in there:
                raise TypeError(
                    f"step {self.name!r}: {kind} names {named!r}, which is neither a parameter after * nor a field of "
                    f"its args; there are: {', '.join(there) or 'none'}"
                )

    def _arguments(self, bound: inspect.BoundArguments) -> BaseModel:
        parameter = self._signature.parameters.get(ARGS)
        if parameter is None:
            return NoArguments()
        given = bound.arguments.get(ARGS, parameter.default)
        if self._args is None and isinstance(given, BaseModel):
            return given
        if self._args is None or not isinstance(given, self._args):
            wanted = self._args.__name__ if self._args else "a pydantic model"
            raise ConfigError(f"step {self.name!r}: args must be {wanted}, not {type(given).__name__}")
        return _own(given, self._args) if issubclass(self._args, Args) else given

    def _inputs(self, bound: inspect.BoundArguments) -> tuple[Stage, ...]:
        if ROWS not in self._signature.parameters:
            return ()
        inputs = _stages(bound.arguments[ROWS], self.name, ROWS)
        if not inputs:
            raise ConfigError(f"step {self.name!r}: rows must be a stage or several, got none")
        return inputs

    def _sides(self, bound: inspect.BoundArguments) -> Iterable[Stage]:
        absent = None
        for one in self._signature.parameters.values():
            if one.name in {ROWS, ARGS, MODEL, RUN}:
                continue
            if one.kind is inspect.Parameter.VAR_POSITIONAL:
                yield from _stages(bound.arguments.get(one.name, ()), self.name, one.name)
            elif one.kind in _BY_PLACE:
                side = bound.arguments.get(one.name)
                if side is None:
                    absent = absent or one.name
                    continue
                if absent:
                    raise ConfigError(f"step {self.name!r}: {one.name} is given, but {absent} before it is not")
                [stage] = _stages(side, self.name, one.name)
                yield stage


def step(  # noqa: PLR0913  # what one declaration says, by name
    *,
    makes: Contract | Mapping[str, Any] | Callable[[Mapping[str, Any]], Contract] | None = None,
    name: str | None = None,
    part_rows: int | None = None,
    sides_on: str | None = None,
    looks_up: tuple[str, ...] = (),
    reads: tuple[str, ...] | Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None,
    side_reads: SideReads | Callable[[Mapping[str, Any]], SideReads] = (),
    blocks: bool = False,
    compares: Compared | bool = False,
    quarantine_budget: float | None = None,
    bound: BoundOf | None = None,
    libraries: tuple[str, ...] = (),
    fan_out: FanOut | Callable[[Mapping[str, Any]], FanOut] | None = None,
    files: str | None = None,
    needs: Needs | None = None,
    images: str | None = None,
    sounds: str | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Declare a step.

    - `makes`: the contract of its table; or its columns with their Polars types, which are then nullable; or a function
      of the arguments and values, by name, that returns the contract.
    - `name`: name of its stages (default: the function's); may contain arguments and values, as in `rate_{rater}`.
    - `part_rows`: rows per part, None for all at once; a field `part_rows` of the arguments takes precedence.
    - `sides_on`: column of the side tables that names an input row, so that a part reads only its own side rows.
    - `looks_up`: the reverse: for each side table a column, of the step's rows or of rows looked up before, that names
      the side rows, by the side table's column of that name or else by id; or a column of the side table only, which
      holds the ids of the step's rows.
    - `reads`: the columns of its rows that it reads, or a function of the arguments and values that returns them; it
      gets only these and `row_id`, and a part is kept if other columns change.
    - `side_reads`: the columns of each side table that it reads, None for all, as of a side table that is not listed;
      or a function of the arguments and values that returns them. It gets only these, `row_id`, and the columns of
      `sides_on` and `looks_up`.
    - `blocks`: it is handed its rows as `Blocks`: frames of some ten thousand rows, one after another. It makes a table
      of one part, of rows with `parents`.
    - `compares`: rows are only compared with the side tables, and a dropped row names its winner there; so a part is
      kept if other rows of these tables are removed, and with a `Compared` also if unrelated rows are added.
    - `quarantine_budget`: share of its rows that may be quarantined, overriding the build's.
    - `bound`: upper bound of what it makes and requests.
    - `libraries`: installed packages that affect the result; their versions enter the key.
    - `fan_out`: rows that it must return per input row, or a function of the arguments and values that returns it.
    - `files`: the kind of files that it leaves in `run.files`, for example `adapter`.
    - `needs`: the GPUs, threads and memory of its own processes; without it the build's process runs it.
    - `images`, `sounds`: the value with the media that its model is asked about; None in a call means text only.
    """
    columns = Contract(columns=_types(makes), nullable=frozenset(makes)) if isinstance(makes, Mapping) else makes
    options = {
        "makes": columns,
        "name": name,
        "part_rows": part_rows,
        "sides_on": sides_on,
        "looks_up": looks_up,
        "reads": reads,
        "side_reads": side_reads,
        "blocks": blocks,
        "compares": compares,
        "quarantine_budget": quarantine_budget,
        "bound": bound,
        "libraries": libraries,
        "fan_out": fan_out,
        "files": files,
        "needs": needs,
        "images": images,
        "sounds": sounds,
    }

    def declare(function: Callable[P, R]) -> Step[P, R]:
        if function.__module__.partition(".")[0] != "normloom":
            note_loaded()
        return Step(function, options)

    return declare


def _own(given: BaseModel, kind: type[BaseModel]) -> BaseModel:
    """Return the fields of a section that are arguments of this kind."""
    return kind.model_construct(**{name: getattr(given, name) for name in kind.model_fields})


def _types(columns: Mapping[str, Any]) -> dict[str, pl.DataType]:
    """Return column types as instances: `pl.String` stands for `pl.String()`."""
    types = {name: dtype() if isinstance(dtype, type) else dtype for name, dtype in columns.items()}
    for name, dtype in types.items():
        if not isinstance(dtype, pl.DataType):
            raise TypeError(f"makes: column {name!r} must have a Polars type, such as pl.String, not {columns[name]!r}")
    return types


def _declared(function: Callable[..., Any]) -> type[BaseModel] | None:
    """Return the declared type of the arguments, None if it is not declared or cannot be found from here."""
    annotation = inspect.signature(function).parameters[ARGS].annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, inspect.unwrap(function).__globals__)  # noqa: S307  # the function's own text
        except NameError:
            return None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _stages(given: Any, step: str, parameter: str) -> tuple[Stage, ...]:
    several = (given,) if isinstance(given, Stage) else tuple(given) if isinstance(given, list | tuple) else None
    if several is None or not all(isinstance(one, Stage) for one in several):
        raise ConfigError(
            f"step {step!r}: {parameter} must be a stage or a list of stages, got {shown(given)}; nl.table makes a "
            "stage of a frame or a file"
        )
    return several


def _spec(given: Any, step: str) -> ModelSpec:
    if isinstance(given, ModelSpec):
        return given
    if isinstance(given, str):
        return ModelSpec(model=given)
    if isinstance(given, Mapping) and given:
        return RolesSpec.of({str(role): _spec(one, step) for role, one in given.items()})
    raise ConfigError(
        f"step {step!r}: model must be a model spec, a model's name or these by role, got {type(given).__name__}"
    )
