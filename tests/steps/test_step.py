"""`@step`: a call mirrors the function and returns the stage; nothing else happens."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import ANY, carry_out
from pydantic import Field

from normloom.core.contract import Contract
from normloom.core.errors import ConfigError
from normloom.core.fan_out import each
from normloom.core.models.protocol import LanguageModel
from normloom.core.stage import NoArguments, Output, Stage
from normloom.planning.keys import key_fields
from normloom.steps.args import Args
from normloom.steps.step import Step, step
from normloom.testing.toy import SCRIPTED

WORDS = Contract(columns={"word": pl.String()})


class Cut(Args):
    length: int = Field(2, ge=1)
    part_rows: int = Field(7, ge=1, exclude=True)


class Shout(Args):
    mark: str = "!"


class Section(Cut, Shout):
    """A section of the settings that two steps share."""


@step(makes=WORDS, name="cut_{length}_{copies}", fan_out=lambda given: each(given["copies"]), sides_on="word")
def cut(
    rows: pl.DataFrame, args: Cut, *sides: pl.DataFrame, model: LanguageModel, sign: str, copies: int = 1
) -> Output:
    """Cut words."""
    assert model is not None
    assert copies == 1
    return Output(rows=rows.with_columns(pl.col("word").str.head(args.length) + sign), metrics={"sides": len(sides)})


@step(makes={"word": pl.String})
def shout(rows: pl.DataFrame, args: Shout, other: pl.DataFrame | None = None) -> pl.DataFrame:
    return rows.with_columns(pl.col("word") + args.mark + ("" if other is None else other["word"][0]))


@step(makes=WORDS)
def sided(rows: pl.DataFrame, first: pl.DataFrame | None = None, second: pl.DataFrame | None = None) -> pl.DataFrame:  # noqa: ARG001  # sides
    return rows


@step(makes=WORDS, part_rows=3)
def bare(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


@step(makes=lambda given: Contract(columns={given["column"]: pl.String()}))
def source(*, column: str) -> Output:
    return Output(rows=pl.DataFrame({column: ["x"], "content": ["x"], "parents": [[]]}), attempts=1)


def frame(*words: str) -> pl.DataFrame:
    return pl.DataFrame({"row_id": words, "word": words, "parents": [[word] for word in words]})


def test_a_call_is_the_stage_that_the_declaration_says() -> None:
    stage = cut([ANY, ANY], Section(length=3), ANY, model=SCRIPTED, sign="?")
    assert isinstance(stage, Stage)
    assert (stage.name, stage.inputs, stage.sides, stage.sides_on) == ("cut_3_1", (ANY, ANY), (ANY,), "word")
    assert (stage.contract, stage.model, stage.part_rows) == (WORDS, SCRIPTED, 7)
    assert stage.values == {"sign": "?", "copies": 1}
    assert stage.fan_out is not None
    assert stage.fan_out.rows == 1


def test_a_step_is_given_the_fields_of_a_shared_section_that_are_its_own() -> None:
    assert cut(ANY, Section(mark="x"), model=SCRIPTED, sign="?").arguments == Cut()
    stage = shout(ANY, Section(mark="x"))
    assert (type(stage.arguments), stage.arguments) == (Shout, Shout(mark="x"))


def test_arguments_and_values_enter_the_key_and_what_cuts_the_work_does_so_once() -> None:
    fields = key_fields("toy", cut(ANY, Cut(part_rows=5), model=SCRIPTED, sign="?"), inputs=["i"], sides=[])
    assert fields["arguments"] == {"length": 2, "sign": "?", "copies": 1}
    assert fields["part_rows"] == 5


def test_the_function_stays_callable_and_the_stage_runs_it() -> None:
    made = cut.function(frame("hello"), Cut(), model=object(), sign="?")  # type: ignore[arg-type]  # any model will do
    assert made.rows["word"].to_list() == ["he?"]
    run = carry_out(cut(ANY, Cut(), ANY, model=SCRIPTED, sign="?"), frame("hello"), frame("x"), model=object())
    assert (run.rows["word"].to_list(), run.metrics) == (["he?"], {"sides": 1})


def test_a_frame_is_all_that_a_step_made_and_a_side_may_be_absent() -> None:
    made = carry_out(shout(ANY, Shout()), frame("a", "b"))
    assert made.rows["word"].to_list() == ["a!", "b!"]
    assert carry_out(shout(ANY, Shout(), ANY), frame("a"), frame("z")).rows["word"].to_list() == ["a!z"]


def test_a_step_without_arguments_and_one_without_rows() -> None:
    stage = bare(ANY)
    assert (type(stage.arguments), stage.part_rows, bare(ANY, part_rows=9).part_rows) == (NoArguments, 3, 9)
    assert carry_out(stage, frame("a")).rows["word"].to_list() == ["a"]
    assert repr(stage) == f"Stage('bare', reads=[{ANY.name}])"
    read = source(column="text", name="read")
    assert (read.name, list(read.contract.columns)) == ("read", ["text"])
    assert carry_out(read, None).rows["text"].to_list() == ["x"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: shout(ANY), "step 'shout': missing a required argument: 'args'; it takes"),
        (lambda: shout(ANY, Shout(), colour="red"), "step 'shout': got an unexpected keyword argument 'colour'"),
        (lambda: shout(ANY, Cut()), "step 'shout': args must be Shout, not Cut"),
        (
            lambda: shout(frame("a"), Shout()),
            "step 'shout': rows must be a stage or a list of stages, got a polars.DataFrame; nl.table makes a stage of",
        ),
        (lambda: shout([], Shout()), "step 'shout': rows must be a stage or several, got none"),
        (
            lambda: cut(ANY, Cut(), model=1, sign=""),
            "model must be a model spec, a model's name or these by role, got int",
        ),
        (lambda: sided(ANY, None, ANY), "step 'sided': second is given, but first before it is not"),
        (lambda: step()(bare.function)(ANY), "step 'bare': its declaration has no `makes`"),
    ],
)
def test_a_call_that_the_function_does_not_allow_is_refused(call: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()  # type: ignore[operator]
    assert sentence in str(caught.value)


def test_arguments_of_a_type_that_cannot_be_found_are_taken_as_they_are() -> None:
    class Local(Args):
        sign: str = "?"

    @step(makes=WORDS)
    def asked(rows: pl.DataFrame, args: Local) -> pl.DataFrame:
        return rows.with_columns(word=pl.col("word") + args.sign)

    given = Local(sign="!")
    assert asked(ANY, given).arguments is given
    with pytest.raises(ConfigError, match="args must be a pydantic model, not int"):
        asked(ANY, 1)


def test_an_option_of_the_call_cannot_be_a_parameter() -> None:
    with pytest.raises(TypeError, match="parameter 'name' is an option of every step's call"):

        @step(makes=WORDS)
        def named(rows: pl.DataFrame, *, name: str) -> pl.DataFrame:
            return rows.with_columns(word=pl.lit(name))


def test_a_column_has_a_polars_type() -> None:
    with pytest.raises(TypeError, match=r"column 'n' must have a Polars type, such as pl\.String, not <class 'int'>"):
        step(makes={"word": pl.String, "n": int})


def test_a_column_has_a_name_of_its_own() -> None:
    with pytest.raises(ConfigError, match="a table cannot have a column 'content': Normloom reserves the name"):
        step(makes={"content": pl.String})


def test_side_tables_stand_before_the_model() -> None:
    with pytest.raises(TypeError, match="parameter 'model' must come after the side tables"):

        @step(makes=WORDS)
        def crossed(rows: pl.DataFrame, model: LanguageModel, other: pl.DataFrame) -> pl.DataFrame:
            return pl.concat([rows, other]) if model else rows


def test_a_process_elsewhere_imports_the_function_by_name() -> None:
    from normloom.tasks.duplicates.split import split

    packed = pickle.dumps(split.called)
    assert len(packed) < 200
    code = "import pickle, sys; f = pickle.loads(sys.stdin.buffer.read()); print(f.__module__, f.__name__)"
    run = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True, timeout=120)
    assert run.stdout.decode().split() == ["normloom.tasks.duplicates.split", "split"]


def test_a_function_of_a_script_travels_by_value(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, polars as pl\n"
        "from ray import cloudpickle\n"
        "from normloom.steps.step import step\n"
        "@step(makes={'word': pl.String})\n"
        "def mine(rows): return rows.with_columns(word=pl.lit('mine'))\n"
        "open(sys.argv[1], 'wb').write(cloudpickle.dumps(mine.called))\n"
    )
    subprocess.run([sys.executable, script, tmp_path / "packed"], check=True, timeout=120)  # our own script
    called = pickle.loads((tmp_path / "packed").read_bytes())  # written just now
    assert called(frame("a"), NoArguments()).rows["word"].to_list() == ["mine"]


def test_a_step_says_what_it_is() -> None:
    assert isinstance(cut, Step)
    assert repr(cut) == "<step test_step.cut>"
    assert cut.__doc__ == "Cut words."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"makes": ["word"]}, 'makes must be columns with their Polars types, such as {"prompt": pl.String}'),
        ({"name": 5}, 'name must be text, such as "rate_{rater}"; got 5'),
        ({"part_rows": "2"}, "part_rows must be a whole number of at least 1, such as 128; got '2'"),
        ({"part_rows": 0}, "part_rows must be a whole number of at least 1, such as 128; got 0"),
        ({"part_rows": True}, "part_rows must be a whole number of at least 1, such as 128; got True"),
        ({"sides_on": ("a",)}, "sides_on must be the name of a column, such as \"prompt_id\"; got ('a',)"),
        ({"looks_up": "a"}, "looks_up must be names of columns in a tuple, such as (\"prompt_id\",); got 'a'"),
        ({"reads": "a"}, 'reads must be names of columns in a tuple, such as ("prompt",), or a function that returns'),
        ({"reads": (1,)}, "reads must be names of columns in a tuple"),
        ({"side_reads": ("a",)}, "side_reads must be names of columns, or None, for each side table, such as"),
        ({"blocks": "yes"}, "blocks must be True or False; got 'yes'"),
        ({"compares": "a"}, "compares must be True, False or a Compared; got 'a'"),
        ({"quarantine_budget": 5}, "quarantine_budget must be a share from 0 to 1, such as 0.1; got 5"),
        ({"bound": 7}, "bound must be a function of the stage"),
        ({"libraries": "numpy"}, "libraries must be names of packages in a tuple, such as (\"numpy\",); got 'numpy'"),
        ({"libraries": None}, 'libraries must be names of packages in a tuple, such as ("numpy",); got None'),
        ({"fan_out": 1}, "fan_out must be each(1), each(n), free("),
        ({"files": True}, 'files must be the kind of files, such as "adapter"; got True'),
        (
            {"needs": {"gpus": 1}},
            "needs must be processes with their resources, such as Needs(gpus=1); got {'gpus': 1}",
        ),
        ({"images": ("media",)}, "images must be the name of a value, such as \"media\"; got ('media',)"),
        (
            {"images": "pictures"},
            "images names 'pictures', which is neither a parameter after * nor a field of its args",
        ),
        (
            {"sounds": "rows"},
            "sounds names 'rows', which is neither a parameter after * nor a field of its args; there",
        ),
    ],
)
def test_an_option_of_another_type_is_refused_where_it_is_declared(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError) as caught:
        step(**{"makes": WORDS, **options})(shout.function)
    assert f"step {options.get('name', 'shout')!r}: {sentence}" in str(caught.value)


def test_lists_of_names_count_as_tuples() -> None:
    options: dict[str, Any] = {
        "reads": lambda _: ["word"],
        "looks_up": ["word"],
        "side_reads": [["word"], None],
        "libraries": ["numpy"],
    }
    stage = step(makes=WORDS, **options)(bare.function)(ANY)
    assert stage.side_reads == (("word",), None)
    assert (stage.reads, stage.looks_up, stage.libraries) == (("word",), ("word",), ("numpy",))


@pytest.mark.parametrize(
    ("options", "called", "sentence"),
    [
        ({"fan_out": lambda _: 1}, {}, "fan_out must be each(1), each(n), free("),
        ({"reads": lambda _: "word"}, {}, "reads must be names of columns in a tuple"),
        ({"makes": lambda _: {"word": pl.String}}, {}, "its contract must be a Contract, not dict"),
        ({}, {"contract": {"word": pl.String}}, "its contract must be a Contract, not dict"),
        ({}, {"part_rows": "2"}, "part_rows must be a whole number of at least 1, such as 128; got '2'"),
        ({}, {"part_rows": 0}, "part_rows must be a whole number of at least 1, such as 128; got 0"),
        ({}, {"name": 7}, 'name must be text, such as "rate_{rater}"; got 7'),
        ({"name": "bare_{rater}"}, {}, "its name cannot be filled in (KeyError: 'rater'); it may contain no arguments"),
        ({"name": "bare_{"}, {}, "its name cannot be filled in (ValueError: "),
    ],
)
def test_an_option_that_a_call_gives_or_computes_is_refused_there(
    options: dict[str, Any], called: dict[str, Any], sentence: str
) -> None:
    declared = step(**{"makes": WORDS, **options})(bare.function)
    with pytest.raises(ConfigError) as caught:
        declared(ANY, **called)
    assert f"step {options.get('name', 'bare')!r}: {sentence}" in str(caught.value)
