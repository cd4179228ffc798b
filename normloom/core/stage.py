"""A stage: input tables, a pure function, its arguments, optionally a model, one output table.

A stage function sees only its arguments, so a key made of them is complete. It is
called as `function(rows, arguments, *sides)`, with a keyword `model` if the stage has one, and
returns an `Output`. A stage without inputs is called as `function(arguments)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.core.bounds import BoundOf
from normloom.core.compared import Compared
from normloom.core.content import Image, Medium, Sound
from normloom.core.contract import Contract
from normloom.core.errors import ConfigError
from normloom.core.fan_out import FanOut
from normloom.core.models.model_roles import named_by
from normloom.core.models.needs import Needs, ProcessSpec
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import Completion, ModelSpec, Scores
from normloom.core.names import require_name
from normloom.core.rows.rules import MODEL, OUTAGE
from normloom.core.table import DROPPED_SCHEMA, QUARANTINE_SCHEMA, TableRef

QUARANTINE_BUDGET = 0.1  # share of a stage's rows, unless settings or the stage say otherwise


@dataclass(frozen=True, kw_only=True)
class Output:
    """The output of a stage function for one part.

    `rows` keeps the column `row_id` if each row came from one input row; otherwise it has a column
    `parents`, the list of input row ids, and no `row_id`. Rows that their parents do not identify (rows of a
    source have none) also have an identifying column `content`. The runner assigns the ids of the output.
    A row that keeps its `row_id` may name, in a column `through`, the row of a side table that links it to its input
    row (a model's answer about it), or a list of rows: these become its parents, and its id does not change.
    `attempts` is the number of rows the function set out to make (default: one per input row).
    attempts = rows + dropped + quarantined always holds.
    """

    rows: pl.DataFrame = field(kw_only=False)
    dropped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DROPPED_SCHEMA))
    quarantined: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE_SCHEMA))
    attempts: int | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


SideReads = tuple[tuple[str, ...] | None, ...]  # columns of each side table, None for all


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One step of a flow.

    The rows of `inputs`, in order, are cut into parts of at most `part_rows` rows (None: one part), with the columns
    `reads` (None: all). Every part gets `sides` whole; with `sides_on`, only the side rows whose column of that name
    holds the id of one of its input rows. With `looks_up`, a column per side table, it gets the side rows that its own
    rows, or side rows looked up before, name in that column: by the side table's column of that name, or else by id;
    if only the side table has the column, it holds ids of rows of the part.
    Of side table k it gets the columns `side_reads[k]` and those that connect it (None, or no entry: all columns).
    With `blocks`, the function is handed its rows as `Blocks`, which it looks at one after another.
    With `compares`, a part does not depend on side rows that its ledger of dropped rows does not name as winners, nor
    on new ones that do not touch it. `quarantine_budget`, a share of the attempts, overrides the build's.
    A stage with `table` is a published table of another system; no function is called.
    `values` are keyword arguments of the function, which enter the key like the fields of `arguments`.
    `bound` is the upper bound of what the stage makes and requests; without it, no more rows than it reads.
    `libraries` are the installed packages that affect the result; their versions enter the key.
    `fan_out` is the number of rows the stage must return per input row.
    `files` is the kind of its product's files (`adapter`), None if it has rows only; with `run` its function takes
    a `Run`. With `needs` it runs in its own processes. `images` and `sounds` say that its model is asked about them.
    """

    name: str
    function: Callable[..., Output]
    arguments: BaseModel
    contract: Contract
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Stage, ...] = ()
    sides: tuple[Stage, ...] = ()
    sides_on: str | None = None
    looks_up: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    side_reads: SideReads = ()
    blocks: bool = False
    compares: Compared | None = None
    model: ModelSpec | None = None
    part_rows: int | None = None
    quarantine_budget: float | None = None
    table: TableRef | None = None
    bound: BoundOf | None = None
    libraries: tuple[str, ...] = ()
    fan_out: FanOut | None = None
    files: str | None = None
    run: bool = False
    needs: Needs | None = None
    images: bool = False
    sounds: bool = False

    def __post_init__(self) -> None:
        if self.table is None:
            require_name(self.name, what="stage")
        if self.part_rows and (self.run or self.files):
            raise ConfigError(f"stage {self.name!r} has a run or files, so it is made in one part: leave out part_rows")
        owes = self.fan_out is not None and self.fan_out.rows is not None
        if self.blocks and (self.part_rows or self.sides_on or self.looks_up or owes):
            raise ConfigError(
                f"stage {self.name!r} reads its rows in blocks: leave out part_rows, sides_on and looks_up, and "
                "declare a free fan-out"
            )
        if self.sides_on and self.looks_up:
            raise ConfigError(f"stage {self.name!r}: a side table has sides_on or looks_up, not both")
        if self.compares and self.side_reads:
            raise ConfigError(f"stage {self.name!r} compares columns of its side tables: leave out side_reads")

    @property
    def holds(self) -> ModelSpec | None:
        """What must be there to make its parts: a model or processes of its own; None if the build's process does.

        A model's own settings come before the needs of the stage, these before the resources of the build.
        """
        if self.model is None:
            return ProcessSpec.of(self.name, self.needs) if self.needs else None
        if self.needs is None:
            return self.model
        told = {"processes": "actors"}
        own = {told.get(name, name): value for name, value in self.needs.model_dump(exclude_unset=True).items()}
        asked = {name: value for name, value in own.items() if getattr(self.model, name) is None}
        return self.model.model_copy(update=asked)

    @property
    def side_handed(self) -> SideReads:
        """The columns of each side table that the function is handed: with `compares`, those that it compares."""
        return (self.compares.columns,) * len(self.sides) if self.compares else self.side_reads

    @property
    def media(self) -> tuple[type[Medium], ...]:
        """The kinds of media that its model is asked about."""
        return (Image,) * self.images + (Sound,) * self.sounds

    @property
    def upstream(self) -> tuple[Stage, ...]:
        """Every stage whose table this one reads."""
        return self.inputs + self.side_inputs

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """Every model that it names: the one that is loaded for it, and those whose spec it is handed."""
        named = (one for one in (self.model, *self.values.values()) if isinstance(one, ModelSpec))
        return tuple(one for spec in named for one in named_by(spec))

    @property
    def products(self) -> tuple[Stage, ...]:
        """The stages whose products are models of this one."""
        return tuple(dict.fromkeys(spec.stage for spec in self.specs if isinstance(spec, ProductSpec)))

    @property
    def side_inputs(self) -> tuple[Stage, ...]:
        """What it reads in addition to its inputs: side tables, then products that are its models."""
        return self.sides + self.products

    @property
    def given(self) -> dict[str, Any]:
        """The fields of the arguments and the values, by name."""
        return {**dict(self.arguments), **self.values}

    def __repr__(self) -> str:
        reads = ", ".join(stage.name for stage in self.upstream)
        return f"Stage({self.name!r}, reads=[{reads}])"


