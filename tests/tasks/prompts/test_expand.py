from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import ANY, SAFETY, TAXONOMIES, Writer, carry_out, ingested
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.models.protocol import ModelSpec
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.readers import ReadOptions
from normloom.schemas import tables
from normloom.schemas.prompts import MEASURE
from normloom.schemas.taxonomy import builtin_taxonomies
from normloom.schemas.template import Template
from normloom.store.store import Store
from normloom.tasks.prompts.classify import Asking, Labelling, classify, score_labels
from normloom.tasks.prompts.expand import Drafting, GapSearch, expand, find_sparse
from normloom.testing.toy import SCRIPTED, runner

DRAW = Template(name="draw", sections={"instruction": "Write.", "prompt": "About $label. $definition\n$examples\nNew:"})
DRAFTS = (
    "How does a locksmith open a jammed safe without the key?",
    "Explain why shops lose so much stock every winter.",
    "Tell my neighbour politely that his bicycle was stolen.",
    "Which museums had paintings taken during the last war?",
    "Write a poem in which a magpie steals seven silver spoons.",
    "Are pickpockets in Barcelona as skilled as people say?",
)


def labelled(*rows: tuple[str, str, list[str]]) -> pl.DataFrame:
    """Prompts of an id, a text and label ids."""
    made = [
        {
            "row_id": row_id,
            "parents": [],
            "prompt": prompt,
            "origin": "source",
            "reference": None,
            "seed": None,
            "tokens_out": None,
            "labels": [{"dimension": label.split("/")[0], "label": label, "probability": 0.9} for label in labels],
            "probabilities": [],
        }
        for row_id, prompt, labels in rows
    ]
    return pl.DataFrame(made, schema=tables.LABELLED.schema)


def gap(label: str, quota: int, *examples: str) -> dict[str, Any]:
    dimension, _, _ = label.partition("/")
    return {
        "row_id": f"gap {label}",
        "parents": [],
        "dimension": dimension,
        "label": label,
        "prompts": len(examples),
        "quota": quota,
        "examples": examples,
    }


def draw(model: object, *gaps: dict[str, object], prompts: pl.DataFrame | None = None, **settings: Any) -> Output:
    values = {name: settings.pop(name) for name in ("taxonomies", "tau") if name in settings}
    stage = expand(ANY, Drafting(template=DRAW, **settings), ANY, SCRIPTED, **{"taxonomies": TAXONOMIES, **values})
    rows = pl.DataFrame(gaps, schema=tables.GAPS.schema)
    return carry_out(stage, rows, labelled() if prompts is None else prompts, model=model)


def test_a_gap_is_a_label_with_fewer_prompts_than_the_minimum_with_its_first_examples() -> None:
    rows = labelled(
        ("a", "first", ["safety/theft", "value/wealth"]),
        ("b", "second", ["safety/theft"]),
        ("c", "third", ["safety/theft", "safety/fraud"]),
    )
    search = GapSearch(quota=7, examples=2)
    made = carry_out(find_sparse(ANY, search, taxonomies=TAXONOMIES, minimum=3), rows)
    assert made.rows.select("label", "prompts", "quota", "examples", "parents").rows() == [
        ("safety/drugs", 0, 7, [], []),
        ("safety/fraud", 1, 7, ["third"], ["c"]),
        ("value/wealth", 1, 7, ["first"], ["a"]),
        ("value/wisdom", 0, 7, [], []),
    ]
    made = carry_out(find_sparse(ANY, search, taxonomies=(SAFETY,), minimum=4), rows)
    assert made.rows.row(0, named=True)["examples"] == ["first", "second"]
    assert set(made.rows["dimension"]) == {"safety"}


def test_no_label_is_sparse_when_the_minimum_is_zero() -> None:
    stage = find_sparse(ANY, GapSearch(), taxonomies=TAXONOMIES, minimum=0)
    assert carry_out(stage, labelled(("a", "first", []))).rows.is_empty()


