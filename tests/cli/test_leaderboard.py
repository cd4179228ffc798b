from __future__ import annotations

import polars as pl
import pytest
from hand_made import ANY, carry_out
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import ContractError
from normloom.schemas import benchmark_tables, tables
from normloom.tasks.benchmark.leaderboard import Entrant, content_digest, leaderboard, with_ranks
from normloom.tasks.metrics.figure import Figure, figure_row

ENTRANTS = tuple(Entrant(model=name, model_id=f"org/{name}", engine="scripted") for name in ("a", "b", "c"))
PROTOCOLS = {"detector": "scored", "responder": "judged by j"}


def items(*responses: str) -> pl.DataFrame:
    made = [
        {
            "row_id": f"row {place}",
            "parents": [],
            "prompt_id": "p",
            "prompt": "why",
            "response": response,
            "alignment": "aligned",
            "generator": "g",
            "dimensions": ["safety"],
            "labels": [],
        }
        for place, response in enumerate(responses)
    ]
    return pl.DataFrame(made, schema=benchmark_tables.ITEMS.schema)


def figures(*rows: tuple[str, str, float | None], **where: str) -> pl.DataFrame:
    """Figures of a metric, a model and a value."""
    made = [
        figure_row(
            Figure(value=value, rows=7) if value is not None else Figure(undefined="none"),
            metric=metric,
            of=of,
            **where,
        )
        for metric, of, value in rows
    ]
    frame = pl.DataFrame(made, schema=tables.named_by_content(tables.FIGURES))
    return frame.drop("content").with_columns(row_id=pl.format("{}/{}", "metric", "of"))


def ranked(rows: pl.DataFrame, *responses: str) -> pl.DataFrame:
    stage = leaderboard([ANY], ANY, entrants=ENTRANTS, source="built-in", protocols=PROTOCOLS)
    return carry_out(stage, rows, items(*responses)).rows


def test_models_are_ranked_in_each_figure_the_way_that_is_better() -> None:
    made = ranked(
        figures(
            *(("as", name, value) for name, value in zip("abc", (0.5, 0.7, 0.5), strict=True)),
            *(("ffr", name, value) for name, value in zip("abc", (0.1, 0.3, None), strict=True)),
        ),
        "fine",
    )
    ranks = {(row["metric"], row["model"]): row["rank"] for row in made.iter_rows(named=True)}
    assert ranks == {
        ("as", "a"): 2,
        ("as", "b"): 1,
        ("as", "c"): 2,
        ("ffr", "a"): 1,
        ("ffr", "b"): 2,
        ("ffr", "c"): None,
    }


def test_a_row_says_what_its_figure_is_comparable_to_and_comes_from_that_figure() -> None:
    made = ranked(figures(("alignment_rate", "a", 0.5), axis="joint"), "fine", "fair")
    row = made.row(0, named=True)
    assert row["parents"] == ["alignment_rate/a"]
    assert (row["mode"], row["protocol"], row["axis"]) == ("responder", "judged by j", "joint")
    assert (row["model_id"], row["engine"], row["revision"]) == ("org/a", "scripted", None)
    assert (row["source"], row["items"], row["dataset"]) == ("built-in", 2, content_digest(items("fine", "fair")))


def test_figures_of_slices_stay_out() -> None:
    assert ranked(figures(("as", "a", 0.5), slice_by="dimension", slice="safety"), "fine").is_empty()


def test_the_digest_tells_contents_apart_not_their_order() -> None:
    assert content_digest(items("one", "two")) == content_digest(items("two", "one"))
    assert content_digest(items("one", "two")) != content_digest(items("one", "three"))
    assert content_digest(items("one")) != content_digest(items("one", "one"))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from(["as", "ffr"]))
def test_a_model_s_rank_is_one_more_than_the_models_that_are_better(values: list[float], metric: str) -> None:
    rows = with_ranks(pl.DataFrame({"metric": metric, "value": values}), "metric")
    better = [
        sum(other > value if metric == "as" else other < value for other in values) for value in rows["value"].to_list()
    ]
    assert rows["rank"].to_list() == [1 + count for count in better]


def test_no_entrant_is_invented() -> None:
    with pytest.raises(ContractError, match="model_id"):
        ranked(figures(("as", "stranger", 0.5)), "fine")