def published_stage(table: TableRef, *, reader: str) -> Stage:
    """Return the stage that represents a published table of another system in the flow of `reader`."""
    return Stage(
        name=table.known_to(reader),
        function=_not_called,
        arguments=NoArguments(),
        contract=Contract(columns={}),
        table=table,
    )


class NoArguments(BaseModel):
    """The arguments of a stage without arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _not_called(arguments: BaseModel) -> Output:
    raise AssertionError(f"a table of another system is read as it is, not made ({arguments!r})")


def aside(row: Mapping[str, Any], *, row_id: str | None = None) -> dict[str, str]:
    """Return the `row_id` and `payload` columns for a row that leaves the stage."""
    payload = {name: value for name, value in row.items() if name not in {"row_id", "parents"}}
    return {"row_id": row_id or row["row_id"], "payload": json.dumps(payload, ensure_ascii=False, default=str)}


def dropped(row: Mapping[str, Any], reason: str, *, winner: str | None = None) -> dict[str, str | None]:
    """Return the ledger entry of a row removed by the method."""
    return {**aside(row), "reason": reason, "winner": winner}


def quarantined(row: Mapping[str, Any], rule: str, reason: str) -> dict[str, str | None]:
    """Return the ledger entry of a row removed by a check or an error."""
    return {**aside(row), "rule": rule, "reason": reason}


def unanswered(row: Mapping[str, Any], answer: Completion | Scores) -> dict[str, str | None]:
    """Return the ledger entry of a row for which a model returned an error."""
    return quarantined(row, OUTAGE if answer.transient else MODEL, str(answer.error))


def dropped_rows(
    rows: pl.DataFrame, *, reason: str | pl.Expr, winner: pl.Expr | None = None, leaving_out: Sequence[str] = ()
) -> pl.DataFrame:
    """Return the ledger of many rows removed by the method.

    `reason` is the text for all of them or an expression for each, `winner` the id of the row that each lost to. The
    columns `leaving_out` are left out of the ledger's payload.
    """
    payload = pl.struct(pl.exclude("row_id", "parents", *leaving_out)).struct.json_encode()
    columns = {
        "row_id": pl.col("row_id"),
        "reason": pl.lit(reason) if isinstance(reason, str) else reason,
        "winner": pl.lit(None) if winner is None else winner,
        "payload": payload,
    }
    return rows.select(columns[name].cast(dtype).alias(name) for name, dtype in DROPPED_SCHEMA.items())


def dropped_frame(entries: list[dict[str, str | None]]) -> pl.DataFrame:
    """Return ledger entries of dropped rows as a frame."""
    return pl.DataFrame(entries, schema=DROPPED_SCHEMA)


def quarantined_frame(entries: list[dict[str, str | None]]) -> pl.DataFrame:
    """Return ledger entries of quarantined rows as a frame."""
    return pl.DataFrame(entries, schema=QUARANTINE_SCHEMA)
