"""From people's ratings to what the panel is asked, and back to the released rows."""

from __future__ import annotations

import polars as pl
import pytest
from hand_made import ANY, carry_out

from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people import demo_tables
from normloom.schemas.people.demo_tables import AXES
from normloom.tasks.panel.conversations import conversations
from normloom.tasks.panel.panel import find_panel_requests, join_panel, release

LABELLED = {
    "row_id": pl.String(),
    "parents": pl.List(pl.String()),
    **demo_tables.CARRIED,
    **tables.LABELLED.columns,
}
PEOPLE = {"p1": ("Woman", "White"), "p2": ("Woman", "White"), "p3": ("Man", "White")}


def ratings(*pairs: tuple[str, str]) -> pl.DataFrame:
    """Ratings of items by people."""
    rows = [
        {
            "row_id": f"{item} {person}",
            "parents": [],
            "source_row": place,
            "item_id": item,
            "rater_id": person,
            "rater_gender": PEOPLE[person][0],
            "rater_race": PEOPLE[person][1],
            "group": " / ".join((*PEOPLE[person], "unknown")),
            "answer": "No",
            "safety_gold": "Yes",
            "context": f"USER: {item}",
            "response": "Well.",
        }
        for place, (item, person) in enumerate(pairs, start=1)
    ]
    return pl.DataFrame(rows, schema=demo_tables.RATINGS.schema)


def labelled(**labels: list[str]) -> pl.DataFrame:
    """Labelled conversations by item."""
    rows = [
        {
            "row_id": f"labelled {item}",
            "parents": [],
            "item_id": item,
            "context": f"USER: {item}",
            "response": "Well.",
            "safety_gold": "Yes",
            "prompt": f"USER: {item} Well.",
            "origin": "source",
            "labels": [{"dimension": "safety", "label": label, "probability": 0.75} for label in ids],
            "probabilities": [],
        }
        for item, ids in labels.items()
    ]
    return pl.DataFrame(rows, schema=LABELLED)


EVERYBODY = ratings(*((item, person) for person in PEOPLE for item in ("b", "a")))
WOMAN, MAN = "Woman / White / unknown", "Man / White / unknown"


def find(rows: pl.DataFrame, about: pl.DataFrame, raters: int = 2) -> Output:
    return carry_out(find_panel_requests(ANY, ANY, raters=raters), rows, about)


def test_conversations_are_distinct_items_with_all_their_ratings_as_parents() -> None:
    made = carry_out(conversations(ANY), EVERYBODY)
    assert made.rows["item_id"].to_list() == ["b", "a"]
    assert made.rows["prompt"].to_list() == ["USER: b\nRESPONSE: Well.", "USER: a\nRESPONSE: Well."]
    assert made.rows["parents"].to_list()[0] == ["b p1", "b p2", "b p3"]
    assert made.attempts == 2


def test_people_of_one_group_are_asked_for_once_conversation_by_conversation() -> None:
    made = find(EVERYBODY, labelled(b=["safety/x"], a=[]))
    assert made.rows.select("item_id", "group", "weight", "labels").rows() == [
        ("b", MAN, 1, ["safety/x"]),
        ("b", WOMAN, 2, ["safety/x"]),
        ("a", MAN, 1, []),
        ("a", WOMAN, 2, []),
    ]
    assert made.rows["parents"].to_list()[1] == ["labelled b", "b p1", "b p2"]
    assert made.rows.select(AXES).row(0) == ("Man", "White", None)
    assert made.metrics == {"ratings": 6, "calls_saved": (6 - 4) * 2}


def test_a_conversation_that_was_not_labelled_is_dropped_and_saves_nothing() -> None:
    made = find(EVERYBODY, labelled(a=[]))
    assert made.rows["item_id"].unique().to_list() == ["a"]
    assert made.dropped.select("row_id", "reason").rows() == [("b p1", "not_labelled"), ("b p3", "not_labelled")]
    assert made.metrics["ratings"] == 3
    assert made.attempts == 4


def unique(*rows: dict[str, object]) -> pl.DataFrame:
    """Requests after deduplication."""
    return pl.DataFrame(
        [
            {"prompt": "", "context": "", "response": "", "labels": [], "fingerprint": 0, "parents": [], **row}
            for row in rows
        ],
        schema=demo_tables.UNIQUE.schema,
    )


def asked(item: str, group: str, weight: int, **others: object) -> dict[str, object]:
    return {
        "row_id": f"asked {item} {group}",
        "item_id": item,
        "group": group,
        "weight": weight,
        "origin": "source",
        **others,
    }


