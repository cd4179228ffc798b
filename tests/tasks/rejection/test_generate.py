from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import ANY, Forgetful, Writer, carry_out, unique
from openai_toys import spec_of
from scripted_server import serving

from normloom.cli.output.answers import length_warning
from normloom.core.errors import AccountingError
from normloom.core.models.protocol import ModelSpec, Sampling, Turn
from normloom.core.rows.ids import seed
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.schemas import tables
from normloom.schemas.template import Template
from normloom.store.store import Store
from normloom.tasks.rejection.generate import Generation, generate
from normloom.testing.toy import SCRIPTED, runner, words_stage

RESPOND = Template(
    name="respond",
    sections={"instruction": "Respond.", "prompt": "$prompt", "resample": "$prompt\n\nNote: $diagnosis"},
)


def shortfall(row_id: str, generator: str, wanted: str) -> dict[str, object]:
    return {
        "row_id": row_id,
        "parents": [],
        "prompt_id": "one",
        "prompt": "one?",
        "targets": ["value"],
        "generator": generator,
        "wanted": wanted,
        "response": "",
        "verdict": "none",
        "reason": "",
        "diagnosis": f"be {wanted}",
        "seed": 1,
        "tokens_out": 2,
    }


def stage(generator: str = "g", **settings: Any) -> Stage:
    round = settings.pop("round", 0)
    arguments = Generation(**{"template": RESPOND, "candidates": 2, **settings})
    return generate(ANY, arguments, SCRIPTED, generator=generator, round=round)


def draw(rows: pl.DataFrame, model: Writer, **settings: Any) -> Output:
    return carry_out(stage(**settings), rows, model=model)


def test_every_prompt_gets_its_candidates_with_seeds_and_targets_of_its_own() -> None:
    model = Writer(" a ", "b c", "d", "e")
    sampling = Sampling(temperature=0.3, max_tokens=9)
    made = draw(unique(one=["safety", "value", "safety"], two=["cultural"]), model, sampling=sampling)
    assert made.rows.select("prompt_id", "attempt", "response", "targets", "parents").rows() == [
        ("one", 0, "a", ["safety", "value"], ["one"]),
        ("one", 1, "b c", ["safety", "value"], ["one"]),
        ("two", 0, "d", ["cultural"], ["two"]),
        ("two", 1, "e", ["cultural"], ["two"]),
    ]
    assert made.rows["seed"].to_list() == [seed(row, "g", attempt) for row in ("one", "two") for attempt in (0, 1)]
    assert made.rows["seed"].n_unique() == 4
    assert made.rows.select("generator", "round", "wanted", "diagnosis").unique().rows() == [("g", 0, None, None)]
    assert [request.prompt for request in model.requests] == ["one?", "two?"]
    assert {request.sampling for request in model.requests} == {sampling}
    assert (made.tokens_in, made.tokens_out) == (20, 5)


def test_generators_draw_with_other_seeds() -> None:
    first, second = (draw(unique(one=["value"]), Writer(last="x"), generator=name) for name in ("g", "h"))
    assert not set(first.rows["seed"]) & set(second.rows["seed"])


def test_a_prompt_without_a_label_is_dropped() -> None:
    made = draw(unique(one=[], two=["value"]), Writer(last="x"))
    assert made.rows["prompt_id"].unique().to_list() == ["two"]
    [out] = made.dropped.to_dicts()
    assert (out["row_id"], out["reason"], out["winner"]) == ("one", "no_label", None)
    assert json.loads(out["payload"]) == {"history": None, "prompt": "one?", "labels": []}
    assert made.attempts == 3


def test_a_prompt_that_does_not_fit_is_quarantined_alone() -> None:
    made = draw(unique(one=["value"], long=["value"]), Writer(last="x", too_long="long"))
    assert made.rows["prompt_id"].to_list() == ["one", "one"]
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [("long", "model", "the prompt does not fit")]
    assert made.attempts == 3


def test_a_later_round_tries_the_shortfalls_of_its_generator_again_with_their_diagnosis() -> None:
    rows = [shortfall("s1", "g", "aligned"), shortfall("s2", "h", "aligned"), shortfall("s3", "g", "misaligned")]
    model = Writer("a", "b")
    made = draw(pl.DataFrame(rows, schema=tables.DIAGNOSED.schema), model, round=1, candidates=1)
    assert made.rows.select("parents", "prompt_id", "round", "wanted", "diagnosis", "response", "targets").rows() == [
        (["s1"], "one", 1, "aligned", "be aligned", "a", ["value"]),
        (["s3"], "one", 1, "misaligned", "be misaligned", "b", ["value"]),
    ]
    assert [request.prompt for request in model.requests] == [
        "one?\n\nNote: be aligned",
        "one?\n\nNote: be misaligned",
    ]
    assert made.rows["seed"].to_list() == [seed("s1", "g", 0), seed("s3", "g", 0)]


