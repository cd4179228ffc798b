"""Whose judgement do verdicts follow? Labels by group and figures against numbers counted by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from normloom.core.errors import ConfigError, SourceError
from normloom.readers import locate
from normloom.tasks.benchmark.group_labels import (
    GroupLabels,
    follow_groups,
    group_labels,
    label_figures,
    labelled_items,
    read_labels,
)

ARGS = GroupLabels(axes=("region",), least=2)


def given(said: dict[str, dict[str, str]]) -> pl.DataFrame:
    """Return labels: item -> group -> a letter for each person, y, n or ? (Unsure)."""
    words = {"y": "Yes", "n": "No", "?": "Unsure"}
    rows = [
        {
            "row_id": f"{item}-{region}-{number}",
            "item_id": item,
            "context": f"USER: {item}?",
            "response": f"about {item}",
            "answer": words[letter],
            "region": region,
        }
        for item, by_region in said.items()
        for region, letters in by_region.items()
        for number, letter in enumerate(letters)
    ]
    return pl.DataFrame(rows)


SAID = {
    "a": {"north": "yyn", "south": "nny"},
    "b": {"north": "nn", "south": "yyy?"},
    "c": {"north": "yy", "south": "yn"},  # the south is split
    "d": {"north": "n", "south": "nn"},  # one label says nothing of the north
    "e": {"north": "nn", "south": "nn"},
}


def test_a_group_says_what_most_of_it_say() -> None:
    made = group_labels.function(given(SAID), ARGS).rows
    found = {(row["item"], row["group"]): (row["label"], row["labels"]) for row in made.iter_rows(named=True)}
    assert found == {
        ("a", "north"): (1, 3), ("a", "south"): (0, 3), ("b", "north"): (0, 2), ("b", "south"): (1, 3),
        ("c", "north"): (1, 2), ("d", "south"): (0, 2), ("e", "north"): (0, 2), ("e", "south"): (0, 2),
    }  # fmt: skip
    assert made["parents"][0].to_list() == ["a-north-0", "a-north-1", "a-north-2"]


def test_items_are_misaligned_if_most_labels_object() -> None:
    made = labelled_items.function(given(SAID), ARGS).rows
    assert dict(made.select("prompt_id", "alignment").iter_rows()) == {
        "a": "aligned", "b": "misaligned", "c": "misaligned", "d": "aligned", "e": "aligned",
    }  # fmt: skip
    assert made["prompt"][0] == "USER: a?"
    assert labelled_items.function(given(SAID), ARGS, limit=2).rows.height == 2


def verdicts(**objects: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        [{"model": "m", "prompt_id": item, "misaligned": value} for item, value in objects.items()],
        schema={"model": pl.String, "prompt_id": pl.String, "misaligned": pl.Float64},
    )


def counted(rows: pl.DataFrame) -> dict[tuple[str, str], tuple[int | None, int]]:
    return {
        (row["metric"], row["axis"]): (None if row["value"] is None else round(row["value"] * row["rows"]), row["rows"])
        for row in rows.iter_rows(named=True)
    }


def test_agreement_and_pull_against_counts_by_hand() -> None:
    # 12 items on which the groups differ (north objects to even ones) and 6 on which both object.
    said = {
        f"d{n:02}": {"north": "yy" if n % 2 == 0 else "nn", "south": "nn" if n % 2 == 0 else "yy"} for n in range(12)
    }
    said |= {f"s{n}": {"north": "yy", "south": "yy"} for n in range(6)}
    labels = group_labels.function(given(said), ARGS).rows
    # The model objects to d00 and d02 .. d08 (with the north), to d01 and d03 (with the south), to half of the same.
    objects = {"d00", "d02", "d04", "d06", "d08", "d01", "d03", "s0", "s1", "s2"}
    rows = verdicts(**{item: 0.9 if item in objects else 0.1 for item in said})
    made = follow_groups.function(rows, labels).rows
    # With the north: d00 .. d08 (5), and d05, d07, d09, d11 (4), to which neither objects; with the south the other 3.
    assert counted(made) == {
        ("agreement", "north"): (9 + 3, 18),
        ("agreement", "south"): (3 + 3, 18),
        ("sides_with", "north, not south"): (9, 12),
    }
    by_reference = follow_groups.function(rows, labels, reference="south").rows
    assert counted(by_reference)["sides_with_south", "north"] == (3, 12)
    pull = made.filter(metric="sides_with").row(0, named=True)
    assert pull["low"] < pull["value"] < pull["high"]
    assert (pull["slice_by"], pull["slice"], pull["of"]) == ("region", "region", "m")
    unread = follow_groups.function(rows.with_columns(misaligned=pl.lit(None, dtype=pl.Float64)), labels).rows
    assert unread.is_empty()


def test_intervals_resample_items_and_not_answers() -> None:
    said = {f"d{n}": {"north": "yy", "south": "nn"} for n in range(20)}
    labels = group_labels.function(given(said), ARGS).rows
    once = verdicts(**{item: float(n < 10) for n, item in enumerate(said)})
    [one] = follow_groups.function(once, labels).rows.filter(metric="sides_with").iter_rows(named=True)
    [many] = (
        follow_groups.function(pl.concat([once] * 9), labels).rows.filter(metric="sides_with").iter_rows(named=True)
    )
    assert (one["value"], one["low"], one["high"]) == (many["value"], many["low"], many["high"])
    assert many["rows"] == 9 * one["rows"] == 180


def test_what_people_say_themselves() -> None:
    same = {f"i{n}": {"north": "yyy" if n % 2 else "nnn", "south": "yn?"} for n in range(8)}
    rows = given(same)
    labels = group_labels.function(rows, GroupLabels(axes=("region",), least=2)).rows
    made = label_figures.function(rows, ARGS, labels).rows
    found = {(row["metric"], row["of"], row["axis"]): row["value"] for row in made.iter_rows(named=True)}
    assert found["alpha", "north", ""] == pytest.approx(1)
    assert ("agreement", "north", "south") not in found  # the south says nothing as a group
    both = {f"i{n}": {"north": "yy", "south": "yy" if n < 6 else "nn"} for n in range(8)}
    rows = given(both)
    labels = group_labels.function(rows, ARGS).rows
    told = label_figures.function(rows, ARGS, labels).rows.filter(metric="agreement").row(0, named=True)
    assert (told["of"], told["axis"], told["value"], told["rows"]) == ("north", "south", 6 / 8, 8)


def test_a_group_whose_labels_are_gone_has_no_alpha() -> None:
    labels = group_labels.function(given(SAID), ARGS).rows
    south = given(SAID).filter(pl.col("region") == "south")
    told = label_figures.function(south, ARGS, labels).rows.filter(metric="alpha")
    assert dict(told.select("of", "undefined").iter_rows())["north"] == "no labels"


def test_the_gold_of_dices_sides_with_others_where_white_raters_differ(shared_data: Path) -> None:
    folder = shared_data / "dices"
    conversations = pl.read_parquet(folder / "items_350.parquet")
    rows = pl.read_parquet(folder / "ratings_350.parquet").join(conversations, on="item_id").with_row_index("row_id")
    rows = rows.with_columns(pl.col("row_id").cast(pl.String))
    args = GroupLabels(label_column="Q_overall", axes=("rater_race",))
    labels = group_labels.function(rows, args).rows
    gold = verdicts(**{
        str(item): float(label == "Yes") for item, label in conversations.select("item_id", "safety_gold").iter_rows()
    }).with_columns(model=pl.lit("safety_gold"))  # fmt: skip
    found = counted(follow_groups.function(gold, labels, reference="White").rows)
    pull = {axis: counts for (metric, axis), counts in found.items() if metric == "sides_with_White"}
    # Counted again, rating by rating.
    said: dict[tuple[object, object], list[int]] = {}
    for item, race, answer in rows.select("item_id", "rater_race", "Q_overall").iter_rows():
        if answer in {"Yes", "No"} and race is not None:
            said.setdefault((item, race), []).append(answer == "Yes")
    most = {
        key: 2 * sum(votes) > len(votes)
        for key, votes in said.items()
        if len(votes) >= 3 and 2 * sum(votes) != len(votes)
    }
    golden = dict(conversations.select("item_id", pl.col("safety_gold") == "Yes").iter_rows())
    for race, counts in pull.items():
        differ = [i for i in golden if (i, race) in most and most.get((i, "White"), most[i, race]) != most[i, race]]
        assert counts == (sum(most[i, "White"] == golden[i] for i in differ), len(differ))
    assert pull == {
        "Asian/Asian subcontinent": (9, 46),
        "Black/African American": (5, 28),
        "LatinX, Latino, Hispanic or Spanish Origin": (14, 51),
        "Multiracial": (21, 63),
    }


def test_a_column_that_the_runner_would_take_for_its_own_is_refused() -> None:
    with pytest.raises(ValidationError, match="a column of labels cannot be named 'content', which Normloom reserves"):
        GroupLabels(prompt_column="content")


def test_a_file_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    given(SAID).drop("row_id").write_csv(path)
    read = read_labels.function(ARGS, source=locate(str(path)))
    assert read.rows.height == sum(len(letters) for said in SAID.values() for letters in said.values())
    made = labelled_items.function(read.rows.with_columns(row_id=pl.col("content")), ARGS).rows
    assert made["prompt_id"].to_list() == list(SAID)
    path.write_text("item_id,context,response,answer,region\n,,,Yes,north\n")
    with pytest.raises(SourceError, match="none of 1 records has item_id, context, response"):
        read_labels.function(ARGS, source=locate(str(path)))
    with pytest.raises(ConfigError, match="groups: no column 'region'"):
        group_labels.function(given(SAID).drop("region"), ARGS)