def scored(rater: str, *rows: tuple[str, str]) -> pl.DataFrame:
    """One rater's scores of items as groups."""
    scores = {"answer": "Yes", "rating": 0.75, "p_no": 0.125, "p_unsure": 0.25, "p_yes": 0.625}
    return pl.DataFrame(
        [
            {"row_id": f"{rater} {item} {group}", "item_id": item, "group": group, "rater": rater, **scores}
            for item, group in rows
        ],
        schema={"row_id": pl.String(), **demo_tables.SCORED.columns},
    )


ASKED = unique(
    asked("b", MAN, 1, rater_gender="Man", labels=["safety/x"]),
    asked("b", WOMAN, 2, rater_gender="Woman", labels=["safety/x"]),
    asked("e", WOMAN, 1, rater_gender="Woman", labels=["safety/y"], origin="expansion", context="Drawn."),
)
BOTH = scored("m1", ("b", MAN), ("b", WOMAN), ("e", WOMAN))
SOME = scored("m2", ("b", WOMAN))


def rated() -> Output:
    stage = join_panel([ANY, ANY], ANY, raters=("m1", "m2", "m3"))
    return carry_out(stage, pl.concat([BOTH, SOME]), ASKED)


def test_ratings_are_joined_with_what_was_asked_and_missing_ones_are_counted() -> None:
    made = rated()
    assert made.rows.select("rater", "item_id", "group", "rater_gender", "weight", "labels", "origin").rows() == [
        ("m1", "b", MAN, "Man", 1, ["safety/x"], "source"),
        ("m1", "b", WOMAN, "Woman", 2, ["safety/x"], "source"),
        ("m1", "e", WOMAN, "Woman", 1, ["safety/y"], "expansion"),
        ("m2", "b", WOMAN, "Woman", 2, ["safety/x"], "source"),
    ]
    assert made.metrics == {"coverage_m1": 1, "coverage_m2": 0.5, "coverage_m3": 0}
    assert made.rows["parents"].to_list()[0] == [f"m1 b {MAN}"]


def test_released_are_the_source_s_rows_with_their_labels_and_ratings_then_the_expansions() -> None:
    scores = rated().rows
    about = labelled(b=["safety/x"], a=[])
    rows = ratings(*((item, person) for person in PEOPLE for item in ("b", "a", "c")))
    made = carry_out(release(ANY, ANY, ANY, ANY), rows, about, ASKED, scores)
    assert made.rows.select("item_id", "rater_id", "answer", "origin").rows() == [
        ("b", "p1", "No", "source"),
        ("b", "p2", "No", "source"),
        ("b", "p3", "No", "source"),
        ("e", None, None, "expansion"),
    ]
    first, _, third, drawn = made.rows.to_dicts()
    assert first["labels"] == [{"label": "safety/x", "probability": 0.75}]
    assert drawn["labels"] == [{"label": "safety/y", "probability": None}]
    assert (drawn["context"], drawn["response"], drawn["rater_gender"]) == ("Drawn.", "", "Woman")
    assert [each["rater"] for each in first["ratings"]] == ["m1", "m2"]
    assert third["ratings"] == [{"rater": "m1", "p_no": 0.125, "p_unsure": 0.25, "p_yes": 0.625, "rating": 0.75}]
    ids = dict(scores.select(pl.concat_str("rater", "item_id", "group", separator=" "), "row_id").iter_rows())
    assert first["parents"] == ["b p1", f"asked b {WOMAN}", ids[f"m1 b {WOMAN}"], ids[f"m2 b {WOMAN}"]]
    assert drawn["parents"] == [f"asked e {WOMAN}", ids[f"m1 e {WOMAN}"]]
    gone = made.dropped.sort("row_id").select("row_id", "reason").rows()
    assert gone == [
        (f"{item} {person}", why) for item, why in (("a", "duplicate"), ("c", "not_labelled")) for person in PEOPLE
    ]
    assert made.attempts == 9 + 1
    assert made.metrics == {"expansions": 1, "unrated_rows": 0}


def test_a_row_that_nobody_rated_is_released_without_ratings() -> None:
    stage = release(ANY, ANY, ANY, ANY)
    about = labelled(b=["safety/x"])
    none = pl.DataFrame(schema=demo_tables.RATED.schema)
    made = carry_out(stage, ratings(("b", "p1")), about, ASKED.filter(origin="source"), none)
    [row] = made.rows.to_dicts()
    assert row["ratings"] == []
    assert row["parents"] == ["b p1", f"asked b {WOMAN}"]
    assert made.metrics["unrated_rows"] == pytest.approx(1)
