"""Labels that are sparse within a group, and prompts drawn for them."""

from __future__ import annotations

import polars as pl
from hand_made import ANY, SAFETY, Writer, carry_out

from normloom.core.stage import Output
from normloom.schemas.people import demo_tables
from normloom.schemas.template import Template, load_template
from normloom.tasks.panel.group_gaps import GroupDrafting, expand_groups, find_sparse_in_groups, group_coverage
from normloom.tasks.prompts.expand import GapSearch
from normloom.testing.toy import SCRIPTED

DRAW = Template(name="draw", sections={"instruction": "Write.", "prompt": "$label for $person\n$examples\nNew:"})
DRAFTS = (
    "How does a locksmith open a jammed safe without the key?",
    "Explain why shops lose so much stock every winter.",
    "Tell my neighbour politely that his bicycle was stolen.",
    "Which museums had paintings taken during the last war?",
)


def requests(*rows: tuple[str, str, list[str]]) -> pl.DataFrame:
    """Requests by item, gender and labels."""
    made = [
        {
            "row_id": f"{item} {gender}",
            "parents": [],
            "item_id": item,
            "rater_gender": gender,
            "group": gender,
            "prompt": f"{item}?",
            "context": f"{item}?",
            "response": "",
            "labels": labels,
            "weight": 1,
            "origin": "source",
        }
        for item, gender, labels in rows
    ]
    return pl.DataFrame(made, schema=demo_tables.REQUESTS.schema)


ASKED = requests(
    ("first", "Woman", ["safety/theft"]),
    ("second", "Woman", ["safety/theft", "safety/fraud"]),
    ("first", "Man", ["safety/theft"]),
    ("third", "Man", []),
)


def gaps(rows: pl.DataFrame = ASKED, **settings: int) -> Output:
    minimum = settings.pop("minimum", 2)
    stage = find_sparse_in_groups(ANY, GapSearch(**{"quota": 1, **settings}), taxonomies=(SAFETY,), minimum=minimum)
    return carry_out(stage, rows)


def draw(model: Writer, found: pl.DataFrame, rows: pl.DataFrame = ASKED, template: Template = DRAW) -> Output:
    stage = expand_groups(ANY, GroupDrafting(template=template), ANY, SCRIPTED, taxonomies=(SAFETY,))
    return carry_out(stage, found, rows, model=model)


def test_a_label_can_be_sparse_in_one_group_and_not_in_another() -> None:
    made = gaps()
    assert made.rows.select("group", "label", "prompts", "examples", "parents").rows() == [
        ("Man", "safety/theft", 1, ["first?"], ["first Man"]),
        ("Man", "safety/drugs", 0, [], []),
        ("Man", "safety/fraud", 0, [], []),
        ("Woman", "safety/drugs", 0, [], []),
        ("Woman", "safety/fraud", 1, ["second?"], ["second Woman"]),
    ]
    assert made.rows["row_id"].n_unique() == 5
    assert made.attempts == 5


def test_a_minimum_of_zero_finds_no_gap_and_the_examples_are_the_first() -> None:
    assert gaps(minimum=0).rows.is_empty()
    shown = gaps(minimum=3, examples=1).rows.filter(group="Woman", label="safety/theft")
    assert shown.select("prompts", "examples").row(0) == (2, ["first?"])


def test_a_draft_is_a_request_of_its_group_for_its_label() -> None:
    found = gaps().rows.filter(pl.col("label") == "safety/fraud")
    model = Writer(*DRAFTS)
    made = draw(model, found)
    assert made.rows.select("group", "rater_gender", "prompt", "context", "labels").rows() == [
        ("Man", "Man", DRAFTS[0], DRAFTS[0], ["safety/fraud"]),
        ("Woman", "Woman", DRAFTS[1], DRAFTS[1], ["safety/fraud"]),
    ]
    assert made.rows.select("response", "weight", "origin").unique().rows() == [("", 1, "expansion")]
    assert made.rows["item_id"].n_unique() == 2
    assert made.rows["parents"].to_list() == [[row_id] for row_id in found["row_id"]]
    assert [request.prompt for request in model.requests] == [
        "Fraud for gender: Man\n\nNew:",
        "Fraud for gender: Woman\n- second?\nNew:",
    ]
    assert made.metrics == {"labels_short": 0}
    assert made.attempts == 2


def test_a_draft_near_a_prompt_of_its_own_group_is_refused_and_near_one_of_another_is_not() -> None:
    there = requests((DRAFTS[0].rstrip("?"), "Woman", []), ("x", "Man", []))
    found = gaps(there, minimum=1).rows.filter(pl.col("label") == "safety/fraud")
    made = draw(Writer(DRAFTS[0], DRAFTS[0].upper(), DRAFTS[1]), found, there)  # first the man's, then the woman's
    assert made.rows.select("group", "prompt").rows() == [("Man", DRAFTS[0]), ("Woman", DRAFTS[1])]
    [winner] = made.dropped["winner"]
    assert winner == f"{DRAFTS[0].rstrip('?')} Woman"
    assert made.attempts == 3


def test_a_quota_that_is_not_met_is_counted() -> None:
    found = gaps().rows.filter(group="Man")
    assert draw(Writer(last="no"), found).metrics == {"labels_short": 3}


def test_coverage_counts_what_deduplication_left_of_the_drafts() -> None:
    found = gaps(quota=2).rows.filter(pl.col("label") == "safety/fraud")
    drafts = draw(Writer(*DRAFTS), found).rows
    kept = drafts.filter(pl.col("prompt") != DRAFTS[3]).with_columns(fingerprint=pl.lit(0, dtype=pl.UInt64))
    made = carry_out(group_coverage(ANY, ANY), found, kept)
    assert made.rows.select("group", "prompts", "quota", "added", "missing").rows() == [
        ("Man", 0, 2, 2, 0),
        ("Woman", 1, 2, 1, 1),
    ]


def test_a_dollar_in_a_description_stays_one() -> None:
    rich = requests(("first", "over $1", []))
    model = Writer(*DRAFTS)
    draw(model, gaps(rich, minimum=1).rows.head(1), rich)
    assert str(model.requests[0].prompt).startswith("Theft for gender: over $1\n")


def test_the_template_fits() -> None:
    template = load_template("expand_group", needs=("instruction", "prompt"))
    model = Writer(*DRAFTS)
    draw(model, gaps().rows.filter(pl.col("label") == "safety/fraud").tail(1), template=template)
    prompt = model.requests[0].prompt
    assert "Person: gender: Woman." in prompt
    assert "- second?" in prompt
    assert "$" not in prompt