def test_the_quota_is_met_exactly_and_no_more_is_drawn() -> None:
    model = Writer(*DRAFTS)
    made = draw(model, gap("safety/theft", 3, "shown one", "shown two"))
    assert made.rows["prompt"].to_list() == list(DRAFTS[:3])
    assert made.rows["origin"].unique().to_list() == ["expansion"]
    assert made.rows["parents"].to_list() == [["gap safety/theft"]] * 3
    assert (
        made.rows["labels"].to_list() == [[{"dimension": "safety", "label": "safety/theft", "probability": None}]] * 3
    )
    assert made.attempts == 3
    assert made.metrics == {"labels_short": 0}
    [request] = model.requests
    assert request.prompt == "About Theft. On Theft.\n- shown one\n- shown two\nNew:"
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.max_tokens) == (0.7, 0.9, 64)


def test_a_draw_near_a_prompt_is_dropped_naming_it_and_drawn_again() -> None:
    there = labelled(("kept", DRAFTS[0], []), ("other", DRAFTS[5], []))
    model = Writer(DRAFTS[0].upper(), DRAFTS[1], DRAFTS[2])
    made = draw(model, gap("safety/theft", 2), prompts=there)
    assert made.rows["prompt"].to_list() == [DRAFTS[1], DRAFTS[2]]
    [refused] = made.dropped.to_dicts()
    assert (refused["reason"], refused["winner"], refused["row_id"]) == ("near_duplicate", "kept", "gap safety/theft")
    first = seed("gap safety/theft", 0)
    shouted = DRAFTS[0].upper()
    cost = len(shouted.split())
    payload = {"label": "safety/theft", "prompt": shouted, "seed": first, "tokens_out": cost}
    assert json.loads(refused["payload"]) == payload
    assert [len(request.seeds) for request in model.requests] == [2, 1]


def test_a_draw_that_repeats_a_draw_of_the_part_is_dropped() -> None:
    made = draw(Writer(DRAFTS[0], DRAFTS[0], DRAFTS[1]), gap("safety/theft", 1), gap("safety/drugs", 1))
    assert made.rows.select("prompt", "parents").rows() == [
        (DRAFTS[0], ["gap safety/theft"]),
        (DRAFTS[1], ["gap safety/drugs"]),
    ]
    assert made.dropped["reason"].to_list() == ["near_duplicate"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("\n \n", "empty"), ("Too few words", "too_short"), ("a b c d \x07", "control_characters")],
)
def test_a_draw_that_is_no_prompt_is_dropped_with_its_rule(text: str, reason: str) -> None:
    made = draw(Writer(text, DRAFTS[0]), gap("safety/theft", 1))
    assert made.dropped["reason"].to_list() == [reason]
    assert made.rows["prompt"].to_list() == [DRAFTS[0]]


def test_a_draw_that_is_too_long_is_dropped() -> None:
    made = draw(Writer("word " * 10, DRAFTS[0][:40]), gap("safety/theft", 1), max_chars=40)
    assert made.dropped["reason"].to_list() == ["too_long"]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '"{}"',
        "“{}”",
        "1. {}",
        "2) {}",
        "- {}",
        "* {}",
        "• {}",
        "Prompt: {}",
        "prompt : {}",
        "\n\n  {}  \n\nAnother paragraph.",
        "3. “{}”",
    ],
)
def test_a_draw_is_its_first_line_without_what_stands_around_it(text: str) -> None:
    made = draw(Writer(text.format(DRAFTS[2])), gap("safety/theft", 1))
    assert made.rows["prompt"].to_list() == [DRAFTS[2]]


