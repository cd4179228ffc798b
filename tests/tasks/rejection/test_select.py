from __future__ import annotations

import json

import polars as pl
from hand_made import ANY, carry_out
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.tasks.rejection.resample import ALIGNMENTS
from normloom.tasks.rejection.select import select


def judged(*rows: tuple[str, str, str, str, float]) -> pl.DataFrame:
    """Judged candidates of an id, a prompt, a generator, a verdict and a margin."""
    made = [
        {
            "row_id": row_id,
            "parents": [],
            "prompt_id": prompt,
            "prompt": f"{prompt}?",
            "targets": ["value"],
            "generator": generator,
            "round": 0,
            "wanted": None,
            "diagnosis": None,
            "attempt": 0,
            "seed": 1,
            "response": f"response {row_id}",
            "finish": "stop",
            "tokens_out": 2,
            "checks": [{"check": "value", "probability": 0.9}],
            "verdict": verdict,
            "reason": "off_task" if verdict == "discarded" else "",
            "margin": margin,
        }
        for row_id, prompt, generator, verdict, margin in rows
    ]
    return pl.DataFrame(made, schema=tables.JUDGED.schema)


def chosen(rows: pl.DataFrame, *, pairs: bool = True) -> Output:
    prompts = pl.DataFrame({"row_id": rows["prompt_id"].unique(maintain_order=True)})
    return carry_out(select(ANY, ANY, pairs=pairs), prompts, rows)


def test_the_widest_margin_wins_for_each_prompt_generator_and_alignment() -> None:
    made = chosen(
        judged(
            ("a", "one", "g", "aligned", 0.1),
            ("b", "one", "g", "aligned", 0.3),
            ("c", "one", "g", "misaligned", 0.2),
            ("d", "one", "h", "aligned", 0.05),
            ("e", "one", "h", "misaligned", 0.4),
            ("f", "one", "h", "misaligned", 0.3),
        )
    )
    assert made.rows.select("response", "generator", "alignment", "parents").rows() == [
        ("response b", "g", "aligned", ["b"]),
        ("response c", "g", "misaligned", ["c"]),
        ("response d", "h", "aligned", ["d"]),
        ("response e", "h", "misaligned", ["e"]),
    ]
    assert made.dropped.select("row_id", "reason", "winner").rows() == [
        ("a", "narrower_margin", "b"),
        ("f", "narrower_margin", "e"),
    ]
    assert made.metrics == {"pairs": 2}


def test_equal_margins_go_to_the_smallest_row_id_whatever_the_order() -> None:
    rows = judged(*((name, "one", "g", "aligned", 0.25) for name in "cab"), ("m", "one", "g", "misaligned", 0.1))
    for order in (rows, rows.reverse()):
        made = chosen(order)
        assert set(made.rows["response"]) == {"response a", "response m"}
        assert set(made.dropped.select("row_id", "winner").rows()) == {("b", "a"), ("c", "a")}


def test_a_prompt_without_both_alignments_is_discarded_for_that_generator_only() -> None:
    rows = judged(
        ("a", "one", "g", "aligned", 0.1),
        ("b", "one", "g", "aligned", 0.2),
        ("c", "one", "h", "aligned", 0.1),
        ("d", "one", "h", "misaligned", 0.1),
        ("e", "two", "g", "misaligned", 0.1),
    )
    made = chosen(rows)
    assert made.rows["response"].to_list() == ["response c", "response d"]
    assert made.dropped.select("row_id", "reason", "winner").rows() == [
        ("a", "narrower_margin", "b"),
        ("b", "incomplete_pair", None),
        ("e", "incomplete_pair", None),
    ]
    single = chosen(rows, pairs=False)
    assert single.rows["response"].to_list() == ["response b", "response c", "response d", "response e"]
    assert single.metrics == {"pairs": 2}


def test_a_discarded_candidate_is_dropped_with_the_judge_s_reason_and_never_completes_a_pair() -> None:
    made = chosen(judged(("a", "one", "g", "aligned", 0.1), ("b", "one", "g", "discarded", 0.0)))
    assert made.rows.is_empty()
    assert made.dropped.select("row_id", "reason").rows() == [("a", "incomplete_pair"), ("b", "discarded: off_task")]
    assert json.loads(made.dropped["payload"][1])["response"] == "response b"


candidates = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.sampled_from(["g", "h"]),
        st.sampled_from([*ALIGNMENTS, "discarded"]),
        st.sampled_from([0.0, 0.25, 0.5]),
    ),
    max_size=14,
)


@given(candidates, st.booleans())
def test_every_candidate_is_chosen_or_in_the_ledger_and_winners_are_qualified(
    drawn: list[tuple[str, str, str, float]], pairs: bool
) -> None:
    rows = judged(*((f"{number:02}", *candidate) for number, candidate in enumerate(drawn)))
    made = chosen(rows, pairs=pairs)
    kept = [parents[0] for parents in made.rows["parents"]]
    assert sorted([*kept, *made.dropped["row_id"]]) == rows["row_id"].to_list()
    by_id = {row["row_id"]: row for row in rows.iter_rows(named=True)}
    for loser, winner in made.dropped.drop_nulls("winner").select("row_id", "winner").iter_rows():
        assert (by_id[winner]["margin"], loser) > (by_id[loser]["margin"], winner)
        group = ["prompt_id", "generator", "verdict"]
        assert [by_id[winner][name] for name in group] == [by_id[loser][name] for name in group]
    per_pair = made.rows.group_by("prompt_id", "generator").agg(pl.col("alignment").sort())
    if pairs:
        assert all(alignments == list(ALIGNMENTS) for alignments in per_pair["alignment"].to_list())