def test_dollar_signs_and_placeholders_in_a_prompt_stay_as_they_are() -> None:
    model = Writer(last="x")
    rows = unique(one=["value"]).with_columns(prompt=pl.lit("Is $5 more than $prompt or ${diagnosis}?"))
    draw(rows, model)
    assert model.requests[0].prompt == "Is $5 more than $prompt or ${diagnosis}?"


def test_a_generator_is_given_what_was_said_before_the_prompt() -> None:
    model = Writer(last="x")
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    said.append({"role": "assistant", "content": "Hello"})
    rows = unique(one=["value"], two=["value"]).with_columns(history=pl.Series([said, None], dtype=tables.MESSAGES))
    made = draw(rows, model)
    assert [request.history for request in model.requests] == [tuple(Turn(**turn) for turn in said), ()]
    assert made.rows["history"].to_list() == [said, said, None, None]


def label_all(rows: pl.DataFrame, arguments: object) -> Output:  # noqa: ARG001
    labels = pl.Series([[{"dimension": "value", "label": "x", "probability": 1.0}]] * rows.height, dtype=tables.LABELS)
    nothing = pl.lit(None, dtype=tables.MESSAGES)
    return Output(rows=rows.rename({"word": "prompt"}).with_columns(labels=labels, history=nothing))


def labelled(words: Stage) -> Stage:
    return Stage(
        name="labels",
        function=label_all,
        arguments=words.arguments,
        contract=words.contract.__class__(
            columns={"history": tables.MESSAGES, "prompt": pl.String(), "labels": tables.LABELS},
            nullable=frozenset({"history"}),
        ),
        inputs=(words,),
    )


def made_in(
    store: Path, prompts: Sequence[str], *, part_rows: int, model: ModelSpec = SCRIPTED
) -> tuple[Store, Manifest]:
    """Draw candidates for prompts in a store of their own."""
    loom, words = runner(Store(store)), words_stage(*prompts)
    labels = labelled(words)
    first, _ = loom.run(words, [], [])
    second, _ = loom.run(labels, [first.ref], [])
    arguments = Generation(template=RESPOND, part_rows=part_rows)
    try:
        third, _ = loom.run(generate(labels, arguments, model, generator="g"), [second.ref], [])
    finally:
        loom.pool.close()
    return loom.store, third


def test_candidates_are_the_same_in_parts_of_any_size(tmp_path: Path) -> None:
    made = []
    for size in (1, 2, 3):
        store, manifest = made_in(tmp_path / str(size), ["one", "two", "three"], part_rows=size)
        made.append(store.scan(manifest.ref).collect())
    assert made[0].height == 9
    assert made[0].equals(made[1])
    assert made[0].equals(made[2])


def test_responses_cut_off_before_they_begin_are_warned_of(tmp_path: Path) -> None:
    thinking = {"content": None, "reasoning_content": "Hm, well"}
    with serving(key=None, messages={"CUT": thinking}, finishes={"CUT": "length"}) as server:
        spec = spec_of(server.base_url, key_variable=None)
        store, most = made_in(tmp_path / "most", ["CUT 1", "CUT 2", "fine"], part_rows=2, model=spec)
        _, few = made_in(tmp_path / "few", ["CUT 1", "fine", "good"], part_rows=2, model=spec)
    assert length_warning(few) is None
    warning = length_warning(most) or ""
    assert warning.startswith("6 of 9 responses are empty, cut off at max_tokens (512) before they began")
    cut = store.scan(most.ref).filter(response="").select("reasoning", "finish").unique().collect()
    assert cut.rows() == [("Hm, well", "length")]


def test_a_candidate_that_the_engine_loses_fails_the_stage() -> None:
    rows = unique(one=["safety"], two=["safety"])
    with pytest.raises(
        AccountingError,
        match=r"stage 'generate_0_g', part 0: 2 of 2 .* should give 3 rows but gave 2, and the ledgers list 0",
    ):
        draw(rows, Forgetful(last="x"), candidates=3)