def test_a_label_whose_budget_is_spent_is_counted_as_short() -> None:
    model = Writer(DRAFTS[0], DRAFTS[1], last="no")
    made = draw(model, gap("safety/theft", 4), gap("safety/drugs", 1), draws_per_prompt=1.5)
    # Budgets of 6 and 2. Round one draws 4 for theft, of which two are good, and 1 for drugs; round two 2 and 1.
    assert made.rows["prompt"].to_list() == [DRAFTS[0], DRAFTS[1]]
    assert made.metrics == {"labels_short": 2}
    assert made.attempts == 6 + 2
    assert made.dropped["reason"].to_list() == ["too_short"] * 6


def test_a_gap_that_does_not_fit_the_model_is_quarantined_and_not_tried_again() -> None:
    model = Writer(DRAFTS[0], too_long="Drugs")
    made = draw(model, gap("safety/drugs", 5), gap("safety/theft", 1))
    assert made.quarantined.select("row_id", "rule", "reason").rows() == [
        ("gap safety/drugs", "model", "the prompt does not fit")
    ]
    assert made.rows["prompt"].to_list() == [DRAFTS[0]]
    assert made.attempts == 2
    assert made.metrics == {"labels_short": 1}
    assert len(model.requests) == 2


texts = st.sampled_from([*DRAFTS, "", "no", DRAFTS[0].upper()])


@settings(max_examples=40)
@given(st.lists(texts, max_size=12), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.floats(1, 3))
def test_every_draw_is_a_row_or_in_a_ledger_and_no_quota_or_budget_is_passed(
    written: list[str], quotas: list[int], draws_per_prompt: float
) -> None:
    labels = ("safety/theft", "safety/drugs", "value/wealth")
    gaps = [gap(label, quota) for label, quota in zip(labels, quotas, strict=False)]
    model = Writer(*written, last="no")
    made = draw(model, *gaps, draws_per_prompt=draws_per_prompt)
    assert made.attempts == made.rows.height + made.dropped.height
    seeds = [seed for request in model.requests for seed in request.seeds]
    assert made.attempts == len(seeds) == len(set(seeds))
    short = 0
    for each in gaps:
        count = made.rows.filter(pl.col("parents").list.first() == each["row_id"]).height
        refused = made.dropped.filter(row_id=each["row_id"]).height
        assert count <= each["quota"]
        assert count + refused <= round(draws_per_prompt * each["quota"])
        short += count < each["quota"]
    assert made.metrics == {"labels_short": short}
    assert made.rows["prompt"].n_unique() == made.rows.height


def build(root: Path, *, part_rows: int) -> pl.DataFrame:
    """Expand the built-in prompts with scripted models and return the drafts."""
    taxonomies = builtin_taxonomies()
    read = ingested(MEASURE, ReadOptions(limit=10), taxonomies=taxonomies)
    model = ModelSpec(engine="scripted", model="expander", options={"words": 12})
    scores = score_labels(read, Asking(part_rows=64), model, taxonomies=taxonomies)
    labels = classify(read, Labelling(), scores, taxonomies=taxonomies)
    gaps = find_sparse(labels, GapSearch(quota=3), taxonomies=taxonomies[:1], minimum=8)
    drafts = expand(gaps, Drafting(part_rows=part_rows), labels, model, taxonomies=taxonomies)
    loom = runner(Store(root))
    first, _ = loom.run(read, [], [])
    said, _ = loom.run(scores, [first.ref], [])
    second, _ = loom.run(labels, [first.ref], [said.ref])
    third, _ = loom.run(gaps, [second.ref], [])
    made, _ = loom.run(drafts, [third.ref], [second.ref])
    assert made.attempts == made.count("rows") + made.count("dropped") + made.count("quarantined")
    return loom.store.scan(made.ref).collect()


def test_drafts_and_their_seeds_are_the_same_in_every_build_whatever_the_parts(tmp_path: Path) -> None:
    one, other, parted = (build(tmp_path / name, part_rows=size) for name, size in [("a", 64), ("b", 64), ("c", 2)])
    assert one.height > 0
    assert one.equals(other)
    assert one["seed"].n_unique() == one.height
    assert parted.equals(one)
